"""What every test gets."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

LOGS = ("quicprochat", "quic")


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A program run within a test sets its log up for the process, with a stream that ends with that test."""
    logs = [logging.getLogger(name) for name in LOGS]
    before = [(log.handlers[:], log.level, log.propagate) for log in logs]
    yield
    for log, (handlers, level, propagate) in zip(logs, before, strict=True):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
