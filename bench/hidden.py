"""A node that only those link to who were told by hand where it is."""

from __future__ import annotations

from quicprochat.core.address import Address
from quicprochat.p2p import P2pNode
from quicprochat.p2p.runtime import Runtime


class Silent(Runtime):
    """It calls no address its own, so no record and no ticket names one."""

    def addresses(self) -> tuple[Address, ...]:
        """Return nothing."""
        return ()


class Hidden(P2pNode):
    """A node that tells nobody where it is, so that its links are those of the benchmark or the test."""

    made_of = Silent

    def where(self) -> str:
        """Return key@ip:port, to be given by hand."""
        return f"{self.key.hex()}@127.0.0.1:{self._runtime.endpoint.addresses()[0][1]}"
