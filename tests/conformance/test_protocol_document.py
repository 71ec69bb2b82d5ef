"""docs/protocol.md says what the code does: labels, limits, codes and places that the code points to."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import Label
from quicprochat.core.link import FrameType, Goodbye

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text("utf-8")
LIMITS = re.findall(r"^\| `([\w.]+)\.([A-Z_]+)` \| (\d+) \|", TEXT, re.MULTILINE)


def section(title: str) -> str:
    """What stands under a heading, up to the next of any level."""
    _, _, after = TEXT.partition(f"{title}\n")
    assert after, title
    return re.split(r"^#+ ", after, maxsplit=1, flags=re.MULTILINE)[0]


def test_the_registry_has_every_label_once() -> None:
    told = re.findall(r"^\| `([\w-]+)` \|", section("### 2.1 Labels"), re.MULTILINE)
    assert told == [label.value for label in Label]


@pytest.mark.parametrize(("module", "name", "value"), LIMITS)
def test_a_limit_is_the_one_in_the_code(module: str, name: str, value: str) -> None:
    where = module if "." in module else f"core.{module}"
    assert getattr(importlib.import_module(f"quicprochat.{where}"), name) == int(value)


def test_the_limits_are_there() -> None:
    assert len(LIMITS) == len(set(LIMITS)) >= 30


def test_every_frame_type_is_told() -> None:
    told = dict(re.findall(r"^\| 0x(\w\w) \| ([A-Z]+) \|", section("## 9. Links"), re.MULTILINE))
    assert {int(number, 16): name for number, name in told.items()} == {kind.value: kind.name for kind in FrameType}


@pytest.mark.parametrize("code", [*Verdict, *Reason, *Goodbye])
def test_every_code_of_a_link_is_told(code: Verdict | Reason | Goodbye) -> None:
    word = code.name.lower()
    assert re.search(rf"\| {code.value} \| [^|]*\b{word}", section("## 9. Links"))


def test_places_that_the_code_points_to_exist() -> None:
    pointed = set()
    for path in (ROOT / "src").rglob("*.py"):
        pointed |= set(re.findall(r"protocol\.md §(\d+(?:\.\d+)?)", path.read_text("utf-8")))
    there = set(re.findall(r"^#+ (\d+(?:\.\d+)?)\.? ", TEXT, re.MULTILINE))
    assert pointed
    assert pointed <= there


def test_places_that_the_document_points_to_exist() -> None:
    there = set(re.findall(r"^#+ (\d+(?:\.\d+)?)\.? ", TEXT, re.MULTILINE))
    # §4.1 of RFC 7748 and the like belong to others.
    own = re.sub(r"RFC \d+ §[\d.]+", "", TEXT)
    assert {place.rstrip(".") for place in re.findall(r"§(\d+(?:\.\d+)?)", own)} <= there
