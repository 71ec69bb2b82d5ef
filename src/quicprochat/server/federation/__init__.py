"""Federation: what a home server and those of other domains do for each other; docs/federation.md has the rules.

Loaded lazily: the queue needs ``routing`` from here, and most of the rest needs the queue.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quicprochat.server.federation.client import FederationClient
    from quicprochat.server.federation.exchange import Exchange
    from quicprochat.server.federation.routing import resolve_destination
    from quicprochat.server.federation.rules import FederationOptions, FederationRules

_HOMES = {
    "Exchange": "exchange",
    "FederationClient": "client",
    "FederationOptions": "rules",
    "FederationRules": "rules",
    "resolve_destination": "routing",
}

__all__ = ["Exchange", "FederationClient", "FederationOptions", "FederationRules", "resolve_destination"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
