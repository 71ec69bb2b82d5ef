"""What kind of NAT stands between us and our peers, as far as it can be told from where they see us."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum

from quicprochat.core.address import Address


class Nat(Enum):
    """Named by what the ports do, for that decides whether two peers behind NATs can meet."""

    UNKNOWN = "unknown"
    """Nobody says where they see us."""
    NONE = "none"
    """We are seen at an address of our own."""
    SOME = "some"
    """We are seen elsewhere, by one only: it may be either of the next two."""
    MASQUERADING = "masquerading"
    """Two see us at the same place, so a third can reach us there: paths through it can be made."""
    SYMMETRIC = "symmetric"
    """Each sees us elsewhere: what one sees is of no use to another, and a relay is needed."""


def kind(own: Collection[str], seen: Iterable[Address]) -> Nat:
    """Tell the kind from the IP addresses of this machine and the addresses that different peers see us at.

    IPv4 decides where there is any: IPv6 has a NAT hardly ever, and hides none of IPv4's.
    """
    found = list(seen)
    found = [address for address in found if ":" not in address.ip] or found
    if not found:
        return Nat.UNKNOWN
    outside = [address for address in found if address.ip not in own]
    if not outside:
        return Nat.NONE
    if len(outside) == 1:
        return Nat.SOME
    return Nat.MASQUERADING if len(set(outside)) == 1 else Nat.SYMMETRIC
