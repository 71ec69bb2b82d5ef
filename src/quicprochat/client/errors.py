"""The command line's errors, and those that only a call through the home's socket meets."""

from __future__ import annotations

from quicprochat.console.errors import (
    BUG,
    EXIT_CODES,
    INTERRUPTED,
    NOT_FOUND,
    OK,
    REFUSED,
    TIMED_OUT,
    UNREACHABLE,
    UNTRUSTED,
    USAGE,
    CallError,
    code_of,
    exit_code,
)
from quicprochat.core.errors import QuicprochatError

__all__ = [
    "BUG", "EXIT_CODES", "INTERRUPTED", "NOT_FOUND", "OK", "REFUSED", "TIMED_OUT", "UNREACHABLE", "UNTRUSTED", "USAGE",
    "CallError", "Moved", "Vanished", "code_of", "exit_code",
]  # fmt: skip


class Moved(QuicprochatError):
    """The process that owned the home is ending and has not done what was asked: ask the next owner."""


class Vanished(Moved):
    """The process that owned the home is gone without a word: what was asked may be done or not."""
