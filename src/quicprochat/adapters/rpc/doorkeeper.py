"""Measures what a peer says before Cap'n Proto reads it, and what is still owed to the peer.

pycapnp 2.2.4 bounds neither the calls a peer may have open nor what they hold: a refused call costs 4 kB until its
"finish" comes, and an attacker sends none. So the doorkeeper sits between transport and pycapnp and reads the head of
each message (capnp's rpc.capnp; encoding.html, "serialization over a stream"):

- a message too large, or not laid out as every implementation does it, ends the connection;
- so does a question more than allowed. One is open from its call until its "finish", or until an answer that says
  that none is needed;
- while calls of many bytes wait for their answers, nothing more is read.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass

MESSAGE_WORDS = 256 * 1024
"""8-byte words of one message: 2 MiB, four times the largest honest batch."""
SEGMENTS = 512
UNANSWERED_BYTES = 4 << 20
"""Of calls without an answer, before nothing more is read."""

CALL, RETURN, FINISH, BOOTSTRAP = 2, 3, 4, 8
"""Kinds of message: the discriminant of rpc.capnp's Message."""
_NO_FINISH_NEEDED = 0b10
_ROOT = struct.Struct("<IHH")
_HEAD_BYTES = 32
"""Pointer to the root, its kind, pointer to the body, first word of the body."""


class RefusedError(Exception):
    """The peer goes too far; never leaves this package."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a message: its kind, the question it is about, its bytes, and whether it ends the question."""

    kind: int
    question: int
    size: int
    final: bool


class Scanner:
    """Cuts a stream of messages, in whatever pieces it comes, and returns their heads."""

    def __init__(self, words_max: int = MESSAGE_WORDS) -> None:
        self._max = 8 * words_max
        self._head = bytearray()
        self._need = 4
        self._table = 0
        self._skip = 0
        self._size = 0

    def feed(self, data: bytes | memoryview) -> list[Head]:
        """Take the next bytes; return the heads of the messages that began in them. Raises: RefusedError."""
        heads = []
        at, end = 0, len(data)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
            else:
                step = min(self._need - len(self._head), end - at)
                self._head += data[at : at + step]
                if len(self._head) == self._need and (head := self._more()) is not None:
                    heads.append(head)
            at += step
        return heads

    def _more(self) -> Head | None:
        """Go on to the next part: number of segments, their sizes, head; return what is complete."""
        head = self._head
        if self._need == 4:
            count = 1 + int.from_bytes(head, "little")
            if count > SEGMENTS:
                raise RefusedError("a message in too many segments")
            self._table = self._need = (4 + 4 * count + 7) // 8 * 8
            return None
        if self._need == self._table:
            sizes = struct.unpack_from(f"<{1 + int.from_bytes(head[:4], 'little')}I", head, 4)
            self._size = 8 * sum(sizes)
            if self._size > self._max:
                raise RefusedError("a message that is too large")
            if 8 * sizes[0] < _HEAD_BYTES:
                raise RefusedError("a message that is none")
            self._need = self._table + _HEAD_BYTES
            return None
        found = self._read(bytes(head[self._table :]))
        self._skip = self._size - _HEAD_BYTES
        head.clear()
        self._need, self._table = 4, 0
        return found

    def _read(self, words: bytes) -> Head:
        # Both pointers must lead to what follows them: everybody writes them so, and others would hide a call.
        if _ROOT.unpack_from(words, 0) != (0, 1, 1):
            raise RefusedError("a message laid out strangely")
        kind = int.from_bytes(words[8:10], "little")
        if kind not in (CALL, RETURN, FINISH, BOOTSTRAP):
            return Head(kind, 0, self._size, final=False)
        where, data_words, _ = _ROOT.unpack_from(words, 16)
        if where or not data_words:
            raise RefusedError("a message laid out strangely")
        question = int.from_bytes(words[24:28], "little")
        return Head(kind, question, self._size, final=kind == RETURN and bool(words[28] & _NO_FINISH_NEEDED))


