"""Telling the service manager how we are (sd_notify(3)); without one, nothing happens."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

from quicprochat.core.time import SECOND_MS


class Notifier:
    """The socket in ``NOTIFY_SOCKET``, if there is one. A manager that does not listen is no reason to fail."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address[:1] in ("@", "/") else None
        self.watchdog_s = _watchdog(environment)
        """How often the manager wants to hear that we live, in seconds; 0 when it does not."""

    def tell(self, *lines: str) -> None:
        """Send assignments, as in ``READY=1``."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)

    def reloading(self, monotonic_us: int) -> None:
        """Say that the configuration is being read again; READY=1 ends it. Takes CLOCK_MONOTONIC."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_us}")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog(environment: Mapping[str, str]) -> float:
    """Return half of what the manager allows between two signs of life, as its manual advises."""
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 2 / (SECOND_MS * 1_000) if text.isascii() and text.isdigit() else 0.0
