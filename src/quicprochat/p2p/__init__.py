"""The node on this machine: core and adapters put together."""

from quicprochat.p2p.node import P2pNode
from quicprochat.p2p.options import Options

__all__ = ["Options", "P2pNode"]
