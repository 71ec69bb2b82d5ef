"""The command line ``qpc``: where everything is put together. Kept light: what a call does not need is not loaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from quicprochat import __version__
from quicprochat.client.errors import BUG, INTERRUPTED, OK
from quicprochat.client.grammar import Request, parse
from quicprochat.client.settings import Settings
from quicprochat.core.errors import QuicprochatError


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out what the arguments ask for; the result is the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    as_json = "--json" in arguments or os.environ.get("QPC_JSON", "") in ("1", "true", "yes", "on")
    verbose = False
    try:
        request, settings = parse(arguments, os.environ)
        as_json, verbose = settings.json, settings.verbose
        return _dispatch(request, settings)
    except QuicprochatError as error:
        from quicprochat.client.perform import complain

        return complain(error, as_json=as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the root: whatever is left is a fault of this program
        return _bug(error, verbose=verbose, as_json=as_json)


def _dispatch(request: Request, settings: Settings) -> int:
    match request.command:
        case "version":
            return _print(f"qpc {__version__}\n")
        case "help":
            from quicprochat.client.help import help_text
            from quicprochat.console.text import help_columns

            return _print(help_text(request.args["about"], columns=help_columns()))
        case "completion":
            from quicprochat.client import completion

            if (found := completion.ASKED.get(request.args["shell"])) is not None:
                return _print("".join(f"{name}\n" for name in found(settings.home)))
            return _print(completion.script(request.args["shell"]))
        case "man":
            from quicprochat.client.manpage import manual_page

            return _print(manual_page())
        case "sim":
            from quicprochat.sim.command import simulate

            return _print(simulate(request.args, as_json=settings.json))
        case _:
            from quicprochat.client.run import run

            return run(request, settings)


def _print(text: str) -> int:
    with suppress(BrokenPipeError):
        data = memoryview(text.encode(sys.stdout.encoding, "replace"))
        while data:  # a pipe takes a part at a time
            data = data[os.write(sys.stdout.fileno(), data) :]
    return OK


def _bug(error: Exception, *, verbose: bool, as_json: bool) -> int:
    from quicprochat.client.errors import CallError
    from quicprochat.client.perform import complain, say

    if verbose:
        import traceback

        from quicprochat.client.output import LOG_MAX_CHARS

        say("".join(traceback.format_exception(error)), LOG_MAX_CHARS)
    what = f"{type(error).__name__}: {error}"
    hint = "" if verbose else "; with -v it says more"
    complain(CallError(f"this is a fault of the program, please report it ({what}){hint}", "internal"), as_json=as_json)
    return BUG
