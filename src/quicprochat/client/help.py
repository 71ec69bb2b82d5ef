"""Help, made from the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from quicprochat.client.catalogue import COMMANDS, GLOBALS, Command, Option
from quicprochat.client.grammar import find_command
from quicprochat.console.text import HELP_COLUMNS
from quicprochat.console.text import table as _table
from quicprochat.console.text import wrapped as _wrapped

STATES = (
    ("queued", "safe on your disk, nobody else has it"),
    ("relayed", "another node has a copy; yours is kept and offered on"),
    ("delivered", "the recipient's node opened it, stored it, and signed for that"),
    ("expired", "its time is over and nobody confirmed it; it may have arrived all the same"),
    ("failed", "the recipient's node refused it or could not open it; the reason is beside it"),
    ("cancelled", "you withdrew it; a copy that had left may still arrive"),
)
EXITS = (
    ("0", "ok"),
    ("2", "usage"),
    ("3", "unreachable or I/O"),
    ("4", "untrusted key"),
    ("5", "not found"),
    ("6", "wait timed out"),
    ("7", "refused by policy or quota"),
    ("70", "a fault of this program"),
    ("130", "interrupted"),
)


def help_text(about: Sequence[str], *, slash: bool = False, columns: int = HELP_COLUMNS) -> str:
    """Return help on everything, on ``mesh``, or on one command. Raises: LocalError when there is no such command."""
    columns = min(columns, HELP_COLUMNS)
    words = [word for word in about if not word.startswith("-")]
    mesh = words[:1] == ["mesh"]
    name = next(iter(words[1:] if mesh else words), "")
    if not name:
        return _overview(slash=slash, columns=columns)
    if name in COMMANDS and not mesh:
        mesh = not COMMANDS[name].plain
    return _command(find_command(name, mesh=mesh, slash=slash), slash=slash, columns=columns)


def _overview(*, slash: bool, columns: int) -> str:
    start = "/" if slash else "qpc "
    both = [command for command in COMMANDS.values() if command.plain and command.mesh]
    only_mesh = [command for command in COMMANDS.values() if not command.plain]
    rows = [(f"{start}{command.name}", command.summary) for command in both]
    rows += [(f"{start}{'' if slash else 'mesh '}{command.name}", command.summary) for command in only_mesh]
    if slash:
        rows += [("/help [<command>]", "show this, or how one command is used"), ("/quit", "leave")]
        also = _wrapped("Each but /help and /quit can be written behind /mesh as well: /mesh send = /send.", columns)
        return f"{_table(rows, columns)}\n\n{also}\n"
    top = [
        ("qpc", "open a prompt; from a pipe, read its lines"),
        *((f"qpc {name}", command.summary) for name, command in COMMANDS.items() if not command.mesh),
        ("qpc help <command>", "show how a command is used"),
    ]
    return "\n".join(
        (
            _wrapped("Messages between people on community networks, with no server and no account.", columns),
            "",
            _table([*top, *rows], columns),
            "",
            _wrapped("Commands without the word mesh exist with it too: qpc mesh send = qpc send.", columns),
            "",
            _wrapped(
                "Options, before or after the command; each also as an environment variable, as in QPC_HOME:", columns
            ),
            _table([_option(option) for option in GLOBALS], columns),
            "",
            "States of a message you sent:",
            _table(list(STATES), columns),
            "",
            _wrapped("Exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in EXITS), columns),
            "",
        )
    )


def _command(command: Command, *, slash: bool, columns: int) -> str:
    start = "/" if slash else "qpc "
    forms = [start + command.usage] if command.plain or slash else []
    forms += [f"{start}mesh {command.usage}"] if command.mesh and not slash else []
    about = f"{command.summary[0].upper()}{command.summary[1:]}. {command.details}"
    parts = ["\n".join(_wrapped(form, columns) for form in forms), _wrapped(about, columns)]
    if command.options:
        parts.append(_table([_option(option) for option in command.options], columns))
    if not slash:
        parts.append("Options of every command: qpc help")
    return "\n\n".join(parts) + "\n"


def _option(option: Option) -> tuple[str, str]:
    values = f" {{{','.join(option.choices)}}}" if option.choices else f" {option.shown}" if option.shown else ""
    return ", ".join(option.flags) + values, option.help
