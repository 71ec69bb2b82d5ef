"""The JSON objects that scripts rely on: keys may be added, never renamed or taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from quicprochat.console.text import rfc3339 as rfc3339
from quicprochat.core.channel import Access, BroadcastChannel
from quicprochat.core.events import Alarm
from quicprochat.core.identity import Contact
from quicprochat.core.ids import PeerKey
from quicprochat.core.outbox import HERE
from quicprochat.core.receipt import State
from quicprochat.core.seal import TYPE_TEXT
from quicprochat.core.store import Line, LineKind, Sent
from quicprochat.p2p.history import Missing
from quicprochat.p2p.views import (
    BundleRead,
    BundleWritten,
    ChannelView,
    MemberView,
    PeerView,
    Posted,
    PostersView,
    Reachability,
    RotationView,
    RouteView,
    ServerStanding,
    ServerView,
    Status,
    StoreView,
    TraceView,
)

Json = dict[str, Any]


def peer_object(peer: PeerView) -> Json:
    """Return one entry of ``peers``; also the answer of add, verify, block, unblock and accept."""
    return {
        "public_key": peer.key.hex(),
        "name": peer.name,
        "role": "node",
        "addresses": [str(address) for address in peer.addresses],
        "server": "",
        "domain": peer.domain,
        "linked": peer.linked,
        "contact": peer.contact,
        "verified": peer.verified,
        "blocked": peer.blocked,
        "trusted": peer.trusted,
        "last_seen": rfc3339(peer.last_seen),
        "looks_like": peer.looks_like,
        "announced": peer.announced,
    }


def server_object(found: ServerView) -> Json:
    """Return the entry of ``peers`` for an announced home server; nothing of it is proved."""
    return {
        "public_key": found.key.hex() if found.key is not None else "",
        "name": "",
        "role": "server",
        "addresses": [],
        "server": found.server,
        "domain": found.domain,
        "linked": False,
        "contact": False,
        "verified": False,
        "blocked": False,
        "trusted": False,
        "last_seen": None,
        "announced": True,
        "certificate": found.fingerprint,
    }


def identity_object(
    key: PeerKey,
    name: str,
    digits: str,
    ticket: str,
    addresses: Iterable[object],
    contacts: Iterable[PeerView],
    alarms: Iterable[Alarm] = (),
) -> Json:
    """Return the answer of ``identity``."""
    return {
        "public_key": key.hex(),
        "fingerprint": digits,
        "name": name,
        "ticket": ticket,
        "addresses": [str(address) for address in addresses],
        "peers": [
            {
                "public_key": peer.key.hex(),
                "name": peer.name,
                "addresses": [str(address) for address in peer.addresses],
                "domain": peer.domain,
                "last_seen": rfc3339(peer.last_seen),
                "verified": peer.verified,
                "blocked": peer.blocked,
                "trusted": peer.trusted,
            }
            for peer in contacts
        ],
        "alarms": [
            {"code": alarm.code, "text": alarm.text, "peer": alarm.peer.hex() if alarm.peer else None}
            for alarm in alarms
        ],
    }


def sent_object(sent: Sent) -> Json:
    """Return the answer of ``send`` and ``cancel``."""
    return {
        "id": sent.uid.hex(),
        "to": sent.to.hex(),
        "state": sent.state.value,
        "reason": sent.reason,
        "protection": sent.protection.value,
    }


def outbox_object(sent: Sent, contact: Contact | None) -> Json:
    """Return one entry of ``outbox``."""
    return {
        "id": sent.uid.hex(),
        "to": sent.to.hex(),
        "name": contact.name if contact is not None else "",
        "state": sent.state.value,
        "reason": sent.reason,
        "protection": sent.protection.value,
        "created_at": rfc3339(sent.created_wall),
        **_carried(sent),
    }


def _carried(sent: Sent) -> Json:
    """Return what a message of ours says; one that brings a channel's key has no text."""
    if sent.type == TYPE_TEXT:
        return {"text": sent.text, "carries": "text"}
    return {"text": "", "carries": "channel-key"}


