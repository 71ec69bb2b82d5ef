"""Every fuzz target holds for its committed corpus, without atheris; and the corpus holds what it should begin with."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from fuzz.make_corpus import CORPUS, named

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))
EXTRA = [b"", b"\x00", b"\xff", bytes(300), b"\xff" * 300]


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_states_what_holds_for_any_input(target: str) -> None:
    module = importlib.import_module(f"fuzz.fuzz_{target}")
    assert module.__doc__
    assert "\n" not in module.__doc__
    assert module.__doc__.endswith(".")


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds_for_its_corpus(target: str) -> None:
    one_input = importlib.import_module(f"fuzz.fuzz_{target}").one_input
    for path in sorted((CORPUS / target).iterdir()):
        one_input(path.read_bytes())
    for data in EXTRA:
        one_input(data)


def test_the_corpus_holds_every_seed() -> None:
    assert {path.name for path, data in named().items() if not path.is_file() or path.read_bytes() != data} == set()
