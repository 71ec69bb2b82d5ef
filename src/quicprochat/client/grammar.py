"""What may be typed: commands, their words and options; an argument list or a line becomes a :class:`Request`.

This module is loaded for ``qpc --version``: it imports nothing heavy.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from quicprochat.client.catalogue import COMMANDS, GLOBALS, Command, Option, Value
from quicprochat.client.settings import Settings, make_settings
from quicprochat.core.errors import LocalError

_TOKEN = re.compile(r'\s*(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True, slots=True)
class Request:
    """A command and its arguments, as they also travel through the home's socket.

    ``mesh`` says whether it was asked for as ``mesh <command>``.
    """

    command: str
    args: dict[str, Any]
    mesh: bool = False


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of exiting."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            import difflib

            unknown = message.partition(": ")[2].split(" ")[0]
            near = difflib.get_close_matches(unknown, self._option_string_actions, n=1)
            hint = f"did you mean {near[0]}?" if near else "before a text that begins with - put --"
            message = f"{self.prog} has no option {unknown!r}; {hint}"
        message = message.replace(": expected one argument", " needs a value behind it")
        raise LocalError(f"{message.removeprefix('argument ')} (see: {self.prog} --help)")


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> tuple[Request, Settings]:
    """Read the program's arguments. Raises: LocalError, a sentence that says what is wrong with them."""
    words, rest = _split(argv)
    if "--version" in _before_text(rest):
        return Request("version", {}), make_settings({}, {})
    mesh = words[:1] == ["mesh"]
    if words[-1:] == ["help"]:
        return Request("help", {"about": (*words[:-1], *_split(rest)[0])}), make_settings({}, {})
    name = words[-1] if words and words != ["mesh"] else ""
    if not name:
        found = _options(_Parser(prog="qpc", add_help=False, allow_abbrev=False), (), rest)
        if found.pop("help"):
            return Request("help", {"about": ()}, mesh), make_settings({}, {})
        if mesh:
            raise LocalError("which command of mesh? All of them: qpc help")
        return Request("repl", {}), make_settings(found, environment)
    command = find_command(name, mesh=mesh)
    found = _options(_parser_of(command, mesh=mesh), command.options, rest)
    if found.pop("help"):
        return Request("help", {"about": (*words[:-1], name)}), make_settings({}, {})
    request = Request(name, _arguments(command, found, mesh=mesh), mesh)
    return request, make_settings(found, environment)


def parse_line(line: str) -> Request | None:
    """Read a line of the prompt; None for an empty one. The text of a message stands as it was typed.

    Raises: LocalError.
    """
    line = line.strip()
    if not line:
        return None
    if not line.startswith("/"):
        raise LocalError("a command begins with /, as in: /send bob hello. All commands: /help")
    name, rest = _token(line[1:])
    mesh = name == "mesh"
    if mesh:
        name, rest = _token(rest)
    if name in ("quit", "exit") and not mesh:
        if rest.strip():
            raise LocalError(f"{_token(rest)[0][:64]!r} is too much; write: /{name}")
        return Request("quit", {})
    if name == "help" or (mesh and not name):
        about = tuple(rest.replace("/", " ").split())
        return Request("help", {"about": about or (("mesh",) if mesh else ())})
    if name in ("completion", "doctor", "man", "relay", "sim") and not mesh:
        raise LocalError(f"this is for the shell: qpc {name}")
    if name == "daemon":
        raise LocalError("this is a node already; a daemon is started from the shell with: qpc daemon")
    command = find_command(name, mesh=mesh, slash=True)
    found = _options(_parser_of(command, mesh=mesh, slash=True), command.options, _line_words(command, rest), given=())
    if found.pop("help"):
        return Request("help", {"about": (name,)})
    args = _arguments(command, found, mesh=mesh, slash=True)
    return Request(name, _late_emergency(args) if name == "broadcast" else args, mesh)


def _late_emergency(args: dict[str, Any]) -> dict[str, Any]:
    """Take ``--emergency`` before or behind the text of a post for the option, as the shell does.

    The text of a line stands as it was typed; but here a word that was meant to alarm would be one among others.
    """
    text = str(args.get("text", ""))
    bare = text.removeprefix("--emergency ").removesuffix(" --emergency").strip()
    return {**args, "text": bare, "emergency": True} if bare != text else args


def find_command(name: str, *, mesh: bool, slash: bool = False) -> Command:
    """Return the command of a name, asked for with or without the word ``mesh``. Raises: LocalError."""
    start = "/" if slash else "qpc "
    command = COMMANDS.get(name)
    if command is not None and (command.mesh if mesh else command.plain):
        return command
    if command is not None:
        meant = f"{start}{'' if mesh else 'mesh '}{name}"
        raise LocalError(f"there is no command {start}{'mesh ' if mesh else ''}{name}; write: {meant}")
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"all commands: {'/' if slash else 'qpc '}help"
    raise LocalError(f"there is no command {name[:64]!r}; {hint}")


