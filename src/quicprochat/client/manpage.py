"""qpc(1), in roff, made from the same texts as the help (macros: groff_man(7))."""

from __future__ import annotations

from collections.abc import Iterable

from quicprochat import __version__
from quicprochat.client.catalogue import COMMANDS, GLOBALS, Command, Option
from quicprochat.client.help import EXITS, STATES

_FILES = (
    ("identity.json", "your key, your name and your contacts: whoever has it is you"),
    ("mesh.db", "messages, and what is known of other peers"),
    ("mesh.db.ballast", "room kept for a full disk, so that deleting still works"),
    ("history", "what you typed at the prompt; delete it whenever you like"),
    ("lock, qpc.sock", "held and answered by the process that owns the home"),
)


def manual_page() -> str:
    """Return the page. It says the same on every run, so no date is in it."""
    lines = [
        f'.TH QPC 1 "" "quicprochat {_text(__version__)}" "User Commands"',
        *_section("Name"),
        r"qpc \- messages between people on community networks, with no server and no account",
        *_section("Synopsis"),
        ".B qpc",
        r"[\fIoptions\fR] [\fIcommand\fR [\fIarguments\fR]]",
        ".br",
        ".B qpc mesh",
        r"\fIcommand\fR [\fIarguments\fR]",
        *_section("Description"),
        *_paragraph(
            "Messages are sealed end to end, wait on your disk where somebody is away, and you are told truthfully "
            "what became of each. Your identity is a key that is made at the first start."
        ),
        ".PP",
        *_paragraph(
            "Without a command, qpc opens a prompt; from a pipe, it reads the prompt's lines. Where a daemon or a "
            "prompt runs on a home, every other command with that home talks to it; else a command runs a node of "
            "its own for as long as it needs. Most commands exist with and without the word mesh."
        ),
        *_section("Commands"),
    ]
    for command in COMMANDS.values():
        lines += _command(command)
    lines += [*_section("Options"), *_paragraph("Before or after the command.")]
    for option in GLOBALS:
        lines += _item(_flags(option), option.help)
    lines += [*_section("States of a message"), *_items(STATES)]
    lines += [*_section("Exit status"), *_items(EXITS)]
    lines += [
        *_section("Environment"),
        *_paragraph(
            "Each option has a variable, used where the option is not given; switches are 1 or 0. QPC_PASSPHRASE is "
            "for identity export and import."
        ),
    ]
    lines += _items((option.variable, f"as {option.flags[-1]}") for option in GLOBALS)
    lines += [*_section("Files"), *_paragraph("In the home, ~/.local/share/quicprochat unless told otherwise:")]
    lines += _items(_FILES)
    return "\n".join(lines) + "\n"


def _section(title: str) -> list[str]:
    return [f".SH {title.upper()}"]


def _command(command: Command) -> list[str]:
    name = command.name if command.plain else f"mesh {command.name}"
    words = "".join(
        rf" \fI{_text(word.shown)}\fR" if word.required else rf" [\fI{_text(word.shown)}\fR]" for word in command.words
    )
    options = "".join(rf" [{_flag(o.flags[0])}{_value(o)}]" for o in command.options)
    what = command.summary[0].upper() + command.summary[1:] + "."
    lines = [".TP", rf"\fBqpc {_text(name)}\fR{words}{options}", *_paragraph(f"{what} {command.details}".strip())]
    if command.options:
        lines.append(".RS")
        for option in command.options:
            lines += _item(_flags(option), option.help)
        lines.append(".RE")
    return lines


def _flags(option: Option) -> str:
    choices = f" {{{','.join(map(_text, option.choices))}}}" if option.choices else _value(option)
    return ", ".join(map(_flag, option.flags)) + choices


def _flag(flag: str) -> str:
    return rf"\fB{_text(flag)}\fR"


def _value(option: Option) -> str:
    return rf" \fI{_text(option.shown)}\fR" if option.shown else ""


def _items(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [line for left, right in pairs for line in _item(rf"\fB{_text(left)}\fR", right)]


def _item(left: str, right: str) -> list[str]:
    return [".TP", left, *_paragraph(right)]


def _paragraph(text: str) -> list[str]:
    """Return a text for filling: one sentence a line."""
    return _text(text).replace(". ", ".\n").split("\n")


def _text(text: str) -> str:
    r"""Return a text whose characters stand for themselves.

    A hyphen that is to be typed is \-, a line must not begin with a control character, and the rest is ASCII.
    """
    escaped = "".join(
        _LETTERS.get(letter, letter if letter.isascii() else f"\\[u{ord(letter):04X}]") for letter in text
    )
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


_LETTERS = {"\\": r"\e", "-": r"\-", "~": r"\(ti", "^": r"\(ha", "`": r"\(ga", "'": r"\(aq", '"': r"\(dq"}
