"""P2P links over iroh: QUIC to a peer's key, direct or through a relay. Needs the extra ``[mesh]``."""

from quicprochat.adapters.iroh.connection import Connection, Stream
from quicprochat.adapters.iroh.endpoint import ALPN, Endpoint
from quicprochat.adapters.iroh.fastcall import ACTIVE as FAST_CALL
from quicprochat.adapters.iroh.fastcopy import ACTIVE as FAST_COPY

__all__ = ["ALPN", "FAST_CALL", "FAST_COPY", "Connection", "Endpoint", "Stream"]