# --- words


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the command's one or two words out of the arguments; options may stand before, between and after."""
    words: list[str] = []
    rest: list[str] = []
    takes_value = {flag for option in GLOBALS if option.value is not Value.FLAG for flag in option.flags}
    n = 0
    while n < len(argv) and argv[n] != "--":
        word = argv[n]
        if word.startswith("-") and word != "-":
            taken = 2 if word in takes_value else 1
            rest += argv[n : n + taken]
            n += taken
            continue
        words.append(word)
        n += 1
        if words != ["mesh"]:
            break
    return words, [*rest, *argv[n:]]


def _before_text(words: Sequence[str]) -> Sequence[str]:
    return words[: words.index("--")] if "--" in words else words


def _parser_of(command: Command, *, mesh: bool, slash: bool = False) -> _Parser:
    name = f"{'/' if slash else 'qpc '}{'mesh ' if mesh else ''}{command.name}"
    return _Parser(prog=name, add_help=False, allow_abbrev=False)


def _options(
    parser: _Parser, own: Sequence[Option], words: Sequence[str], given: Sequence[Option] = GLOBALS
) -> dict[str, Any]:
    """Read options anywhere among the words; everything after ``--`` is words. None stands for what was not given."""
    parser.add_argument("-h", "--help", action="store_true")
    for option in (*own, *given):
        if option.value is Value.FLAG:
            parser.add_argument(*option.flags, dest=option.key, action="store_const", const=True)
        else:
            reader = _one_of(option.choices) if option.choices else _READERS[option.value]
            parser.add_argument(*option.flags, dest=option.key, type=reader)
    parser.add_argument("words", nargs="*")
    head = _before_text(words)
    found = vars(parser.parse_intermixed_args(list(head)))
    found["words"] = [*found["words"], *words[len(head) + 1 :]]
    for key, value in found.items():
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str) and key != "home":
                check_text(text)
    return found


def _arguments(command: Command, found: dict[str, Any], *, mesh: bool, slash: bool = False) -> dict[str, Any]:
    """Give the words their names, and move the command's own options out of ``found``."""
    words: list[str] = found.pop("words")
    args = {option.key: found.pop(option.key) for option in command.options}
    usage = f"{'/' if slash else 'qpc '}{'mesh ' if mesh else ''}{command.usage}"
    for word in command.words:
        if word.rest:
            args[word.key] = " ".join(words) if words else None
            words = []
        else:
            args[word.key] = words.pop(0) if words else None
        if word.key == "topic" and args["topic"]:
            args["topic"] = args["topic"].removeprefix("#")  # as channels are shown; no topic begins so
        if word.required and not args[word.key]:
            raise LocalError(f"{word.shown} is missing; write: {usage}")
        if word.choices and args[word.key] not in (None, *word.choices, *word.hidden):
            raise LocalError(f"{args[word.key][:64]!r} is none of {', '.join(word.choices)}; write: {usage}")
    if words:
        raise LocalError(f"{words[0][:64]!r} is too much; write: {usage}")
    return {key: value for key, value in args.items() if value is not None}


def check_text(text: str) -> str:
    """Return a text that came as bytes, if it is UTF-8. Raises: LocalError."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalError("an argument is not valid UTF-8; the terminal and the program must agree on it") from None
    return text


def _token(text: str) -> tuple[str, str]:
    """Take one word, perhaps in double quotes, off a line."""
    found = _TOKEN.match(text)
    if found is None:
        return "", ""
    return found[1] if found[1] is not None else found[2], text[found.end() :]


def _line_words(command: Command, rest: str) -> list[str]:
    """Split a line into words; for a command that ends in a text, options stand before its first word."""
    words: list[str] = []
    plain = 0
    fixed = sum(not word.rest for word in command.words)
    ends_in_text = fixed < len(command.words)
    values = {flag for option in command.options if option.value is not Value.FLAG for flag in option.flags}
    while rest.strip():
        word, after = _token(rest)
        if ends_in_text and plain == fixed:
            return [*words, "--", rest.strip()]
        words.append(word)
        rest = after
        if word in values:
            word, rest = _token(rest)
            words.append(word)
        elif not word.startswith("--"):
            plain += 1
    return words


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is none of {', '.join(choices)}")
        return text

    return read


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1 or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number of 1 or more")
    return int(text)


def _cursor(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a cursor; inbox and listen print them")
    return int(text)


def _since(text: str) -> int | str:
    from quicprochat.console.when import written

    since = _cursor(text) if text.isdigit() else written(text)
    if since is None:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is neither a cursor nor a time, as in: 2d, 3h, 2026-11-23, 2026-11-23T18:30"
        )
    return since


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not math.isfinite(seconds) or not 0 <= seconds <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is not a number of seconds")
    return seconds


SECONDS_MAX = 10 * 366 * 86_400

_READERS: dict[Value, Callable[[str], Any]] = {
    Value.TEXT: str,
    Value.COUNT: _count,
    Value.CURSOR: _cursor,
    Value.SINCE: _since,
    Value.NUMBER: _number,
    Value.SECONDS: _seconds,
}
