"""The command line ``qpc-server``. Kept light: what a call does not need is not loaded."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from quicprochat import __version__
from quicprochat.console.errors import BUG, INTERRUPTED, OK
from quicprochat.core.errors import LocalError, QuicprochatError
from quicprochat.server.options import BY_KEY, OPTIONS, Kind

_YES = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class Command:
    """``words`` as they are typed; ``args`` are what must follow them, ``may_follow`` one more that need not.

    ``needs`` and ``takes`` are options that must and may be given: keys of :data:`OWN`, or of an option of the server.
    """

    words: tuple[str, ...]
    summary: str
    args: tuple[str, ...] = ()
    details: str = ""
    may_follow: str = ""
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The command as one types it."""
        may = (f"[{_written(key)}]" for key in self.takes)
        more = (f"[{self.may_follow}]",) if self.may_follow else ()
        return " ".join(("qpc-server", *self.words, *self.args, *more, *map(_written, self.needs), *may))


OWN = {"days": "N", "ca": "DIR", "out": "DIR"}
"""Options that belong to a command, and what follows them."""


def _written(key: str) -> str:
    if key in OWN:
        return f"--{key} {OWN[key]}"
    return f"{BY_KEY[key].flags[-1]} {BY_KEY[key].shown}"


COMMANDS = (
    Command((), "serve until stopped", details='Prints one line, "ready", the address and the fingerprint of the'
            " server's key, once it answers. SIGTERM and SIGINT stop it; SIGHUP reads the configuration again."),
    Command(("status",), "show how the running server is"),
    Command(("users",), "list the users"),
    Command(("users", "remove"), "forget a user, its name, its record and what waits for it", ("KEY",),
            details="Where registration is open the same key can come back; block_list keeps it away. What was sent to"
            " it and is lost here is offered again by its authors for as long as it lives."),
    Command(("invite",), "make a code that lets one key become a user", takes=("days",),
            details="It is shown once, kept as a hash, used once, and lives for 7 days, or as many as --days says."),
    Command(("backup",), "copy the database of the running server", ("FILE",),
            details="The copy is complete or not there, readable by its owner alone (the server's key is in it), and"
            " never written over a file. The server writes it, so FILE must lie where its service may write."),
    Command(("restore",), "put a copy back, while the server is stopped", ("FILE",),
            details="The database that was there stays beside it as server.db.replaced. Clients notice, and offer again"
            " what the copy does not know of."),
    Command(("config", "check"), "read the configuration, and show every option and where its value is from",
            details="The files that it names are read too: lists of keys, and the certificates of federation."),
    Command(("federation", "status"), "show how other domains are reached, and what waits for each",
            details="A line for each: where it is, whether it is connected, or has called us, or why it is not reached,"
            " what waits for it, and what was stored there and here since the start."),
    Command(("federation", "poke"), "try other domains, or one, again now", may_follow="DOMAIN",
            details="Ends the pause after failures, and offers everything that waits again, also what was set aside"
            " because the domain refused it."),
    Command(("federation", "outbox"), "list what waits for other domains, and what they have answered",
            details="A line for each message: its id, domain, kind and author, the last answer, when it is offered next"
            " and when its time is over. Deferred is offered again by itself; set aside was refused for good, and is"
            " offered again when its author or federation poke wants that."),
    Command(("ca", "init"), "make an authority that certifies the servers of domains", ("DIR",),
            details="Writes ca.der, which every server gets, and ca-key.der, which no server needs: whoever has it can"
            " speak for every domain of servers that believe this authority. It lasts ten years; nothing is written"
            " over."),
    Command(("cert", "issue"), "make a domain's certificate for other servers, or renew it",
            details="Writes cert.der, key.der and ca.der. A key.der that is there is kept, so the same command renews;"
            " SIGHUP makes a running server read it. Valid for 397 days unless --days says other.",
            needs=("ca", "federation_domain", "out"), takes=("days",)),
    Command(("cert", "show"), "show what a certificate says: domain, authority, days left, fingerprints", ("FILE",)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: a command of :data:`COMMANDS` and what followed it, and the options given."""

    command: Command
    args: tuple[str, ...]
    flags: Mapping[str, Any]
    json: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out what the arguments ask for; the result is the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    as_json = "--json" in arguments or os.environ.get("QPC_JSON", "").lower() in _YES
    verbose = False
    try:
        if "--version" in arguments:
            return _print(f"qpc-server {__version__}\n")
        if arguments[:1] == ["help"] or {"-h", "--help"} & set(arguments):
            from quicprochat.console.text import help_columns
            from quicprochat.server.help import help_text

            return _print(help_text(_about(arguments), help_columns()))
        request = parse(arguments)
        as_json, verbose = as_json or request.json, bool(request.flags.get("verbose"))
        return _dispatch(request, as_json=as_json)
    except QuicprochatError as error:
        from quicprochat.console.text import complain

        return complain(error, as_json=as_json, program="qpc-server")
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return OK  # whoever read our output has seen enough
    except Exception as error:  # noqa: BLE001 - the root: whatever is left is a fault of this program
        return _bug(error, verbose=verbose, as_json=as_json)


def _about(arguments: Sequence[str]) -> list[str]:
    """Return the words that help is asked for; values of options that stand beside them are none of its business."""
    if arguments[:1] == ["help"]:
        return [word for word in arguments[1:] if not word.startswith("-")]
    known = {word for command in COMMANDS for word in command.words}
    return [word for word in arguments if word in known]


def parse(arguments: Sequence[str]) -> Request:
    """Read the arguments; options may stand before and after the command. Raises: LocalError."""
    parser = _Parser(prog="qpc-server", add_help=False, allow_abbrev=False)
    parser.add_argument("--home")
    parser.add_argument("--config")
    parser.add_argument("--json", action="store_true")
    for key in OWN:
        parser.add_argument(f"--{key}")
    for option in OPTIONS:
        if option.kind is Kind.SWITCH:
            parser.add_argument(*option.flags, dest=option.key, action="store_const", const=True)
            no = "--no-" + option.flags[-1].removeprefix("--")
            parser.add_argument(no, dest=option.key, action="store_const", const=False)
        else:
            parser.add_argument(*option.flags, dest=option.key)
    parser.add_argument("words", nargs="*")
    found = vars(parser.parse_intermixed_args(list(arguments)))
    words, as_json = found.pop("words"), found.pop("json")
    command = _find(words)
    args = tuple(words[len(command.words) :])
    if len(args) not in (len(command.args), len(command.args) + bool(command.may_follow)) or not all(args):
        raise LocalError(f"write: {command.usage}")
    flags = {key: value for key, value in found.items() if value is not None}
    for key in OWN.keys() & flags.keys():
        if key not in command.needs + command.takes:
            theirs = [f"qpc-server {' '.join(one.words)}" for one in COMMANDS if key in one.needs + one.takes]
            raise LocalError(f"--{key} belongs to: {', '.join(theirs)}")
    if not all(flags.get(key) for key in command.needs):
        raise LocalError(f"write: {command.usage}")
    if "days" in flags:
        flags["days"] = _days(flags["days"])
    return Request(command, args, flags, as_json)


def _find(words: Sequence[str]) -> Command:
    matching = [command for command in COMMANDS if tuple(words[: len(command.words)]) == command.words]
    command = max(matching, key=lambda one: len(one.words))
    if words and not command.words:
        import difflib

        names = {command.words[0]: " ".join(command.words) for command in reversed(COMMANDS) if command.words}
        near = difflib.get_close_matches(words[0], names, n=1)
        hint = f"did you mean {names[near[0]]}?" if near else "all commands: qpc-server help"
        raise LocalError(f"there is no command {words[0][:64]!r}; {hint}")
    return command


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise LocalError(f"--days is {text[:20]!r}; it is a whole number")
    return int(text)


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of exiting."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            message = f"there is no option {message.partition(': ')[2]!r}"
        raise LocalError(f"{message.removeprefix('argument ')} (see: qpc-server --help)")


def _dispatch(request: Request, *, as_json: bool) -> int:
    from quicprochat.server.config import load, server_home

    if request.command.words[:1] in (("ca",), ("cert",)):
        return _certify(request, as_json=as_json)
    home = server_home(request.flags, os.environ)
    match request.command.words:
        case ():
            from quicprochat.server.run import run

            return run(load(request.flags, os.environ), lambda: load(request.flags, os.environ), os.environ)
        case ("config", "check"):
            from quicprochat.adapters.system import utc_now
            from quicprochat.server.show import checked

            return _print(checked(load(request.flags, os.environ), utc_now, as_json=as_json))
        case ("restore",):
            from quicprochat.server.backup import restore
            from quicprochat.server.show import answer

            file = Path(request.args[0]).absolute()
            item = {"file": str(file), "bytes": restore(home, file)}
            return _print(answer(("restore",), [item], as_json=as_json))
        case words:
            from quicprochat.server.control import ask
            from quicprochat.server.show import answer

            args: dict[str, Any] = {}
            if words == ("users", "remove"):
                args = {"key": request.args[0]}
            elif words == ("backup",):
                args = {"file": os.path.abspath(request.args[0])}
            elif words == ("federation", "poke") and request.args:
                args = {"domain": request.args[0]}
            elif "days" in request.flags:
                args = {"days": request.flags["days"]}
            name = " ".join(words) if words[:1] == ("federation",) else words[-1]
            return _print(answer(words, list(ask(home, name, args)), as_json=as_json))


def _certify(request: Request, *, as_json: bool) -> int:
    from quicprochat.adapters.system import utc_now
    from quicprochat.server import certificates
    from quicprochat.server.show import answer

    words, flags = request.command.words, request.flags
    match words:
        case ("ca", "init"):
            item = certificates.init_authority(Path(request.args[0]).absolute(), utc_now())
        case ("cert", "issue"):
            ca, out = Path(flags["ca"]).absolute(), Path(flags["out"]).absolute()
            days = flags.get("days", certificates.DAYS)
            item = certificates.issue(ca, flags["federation_domain"], out, days, utc_now())
        case _:
            item = certificates.describe(Path(request.args[0]).absolute(), utc_now())
    return _print(answer(words, [item], as_json=as_json))


def _print(text: str) -> int:
    data = text.encode(sys.stdout.encoding, "replace")
    with suppress(BrokenPipeError):
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]
    return OK


def _bug(error: Exception, *, verbose: bool, as_json: bool) -> int:
    from quicprochat.console.errors import CallError
    from quicprochat.console.text import LOG_MAX_CHARS, complain, say

    if verbose:
        import traceback

        say("".join(traceback.format_exception(error)), LOG_MAX_CHARS)
    what = f"{type(error).__name__}: {error}"
    hint = "" if verbose else "; with -v it says more"
    message = f"this is a fault of the program, please report it ({what}){hint}"
    complain(CallError(message, "internal"), as_json=as_json, program="qpc-server")
    return BUG
