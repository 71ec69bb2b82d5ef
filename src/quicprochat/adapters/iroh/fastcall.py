"""Saves calls into the iroh binding a detour: what is ready at once need not be told to the event loop first.

The generated code hands each answer to the loop as if another thread had it: a byte through the loop's pipe, which is
read again, and two turns of the loop. But most writes are done the moment they are asked for, in the loop's own thread.
Here such an answer is taken where it is given, and the caller goes on in the next turn. What is not ready goes the way
it always went.

As with ``fastcopy`` the function is private to uniffi's generated code: it is replaced only while it looks as known.
``ACTIVE`` says whether it was.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import Callable
from typing import Any, Final

from iroh import iroh_ffi

_PARAMETERS = ["rust_future", "ffi_poll", "ffi_complete", "ffi_free", "lift_func", "error_ffi_converter"]
_READY: Final = 0


class _Poll:
    """One question to the binding whether a call is done; it is answered once, from whatever thread."""

    __slots__ = ("asking", "code", "future", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.future: asyncio.Future[int] = loop.create_future()
        self.asking = True
        """True while the question is being asked: an answer in its thread is one to it."""
        self.code: int | None = None

    def answer(self, code: int) -> None:
        """Take the answer."""
        if code == _READY and self.asking and threading.get_ident() == self.thread:
            self.code = code
        else:
            self.loop.call_soon_threadsafe(self._settle, code)

    def _settle(self, code: int) -> None:
        if not self.future.done():
            self.future.set_result(code)


_polls: dict[int, _Poll] = {}
_numbers = itertools.count(1)


def _answered(number: int, code: int) -> None:
    _polls.pop(number).answer(code)


def install(module: Any) -> bool:
    """Replace the call of this generated module; say whether that was done. Raises: nothing."""
    stock: Any = getattr(module, "_uniffi_rust_call_async", None)
    known = (
        inspect.iscoroutinefunction(stock)
        and list(inspect.signature(stock).parameters) == _PARAMETERS
        and getattr(module, "_UNIFFI_RUST_FUTURE_POLL_READY", None) == _READY
        and all(callable(getattr(module, name, None)) for name in ("_uniffi_get_event_loop", _CALLBACK, _COMPLETE))
    )
    if known:
        module._uniffi_rust_call_async = _replacement(module)
    return known


_CALLBACK = "_UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK"
_COMPLETE = "_uniffi_rust_call_with_error"


def _replacement(module: Any) -> Callable[..., Any]:
    answered = getattr(module, _CALLBACK)(_answered)
    complete = getattr(module, _COMPLETE)

    async def call(rust_future: Any, ffi_poll: Any, ffi_complete: Any, ffi_free: Any, lift: Any, error: Any) -> Any:
        try:
            loop, code = module._uniffi_get_event_loop(), None
            while code != _READY:
                poll, number = _Poll(loop), next(_numbers)
                _polls[number] = poll
                ffi_poll(rust_future, answered, number)
                poll.asking = False
                if (code := poll.code) is None:
                    code = await poll.future
                else:
                    # Who reads what a peer sends without end, or writes so, would else keep the loop from everybody;
                    # and of writes that follow one another without a pause the other end's QUIC saw too many gaps.
                    await asyncio.sleep(0)
            return lift(complete(error, ffi_complete, rust_future))
        finally:
            ffi_free(rust_future)

    return call


ACTIVE: Final[bool] = install(iroh_ffi)
"""Whether calls go the short way."""
