"""A relay for iroh: carries the encrypted datagrams of nodes that cannot reach each other directly."""

from quicprochat.adapters.relay.server import Relay, RelayLimits, RelayStatus

__all__ = ["Relay", "RelayLimits", "RelayStatus"]
