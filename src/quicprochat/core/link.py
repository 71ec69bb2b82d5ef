"""A link between two neighbours: frames on one reliable stream, a hello, and the proof that the other end lives.

    frame   = length 4 (of what follows) | type 1 | body
    HELLO   = "qpc1" | version_min 1 | version_max 1 | features 4 | frame_max 4 | window 2 | session 16
            | store_epoch 16 | record_age_ms 8 | record_len 2 | record | [routes_len 1 | routes]
            | (later versions: more, ignored)
    ENVELOPE= envelope
    RESULTS = count 1 | count * (envelope id 32 | verdict 1 | reason 1)
    RECORD  = age_ms 8 | record
    BYE     = code 1 | reason (UTF-8)
    PING, PONG, BEAT = empty
    OBSERVED= address
    INTEREST= count 2 (0..256) | count * channel id 32, ascending; 32 zero bytes stand for every channel
    CHANNEL = channel id 32 | interests 1 | type 1 | body         a frame of carrying, about one channel's posts

Who the other end is, the transport has proved: its node key is its mesh key. Types of 0x80 and above may be skipped
by who does not know them; an unknown type below ends the link.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from itertools import pairwise

from quicprochat.core.address import Address
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES
from quicprochat.core.errors import WireError
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import ID_BYTES, ChannelId, EnvelopeId
from quicprochat.core.record import RECORD_MAX_BYTES
from quicprochat.core.time import Instant
from quicprochat.core.wire import Reader

MAGIC = b"qpc1"
LINK_VERSION = 1
FRAME_MAX_BYTES = 1 + ENVELOPE_MAX_BYTES
"""A longer announced frame ends the link before a byte of it is kept."""
RESULTS_MAX = 255
WINDOW = 1_024
"""Envelopes a node lets a neighbour send before it has answered the first."""
REASON_MAX_BYTES = 200
ROUTES_MAX_BYTES = 8
INTEREST_MAX = 256
"""Channels a node subscribes to at most: bounds what each neighbour remembers of it."""
IGNORABLE = 0x80

_LENGTH = struct.Struct(">IB")
_HELLO = struct.Struct(">4sBBIIH16s16sQ")
_RESULT = struct.Struct(f">{ID_BYTES}sBB")
_VERDICTS = {int(verdict): verdict for verdict in Verdict}
_REASONS = {int(reason): reason for reason in Reason}


class FrameType(IntEnum):
    """What a frame holds."""

    HELLO = 0x01
    PING = 0x02
    PONG = 0x03
    ENVELOPE = 0x04
    RESULTS = 0x05
    RECORD = 0x06
    BYE = 0x07
    BEAT = 0x08
    INTEREST = 0x80
    ROUTE = 0x81
    RANGES = 0x84
    OFFER = 0x85
    WANT = 0x86
    OBSERVED = 0x88
    CHANNEL = 0x8A


FOR_NODE = frozenset({FrameType.ROUTE, FrameType.RANGES, FrameType.OFFER, FrameType.WANT, FrameType.CHANNEL})
"""Frames of routing and carrying, which are read by the node and not by the link."""
FOR_CHANNEL = frozenset({FrameType.RANGES, FrameType.OFFER, FrameType.WANT})
"""What a CHANNEL frame may hold; anything else in it is skipped."""
EVERY_CHANNEL = ChannelId(bytes(ID_BYTES))
"""Told as an interest: all channels, whatever their ids."""


class Goodbye(IntEnum):
    """Why a link is closed; the code of the BYE frame and of the transport's close."""

    LEAVING = 0
    PROTOCOL = 1
    VERSION = 2
    SILENT = 3
    DUPLICATE = 4
    BLOCKED = 5
    ABUSE = 6
    SLOW = 7
    BUSY = 8


def frame(kind: FrameType, body: bytes = b"") -> bytes:
    """Return one frame's bytes."""
    return _LENGTH.pack(1 + len(body), kind) + body


