"""The manual page says what the help says, and the formatter has nothing to complain about."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from quicprochat.client.catalogue import COMMANDS, GLOBALS
from quicprochat.client.help import EXITS, STATES
from quicprochat.client.manpage import _text, manual_page


def test_every_line_is_ascii_and_no_text_is_taken_for_a_request() -> None:
    for line in manual_page().splitlines():
        assert line.isascii()
        assert line
        if line.startswith((".", "'")):
            assert re.match(r"\.(TH|SH|TP|PP|RS|RE|B|br)( |$)", line), line


def test_characters_stand_for_themselves() -> None:
    assert _text(".x") == r"\&.x"
    assert _text("'x") == r"\(aqx"
    assert _text("a-b\\c~") == r"a\-b\ec\(ti"
    assert _text("é") == r"\[u00E9]"


def formatted() -> str:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=2000n"],
        input=manual_page(), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return re.sub(r"\s+", " ", done.stdout)


def test_groff_shows_every_command_option_state_and_exit_code_without_a_warning() -> None:
    shown = formatted()
    for command in COMMANDS.values():
        usage = f"qpc {'' if command.plain else 'mesh '}{command.usage}"
        assert usage in shown, usage
        assert re.sub(r"\s+", " ", command.details) in shown
        for option in command.options:
            assert option.help in shown
    for option in GLOBALS:
        assert option.help in shown
        assert option.variable in shown
    for name, meaning in (*STATES, *EXITS):
        assert f"{name} {meaning}" in shown


def test_man_reads_it() -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    done = subprocess.run(
        ["man", "--warnings", "-l", "-"], input=manual_page(), capture_output=True, text=True, timeout=30,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "TERM": "dumb"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lstrip().startswith("QPC(1)")


def test_the_page_is_the_same_every_time() -> None:
    assert manual_page() == manual_page()
