"""What became of the messages of one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from quicprochat.sim.contacts import Written


class Outcome:
    """Arrivals and transfers, message by message."""

    def __init__(self, messages: Sequence[Written], ttl_s: int) -> None:
        self.messages = {message.number: message for message in messages}
        self.ttl_s = ttl_s
        self.delays: dict[int, int] = {}
        """Seconds from writing to arrival, by message."""
        self.copies = 0
        """Transfers of messages that had not arrived yet."""
        self.late_copies = 0
        """Transfers of messages that had: what a cure saves."""
        self.duplicates = 0
        """Transfers to who had the message."""
        self.control_bytes = 0
        """Everything else that crossed a link: what was compared, offered, asked for and answered, and receipts."""

    def arrived(self, number: int, at: int) -> None:
        """A message reached its recipient in an interval that began at ``at``, or when it was written."""
        message = self.messages[number]
        delay = max(0, at - message.created)
        if delay <= self.ttl_s:
            self.delays.setdefault(number, delay)

    def copied(self, numbers: Iterable[int]) -> None:
        """Messages were handed to somebody."""
        for number in numbers:
            if number in self.delays:
                self.late_copies += 1
            else:
                self.copies += 1

    def ratio(self, within_s: int | None = None) -> float:
        """Return the part of all messages that arrived, within so long."""
        limit = self.ttl_s if within_s is None else within_s
        return sum(delay <= limit for delay in self.delays.values()) / len(self.messages)

    @property
    def median_delay_s(self) -> float | None:
        """Return the median delay of what arrived."""
        return median(self.delays.values()) if self.delays else None

    @property
    def copies_per_message(self) -> float:
        """Return how many transfers a message cost until it arrived or expired."""
        return self.copies / len(self.messages)
