"""Who is in our channels, who owns them, and with which secret: the owner's word, and what each member says of itself.

What the owner and the members say travels as posts (``charter.py``), a new secret by direct messages (``rotation.py``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from quicprochat.core.channel import (
    TYPE_TEXT,
    BroadcastChannel,
    Member,
    Post,
    Subscription,
    entered,
    post_epoch,
    told,
)
from quicprochat.core.charter import POSTERS_MAX, TYPE_CHARTER, TYPE_WORD, Charter, Word
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.events import Effect, Leaving, Muted, PostersChanged, Rotated
from quicprochat.core.ids import ChannelId, EnvelopeId, PeerKey, Uid
from quicprochat.core.policy import Policy
from quicprochat.core.posts import POST_TTL_S, Posts
from quicprochat.core.rotation import wanted
from quicprochat.core.seal import TYPE_KEY, Letter
from quicprochat.core.store import MeshStore
from quicprochat.core.time import Now

MEMBERS_MAX = 1_000
"""Members of one channel that are remembered: a member can make up as many as it likes."""
KNOWN_MAX = 65_536
"""Members of which is remembered in memory that the store knows them."""
CHARTER_AGAIN_MS = POST_TTL_S * 1_000 // 2
"""A charter with less of its life left is posted again, so that who joins later finds it."""

_CHARTER_KEY = "charter post "


class Members:
    """The members of our channels; their posts are written by ``Posts``."""

    def __init__(self, me: PeerKey, posts: Posts) -> None:
        self._me = me
        self._posts = posts
        posts.hear = self._heard
        self._known: set[tuple[bytes, PeerKey, int | None]] = set()
        self._counts: Counter[ChannelId] = Counter()

    # --- our own channels

    def join(self, tx: MeshStore, channel: BroadcastChannel, policy: Policy, now: Now, out: list[Effect]) -> None:
        """The owner of this node joined a channel, or learned more of it."""
        known = tx.channel(channel.id)
        joined = entered(known, channel, now.at)
        tx.put_channel(joined)
        self._posts.joined_now(tx, channel.id, policy, now, out)
        if joined.channel.owner and (known is None or known.left or not known.channel.owner):
            self._say(tx, joined, policy, now, out, joined=True)

    def leaving(self, event: Leaving, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """The owner of this node is about to leave a channel."""
        known = _in(tx, event.channel)
        if known is not None and known.channel.owner:
            self._say(tx, known, policy, now, out, joined=False, uid=event.uid)

    def left(self, tx: MeshStore, id: ChannelId) -> None:
        """The owner of this node left a channel: who else was there is nobody's business any more."""
        tx.drop_members(id)
        self._forget(id)

    def mute(self, event: Muted, tx: MeshStore, out: list[Effect]) -> None:
        """The owner of this node wants to hear of a channel no more, or again."""
        known = _in(tx, event.channel)
        if known is not None:
            tx.put_channel(replace(known, muted=event.muted))
            self._posts.reload(tx, out)

    def _say(
        self,
        tx: MeshStore,
        known: Subscription,
        policy: Policy,
        now: Now,
        out: list[Effect],
        *,
        joined: bool,
        uid: Uid | None = None,
    ) -> None:
        word = Word(joined, known.said + 1)
        tx.put_channel(replace(known, said=word.number))
        accepted = self._posts.notice(tx, known.channel.id, TYPE_WORD, word.encode(), policy, now, uid)
        if uid is not None:
            out.append(accepted)

    # --- what others say

    def _heard(self, envelope: MeshEnvelope, post: Post, tx: MeshStore, now: Now, out: list[Effect]) -> None:
        """A post has passed the gate, opened, and is kept."""
        if post.type == TYPE_TEXT and (envelope.dst, envelope.src, post_epoch(envelope)) in self._known:
            return  # most are by members that are known, and the store need not be asked
        known = _in(tx, ChannelId(envelope.dst))
        if known is None:
            return
        if post.type == TYPE_TEXT:
            self._present(tx, known, envelope)
        elif post.type == TYPE_WORD:
            self._present(tx, known, envelope, Word.decode(post.body))
        elif post.type == TYPE_CHARTER:
            charter = Charter.decode(post.body)
            if envelope.src == known.channel.owner and charter.version > known.charter:
                tx.put_channel(replace(known, charter=charter.version, posters=charter.posters))
                self._posts.list_changed(tx, known.channel.id, now, out)

    def _present(self, tx: MeshStore, known: Subscription, envelope: MeshEnvelope, word: Word | None = None) -> None:
        """Somebody wrote, or said to be there or gone."""
        id, peer, epoch = known.channel.id, envelope.src, post_epoch(envelope) or 0
        member = tx.member(id, peer)
        if member is None:
            if self._count(tx, id) >= MEMBERS_MAX:
                return
            self._counts[id] += 1
            member = Member(id, peer, present=word is None)
        now = member
        if word is not None and word.number > member.said:
            now = replace(now, present=word.joined, said=word.number)
        if epoch > member.epoch:
            # Whoever writes under a secret has it, and was given it.
            now = replace(now, epoch=epoch, letter=b"")
        if epoch >= known.channel.epoch:
            now = replace(now, removed=False)
        if now != member or member.present:
            tx.put_member(now)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known.add((id, peer, epoch))

    def _count(self, tx: MeshStore, id: ChannelId) -> int:
        if id not in self._counts:
            self._counts[id] = len(tx.members(id))
        return self._counts[id]

    def _forget(self, id: ChannelId) -> None:
        self._known = {entry for entry in self._known if entry[0] != id}
        self._counts.pop(id, None)

    def letter(self, letter: Letter, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """A message that carries a channel's secret has passed the gate."""
        assert letter.type == TYPE_KEY
        found = wanted(tx, letter.body, letter.author)
        if found is not None:
            key, known = found
            tx.put_channel(told(known, key.epoch, key.secret, now.at))
            self._posts.key_came(tx, key.channel, policy, now, out)

    # --- what an owner does

    def posters(self, event: PostersChanged, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """We list who, beside us, writes into an announcement channel of ours."""
        known = self._owned(tx, event.channel)
        if known is not None:
            assert len(event.posters) <= POSTERS_MAX
            charter = Charter(known.charter + 1, tuple(sorted(event.posters)))
            tx.put_channel(replace(known, charter=charter.version, posters=charter.posters))
            self._post_charter(tx, event.channel, charter, policy, now)
            self._posts.list_changed(tx, event.channel, now, out)

    def rotated(self, event: Rotated, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """A channel of ours has a new secret."""
        known = self._owned(tx, event.channel)
        if known is None or event.epoch <= known.channel.epoch:
            return
        known = told(known, event.epoch, event.secret, now.at)
        tx.put_channel(known)
        for peer, uid in event.letters:
            member = tx.member(event.channel, peer) or Member(event.channel, peer)
            tx.put_member(replace(member, epoch=event.epoch, letter=uid))
        for peer in event.without:
            member = tx.member(event.channel, peer) or Member(event.channel, peer)
            tx.put_member(replace(member, removed=True))
        self._forget(event.channel)
        self._posts.key_came(tx, event.channel, policy, now, out)
        if known.charter:
            # Who joins from now on cannot read the one that was sealed with the old secret.
            self._post_charter(tx, event.channel, Charter(known.charter, known.posters), policy, now)

    def _owned(self, tx: MeshStore, id: ChannelId) -> Subscription | None:
        known = _in(tx, id)
        return known if known is not None and known.channel.owner == self._me else None

    def _post_charter(self, tx: MeshStore, id: ChannelId, charter: Charter, policy: Policy, now: Now) -> None:
        posted = self._posts.notice(tx, id, TYPE_CHARTER, charter.encode(), policy, now)
        if posted.id is not None:
            tx.set_value(_CHARTER_KEY + id.hex(), posted.id)

    # --- time

    def sweep(self, tx: MeshStore, policy: Policy, now: Now, out: list[Effect]) -> None:
        """Let go of secrets whose posts have all died, and post charters again that would."""
        for known in self._posts.subscriptions:
            if known.left:
                continue
            if any(old.until <= now.at for old in known.earlier):
                fresh = tx.channel(known.channel.id)
                assert fresh is not None
                kept = tuple(old for old in fresh.earlier if old.until > now.at)
                tx.put_channel(replace(fresh, earlier=kept), scrub=True)
                self._posts.reload(tx, out)
            if known.charter and known.channel.owner == self._me:
                self._look_after_charter(tx, known, policy, now)

    def _look_after_charter(self, tx: MeshStore, known: Subscription, policy: Policy, now: Now) -> None:
        posted = tx.value(_CHARTER_KEY + known.channel.id.hex())
        held = tx.held(EnvelopeId(posted)) if posted else None
        if held is None or held.expires_at - now.at < CHARTER_AGAIN_MS:
            self._post_charter(tx, known.channel.id, Charter(known.charter, known.posters), policy, now)


def _in(tx: MeshStore, id: ChannelId) -> Subscription | None:
    """Return the subscription to a channel that we are in."""
    known = tx.channel(id)
    return known if known is not None and not known.left else None
