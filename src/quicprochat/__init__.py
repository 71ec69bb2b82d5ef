"""quicprochat: decentralised messaging for community networks.

The named parts are loaded when they are first used, so that importing the package costs nothing and needs no extra::

    from quicprochat import Options, P2pNode

    async with P2pNode(Options(Path("~/.local/share/quicprochat"))) as node:
        await node.send("bob", "hello")
        async for message in node.messages():
            print(message.text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quicprochat.core.address import Address
    from quicprochat.core.channel import BroadcastChannel
    from quicprochat.core.envelope import MeshEnvelope
    from quicprochat.core.errors import LocalError, QuicprochatError, RemoteError, StoreError, UnavailableError
    from quicprochat.core.identity import Contact, MeshIdentity, Ticket
    from quicprochat.core.ids import PeerKey, Uid
    from quicprochat.core.receipt import State
    from quicprochat.core.seal import Protection
    from quicprochat.core.store import Line, LineKind, MeshStore, Sent
    from quicprochat.p2p import Options, P2pNode
    from quicprochat.p2p.history import Missing
    from quicprochat.p2p.views import PeerView
    from quicprochat.server.federation.client import FederationClient
    from quicprochat.server.federation.routing import resolve_destination

__version__ = "0.1.0"

_HOMES = {
    "Address": "quicprochat.core.address",
    "BroadcastChannel": "quicprochat.core.channel",
    "Contact": "quicprochat.core.identity",
    "FederationClient": "quicprochat.server.federation.client",
    "Line": "quicprochat.core.store",
    "LineKind": "quicprochat.core.store",
    "LocalError": "quicprochat.core.errors",
    "MeshEnvelope": "quicprochat.core.envelope",
    "MeshIdentity": "quicprochat.core.identity",
    "MeshStore": "quicprochat.core.store",
    "Missing": "quicprochat.p2p.history",
    "Options": "quicprochat.p2p",
    "P2pNode": "quicprochat.p2p",
    "PeerKey": "quicprochat.core.ids",
    "PeerView": "quicprochat.p2p.views",
    "Protection": "quicprochat.core.seal",
    "QuicprochatError": "quicprochat.core.errors",
    "RemoteError": "quicprochat.core.errors",
    "Sent": "quicprochat.core.store",
    "State": "quicprochat.core.receipt",
    "StoreError": "quicprochat.core.errors",
    "Ticket": "quicprochat.core.identity",
    "Uid": "quicprochat.core.ids",
    "UnavailableError": "quicprochat.core.errors",
    "resolve_destination": "quicprochat.server.federation.routing",
}

__all__ = [
    "Address",
    "BroadcastChannel",
    "Contact",
    "FederationClient",
    "Line",
    "LineKind",
    "LocalError",
    "MeshEnvelope",
    "MeshIdentity",
    "MeshStore",
    "Missing",
    "Options",
    "P2pNode",
    "PeerKey",
    "PeerView",
    "Protection",
    "QuicprochatError",
    "RemoteError",
    "Sent",
    "State",
    "StoreError",
    "Ticket",
    "Uid",
    "UnavailableError",
    "__version__",
    "resolve_destination",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