class Doorkeeper(asyncio.BufferedProtocol):
    """The protocol of the real transport; ``outward`` is the transport that pycapnp gets.

    ``refuse`` is told once, with a reason, and must end the connection without closing anything of Cap'n Proto's.
    """

    def __init__(self, transport: asyncio.Transport, questions_max: int, refuse: Callable[[str], None]) -> None:
        self.outward = Outward(self, transport)
        self._transport = transport
        self._max = questions_max
        self._refuse = refuse
        self._inner: asyncio.BufferedProtocol
        self._heard, self._said = Scanner(), Scanner(1 << 32)
        self._open: dict[int, int] = {}  # question: bytes while there is no answer, then 0
        self._unanswered_bytes = 0
        self._refused = False
        self._wanted = True  # by pycapnp: more to read
        self._view: memoryview
        self.room = asyncio.Event()
        """Set while the peer takes what is written."""
        self.room.set()

    def begin(self, inner: asyncio.BufferedProtocol) -> None:
        """Put pycapnp's protocol behind the transport."""
        self._inner = inner
        self._transport.set_protocol(self)
        inner.connection_made(self.outward)

    @property
    def unanswered(self) -> int:
        """How many calls wait for an answer."""
        return sum(1 for size in self._open.values() if size)

    # --- from the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        self._view = memoryview(self._inner.get_buffer(sizehint))
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        if self._refused:
            return
        try:
            for head in self._heard.feed(self._view[:nbytes]):
                self._asked(head)
        except RefusedError as error:
            self._refused = True
            self._refuse(str(error))
            return
        self._inner.buffer_updated(nbytes)

    def pause_writing(self) -> None:
        self.room.clear()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self.room.set()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.set()
        self._inner.connection_lost(exc)

    # --- from pycapnp, through ``outward``

    def said(self, data: bytes) -> None:
        """Note answers that leave."""
        for head in self._said.feed(data):
            if head.kind == RETURN and head.question in self._open:
                self._unanswered_bytes -= self._open[head.question]
                if head.final:
                    del self._open[head.question]
                else:
                    self._open[head.question] = 0
                if self._wanted and self._unanswered_bytes < UNANSWERED_BYTES // 2:
                    # Soon, since pycapnp is in the middle of a write.
                    asyncio.get_running_loop().call_soon(self._go_on)

    def want(self, wanted: bool) -> None:
        """Read, or do not, as pycapnp wishes and the calls that wait allow."""
        self._wanted = wanted
        if not wanted:
            self._transport.pause_reading()
        elif self._unanswered_bytes < UNANSWERED_BYTES:
            self._transport.resume_reading()

    # --- within

    def _go_on(self) -> None:
        if self._wanted and not self._transport.is_closing():
            self._transport.resume_reading()

    def _asked(self, head: Head) -> None:
        if head.kind in (CALL, BOOTSTRAP):
            if len(self._open) >= self._max:
                raise RefusedError("too many calls at once")
            self._open[head.question] = head.size
            self._unanswered_bytes += head.size
        elif head.kind == FINISH:
            self._unanswered_bytes -= self._open.pop(head.question, 0)


class Outward(asyncio.Transport):
    """What pycapnp takes for the transport."""

    def __init__(self, keeper: Doorkeeper, transport: asyncio.Transport) -> None:
        super().__init__()
        self._keeper = keeper
        self._to = transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._keeper.said(bytes(data))
        self._to.write(data)

    def pause_reading(self) -> None:
        self._keeper.want(False)

    def resume_reading(self) -> None:
        self._keeper.want(True)

    def is_closing(self) -> bool:
        return self._to.is_closing()

    def can_write_eof(self) -> bool:
        return self._to.can_write_eof()

    def write_eof(self) -> None:
        self._to.write_eof()

    def close(self) -> None:
        self._to.close()
