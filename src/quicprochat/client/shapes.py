"""The JSON objects that scripts rely on: keys may be added, never renamed or taken away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quicprochat.console.text import rfc3339 as rfc3339
from quicprochat.core.identity import Contact
from quicprochat.core.ids import PeerKey
from quicprochat.core.receipt import State
from quicprochat.core.store import Line, LineKind, Sent
from quicprochat.p2p.views import PeerView, RouteView, StoreView, TraceView

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
        "last_seen": rfc3339(peer.last_seen),
    }


def identity_object(
    key: PeerKey, name: str, digits: str, ticket: str, addresses: Iterable[object], contacts: Iterable[PeerView]
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
            }
            for peer in contacts
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


def line_object(line: Line, me: PeerKey, contact: Contact | None) -> Json:
    """Return one line of ``inbox`` or ``listen``; in a receipt ``to`` is whom the message was sent to."""
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
    return {
        "event": "message",
        "cursor": line.cursor,
        "id": line.uid.hex(),
        "from": line.peer.hex(),
        "name": name,
        "to": me.hex(),
        "channel": None,
        "text": line.text,
        "hops": line.hops,
        "received_at": rfc3339(line.at),
        "protection": line.protection,
        "request": line.request,
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
    }


def trace_object(trace: TraceView) -> Json:
    """Return the answer of ``trace``: the message's story begins here, in our own outbox."""
    sent = trace.sent
    made = {"at": rfc3339(sent.created_wall), "state": State.QUEUED.value, "carrier": "here"}
    events = [{"at": rfc3339(event.at), "state": event.state, "carrier": event.carrier} for event in trace.events]
    return {
        **sent_object(sent),
        "events": [made, *events],
        "envelopes": [id.hex() for id in trace.envelopes],
    }
