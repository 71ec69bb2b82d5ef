"""Help, made from the commands and the options; and the example of a configuration file, made from the same."""

from __future__ import annotations

from collections.abc import Sequence

from quicprochat.console.text import HELP_COLUMNS, table, wrapped
from quicprochat.core.errors import LocalError
from quicprochat.server.cli import COMMANDS, Command
from quicprochat.server.options import HOME_VARIABLE, OPTIONS, TABLES, Kind, Option

_EXITS = (
    "0 ok, 2 usage, 3 unreachable or I/O, 5 not found, 7 refused by policy or quota, 70 a fault of this program,"
    " 130 interrupted"
)


def help_text(about: Sequence[str], columns: int = HELP_COLUMNS) -> str:
    """Return help on everything, or on one command. Raises: LocalError when there is no such command."""
    columns = min(columns, HELP_COLUMNS)
    if not about:
        return _overview(columns)
    found = [command for command in COMMANDS if command.words[: len(about)] == tuple(about)]
    if not found:
        raise LocalError(f"there is no command {' '.join(about)[:64]!r}; all commands: qpc-server help")
    return "\n".join(_command(command, columns) for command in found)


def _command(command: Command, columns: int) -> str:
    summary = command.summary[0].upper() + command.summary[1:] + ". " + command.details
    return f"{command.usage}\n\n{wrapped(summary, columns)}\n"


def _overview(columns: int) -> str:
    general = [
        ("--home DIR", f"directory of the server's key and queue (environment: {HOME_VARIABLE}; default:"
         " quicprochat-server in the XDG data directory)"),
        ("--config FILE", "configuration file (QPC_CONFIG; default: qpc-server.toml in the home, else in"
         " /etc/quicprochat)"),
        ("--json", "answers as JSON on standard output, errors as JSON on standard error (QPC_JSON)"),
        ("--version", "show the version"),
    ]  # fmt: skip
    return "\n".join(
        (
            wrapped(
                "The home server: a queue for people whose devices sleep and roam. It sees keys and sealed bytes.",
                columns,
            ),
            "",
            table([(command.usage, command.summary) for command in COMMANDS], columns),
            "",
            wrapped(
                "Options, before or after the command. What a flag does not say, the environment does, then the"
                " configuration file, then the default. In the file --block-list is block_list, and so on:",
                columns,
            ),
            table(general + [(_flags(option), _explained(option)) for option in OPTIONS], columns),
            "",
            "Only in the file, as tables:",
            table([(f"[{name}]", text) for name, text in TABLES.items()], columns),
            "",
            wrapped(f"Exit codes: {_EXITS}", columns),
            "",
        )
    )


def _flags(option: Option) -> str:
    if option.kind is Kind.SWITCH:
        return ", ".join((*option.flags[:-1], "--[no-]" + option.flags[-1].removeprefix("--")))
    return f"{option.flags[-1]} {option.shown}"


def _explained(option: Option) -> str:
    file = f"; in the file: {option.key}" if option.flags[-1] != "--" + option.key.replace("_", "-") else ""
    shown = "on" if option.default is True else shown_default(option)
    default = f"; default: {shown}" if option.default not in ("", False) else ""
    return f"{option.help} ({option.env}{file}{default})"


def shown_default(option: Option) -> str:
    """Return a default as one would type it."""
    if option.kind is Kind.SIZE:
        return size(int(option.default))
    return str(option.default)


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that leaves it whole."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count and not count % (1 << power):
            return f"{count >> power} {unit}"
    return str(count)


def example() -> str:
    """Return a configuration file with every option, explained, at its default and commented out."""
    lines = [
        "# Every option of qpc-server, at its default. Take the # away in front of what you change.",
        "# The file is found at --config, else in the home, else at /etc/quicprochat/qpc-server.toml.",
        "# An option marked (live) changes with: systemctl reload qpc-server. Check it with: qpc-server config check",
    ]
    for option in OPTIONS:
        text = option.help[0].upper() + option.help[1:] + (". (live)" if option.live else ".")
        lines += ["", *("# " + line for line in wrapped(text, 98).splitlines()), f"#{option.key} = {_toml(option)}"]
    for name, text in TABLES.items():
        about = text[0].upper() + text[1:] + "."
        lines += ["", *("# " + line for line in wrapped(about, 98).splitlines()), f"#[{name}]"]
    return "\n".join(lines) + "\n"


def _toml(option: Option) -> str:
    if option.kind is Kind.SWITCH:
        return str(option.default).lower()
    if option.kind is Kind.COUNT or option.kind is Kind.SHARE:
        return str(option.default)
    if option.kind is Kind.DOMAINS:
        return "[]"
    return f'"{shown_default(option)}"'
