"""Bundles: envelopes in a file, carried by hand. The file proves nothing; each envelope proves itself at the gate.

    bundle = "quicprochat bundle\\n" | version 1 (1) | written_ms 8 | n * (length 4 | envelope)
           | 0 (4) | count 4 | SHA-256 of all before 32

``written_ms`` is the wall clock when the file was written, 0 unless that was trusted: with it a reader whose own clock
is trusted counts the time on the way. The number stands at the end, so that a writer needs to know nothing beforehand.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from quicprochat.core.envelope import ENVELOPE_MAX_BYTES, HEADER_BYTES
from quicprochat.core.errors import WireError
from quicprochat.core.ids import KEY_BYTES, PeerKey
from quicprochat.core.time import Now

BY_HAND = PeerKey(b"by hand".ljust(KEY_BYTES, b"\0"))
"""Stands for the neighbour that an envelope came from, where it came in a file; no peer has this key."""
MAGIC = b"quicprochat bundle\n"
BUNDLE_VERSION = 1
COUNT_MAX = 1 << 20
"""Envelopes in one bundle: what an import can make a node check."""
BUNDLE_MAX_BYTES = 4 << 30
"""Longer files are not read (guess)."""

_HEAD = struct.Struct(f">{len(MAGIC)}sBQ")
_LENGTH = struct.Struct(">I")
_TAIL = struct.Struct(">I32s")
BUNDLE_MIN_BYTES = _HEAD.size + _LENGTH.size + _TAIL.size


class BundleWriter:
    """Makes the bytes of a bundle, piece by piece; at most COUNT_MAX envelopes."""

    __slots__ = ("_digest", "count")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.count = 0

    def begin(self, now: Now) -> bytes:
        """Return what stands first."""
        return self._summed(_HEAD.pack(MAGIC, BUNDLE_VERSION, now.wall if now.trusted else 0))

    def add(self, wire: bytes) -> bytes:
        """Return the next envelope's piece."""
        assert HEADER_BYTES <= len(wire) <= ENVELOPE_MAX_BYTES
        assert self.count < COUNT_MAX
        self.count += 1
        return self._summed(_LENGTH.pack(len(wire)) + wire)

    def end(self) -> bytes:
        """Return what stands last."""
        tail = self._summed(_LENGTH.pack(0) + self.count.to_bytes(4, "big"))
        return tail + self._digest.digest()

    def _summed(self, piece: bytes) -> bytes:
        self._digest.update(piece)
        return piece


class BundleReader:
    """Cuts a bundle into envelopes, however its bytes arrive; keeps no more than one of them.

    Raises: WireError, and nothing else, on any bytes.
    """

    __slots__ = ("_buffer", "_complete", "_digest", "count", "written_ms")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._complete = False
        self.written_ms: int | None = None
        self.count = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each envelope that is complete now; to be iterated to its end before the next call."""
        self._buffer += data
        if self.written_ms is None:
            if not MAGIC.startswith(bytes(self._buffer[: len(MAGIC)])):
                raise WireError("this is not a bundle of quicprochat")
            if len(self._buffer) < _HEAD.size:
                return
            _, version, written_ms = _HEAD.unpack(self._take(_HEAD.size))
            if version != BUNDLE_VERSION:
                raise WireError(f"a bundle of version {version}, which a newer quicprochat wrote")
            self.written_ms = written_ms
        while not self._complete and len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size == 0:
                self._end()
                return
            if not HEADER_BYTES <= size <= ENVELOPE_MAX_BYTES:
                raise WireError("the bundle is damaged: an envelope in it has an impossible length")
            if len(self._buffer) < _LENGTH.size + size:
                return
            if self.count == COUNT_MAX:
                raise WireError(f"the bundle has more than {COUNT_MAX} envelopes")
            self.count += 1
            yield self._take(_LENGTH.size + size)[_LENGTH.size :]
        if self._complete and self._buffer:
            raise WireError("the bundle goes on after its end")

    def _take(self, count: int) -> bytes:
        piece = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._digest.update(piece)
        return piece

    def _end(self) -> None:
        if len(self._buffer) < _LENGTH.size + _TAIL.size:
            return
        count = int.from_bytes(self._take(_LENGTH.size + 4)[_LENGTH.size :], "big")
        digest = bytes(self._buffer[:32])
        del self._buffer[:32]
        if digest != self._digest.digest() or count != self.count:
            raise WireError("the bundle is damaged: its checksum does not fit")
        self._complete = True
        if self._buffer:
            raise WireError("the bundle goes on after its end")

    def finish(self) -> None:
        """There are no more bytes. Raises: WireError when some are missing."""
        if not self._complete:
            raise WireError("the bundle is cut short: the end is missing")
