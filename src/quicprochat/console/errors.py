"""From what went wrong to a stable word for scripts and an exit code."""

from __future__ import annotations

from quicprochat.core.errors import LocalError, QuicprochatError, RemoteError, StoreError

OK = 0
USAGE = 2
UNREACHABLE = 3
UNTRUSTED = 4
NOT_FOUND = 5
TIMED_OUT = 6
REFUSED = 7
BUG = 70
INTERRUPTED = 130

EXIT_CODES = {
    "usage": USAGE,
    "ambiguous": USAGE,
    "exists": USAGE,
    "too_long": USAGE,
    "unsupported": USAGE,
    "unavailable": UNREACHABLE,
    "store": UNREACHABLE,
    "owned": UNREACHABLE,
    "home": UNREACHABLE,
    "busy": UNREACHABLE,
    "output": UNREACHABLE,
    "protocol": UNREACHABLE,
    "untrusted": UNTRUSTED,
    "not_found": NOT_FOUND,
    "timeout": TIMED_OUT,
    "expired": TIMED_OUT,
    "policy": REFUSED,
    "full": REFUSED,
    "damaged": REFUSED,
    "failed": REFUSED,
    "too_late": REFUSED,
    "cancelled": REFUSED,
    "internal": BUG,
    "interrupted": INTERRUPTED,
}
"""Every ``error.code`` of the command line and its exit code."""


class CallError(QuicprochatError):
    """A command could not do what was asked; ``code`` is a word of :data:`EXIT_CODES`."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: QuicprochatError) -> str:
    """Return the word for an error."""
    if isinstance(error, LocalError | CallError):
        return error.code if error.code in EXIT_CODES else "usage"
    if isinstance(error, StoreError):
        return "store"
    return "protocol" if isinstance(error, RemoteError) else "unavailable"


def exit_code(error: QuicprochatError) -> int:
    """Return the exit code for an error."""
    return EXIT_CODES[code_of(error)]
