"""The manual says what the program understands: every command in it can be typed, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from quicprochat.client.grammar import parse
from quicprochat.client.manpage import _FILES
from quicprochat.client.prompt.history import NAME
from quicprochat.client.prompt.words import understand
from quicprochat.core.errors import LocalError
from quicprochat.server.cli import parse as parse_server

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROOT = DOCS.parent
PAGES = [
    ROOT / "README.md",
    *(DOCS / f"{name}.md" for name in ("library", "labs", "operating", "home-server", "federation", "simulator")),
    *sorted((DOCS / "manual").glob("*.md")),
]
HABITS = {"msg", "query", "join", "part", "nick", "quit"}
"""Words of the prompt alone."""
METRICS = "metrics"
"""Where a server's figures are: no command."""

_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:qpc|/[a-z])[^`]*)`")


def commands(page: Path) -> list[str]:
    text = page.read_text("utf-8")
    fenced = [line for block in _FENCED.findall(text) for line in block.splitlines()]
    found = [line for line in fenced if line.startswith(("qpc", "/"))]
    found += _INLINE.findall(_FENCED.sub("", text))
    return [command.split(" #")[0].rstrip(" &") for command in found if "/" not in command.split()[0][1:]]


def understood(command: str) -> None:
    command = re.sub(r'<[^>]*>|"[.]{3}"', "something", command).split(" | ")[0]
    try:
        if command.startswith("/"):
            if command[1:].split()[0] not in HABITS | {METRICS}:
                understand(command, None)
        elif command.startswith("qpc-server ") and not command.endswith("--help"):
            parse_server(shlex.split(command)[1:])
        elif not command.startswith(("qpc1", "qpc.", "qpc-")):
            parse(shlex.split(command)[1:], {})
    except LocalError as error:
        if "is missing" in str(error) or str(error).startswith("write: qpc-server"):  # `qpc verify`, in running text
            return
        raise AssertionError(f"{command}: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_typed(page: Path) -> None:
    for command in commands(page):
        understood(command)


def test_the_files_of_a_home_are_listed_once_and_the_same_everywhere() -> None:
    page = (DOCS / "manual" / "home.md").read_text("utf-8")
    rows = [re.findall("`([^`]+)`", row.split("|")[1])[0] for row in page.splitlines() if row.startswith("| `")]
    assert sorted(rows) == sorted(name.split(",")[0] for name, _ in _FILES)
    start = (ROOT / "README.md").read_text("utf-8").partition("## Where things lie")[2].partition("##")[0]
    assert [name for name, _ in _FILES if f"`{name}`" not in start] == ["lock, qpc.sock"]
    assert NAME in rows


def test_commands_are_found_at_all() -> None:
    found = [command for page in PAGES for command in commands(page)]
    assert len(found) > 60
    assert "/mesh peers --scan 3" in found
    with pytest.raises(AssertionError, match="no option"):
        understood("qpc send bob hello --wiat delivered")
    with pytest.raises(AssertionError, match="no command"):
        understood("/mesh pears")
    assert "qpc-server federation status" in found
    with pytest.raises(AssertionError, match="no option"):
        understood("qpc-server --lisen 127.0.0.1:7000")


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *sorted((DOCS / "adr").glob("*.md"))], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert ROOT in there.parents, target
        assert not anchor or anchor in anchors(there), target
