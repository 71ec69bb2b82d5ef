"""The errors a caller can meet: whose fault it is decides the class, the text is one sentence for a person."""

from __future__ import annotations


class QuicprochatError(Exception):
    """Base of every error raised on purpose; ``str(error)`` is a sentence that says what happened and what to do."""


class LocalError(QuicprochatError):
    """Our own caller asked for something that cannot be done as asked.

    ``code`` is a stable word for scripts (``not_found``, ``ambiguous``, ``too_long``, ``full``, ...).
    """

    def __init__(self, message: str, *, code: str = "usage") -> None:
        super().__init__(message)
        self.code = code


class RemoteError(QuicprochatError):
    """A peer broke the protocol.

    ``code`` goes on the wire when the link is closed; ``peer`` is the 32-byte key of the peer where it is known.
    """

    def __init__(self, message: str, *, code: int = 1, peer: bytes | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.peer = peer


class WireError(RemoteError):
    """Bytes from outside that are not what the protocol says; the only error a decoder raises."""


class UnavailableError(QuicprochatError):
    """A link, a store or a time limit let us down; ``retryable`` says whether trying again later can help."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class StoreError(UnavailableError):
    """The store failed to read or to commit; the node stops, because it can no longer promise anything."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


class StoreFullError(StoreError):
    """The disk is full: nothing of this transaction was kept."""
