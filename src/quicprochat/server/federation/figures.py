"""What the operator is shown of federation: what can be told from memory, and the rows of the outbox."""

from __future__ import annotations

from collections.abc import Mapping

from quicprochat.console.local import Json
from quicprochat.core.envelope import Kind
from quicprochat.core.federation import Outgoing
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.time import Instant
from quicprochat.server.federation.exchange import Exchange
from quicprochat.server.trust import standing


def federation_figures(exchange: Exchange) -> Json:
    """Return how federation stands; from memory alone."""
    return {
        "domain": exchange.domain,
        "address": str(exchange.address),
        **standing(exchange.options.loaded),
        "refused_handshakes": exchange.listener.refused,
        "reports": exchange.store.report_count(),
        "peers": [peer_figures(exchange, domain) for domain in domains(exchange)],
    }


def domains(exchange: Exchange) -> list[str]:
    """Return the listed domains, and others for which something still waits."""
    return sorted({*exchange.options.peers, *exchange.store.outgoing_domains()})


def peer_figures(exchange: Exchange, domain: str) -> Json:
    """Return how one domain stands."""
    courier, now = exchange.couriers.get(domain), exchange.now()
    used = exchange.store.outgoing_usage(domain)
    traffic: Mapping[str, int] = exchange.traffic.get(domain, {})
    retry_at = courier.retry_at if courier else None
    return {
        "domain": domain,
        "listed": exchange.is_peer(domain),
        "address": exchange.options.peers.get(domain, ""),
        "announced_at": exchange.found(domain),
        "connected": exchange.client.connected(domain),
        "connecting": exchange.client.dialling(domain),
        "connections_in": exchange.connections(domain),
        "rows": exchange.store.outgoing_domains().get(domain, 0),
        "messages": used.count,
        "bytes": used.bytes,
        "failures": courier.failures if courier else 0,
        "trouble": courier.trouble if courier else "this domain is not in [federation_peers]",
        "retry_in_s": None if retry_at is None else max(0, retry_at - now) // 1_000,
        "sent": {verdict.name.lower(): traffic.get(f"out_{verdict.name.lower()}", 0) for verdict in Verdict},
        "received": {verdict.name.lower(): traffic.get(f"in_{verdict.name.lower()}", 0) for verdict in Verdict},
        "channels": _channel_figures(exchange, domain, traffic),
    }


def _channel_figures(exchange: Exchange, domain: str, traffic: Mapping[str, int]) -> Json:
    """Return how channels are shared with a domain: what each side's users follow, and posts by its answers."""
    courier = exchange.post_couriers.get(domain)
    return {
        "shared": courier is not None,
        "followed_there": len(exchange.store.interests(domain)),
        "followed_here": len(courier.told) if courier is not None and courier.told is not None else None,
        "trouble": courier.trouble if courier is not None else "",
        "offered": traffic.get("posts_offered", 0),
        "posts": {verdict.name.lower(): traffic.get(f"posts_{verdict.name.lower()}", 0) for verdict in Verdict},
    }


def row_shown(row: Outgoing, now: Instant) -> Json:
    """Return a row of the outbox."""
    answered = row.verdict is not None
    return {
        "id": row.id.hex(),
        "origin": row.origin,
        "destination": row.destination,
        "user": row.user.hex(),
        "kind": Kind(row.kind).name.lower() if row.kind in Kind._value2member_map_ else str(row.kind),
        "bytes": row.size,
        "state": "set aside" if row.set_aside else "waiting",
        "tries": row.tries,
        "answer": Verdict(row.verdict).name.lower() if row.verdict is not None else "",
        "reason": Reason(row.reason).name.lower() if answered and row.reason else "",
        "due_in_s": None if row.due_at is None else max(0, row.due_at - now) // 1_000,
        "expires_in_s": max(0, row.expires_at - now) // 1_000,
    }
