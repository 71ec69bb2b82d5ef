"""Talking to the service manager."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from quicprochat.adapters.systemd import Notifier

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@quicprochat-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name[1:] if name.startswith("@") else name)
        listening.settimeout(10)
        yield name, listening


def test_the_manager_hears_every_line(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
    notifier.tell("READY=1", "STATUS=well")
    assert listening.recv(4096) == b"READY=1\nSTATUS=well"
    notifier.reloading(123)
    assert listening.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=123"
    assert notifier.watchdog_s == 1.5
    notifier.close()
    notifier.tell("READY=1")  # nothing happens


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    notifier = Notifier(environment)
    notifier.tell("READY=1")
    assert notifier.watchdog_s == 0
    notifier.close()


def test_a_manager_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "x"})
    notifier.tell("READY=1")
    assert notifier.watchdog_s == 0
    notifier.close()


def test_the_unit_lets_the_server_ask_whether_the_clock_is_right() -> None:
    """Where adjtimex(2) is denied no wall clock is ever trusted, and nobody would notice."""
    unit = (ROOT / "contrib" / "qpc-server.service").read_text("utf-8").splitlines()
    filters = [line.partition("=")[2] for line in unit if line.startswith("SystemCallFilter=")]
    assert filters[-1].split() == ["adjtimex", "clock_adjtime"]
    assert "ProtectClock=yes" not in unit
    assert "Type=notify" in unit
