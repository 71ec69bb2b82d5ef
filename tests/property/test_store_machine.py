"""Both stores are driven side by side through the same random steps, rollbacks and restarts: they must answer alike.

Cursors and serials are the store's own to choose, so they are compared by the line and the envelope they name.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.conformance.rows import (
    channel_id,
    envelope,
    held,
    held_post,
    key,
    lives,
    member,
    message,
    placed,
    post,
    receipt,
    sent,
    subscription,
    uid,
)
from tests.conformance.rows import numbers as seen_numbers

from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.core.envelope import Kind
from quicprochat.core.ids import EnvelopeId
from quicprochat.core.memory import MemoryStore
from quicprochat.core.receipt import State
from quicprochat.core.seal import Protection
from quicprochat.core.store import (
    Author,
    Fate,
    Held,
    HomeSource,
    Line,
    MeshStore,
    Scope,
    Sighting,
    StoredPrekey,
    StoredRecord,
    TraceEvent,
)
from quicprochat.core.time import Instant, WallTime

PEERS = ("ann", "bob", "cat")
# Small pools, so that the same things meet again and again.
ENVELOPES = [
    held(
        f"pool {n}",
        src=PEERS[n % 3],
        dst=PEERS[n // 3 % 3],
        via="" if n % 4 == 0 else PEERS[n % 2],
        kind=Kind.RECEIPT if n % 5 == 1 else Kind.MESSAGE,
        size=n * 7,
    )
    for n in range(12)
]
ENVELOPES += [
    held_post(
        f"post {n}", channel=("news", "club")[n % 2], src=PEERS[n % 3], via="" if n == 3 else PEERS[n % 2], size=n * 9
    )
    for n in range(6)
]
SEALINGS = [envelope(f"sealing {n}").id for n in range(12)]
IDS = [item.id for item in ENVELOPES] + SEALINGS[:2]
UIDS = [f"uid {n}" for n in range(6)]

moments = st.integers(0, 30).map(Instant)
peers = st.sampled_from(PEERS)
limits = st.integers(1, 8)
channel_names = st.sampled_from(("news", "club"))
words = st.sampled_from(["", "a", "b", "\x00\u202e\U0001f600"])
numbers = st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1])
said = st.integers(0, 2**63 - 1)


class Stores(RuleBasedStateMachine):
    memory: MemoryStore
    sqlite: SqliteStore

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qpc-machine-"))
        self.memory = MemoryStore(durable=True)
        self.sqlite = self._open()
        self.begun = False
        # Pairs of what the two stores call the same line or envelope; the first n are committed.
        self.cursors: list[tuple[int, int]] = []
        self.committed = 0

    def _open(self) -> SqliteStore:
        return SqliteStore.open(self.directory / "store.db", ballast_bytes=0)

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.sqlite.close()
            shutil.rmtree(self.directory)

    @property
    def both(self) -> tuple[MeshStore, MeshStore]:
        return self.memory, self.sqlite

    # --- transactions

    @precondition(lambda self: not self.begun)
    @rule()
    def begin(self) -> None:
        for store in self.both:
            store.begin()
        self.begun = True

    @precondition(lambda self: self.begun)
    @rule()
    def commit(self) -> None:
        for store in self.both:
            if self.sqlite.dirty:
                # A write that changed nothing is one on disk only, and takes what was counted beside it along.
                store.set_value("written", b"")
            store.commit()
        self.begun = False
        self.committed = len(self.cursors)
        self.lists_are_alike()

    @precondition(lambda self: self.begun)
    @rule()
    def rollback(self) -> None:
        if self.sqlite.dirty and not self.memory.dirty:
            # A write that changed nothing is one on disk only, and takes what was counted beside it along.
            self.restart()
            return
        for store in self.both:
            store.rollback()
        self._forget_transaction()
        self.lists_are_alike()

    def _forget_transaction(self) -> None:
        self.begun = False
        del self.cursors[self.committed :]

    @rule()
    def restart(self) -> None:
        self.memory.close()
        self.sqlite.close()
        self.sqlite = self._open()
        self._forget_transaction()

    # --- writes

    writing = precondition(lambda self: self.begun)

    @writing
    @rule(name=words, data=st.binary(max_size=4))
    def set_value(self, name: str, data: bytes) -> None:
        for store in self.both:
            store.set_value(name, data)

    @writing
    @rule(name=words, by=st.integers(1, 3))
    def count(self, name: str, by: int) -> None:
        for store in self.both:
            store.count(name, by)

    @writing
    @rule(id=st.sampled_from(IDS), fate=st.sampled_from(Fate), forget_at=st.none() | moments, via=peers)
    def remember(self, id: EnvelopeId, fate: Fate, forget_at: Instant | None, via: str) -> None:
        for store in self.both:
            store.remember(id, fate, forget_at, key(via))

    @writing
    @rule(now=moments)
    def forget(self, now: Instant) -> None:
        # A limit among ids of one moment leaves open which go, so none is set here.
        assert self.memory.forget(now, 1_000) == self.sqlite.forget(now, 1_000)

    @writing
    @rule(keep=st.integers(0, 4), limit=limits)
    def forget_passed(self, keep: int, limit: int) -> None:
        assert self.memory.forget_passed(keep, limit) == self.sqlite.forget_passed(keep, limit)

    @writing
    @rule(item=st.sampled_from(ENVELOPES), expires=moments)
    def hold(self, item: Held, expires: Instant) -> None:
        if self.memory.held(item.id) is None:
            for store in self.both:
                store.hold(replace(item, expires_at=expires))

    @writing
    @rule(item=st.sampled_from(ENVELOPES))
    def release(self, item: Held) -> None:
        for store in self.both:
            store.release(item.id)

    @writing
    @rule(items=st.lists(st.sampled_from(ENVELOPES), max_size=6))
    def release_many(self, items: list[Held]) -> None:
        for store in self.both:
            store.release_many([item.id for item in items])

    @rule(ids=st.lists(st.sampled_from(IDS), min_size=4))
    def foresee(self, ids: list[EnvelopeId]) -> None:
        for store in self.both:
            store.foresee(ids, [(key(author), uid(name)) for author in PEERS for name in UIDS])

    @writing
    @rule(name=st.sampled_from(UIDS), to=peers, text=words, id=st.sampled_from(SEALINGS), state=st.sampled_from(State))
    def put_sent(self, name: str, to: str, text: str, id: EnvelopeId, state: State) -> None:
        if self.memory.sent(uid(name)) is None and self.memory.sent_of(id) is None:
            for store in self.both:
                store.put_sent(sent(name, to=to, text=text, id=id, state=state))

    @writing
    @rule(name=st.sampled_from(UIDS), state=st.sampled_from(State), reason=words)
    def set_state(self, name: str, state: State, reason: str) -> None:
        if self.memory.sent(uid(name)) is not None:
            for store in self.both:
                store.set_state(uid(name), state, reason)

    @writing
    @rule(name=st.sampled_from(UIDS), id=st.sampled_from(SEALINGS), protection=st.sampled_from(Protection))
    def resealed(self, name: str, id: EnvelopeId, protection: Protection) -> None:
        if self.memory.sent(uid(name)) is not None and self.memory.sent_of(id) is None:
            for store in self.both:
                store.resealed(uid(name), id, protection)

    @writing
    @rule(name=st.sampled_from(UIDS), state=words, at=st.integers(-1, 3))
    def add_trace(self, name: str, state: str, at: int) -> None:
        if self.memory.sent(uid(name)) is not None:
            for store in self.both:
                store.add_trace(uid(name), TraceEvent(WallTime(at), state, "carrier"))

    def _appended(self, memory: int | None, sqlite: int | None) -> None:
        assert (memory is None) == (sqlite is None)
        if memory is not None and sqlite is not None:
            assert all(sqlite > known for _, known in self.cursors)
            self.cursors.append((memory, sqlite))

    @writing
    @rule(name=st.sampled_from(UIDS), author=peers, text=words, request=st.booleans(), domain=words)
    def deliver(self, name: str, author: str, text: str, request: bool, domain: str) -> None:
        line = message(name, author=author, text=text, request=request, domain=domain)
        self._appended(self.memory.deliver(line), self.sqlite.deliver(line))

    @writing
    @rule(name=st.sampled_from(UIDS), author=peers, text=words, channel=channel_names)
    def deliver_post(self, name: str, author: str, text: str, channel: str) -> None:
        line = post(name, author=author, text=text, channel=channel)
        self._appended(self.memory.deliver(line), self.sqlite.deliver(line))

    @writing
    @rule(name=st.sampled_from(UIDS), seq=numbers, parents=st.lists(st.sampled_from(UIDS)), channel=channel_names)
    def deliver_placed(self, name: str, seq: int, parents: list[str], channel: str) -> None:
        line = placed(name, seq, *parents, channel=channel)
        self._appended(self.memory.deliver(line), self.sqlite.deliver(line))

    @writing
    @rule(name=st.sampled_from(UIDS), channel=channel_names)
    def note_own(self, name: str, channel: str) -> None:
        line = placed(name, channel=channel, own=True)
        self._appended(self.memory.note(line), self.sqlite.note(line))

    @writing
    @rule(name=st.sampled_from(("news", "club")), heads=st.integers(0, 4), left=st.booleans())
    def put_channel(self, name: str, heads: int, left: bool) -> None:
        for store in self.both:
            store.put_channel(subscription(name, heads=heads, left=left))

    @writing
    @rule(peer=peers, channel=st.sampled_from(("news", "club")), present=st.booleans(), said=said)
    def put_member(self, peer: str, channel: str, present: bool, said: int) -> None:
        for store in self.both:
            store.put_member(member(peer, channel=channel, present=present, said=said))

    @writing
    @rule(channel=st.sampled_from(("news", "club")))
    def drop_members(self, channel: str) -> None:
        for store in self.both:
            store.drop_members(channel_id(channel))

    @writing
    @rule(name=st.sampled_from(UIDS), to=peers, reason=words)
    def note(self, name: str, to: str, reason: str) -> None:
        line = receipt(name, to=to, reason=reason)
        self._appended(self.memory.note(line), self.sqlite.note(line))

    @writing
    @rule(data=st.data())
    def mark_read(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.cursors))) if self.cursors else []
        self.memory.mark_read([pair[0] for pair in chosen])
        self.sqlite.mark_read([pair[1] for pair in chosen])

    @writing
    @rule(author=peers)
    def accept(self, author: str) -> None:
        assert self.memory.accept(key(author)) == self.sqlite.accept(key(author))

    @writing
    @rule(peer=peers, epoch=numbers, seq=numbers, age=numbers, at=moments, data=st.binary(max_size=3))
    def put_record(self, peer: str, epoch: int, seq: int, age: int, at: Instant, data: bytes) -> None:
        record = StoredRecord(key(peer), epoch, seq, data, age, at)
        assert self.memory.put_record(record) == self.sqlite.put_record(record)

    @writing
    @rule(peer=peers)
    def drop_record(self, peer: str) -> None:
        for store in self.both:
            store.drop_record(key(peer))

    @writing
    @rule(peer=peers, at=moments, address=words)
    def see(self, peer: str, at: Instant, address: str) -> None:
        for store in self.both:
            store.see(Sighting(key(peer), WallTime(at), at, address))

    @writing
    @rule(peer=peers, domain=words, source=st.sampled_from(HomeSource), epoch=numbers, seq=numbers, at=moments)
    def put_home(self, peer: str, domain: str, source: HomeSource, epoch: int, seq: int, at: Instant) -> None:
        for store in self.both:
            store.put_home(lives(peer, domain, source=source, version=(epoch, seq), at=at))

    @writing
    @rule(author=peers, since=moments, heard_at=moments, via=peers)
    def put_author(self, author: str, since: Instant, heard_at: Instant, via: str) -> None:
        for store in self.both:
            store.put_author(Author(key(author), since, heard_at, key(via)))

    @rule(author=peers)
    def author(self, author: str) -> None:
        assert self.memory.author(key(author)) == self.sqlite.author(key(author))

    @writing
    @rule(id=st.integers(0, 5), at=moments)
    def put_prekey(self, id: int, at: Instant) -> None:
        for store in self.both:
            store.put_prekey(StoredPrekey(bytes([id]) * 8, bytes([id]) * 32, at))

    @writing
    @rule(made_before=moments)
    def drop_prekeys(self, made_before: Instant) -> None:
        assert self.memory.drop_prekeys(made_before) == self.sqlite.drop_prekeys(made_before)

    @writing
    @rule(channel=channel_names, author=peers, seq=st.lists(numbers, min_size=1, max_size=3), at=moments)
    def put_heard(self, channel: str, author: str, seq: list[int], at: Instant) -> None:
        for store in self.both:
            store.put_heard(channel_id(channel), seen_numbers(author, seen=tuple(seq), at=at))

    @writing
    @rule(channel=channel_names)
    def forget_heard(self, channel: str) -> None:
        for store in self.both:
            store.forget_heard(channel_id(channel))

    # --- reads; most of them after every rule

    @rule(channel=channel_names, unread=st.booleans(), limit=limits, data=st.data())
    def places(self, channel: str, unread: bool, limit: int, data: st.DataObject) -> None:
        after = data.draw(st.sampled_from([(0, 0), *self.cursors]))
        found = [
            [
                (self._line(line, which), place)
                for place in store.places(channel_id(channel), after=after[which], unread=unread, limit=limit)
                for line in store.lines([place.cursor])
            ]
            for which, store in enumerate(self.both)
        ]
        assert [line for line, _ in found[0]] == [line for line, _ in found[1]]
        assert all(replace(place, cursor=line.cursor) == line.place for some in found for line, place in some)

    @rule(unread=st.booleans(), messages=st.booleans(), peer=st.none() | peers, limit=limits, data=st.data())
    def journal(self, unread: bool, messages: bool, peer: str | None, limit: int, data: st.DataObject) -> None:
        after = data.draw(st.sampled_from([(0, 0), *self.cursors]))
        whose = None if peer is None else key(peer)
        found = [
            [
                self._line(line, which)
                for line in store.journal(after=after[which], limit=limit, unread=unread, messages=messages, peer=whose)
            ]
            for which, store in enumerate(self.both)
        ]
        assert found[0] == found[1]

    def _line(self, line: Line, which: int) -> Line:
        names = [pair[which] for pair in self.cursors]
        return replace(line, cursor=names.index(line.cursor))

    @rule(dst=peers, limit=limits, after=st.integers(0, 6))
    def waiting(self, dst: str, limit: int, after: int) -> None:
        found = []
        for store in self.both:
            serials = [0] + [item.serial for item in store.waiting(key(dst), 0, 1_000)]
            rest = store.waiting(key(dst), serials[min(after, len(serials) - 1)], limit)
            assert [item.serial for item in rest] == sorted(item.serial for item in rest)
            found.append([replace(item, serial=0) for item in rest])
        assert found[0] == found[1]

    @rule(now=moments, limit=limits)
    def expired(self, now: Instant, limit: int) -> None:
        found = [[replace(item, serial=0) for item in store.expired(now, limit)] for store in self.both]
        assert found[0] == found[1]

    @rule(to=peers, protection=st.sampled_from(Protection), limit=limits)
    def queued_with(self, to: str, protection: Protection, limit: int) -> None:
        found = [list(store.queued_with(key(to), protection, limit)) for store in self.both]
        assert found[0] == found[1]

    @rule(limit=limits)
    def open_sent(self, limit: int) -> None:
        found = [list(store.open_sent(limit)) for store in self.both]
        assert found[0] == found[1]

    @rule(dst=st.sampled_from(("news", "club")), src=st.none() | peers, limit=limits, via=st.none() | peers)
    def oldest(self, dst: str, src: str | None, limit: int, via: str | None) -> None:
        author, link = key(src) if src else None, key(via) if via else None
        found = [list(store.oldest(key(dst), author, limit, link)) for store in self.both]
        assert found[0] == found[1]

    @rule(via=peers, src=peers, limit=limits)
    def crowding(self, via: str, src: str, limit: int) -> None:
        found = [[item.id for item in store.crowding(key(via), key(src), limit)] for store in self.both]
        assert found[0] == found[1]

    @rule(link=peers)
    def heaviest(self, link: str) -> None:
        for asked in ((Scope.LINK, b""), (Scope.LINK_ORIGIN, key(link))):
            assert self.memory.heaviest(*asked) == self.sqlite.heaviest(*asked)

    @rule(limit=limits)
    def listings(self, limit: int) -> None:
        for name in ("records", "sightings", "homes"):
            found = [list(getattr(store, name)(limit)) for store in self.both]
            assert found[0] == found[1]

    @invariant()
    def answers_are_alike(self) -> None:
        if hasattr(self, "sqlite"):
            first, second = (self._answers(store) for store in self.both)
            assert first == second
            # A write that changed nothing may still count as one.
            assert self.sqlite.dirty or not self.memory.dirty

    @rule()
    def lists_are_alike(self) -> None:
        # Not with every step: these questions have written what waits for the commit.
        first, second = (self._lists(store) for store in self.both)
        assert first == second

    def _answers(self, store: MeshStore) -> dict[str, object]:
        """What is asked for by its key: that of the disk also looks among what is not written yet."""
        found = [store.held(item.id) for item in ENVELOPES]
        return {
            "values": [store.value(name) for name in ("", "a", "b")],
            "counters": store.counters(),
            "fates": [store.fate(id) for id in IDS],
            "held": [item and replace(item, serial=0) for item in found],
            "usage": [
                store.usage(scope, name)
                for scope in Scope
                for name in (
                    b"",
                    key("news"),
                    *(key(p) for p in PEERS),
                    *(key(p) + key(q) for p in PEERS for q in PEERS),
                )
            ],
            "sent": [store.sent(uid(name)) for name in UIDS],
            "sent_of": [store.sent_of(id) for id in SEALINGS],
            "envelopes": [list(store.envelopes_of(uid(name))) for name in UIDS],
            "traces": [list(store.trace(uid(name))) for name in UIDS],
            "delivered": [store.delivered(key(peer), uid(name)) for peer in PEERS for name in UIDS],
            "records": [store.record(key(peer)) for peer in PEERS],
            "homes": [store.home(key(peer)) for peer in PEERS],
            "prekeys": list(store.prekeys()),
        }

    def _lists(self, store: MeshStore) -> dict[str, object]:
        return {
            "recipients": store.recipients(),
            "destinations": list(store.destinations()),
            "expiry": store.next_expiry(),  # exact since these two were asked for
            "unread": store.unread(),
            "channels": list(store.channels()),
            "unread channels": store.unread_channels(),
            "heard": [list(store.heard_in(channel_id(name))) for name in ("news", "club")],
            "members": [list(store.members(channel_id(name))) for name in ("news", "club")],
            "unread posts": [store.unread_posts(channel_id(name)) for name in ("news", "club")],
        }


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