class FrameParser:
    """Cuts a stream of bytes into frames, however they arrive."""

    __slots__ = ("_buffer", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (type, body) of each complete frame. Raises: WireError, after which the link is of no more use.

        Each call must be iterated to its end before the next.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return
            data, self._buffer = bytes(self._buffer), bytearray()
        position, end, self._need = 0, len(data), _LENGTH.size
        while end - position >= _LENGTH.size:
            length, kind = _LENGTH.unpack_from(data, position)
            if not 0 < length <= FRAME_MAX_BYTES:
                raise WireError(f"a frame of {length} bytes; 1 to {FRAME_MAX_BYTES} are allowed")
            after = position + 4 + length
            if after > end:
                # Not looked at again before all of it is there, so that bytes one by one cost no more than at once.
                self._need = after - position
                break
            yield kind, data[position + _LENGTH.size : after]
            position = after
        self._buffer += data[position:]

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of both sides.

    ``session`` is random per run of a node, so that a link of a former run is recognised as dead. ``store_epoch`` is
    random per store: when it changes, the peer has lost its memory. ``window`` is how many envelopes it takes before
    answering the first. ``routes`` is the digest of what the sender holds of the receiver's routes, or empty.
    """

    session: bytes
    store_epoch: bytes
    record: bytes
    record_age_ms: int = 0
    features: int = 0
    frame_max: int = FRAME_MAX_BYTES
    window: int = WINDOW
    version_min: int = LINK_VERSION
    version_max: int = LINK_VERSION
    routes: bytes = b""

    def encode(self) -> bytes:
        """Return the body of the HELLO frame."""
        head = _HELLO.pack(
            MAGIC, self.version_min, self.version_max, self.features, self.frame_max, self.window, self.session,
            self.store_epoch, self.record_age_ms,
        )  # fmt: skip
        routes = bytes([len(self.routes)]) + self.routes if self.routes else b""
        return head + len(self.record).to_bytes(2, "big") + self.record + routes

    @classmethod
    def decode(cls, body: bytes) -> Hello:
        """Read a hello. Raises: WireError."""
        reader = Reader(body, "a hello")
        magic, low, high, features, frame_max, window, session, epoch, age = _HELLO.unpack(reader.take(_HELLO.size))
        if magic != MAGIC:
            raise WireError("a hello that does not begin with qpc1")
        if not low <= LINK_VERSION <= high:
            raise WireError(
                f"a peer that speaks link versions {low} to {high}; this node speaks {LINK_VERSION}",
                code=Goodbye.VERSION,
            )
        if window == 0 or frame_max < FRAME_MAX_BYTES:
            raise WireError("a hello with limits under the least that a node must take")
        record = reader.sized(2, RECORD_MAX_BYTES)
        rest = reader.rest()
        routes = rest[1 : 1 + rest[0]] if rest and rest[0] <= min(ROUTES_MAX_BYTES, len(rest) - 1) else b""
        return cls(session, epoch, record, age, features, frame_max, window, low, high, routes)


@dataclass(frozen=True, slots=True)
class Result:
    """A neighbour's answer to one envelope it was handed."""

    id: EnvelopeId
    verdict: Verdict
    reason: Reason = Reason.NONE


def encode_results(results: Sequence[Result]) -> bytes:
    """Return the body of a RESULTS frame; at most RESULTS_MAX of them."""
    assert 0 < len(results) <= RESULTS_MAX
    return bytes([len(results)]) + b"".join([_RESULT.pack(r.id, r.verdict, r.reason) for r in results])


def decode_results(body: bytes) -> tuple[Result, ...]:
    """Read a RESULTS frame. Unknown reasons read as NONE, so that new ones can be added. Raises: WireError."""
    reader = Reader(body, "a result list")
    count = reader.uint(1)
    if not count:
        raise WireError("a result list without results")
    found = reader.take(count * _RESULT.size)
    reader.end()
    results = []
    for id, number, reason in _RESULT.iter_unpack(found):
        if (verdict := _VERDICTS.get(number)) is None:
            raise WireError(f"a result with the unknown verdict {number}")
        results.append(Result(EnvelopeId(id), verdict, _REASONS.get(reason, Reason.NONE)))
    return tuple(results)


def encode_record(record: bytes, age_ms: int) -> bytes:
    """Return the body of a RECORD frame."""
    return age_ms.to_bytes(8, "big") + record


def decode_record(body: bytes) -> tuple[int, bytes]:
    """Read a RECORD frame: the record's age in milliseconds, and its bytes. Raises: WireError."""
    reader = Reader(body, "a record frame")
    age = reader.uint(8)
    record = reader.rest()
    if len(record) > RECORD_MAX_BYTES:
        raise WireError(f"a peer record of {len(record)} bytes")
    return age, record


def encode_interest(channels: Sequence[ChannelId]) -> bytes:
    """Return the body of an INTEREST frame; the ids ascend, and are at most INTEREST_MAX."""
    assert len(channels) <= INTEREST_MAX
    assert all(later > earlier for earlier, later in pairwise(channels))
    return len(channels).to_bytes(2, "big") + b"".join(channels)


@dataclass(frozen=True, slots=True)
class ChannelFrame:
    """A frame of carrying about one channel.

    ``interests`` counts the INTEREST frames that the sender had received over this link, modulo 256: so the receiver
    knows what was sent before its last word arrived.
    """

    channel: ChannelId
    interests: int
    kind: int
    body: bytes

    def encode(self) -> bytes:
        """Return the body of the CHANNEL frame."""
        return self.channel + bytes((self.interests & 0xFF, self.kind)) + self.body

    @classmethod
    def decode(cls, body: bytes) -> ChannelFrame:
        """Read a CHANNEL frame; what it holds is not looked at. Raises: WireError."""
        reader = Reader(body, "a channel's frame")
        return cls(ChannelId(reader.take(ID_BYTES)), reader.uint(1), reader.uint(1), reader.rest())


def decode_observed(body: bytes) -> Address:
    """Read where a neighbour sees us. Raises: WireError."""
    reader = Reader(body, "an observed address")
    address = Address.decode(reader)
    reader.end()
    return address


def decode_interest(body: bytes) -> tuple[ChannelId, ...]:
    """Read an INTEREST frame: all channels that the neighbour subscribes to. Raises: WireError."""
    reader = Reader(body, "a list of channels")
    if (count := reader.uint(2)) > INTEREST_MAX:
        raise WireError(f"a list of {count} channels; {INTEREST_MAX} are allowed")
    channels = tuple(ChannelId(reader.take(ID_BYTES)) for _ in range(count))
    reader.end()
    if any(later <= earlier for earlier, later in pairwise(channels)):
        raise WireError("a list of channels that does not ascend")
    return channels


def encode_bye(code: Goodbye, reason: str) -> bytes:
    """Return the body of a BYE frame."""
    return bytes([code]) + reason.encode("utf-8")[:REASON_MAX_BYTES]


def decode_bye(body: bytes) -> tuple[int, str]:
    """Read a BYE frame: code and reason; the reason is the peer's text and untrusted. Raises: WireError."""
    reader = Reader(body, "a goodbye")
    return reader.uint(1), reader.rest()[:REASON_MAX_BYTES].decode("utf-8", "replace")


HEARTBEAT_MS = 4_000
HEARTBEAT_STAGGER_MS = 500
"""The side with the higher key waits this much longer, so that in a quiet time one side asks for both."""
SIGN_MS = 2_500
"""So long a sign of life may take after a beat; then a ping, and the next sign may take LAST_SIGN_MS. Short enough that
another way is in use within 10 s, long enough for QUIC to try four times over a path of 200 ms."""
LAST_SIGN_MS = 1_500
QUIET_MS = 20_000
"""No frame from the other end for so long: ask its program, since its transport answers even for a hung one."""
DEAF_MS = 60_000
"""Packets but no frame for so long: the other program hangs."""


class Beat(Enum):
    """What a heartbeat wants done."""

    BEAT = "beat"
    """Send a BEAT: the transport's acknowledgement of it is the sign of life."""
    PING = "ping"
    """Send a PING: the other program answers with PONG."""
    DEAD = "dead"


class Heartbeat:
    """Notices a dead path within 10 s and a hung program within 60 s, with two small packets each 4 s.

    Frames prove that the other program lives; packets, which QUIC acknowledges by itself, that the path does. The
    caller counts received packets; a transport that cannot passes 0, and then every beat must be answered.
    """

    __slots__ = ("_asked", "_counts", "_due", "_heard", "_interval", "_missed", "_sent")

    def __init__(self, now: Instant, *, first: bool, counts: bool = True) -> None:
        self._interval = HEARTBEAT_MS if first else HEARTBEAT_MS + HEARTBEAT_STAGGER_MS
        self._counts = counts
        self._asked: int | None = None
        self._sent = now
        self._missed = False
        self.heard(now)

    def heard(self, now: Instant) -> None:
        """A frame arrived."""
        self._heard = now
        self._asked = None
        self._missed = False
        self._due = Instant(now + self._interval)

    def deadline(self) -> Instant:
        """Return when :meth:`beat` has something to say next, if no frame arrives before."""
        return self._due

    def beat(self, now: Instant, packets: int = 0) -> Beat | None:
        """Return what to do at this moment; ``packets`` is how many were received on this link so far."""
        if now < self._due:
            return None
        if now >= self._heard + DEAF_MS:
            return Beat.DEAD
        if self._asked is not None and packets > self._asked:
            # The path lives. The next beat is due four seconds after the last.
            self._asked = None
            self._missed = False
            self._due = Instant(self._sent + HEARTBEAT_MS)
            if now < self._due:
                return None
        if self._asked is not None:
            if self._missed:
                return Beat.DEAD
            self._missed = True
        self._asked = packets
        self._sent = now
        self._due = Instant(now + (LAST_SIGN_MS if self._missed else SIGN_MS))
        return Beat.PING if self._missed or not self._counts or now >= self._heard + QUIET_MS else Beat.BEAT


def keep_new(*, same_session: bool, new_by_lower: bool, old_by_lower: bool) -> bool:
    """Say whether a second link to the same peer replaces the first; both sides come to the same answer.

    A new session means that the peer was restarted and the old link leads nowhere. Otherwise two dials crossed, and
    the one made by the side with the lower key stays; of two made by the same side, the newer, since whoever dials
    again has given up on the first.
    """
    if not same_session or new_by_lower == old_by_lower:
        return True
    return new_by_lower
