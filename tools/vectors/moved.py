"""Vectors of exported identities; of the least cost, so that they are read quickly."""

from __future__ import annotations

from dataclasses import replace

from tools.vectors.base import ALICE, BOB, CREATED_MS, CRYPTO, PREKEY, RECORD, SEEDS, Json, fixed

from quicprochat.adapters.passphrase import stretch
from quicprochat.core.channel import BroadcastChannel, Earlier, Member, Subscription
from quicprochat.core.export import (
    COST_MAX,
    COST_MIN,
    Aged,
    Contents,
    Cost,
    Membership,
    passphrase_bytes,
    seal_export,
)
from quicprochat.core.identity import Contact, MeshIdentity
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.record import sign_record
from quicprochat.core.time import Instant

PASSPHRASE = "Gru\u0308ße aus Köln"
ME = MeshIdentity(
    SEEDS["alice"], ALICE.key, "Alice", {BOB.key: Contact(BOB.key, "bob", True, False, RECORD.addresses, RECORD.relay)}
)
CONTENTS = Contents(
    ME, (2, 9), (Aged(PREKEY.key.private_bytes_raw(), 5_000),), (Aged(sign_record(RECORD, BOB), 7),), CREATED_MS
)
FREIFUNK = BroadcastChannel.open("freifunk", CRYPTO)
FAMILY = BroadcastChannel.private(fixed("export family", 32), "Grüße")
OWNED = Subscription(
    replace(BroadcastChannel.private(fixed("owned", 32), "news", ALICE.key, announce=True), epoch=2),
    earlier=(Earlier(1, Instant(86_400_000), fixed("owned, epoch 1", 32)),), charter=4, posters=(BOB.key,), said=1,
    muted=True,
)  # fmt: skip
CHANNELS = (
    Membership(Subscription(FREIFUNK), 0),
    Membership(Subscription(FAMILY, (EnvelopeId(fixed("head 1", 32)), EnvelopeId(fixed("head 2", 32)))), 41),
    Membership(Subscription(replace(BroadcastChannel.private(fixed("new", 32), "club"), epoch=3)), 2**40),
    Membership(Subscription(replace(BroadcastChannel.open("old", CRYPTO), secret=b""), left=True), 7),
    Membership(OWNED, 5, (Member(OWNED.channel.id, BOB.key, True, 3, True, 1), Member(OWNED.channel.id, ALICE.key))),
)


def sealed(name: str, contents: Contents = CONTENTS, cost: Cost = COST_MIN, passphrase: str = PASSPHRASE) -> Json:
    data = seal_export(
        contents, passphrase_bytes(passphrase), stretch, CRYPTO, lambda size: fixed(f"export {name}", size), cost
    )
    return {
        "name": name,
        "passphrase": passphrase,
        "file": data,
        "seed": contents.identity.seed,
        "record": [*contents.version],
        "prekeys": [{"secret": item.data, "age_ms": item.age_ms} for item in contents.prekeys],
        "records": [{"data": item.data, "age_ms": item.age_ms} for item in contents.records],
        "wall": contents.wall,
        "channels": [
            {
                "id": m.subscription.channel.id,
                "kind": m.subscription.channel.kind.value,
                "secret": m.subscription.channel.secret,
                "epoch": m.subscription.channel.epoch,
                "topic": m.subscription.channel.topic,
                "left": m.subscription.left,
                "heads": [*m.subscription.heads],
                "seq": m.last_number,
                **newer(m),
            }
            for m in contents.channels
        ],
    }


def newer(m: Membership) -> Json:
    """What stands in the file only where it says something; here always."""
    subscription = m.subscription
    return {
        "owner": subscription.channel.owner,
        "salt": subscription.channel.salt,
        "earlier": [{"epoch": old.epoch, "secret": old.secret, "left_ms": old.until} for old in subscription.earlier],
        "charter": subscription.charter,
        "posters": [*subscription.posters],
        "said": subscription.said,
        "muted": subscription.muted,
        "members": [
            {"key": one.peer, "present": one.present, "said": one.said, "removed": one.removed, "epoch": one.epoch}
            for one in m.members
        ],
    }


def exports() -> list[Json]:
    return [
        sealed("a contact, a prekey and a record"),
        sealed(
            "nothing but a key", Contents(MeshIdentity(SEEDS["bob"], BOB.key), (1, 0), (), ()), passphrase="8 lettrs"
        ),
        sealed("channels of all kinds", replace(CONTENTS, channels=CHANNELS)),
        sealed("two passes", cost=Cost(2, COST_MIN.mem_kib)),
    ]


def exports_refused() -> list[Json]:
    good: bytes = sealed("refused")["file"]
    least = COST_MIN.mem_kib
    costs = ((COST_MAX.ops + 1, least), (0, least), (1, COST_MAX.mem_kib + 1), (1, least - 1))
    costly = [good[:22] + ops.to_bytes(4, "big") + mem.to_bytes(4, "big") + good[30:] for ops, mem in costs]
    cases = [
        ("another magic", b"Q" + good[1:]),
        ("another version", good[:21] + b"\2" + good[22:]),
        ("too many passes", costly[0]),
        ("no pass", costly[1]),
        ("too much memory", costly[2]),
        ("too little memory", costly[3]),
        ("the salt changed", good[:45] + bytes([good[45] ^ 1]) + good[46:]),
        ("the contents changed", good[:46] + bytes([good[46] ^ 1]) + good[47:]),
        ("the tag changed", good[:-1] + bytes([good[-1] ^ 1])),
        ("cut short", good[:-1]),
        ("no tag", good[:50]),
        ("a header cut short", good[:45]),
        ("longer", good + b"\0"),
        ("empty", b""),
    ]
    return [{"why": why, "passphrase": PASSPHRASE, "file": file} for why, file in cases] + [
        {"why": "another passphrase", "passphrase": PASSPHRASE + " ", "file": good}
    ]
