"""Moving an identity: what a home packs into a file, and how a fresh home takes it over."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.keyfile import read_keyfile, write_keyfile
from quicprochat.adapters.passphrase import stretch
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.adapters.system import SystemClock, entropy
from quicprochat.core.card import PREKEY_KEEP_MS, mark_moved, record_version
from quicprochat.core.channel import Member, Subscription
from quicprochat.core.errors import LocalError, WireError
from quicprochat.core.export import (
    CHANNELS_MAX,
    Aged,
    Contents,
    Cost,
    Membership,
    check_new_passphrase,
    open_export,
    passphrase_bytes,
    seal_export,
)
from quicprochat.core.identity import MeshIdentity, parse_identity
from quicprochat.core.ids import Uid
from quicprochat.core.posts import last_number, set_last_number
from quicprochat.core.receipt import State
from quicprochat.core.record import open_record
from quicprochat.core.records import RECORDS_MAX
from quicprochat.core.seal import prekey_id
from quicprochat.core.store import MeshStore, Scope, StoredPrekey, StoredRecord
from quicprochat.core.time import Instant, Now
from quicprochat.p2p.driver import CLOCK_KEY


@dataclass(frozen=True, slots=True)
class Imported:
    """What a home took over."""

    identity: MeshIdentity
    prekeys: int
    channels: int


def gather(identity: MeshIdentity, store: MeshStore, now: Now) -> Contents:
    """Return what moves: identity, prekeys that a message may still need, contacts' records, our record's number.

    Channels too; of those that were left only the ones we posted in, because our numbers there go on if we come back.
    """
    prekeys = [Aged(prekey.secret, max(0, now.at - prekey.made_at)) for prekey in store.prekeys()]
    records = [
        Aged(stored.data, stored.age_ms + max(0, now.at - stored.stored_at))
        for stored in store.records(RECORDS_MAX)
        if stored.key in identity.known()
    ]
    channels = [_membership(found, store, now) for found in store.channels()]
    moving = sorted(
        (m for m in channels if m.last_number or not m.subscription.left), key=lambda m: m.subscription.left
    )
    return Contents(
        identity, record_version(store), tuple(p for p in prekeys if p.age_ms < PREKEY_KEEP_MS), tuple(records),
        now.wall if now.trusted else 0, tuple(moving[:CHANNELS_MAX]),
    )  # fmt: skip


def _membership(found: Subscription, store: MeshStore, now: Now) -> Membership:
    """Return a channel as it moves: times become what is left of them, and letters that are under way stay behind."""
    earlier = tuple(replace(old, until=Instant(max(0, old.until - now.at))) for old in found.earlier)
    members = tuple(_without_letter(member, store) for member in store.members(found.channel.id))
    return Membership(replace(found, earlier=earlier), last_number(store, found.channel.id), members)


def _without_letter(member: Member, store: MeshStore) -> Member:
    sent = store.sent(Uid(member.letter)) if member.letter else None
    has = not member.letter or (sent is not None and sent.state is State.DELIVERED)
    return replace(member, letter=b"", epoch=member.epoch if has else 0)


def pack(contents: Contents, passphrase: str, cost: Cost | None = None) -> bytes:
    """Return the bytes of an export; takes some tenths of a second. Raises: LocalError for a passphrase too short."""
    check_new_passphrase(passphrase)
    secret, crypto = passphrase_bytes(passphrase), SodiumCrypto(entropy)
    if cost is None:
        return seal_export(contents, secret, stretch, crypto, entropy)
    return seal_export(contents, secret, stretch, crypto, entropy, cost)


def import_identity(home: Path, data: bytes, passphrase: str) -> Imported:
    """Make an exported identity that of a home which has none, or an unused one. The copy it came from must be off.

    Raises: LocalError when the home is in use or the file cannot be opened, and nothing is changed; UnavailableError.
    """
    place = Home(home)
    place.own()
    try:
        crypto = SodiumCrypto(entropy)
        old = read_keyfile(place.identity)
        known = parse_identity(old) if old is not None else None
        contents = open_export(data, passphrase_bytes(passphrase), stretch, crypto)
        identity = contents.identity
        if Ed25519Signer(identity.seed).key != identity.key:
            raise LocalError("the two keys in this file do not belong together")
        store = SqliteStore.open(place.database)
        try:
            _refuse_used(place, store, known is not None and bool(known[2] or known[3]))
            clock = SystemClock(store.value(CLOCK_KEY))
            now = clock.now()
            store.begin()
            kept = _take_over(contents, store, crypto, now)
            store.set_value(CLOCK_KEY, clock.mark(now))
            store.commit()
        finally:
            store.close()
        # Last: until it is there, the home has no identity, or its unused one, and the import can be begun again.
        write_keyfile(place.identity, identity.to_json())
        joined = sum(not membership.subscription.left for membership in contents.channels)
        return Imported(identity, kept, joined)
    finally:
        place.disown()


def _refuse_used(home: Home, store: MeshStore, person_changed_it: bool) -> None:
    used = person_changed_it or store.newest_line() or store.usage(Scope.OWN).count or store.sightings(1)
    if used or store.channels():
        raise LocalError(
            f"the home {home.path} is in use: it has a name, contacts, channels or messages of its own; import into a "
            "new home, as in: qpc --home DIR identity import FILE",
            code="exists",
        )


def _take_over(contents: Contents, store: MeshStore, crypto: SodiumCrypto, now: Now) -> int:
    """Write what came; return how many prekeys are still good."""
    passed = max(0, now.wall - contents.wall) if now.trusted and contents.wall else 0
    store.drop_prekeys(Instant(now.at + 1))  # those of an unused identity
    kept = 0
    for prekey in contents.prekeys:
        if prekey.age_ms + passed < PREKEY_KEEP_MS:
            public = crypto.load_prekey(prekey.data).public
            store.put_prekey(StoredPrekey(prekey_id(public), prekey.data, Instant(now.at - prekey.age_ms - passed)))
            kept += 1
    for item in contents.records:
        try:
            record = open_record(item.data, crypto)
        except WireError:
            continue  # a later version's
        if item.age_ms + passed < record.lifetime_s * 1_000:
            store.put_record(StoredRecord(record.key, *record.version, item.data, item.age_ms + passed, now.at))
    for membership in contents.channels:
        found = membership.subscription
        earlier = (replace(old, until=Instant(now.at + max(0, old.until - passed))) for old in found.earlier)
        store.put_channel(replace(found, earlier=tuple(earlier)))
        for member in membership.members:
            store.put_member(member)
        set_last_number(store, membership.subscription.channel.id, membership.last_number)
    mark_moved(store, contents.version)
    return kept