def line_object(line: Line, me: PeerKey, contact: Contact | None, channel: BroadcastChannel | None = None) -> Json:
    """Return one line of ``inbox``, ``listen`` or ``history``; in a receipt ``to`` is whom the message was sent to.

    A post has ``channel`` (an id) where a message has ``to``, and beside it the channel's ``topic`` and ``kind``,
    its author's number ``seq`` for it (None where an older version noted none), and whether it is our ``own``.
    """
    name = contact.name if contact is not None else ""
    if line.kind is LineKind.RECEIPT:
        return {
            "event": "receipt",
            "cursor": line.cursor,
            "id": line.uid.hex(),
            "to": line.peer.hex(),
            "name": name,
            "state": line.state,
            "reason": line.reason,
            "received_at": rfc3339(line.at),
        }
    if line.kind in (LineKind.POST, LineKind.OWN_POST):
        # Its kind is the one the line was written with: a damaged store may have lost the channel.
        kind = Access(line.protection)
        protection = "open" if kind is Access.OPEN else "channel-key"
        place = {
            "to": None,
            "channel": line.channel.hex(),
            "topic": channel.topic if channel else "",
            "kind": kind.value,
            "seq": line.seq or None,
            "own": line.kind is LineKind.OWN_POST,
        }
        event = "post"
    else:
        protection = line.protection
        place = {"to": me.hex(), "channel": None}
        event = "message"
    return {
        "event": event,
        "cursor": line.cursor,
        "id": line.uid.hex(),
        "from": line.peer.hex(),
        "name": name,
        **place,
        "text": line.text,
        "hops": line.hops,
        "received_at": rfc3339(line.at),
        "sent_at": rfc3339(line.sent_at),
        "protection": protection,
        "request": line.request,
        **({"emergency": line.emergency} if line.kind is LineKind.POST else {}),
    }


def gap_object(missing: Missing, contact: Contact | None, channel: BroadcastChannel | None) -> Json:
    """Return the line of ``history`` for what is missing: an author's posts ``first`` to ``last``.

    ``open``: they may still come. It has no cursor, for it is no line of the journal, and goes once all have come.
    """
    return {
        "event": "gap",
        "from": missing.author.hex(),
        "name": contact.name if contact is not None else "",
        "channel": missing.channel.hex(),
        "topic": channel.topic if channel else "",
        "first": missing.first,
        "last": missing.last,
        "open": missing.open,
    }


def channel_object(channel: BroadcastChannel, view: ChannelView | None = None) -> Json:
    """Return one entry of ``channels``; without counts the answer of ``unsubscribe``. Never has the key in it."""
    counts = {} if view is None else {
        "posts": view.posts, "unread": view.unread, "members": view.members, "gaps": view.gaps, "muted": view.muted,
        "unreadable": view.unreadable, "owner": channel.owner.hex() or None, "epoch": channel.epoch,
    }  # fmt: skip
    return {"channel": channel.id.hex(), "topic": channel.topic, "kind": channel.kind.value, **counts}


def member_object(view: MemberView, name: str) -> Json:
    """Return one entry of ``members``; ``key`` is there for the channel's owner alone."""
    return {
        "public_key": view.key.hex(),
        "name": name,
        "you": view.me,
        "owner": view.owner,
        "poster": view.poster,
        "state": view.standing,
        **({"key": view.secret} if view.secret else {}),
    }


def posters_object(view: PostersView, name: Callable[[PeerKey], str]) -> Json:
    """Return the answer of ``posters``; ``version`` 0 says that no list of the owner's came yet."""
    owner = PeerKey(view.channel.owner)
    return {
        **channel_object(view.channel),
        "version": view.version,
        "owner": {"public_key": owner.hex(), "name": name(owner)},
        "posters": [{"public_key": key.hex(), "name": name(key)} for key in view.posters],
    }


def rotation_object(view: RotationView, name: Callable[[PeerKey], str]) -> Json:
    """Return the answer of ``rotate``; ``sent`` counts the members to whom the new key is under way."""
    return {
        **channel_object(view.channel),
        "epoch": view.channel.epoch,
        "sent": view.letters,
        "without": [{"public_key": key.hex(), "name": name(key)} for key in view.without],
    }


