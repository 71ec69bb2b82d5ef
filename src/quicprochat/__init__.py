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
    from quicprochat.core.channel import BroadcastChannel
    from quicprochat.core.envelope import MeshEnvelope
    from quicprochat.core.errors import LocalError, QuicprochatError, RemoteError, UnavailableError
    from quicprochat.core.identity import MeshIdentity, Ticket
    from quicprochat.core.receipt import State
    from quicprochat.core.store import MeshStore
    from quicprochat.p2p import Options, P2pNode

__version__ = "0.1.0"

_HOMES = {
    "BroadcastChannel": "quicprochat.core.channel",
    "LocalError": "quicprochat.core.errors",
    "MeshEnvelope": "quicprochat.core.envelope",
    "MeshIdentity": "quicprochat.core.identity",
    "MeshStore": "quicprochat.core.store",
    "Options": "quicprochat.p2p",
    "P2pNode": "quicprochat.p2p",
    "QuicprochatError": "quicprochat.core.errors",
    "RemoteError": "quicprochat.core.errors",
    "State": "quicprochat.core.receipt",
    "Ticket": "quicprochat.core.identity",
    "UnavailableError": "quicprochat.core.errors",
}

__all__ = [
    "BroadcastChannel",
    "LocalError",
    "MeshEnvelope",
    "MeshIdentity",
    "MeshStore",
    "Options",
    "P2pNode",
    "QuicprochatError",
    "RemoteError",
    "State",
    "Ticket",
    "UnavailableError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
