"""What every test gets."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

LOGS = ("quicprochat", "quic")


def pytest_configure() -> None:
    """Hear signals as when started by hand: nohup and a shell's ``&`` leave them ignored, here and in what we start."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A program run within a test sets its log up for the process, with a stream that ends with that test."""
    logs = [logging.getLogger(name) for name in LOGS]
    before = [(log.handlers[:], log.level, log.propagate) for log in logs]
    yield
    for log, (handlers, level, propagate) in zip(logs, before, strict=True):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
