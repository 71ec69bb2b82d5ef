"""Cap'n Proto RPC over a byte stream that somebody else proved and bounded. The only place that loads pycapnp."""

from quicprochat.adapters.rpc.glue import (
    Capability,
    Problem,
    Remote,
    Served,
    federation,
    home,
    method,
    reading,
    running,
)

__all__ = ["Capability", "Problem", "Remote", "Served", "federation", "home", "method", "reading", "running"]
