"""What this prompt sent and what became of it.

A message is shown in the live rows above the input line at first; once its fate is known, or a moment is over, it moves
up into the terminal's history with the state it has then, and later states are told by a line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

KEPT_MAX = 1_000
"""Messages whose text is quoted when their state changes; the last ones."""
OPEN = ("queued", "relayed")


@dataclass(slots=True)
class Outgoing:
    """A message of ours. ``to`` is safe for a terminal; ``state`` is "" while it is on its way into the outbox."""

    to: str
    text: str
    at: str | None
    id: str = ""
    state: str = ""
    reason: str = ""

    @property
    def settled(self) -> bool:
        """True when nothing more is likely to happen to it soon."""
        return self.state not in ("", *OPEN)


class Sent:
    """The messages of this prompt, newest last."""

    def __init__(self) -> None:
        self._live: dict[int, Outgoing] = {}
        self._told: OrderedDict[str, Outgoing] = OrderedDict()

    def live(self) -> Iterable[Outgoing]:
        """Return what is not in the terminal's history yet."""
        return self._live.values()

    def begin(self, to: str, text: str, at: str | None) -> Outgoing:
        """Note a message that is being sent."""
        message = Outgoing(to, text, at)
        self._live[id(message)] = message
        return message

    def accepted(self, message: Outgoing, sent: Json) -> None:
        """Note the answer to ``send``."""
        message.id, message.state, message.reason = sent["id"], sent["state"], sent["reason"]
        self._told[message.id] = message
        while len(self._told) > KEPT_MAX:
            self._told.popitem(last=False)

    def open(self) -> list[Outgoing]:
        """Return the messages that nobody has confirmed."""
        return [message for message in self._told.values() if not message.settled]

    def rename(self, before: str, name: str) -> None:
        """A recipient is called otherwise from now on."""
        for message in (*self._told.values(), *self._live.values()):
            if message.to == before:
                message.to = name

    def drop(self, message: Outgoing) -> bool:
        """Take a message out of the live rows; False when it was out already."""
        return self._live.pop(id(message), None) is not None

    def receipt(self, item: Json) -> Outgoing | None:
        """Note a change of state; return the message when it was sent from here."""
        message = self._told.get(item["id"])
        if message is not None:
            message.state, message.reason = item["state"], item["reason"]
        return message

    def knows(self, id: str) -> bool:
        """Say whether a message was sent from here."""
        return id in self._told

    def is_live(self, message: Outgoing) -> bool:
        """Say whether a message still stands in the live rows."""
        return id(message) in self._live

    def sending(self) -> bool:
        """Say whether an answer to ``send`` is awaited; a receipt of no known message may then belong to it."""
        return any(not message.id for message in self._live.values())
