"""The local network: which interfaces there are, and who announces itself on them."""

from quicprochat.adapters.mdns.browser import Listener, Mdns
from quicprochat.adapters.mdns.interfaces import Interface, interfaces

__all__ = ["Interface", "Listener", "Mdns", "interfaces"]
