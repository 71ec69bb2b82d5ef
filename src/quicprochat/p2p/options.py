"""How a node is to run; every field is an option of the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from quicprochat.core.address import Address
from quicprochat.core.network import Network
from quicprochat.core.policy import Carry, Limits


@dataclass(frozen=True, slots=True)
class Options:
    """``bind`` None keeps the port of the last run; ``relay`` is an iroh relay's URL or "".

    ``discovery`` looks for peers on the local network and announces this node there, with its key, to everybody;
    ``quiet`` only looks. The command line turns it on; a program that uses the library says so itself. ``network`` says
    how far the node reaches, see ``core.network``.
    """

    home: Path
    bind: Address | None = None
    relay: str = ""
    ephemeral: bool = False
    server: str = ""
    """A home server's host:port for this run; "" uses the one noted in the home, if any."""
    network: Network = Network.COMMUNITY
    discovery: bool = False
    quiet: bool = False
    carry: Carry = Carry.ALL
    """Whose mail is taken for others, and passed on or carried to them."""
    stays: bool = True
    """False for a run of a moment, as for one command: it takes no part in channels that it does not subscribe to."""
    limits: Limits = field(default_factory=Limits)
    disk_reserve_bytes: int = 16 << 20
