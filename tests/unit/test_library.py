"""The library's face: every promised name is there, typed, and costs nothing before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import quicprochat

SOURCE = Path(quicprochat.__file__)
NAMED_PARTS = {"MeshIdentity", "MeshEnvelope", "MeshStore", "P2pNode", "BroadcastChannel"}


@pytest.mark.parametrize("name", quicprochat.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(quicprochat, name) is not None
    assert name in dir(quicprochat)


def test_the_named_parts_are_promised() -> None:
    assert set(quicprochat.__all__) >= NAMED_PARTS


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    imports = {
        alias.name: node.module
        for node in ast.walk(ast.parse(SOURCE.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("quicprochat.")
        for alias in node.names
    }
    assert imports == quicprochat._HOMES
    assert {*imports, "__version__"} == set(quicprochat.__all__)
    assert quicprochat.__all__ == sorted(quicprochat.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = quicprochat.nothing_of_ours


def test_the_import_alone_loads_nothing() -> None:
    program = "import sys; before = set(sys.modules); import quicprochat; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert [name for name in ast.literal_eval(done.stdout) if "quicprochat" in name] == ["quicprochat"]