def posted_object(posted: Posted) -> Json:
    """Return the answer of ``broadcast``; ``subscribers`` is how many linked peers are in the channel."""
    return {
        "id": posted.uid.hex(),
        "channel": posted.channel.id.hex(),
        "topic": posted.channel.topic,
        "kind": posted.channel.kind.value,
        "subscribers": posted.neighbours,
        "emergency": posted.emergency,
    }


def store_object(view: StoreView) -> Json:
    """Return the answer of ``store``."""
    return {
        "messages": view.messages,
        "bytes": view.bytes,
        "recipients": view.recipients,
        "capacity_per_recipient": view.capacity_per_recipient,
        "expired": view.expired,
        "delivered": view.delivered,
        "duplicates": view.duplicates,
        "unread": view.unread,
        "posts": view.posts,
        "carried": view.carried,
        "carried_bytes": view.carried_bytes,
        "passed_on": view.passed_on,
        "evicted": view.evicted,
    }


def exported_object(made: BundleWritten) -> Json:
    """Return the answer of ``bundle export``."""
    return {"file": str(made.file), "envelopes": made.envelopes, "own": made.own, "bytes": made.bytes}


def imported_object(found: BundleRead) -> Json:
    """Return the answer of ``bundle import``."""
    return {
        "file": str(found.file),
        "envelopes": found.envelopes,
        "stored": found.stored,
        "duplicates": found.duplicates,
        "refused": found.refused,
        "deferred": found.deferred,
    }


def status_object(status: Status) -> Json:
    """Return one object of ``watch``."""
    return {
        "public_key": status.key.hex(),
        "name": status.name,
        "networked": status.networked,
        "links": status.links,
        "waiting": status.waiting,
        "unread": status.unread,
        "disk_low": status.disk_low,
        "server": status.server,
        "unread_posts": [{**channel_object(channel), "unread": count} for channel, count in status.unread_posts],
        "changes": status.changes,
        "alarms": [
            {"code": alarm.code, "text": alarm.text, "peer": alarm.peer.hex() if alarm.peer is not None else None}
            for alarm in status.alarms
        ],
    }


def standing_object(found: ServerStanding) -> Json:
    """Return the answer of ``server``."""
    return {
        "server": found.server,
        "connected": found.standing == "connected",
        "standing": found.standing,
        "fingerprint": found.fingerprint,
        "domain": found.domain,
        "trouble": str(found.trouble) if found.trouble is not None else "",
    }


def route_object(route: RouteView, contact: Contact | None) -> Json:
    """Return one entry of ``route``."""
    return {
        "destination": route.destination.hex(),
        "name": contact.name if contact is not None else "",
        "next_hop": route.next_hop.hex(),
        "metric": route.metric,
        "hops": route.hops,
        "age_s": round(route.age_s, 3),
        "via": route.via,
        "relayed": route.relayed,
        "underlay": {"cost": route.underlay.cost, "via": route.underlay.via} if route.underlay is not None else None,
    }


def reachability_object(found: Reachability) -> Json:
    """Return what ``doctor`` asks the node that owns the home."""
    return {
        "network": found.network.value,
        "networked": found.networked,
        "addresses": [str(address) for address in found.addresses],
        "links": found.links,
        "announced": found.announced,
        "relays": [asdict(relay) for relay in found.relays],
        "seen": [{"peer": peer.hex(), "address": str(address)} for peer, address in found.seen],
        "server": standing_object(found.server),
        "underlay": list(found.underlay),
        "ways": found.ways,
    }


def trace_object(trace: TraceView, names: Callable[[str], str] = lambda _: "") -> Json:
    """Return the answer of ``trace``: the message's story begins here, in our own outbox.

    ``names`` says what we call a carrier, "" where we have no name for it.
    """
    sent = trace.sent
    made = {"at": rfc3339(sent.created_wall), "state": State.QUEUED.value, "carrier": HERE, "who": ""}
    events = [
        {"at": rfc3339(event.at), "state": event.state, "carrier": event.carrier, "who": names(event.carrier)}
        for event in trace.events
    ]
    return {
        **sent_object(sent),
        **_carried(sent),
        "events": [made, *events],
        "envelopes": [id.hex() for id in trace.envelopes],
    }
