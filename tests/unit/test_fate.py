"""What a person reads of a message's way."""

from __future__ import annotations

import pytest

from quicprochat.client.fate import explained, happened
from quicprochat.client.output import human, table
from quicprochat.core.gate import Reason

KEY = "ab" * 32


def row(state: str, carrier: str, who: str = "") -> str:
    return happened({"at": None, "state": state, "carrier": carrier, "who": who})


@pytest.mark.parametrize(
    ("state", "carrier", "who", "words"),
    [
        ("queued", "here", "", "queued: safe in the outbox here"),
        ("relayed", KEY, "your home server node1.mesh.local", "relayed: your home server node1.mesh.local has a copy"),
        ("relayed", KEY, "", f"relayed: {KEY[:16]} has a copy"),
        ("stored", "node2.mesh.local", "", "node2.mesh.local has it"),
        (
            "deferred:unknown",
            "node2.mesh.local",
            "",
            "node2.mesh.local put it off: it knows neither the recipient nor a way there",
        ),
        ("refused:policy", "node2.mesh.local", "", "node2.mesh.local refused it for good: its rules forbid it"),
        ("refused:none", "node2.mesh.local", "", "node2.mesh.local refused it for good: no reason given"),
        ("delivered", "direct", "", "delivered: the recipient confirmed it directly"),
        ("delivered", KEY, "bob", "delivered: the recipient confirmed it, by way of bob"),
        ("unopenable", "direct", "", "the recipient could not open it"),
        ("expired", "", "", "expired: nobody confirmed it in time"),
        ("cancelled", "", "", "cancelled here"),
        ("failed", "direct", "", "failed: said the recipient"),
        ("something new", "", "", "something new"),
    ],
)
def test_each_row_of_a_trace_is_a_sentence(state: str, carrier: str, who: str, words: str) -> None:
    assert row(state, carrier, who) == words


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words(reason: Reason) -> None:
    words = row(f"deferred:{reason.name.lower()}", "node2.mesh.local")
    assert words.partition(": ")[2] not in ("", reason.name.lower())


def test_a_refusal_is_the_reason_in_words_in_trace_and_outbox() -> None:
    sent: dict[str, object] = {
        "id": "0f" * 16, "to": KEY, "name": "bob", "state": "relayed", "reason": "refused:full:node2.mesh.local",
        "protection": "forward-secret", "created_at": None, "text": "hi", "events": [], "envelopes": [],
    }  # fmt: skip
    words = "node2.mesh.local refused it for good: there is no room"
    assert words in human("trace", sent)
    assert words in table("outbox", [sent], None)
    assert explained(f"refused:policy:{KEY}") == "your home server refused it for good: its rules forbid it"
    assert explained("volatile") == "volatile"


def test_no_carrier_steers_the_terminal() -> None:
    assert "\x1b" not in row("stored\x1b[2J", "x\x1b[2J.example", "y\x1b[2J")
    assert "\x1b" not in row("refused:\x1b[2J", "x\x1b[2J.example")
    assert "\x1b" not in explained("refused:\x1b[2J:\x1b[2J")
