"""Federation: what a home server and those of other domains do for each other; docs/federation.md has the rules."""

from quicprochat.server.federation.client import FederationClient
from quicprochat.server.federation.exchange import Exchange
from quicprochat.server.federation.rules import FederationOptions, FederationRules
from quicprochat.server.federation.routing import resolve_destination

__all__ = ["Exchange", "FederationClient", "FederationOptions", "FederationRules", "resolve_destination"]
