"""Secrets that a person types or pipes in: never from the command line, which every user of the machine can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

from quicprochat.client.grammar import Request, check_text
from quicprochat.client.stdio import STDIN
from quicprochat.core.errors import LocalError

VARIABLE = "QPC_PASSPHRASE"
LINE_MAX_BYTES = 4_096
TYPED = "-"
"""In place of a value: it stands on standard input."""


def passphrase(check: Callable[[str], object] | None = None) -> str:
    """Return the passphrase from QPC_PASSPHRASE, else from the terminal, else from the next line of standard input.

    ``check`` judges a new one, which a person types twice. Raises: LocalError.
    """
    if given := os.environ.get(VARIABLE):
        return check_text(given)
    if not os.isatty(STDIN):
        return input_line("the passphrase", f"put it into {VARIABLE}, or into the first line of standard input")
    import getpass

    first = typed(lambda: getpass.getpass("Passphrase: "))
    if check is not None:
        check(first)
        if typed(lambda: getpass.getpass("The same again: ")) != first:
            raise LocalError("the two passphrases differ; nothing was done")
    return check_text(first)


def typed(ask: Callable[[], str]) -> str:
    """Return what a person types. Raises: LocalError at the end of input."""
    try:
        return ask()
    except EOFError:
        print(file=sys.stderr)
        raise LocalError("nothing was typed, and nothing was done") from None


def input_line(what: str, advice: str) -> str:
    """Return the next line of standard input, and leave those behind it there. Raises: LocalError."""
    data = b""
    try:
        while len(data) <= LINE_MAX_BYTES and (part := os.read(STDIN, 1)) not in (b"", b"\n"):
            data += part
    except OSError as error:
        raise LocalError(f"{what} cannot be read from standard input: {error.strerror}") from error
    line = data.removesuffix(b"\r")
    if not line:
        raise LocalError(f"{what} is missing: {advice}")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise LocalError(f"{what} on standard input is not valid UTF-8") from None


def with_secrets(request: Request) -> Request:
    """Return a ``subscribe`` with the invite and the passphrase that it names but does not hold. Raises: LocalError."""
    args = dict(request.args)
    if args.get("invite") == TYPED:
        if os.isatty(STDIN):
            args["invite"] = typed(lambda: input("Invite: "))
        else:
            args["invite"] = input_line("the invite", "put it into the first line of standard input")
    if args.get("passphrase") is True:
        from quicprochat.core.invite import check_channel_passphrase

        args["passphrase"] = passphrase(None if args.get("invite") else check_channel_passphrase)
    return replace(request, args=args)
