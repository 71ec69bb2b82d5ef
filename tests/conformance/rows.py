"""Made-up rows for the store's tests: small, true envelopes and everything that hangs on them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from quicprochat.core.channel import Access, BroadcastChannel, Earlier, Member, Subscription
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.gaps import Heard, hear
from quicprochat.core.ids import ChannelId, EnvelopeId, Label, PeerKey, Uid
from quicprochat.core.receipt import State
from quicprochat.core.seal import Protection
from quicprochat.core.store import Held, Home, HomeSource, Line, LineKind, MeshStore, Sent, Usage
from quicprochat.core.time import Instant, WallTime

WALL = WallTime(1_800_000_000_000)


def key(name: str) -> PeerKey:
    """A peer's key, the same for the same name."""
    return PeerKey(hashlib.sha256(b"peer " + name.encode()).digest())


def uid(name: str) -> Uid:
    return Uid(hashlib.sha256(b"uid " + name.encode()).digest()[:16])


class _NoSigner:
    def __init__(self, peer: PeerKey) -> None:
        self.key = peer

    def sign(self, label: Label, message: bytes) -> bytes:
        return hashlib.sha512(self.key + label.value.encode() + message).digest()


def envelope(name: str, *, src: str = "me", dst: str = "ann", kind: int = Kind.MESSAGE, size: int = 64) -> MeshEnvelope:
    """An envelope whose id and payload hash hold; its signature is of nobody."""
    nonce = hashlib.sha256(name.encode()).digest()[:16]
    payload = (hashlib.sha256(b"payload " + name.encode()).digest() * (size // 32 + 1))[:size]
    return make(Header(kind, key(src), key(dst), nonce), payload, _NoSigner(key(src)))


def held(
    name: str,
    *,
    src: str = "me",
    dst: str = "ann",
    via: str = "",
    kind: int = Kind.MESSAGE,
    size: int = 64,
    at: int = 1_000,
    expires: int = 9_000,
) -> Held:
    made = envelope(name, src=src, dst=dst, kind=kind, size=size)
    link = key(via) if via else b""
    return Held(made.id, kind, key(src), key(dst), link, made.wire(), Instant(at), Instant(expires))


def sent(
    name: str,
    *,
    to: str = "ann",
    text: str = "hello",
    state: State = State.QUEUED,
    protection: Protection = Protection.PREKEY,
    id: EnvelopeId | None = None,
) -> Sent:
    return Sent(
        uid(name), key(to), text, WALL, Instant(9_000), 3_600, state, protection, id or envelope(name, dst=to).id
    )  # fmt: skip


def message(name: str, *, author: str = "ann", text: str = "hello", request: bool = False, domain: str = "") -> Line:
    return Line(LineKind.MESSAGE, key(author), uid(name), WALL, text, 3, "forward-secret", request, domain)


def receipt(name: str, *, to: str = "ann", state: str = "delivered", reason: str = "") -> Line:
    return Line(LineKind.RECEIPT, key(to), uid(name), WALL, state=state, reason=reason)


def channel_id(name: str) -> ChannelId:
    return ChannelId(hashlib.sha256(b"channel " + name.encode()).digest())


def subscription(name: str, *, heads: int = 2, kind: Access = Access.PRIVATE, left: bool = False) -> Subscription:
    """A channel's row, the same for the same name."""
    secret = b"" if left else hashlib.sha256(b"secret " + name.encode()).digest()
    ids = tuple(EnvelopeId(hashlib.sha256(f"head {n} {name}".encode()).digest()) for n in range(heads))
    return Subscription(BroadcastChannel(channel_id(name), kind, secret, 7, name), ids, left)


def owned(name: str, **more: Any) -> Subscription:
    """A channel's row with everything in it that a channel with an owner has."""
    plain = subscription(name)
    earlier = tuple(Earlier(6 - n, Instant(900 - n), bytes([n]) * 32) for n in range(2))
    channel = replace(plain.channel, kind=Access.ANNOUNCEMENT, owner=key("ann"), salt=b"s" * 16)
    full = replace(plain, channel=channel, earlier=earlier, charter=2**62, posters=(key("bob"), key("eve")), said=3)
    return replace(full, **{"muted": True, **more})


def member(peer: str, *, channel: str = "news", **more: Any) -> Member:
    return Member(channel_id(channel), key(peer), **more)


def lives(
    peer: str, domain: str = "b.example", *, source: HomeSource = HomeSource.RECORD, version: tuple[int, int] = (1, 2),
    at: int = 5,
) -> Home:  # fmt: skip
    return Home(key(peer), domain, source, *version, Instant(at))


def post(name: str, *, channel: str = "news", author: str = "ann", text: str = "hello") -> Line:
    return Line(
        LineKind.POST, key(author), uid(name), WALL, text, 3, "private", domain="d", channel=channel_id(channel)
    )  # fmt: skip


def placed(
    name: str, seq: int = 1, *parents: str, channel: str = "news", author: str = "ann", own: bool = False
) -> Line:
    """The line of a post that says where it stands."""
    line = post(name, channel=channel, author="me" if own else author, text=name)
    ids = tuple(envelope(parent).id for parent in parents)
    kind = LineKind.OWN_POST if own else LineKind.POST
    return replace(line, kind=kind, read=own, id=envelope(name).id, seq=seq, parents=ids)


def numbers(author: str, *, seen: tuple[int, ...] = (1,), at: int = 0) -> Heard:
    """What is known of an author after it was heard with these numbers, the last of them at a moment."""
    known = None
    for seq in seen:
        known = hear(known, key(author), seq, Instant(at))
    assert known is not None
    return known


def held_post(name: str, *, channel: str = "news", src: str = "bob", via: str = "bob", size: int = 64) -> Held:
    """A post as it is kept; the destination of a row is an id like any other."""
    made = held(name, src=src, dst=channel, via=via, kind=Kind.CHANNEL, size=size)
    assert made.dst == key(channel)
    return made


def usage(*items: Held | Line) -> Usage:
    """What a scope must count for these."""
    return Usage(len(items), sum(len(item.wire) if isinstance(item, Held) else item.size for item in items))


def texts(lines: object) -> list[str]:
    return [line.text for line in lines]  # type: ignore[attr-defined]


class Step:
    """``with Step(store):`` runs a transaction: committed at the end, rolled back when an exception passes."""

    def __init__(self, store: MeshStore) -> None:
        self._store = store

    def __enter__(self) -> MeshStore:
        self._store.begin()
        return self._store

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._store.commit()
        else:
            self._store.rollback()
