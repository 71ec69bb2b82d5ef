"""Who is near and no contact yet: told once for each, and for a few only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quicprochat.client.output import display_line

Json = dict[str, Any]

TOLD_MAX = 4
"""Peers that one prompt tells of by name; a crowd is for /peers."""


class Near:
    """Remembers whom was told of."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._crowd = False

    def news(self, peers: Iterable[Json]) -> list[str]:
        """Return sentences on strangers in this answer of ``peers`` who were not told of yet."""
        found = []
        for peer in peers:
            near = peer.get("role", "node") == "node" and (peer.get("linked") or peer.get("announced"))
            # Somebody who calls itself like a contact raises an alarm; nobody is invited to add them.
            if not near or peer["contact"] or peer.get("blocked") or peer.get("looks_like"):
                continue
            key = str(peer["public_key"])
            if key in self._told or self._crowd:
                continue
            if len(self._told) == TOLD_MAX:
                self._crowd = True
                found.append("others are near as well: /peers shows who")
                continue
            self._told.add(key)
            found.append(_sentence(key[:8], str(peer["name"])))
        return found


def _sentence(digits: str, claimed: str) -> str:
    word = claimed.lower()
    name = word if word.isascii() and word.isalnum() else "<name>"
    who = f'somebody who calls itself "{display_line(claimed, 32)}" ({digits}…)' if claimed else f"{digits}…"
    return f"{who} is near: /peers shows who; /add {digits} --name {name}"
