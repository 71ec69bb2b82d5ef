"""Cap'n Proto RPC over a byte stream that somebody else proved and bounded. The only place that loads pycapnp."""

from quicprochat.adapters.rpc.glue import Problem, Remote, Served, home, method, running

__all__ = ["Problem", "Remote", "Served", "home", "method", "running"]
