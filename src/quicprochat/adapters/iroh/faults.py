"""What iroh's failures mean to us, and how to wait for a call of the binding without keeping its objects alive."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Any, Final, TypeVar

from iroh import IrohError, IrohErrorKind

from quicprochat.core.errors import LocalError, QuicprochatError, RemoteError, UnavailableError

T = TypeVar("T")


class Fault(Enum):
    """Who has to act on a failure that iroh reports."""

    CALLER = auto()
    PEER = auto()
    RETRY = auto()
    HOPELESS = auto()


FAULTS: Final[dict[IrohErrorKind, Fault]] = {
    IrohErrorKind.INVALID_INPUT: Fault.CALLER,
    IrohErrorKind.KEY_PARSING: Fault.CALLER,
    IrohErrorKind.TICKET_PARSING: Fault.CALLER,
    IrohErrorKind.ALPN: Fault.PEER,
    IrohErrorKind.CONNECT: Fault.RETRY,
    IrohErrorKind.CONNECTION: Fault.RETRY,
    IrohErrorKind.STREAM: Fault.RETRY,
    IrohErrorKind.DATAGRAM: Fault.RETRY,
    IrohErrorKind.RELAY: Fault.RETRY,
    IrohErrorKind.CLOSED: Fault.RETRY,
    IrohErrorKind.TIMEOUT: Fault.RETRY,
    IrohErrorKind.INTERNAL: Fault.RETRY,  # the binding's word for whatever it has not sorted
    IrohErrorKind.BIND: Fault.HOPELESS,
    IrohErrorKind.CALLBACK: Fault.HOPELESS,  # this adapter registers none
}
"""Every kind of the binding; a test keeps it complete."""

_PLAINER: Final = (
    ("known protocol", "it does not speak quicprochat's mesh protocol"),
    ("UnknownIssuer", "another key answers there"),
)
SOURCE_LINE = re.compile(r" ?\([^()]*\.rs:\d+:\d+\)")


def translate(error: IrohError, what: str, peer: bytes | None = None) -> QuicprochatError:
    """Return our error for one of iroh's: ``what`` failed, and why. ``str`` of iroh's own is always empty."""
    why = " ".join(SOURCE_LINE.sub("", error.message()).replace("\nCaused by:", ":").split())
    why = next((plain for token, plain in _PLAINER if token in why), why)
    return blame(FAULTS.get(error.kind(), Fault.RETRY), f"{what}: {why}", peer)


def blame(fault: Fault, sentence: str, peer: bytes | None = None) -> QuicprochatError:
    """Return the error class that belongs to a fault."""
    match fault:
        case Fault.CALLER:
            return LocalError(sentence)
        case Fault.PEER:
            return RemoteError(sentence, peer=peer)
        case Fault.RETRY:
            return UnavailableError(sentence)
        case Fault.HOPELESS:
            return UnavailableError(sentence, retryable=False)


async def outcome(call: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T | IrohError:
    """Return what a call of the binding returns, or how it failed; without frames that hold its objects."""
    work = call(*args)
    del call
    try:
        return await work
    except IrohError as error:
        return error.with_traceback(None)
    except asyncio.CancelledError as stop:
        raise stop.with_traceback(None)  # noqa: B904


async def in_time(timeout_s: float, call: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T | IrohError | None:
    """Return the outcome of a call, or None when it took too long."""
    work = outcome(call, *args)
    del call
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        return None


def short(key: bytes) -> str:
    return f"peer {key.hex()[:8]}"
