"""Who announces itself on the local network."""

from quicprochat.adapters.mdns.browser import Listener, Mdns

__all__ = ["Listener", "Mdns"]
