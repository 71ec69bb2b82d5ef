"""What became of a message, in words: the rows of its trace, and the reason of the state that it is in."""

from __future__ import annotations

from typing import Any

from quicprochat.console.text import display_line

Json = dict[str, Any]

_WHY = {
    "expired": "the time of the message was over",
    "hops": "the message has gone through too many hands",
    "clock": "our clocks disagree",
    "policy": "its rules forbid it",
    "unsupported": "its program does not understand the message",
    "full": "there is no room",
    "disk": "its disk is almost full",
    "unopenable": "the message could not be opened",
    "unlisted": "the channel's owner does not list its author",
    "unknown": "it knows neither the recipient nor a way there",
}
SHOWN_DIGITS = 16
KEY_DIGITS = 64


def happened(event: Json) -> str:
    """Return one row of a trace as a sentence; ``who`` in it names the carrier where ours has a name for it."""
    state, carrier = str(event["state"]), str(event["carrier"])
    who = _who(carrier, str(event.get("who", "")))
    word, _, reason = state.partition(":")
    match word:
        case "queued":
            return "queued: safe in the outbox here"
        case "relayed":
            return f"relayed: {who} has a copy"
        case "stored":
            return f"{who} has it"
        case "delivered" if carrier == "direct":
            return "delivered: the recipient confirmed it directly"
        case "delivered":
            return f"delivered: the recipient confirmed it, by way of {who}"
        case "expired":
            return "expired: nobody confirmed it in time"
        case "cancelled":
            return "cancelled here"
        case "unopenable":
            return "the recipient could not open it"
        case "refused":
            return f"{who} refused it for good: {_why(reason)}"
        case "deferred":
            return f"{who} put it off: {_why(reason)}"
        case _:
            return f"{display_line(state, 40)}: said {who}" if carrier else display_line(state, 40)


def explained(reason: str) -> str:
    """Return the reason of a state for a person: a word as it is, a refusal as a sentence."""
    word, _, rest = reason.partition(":")
    if word != "refused" or not rest:
        return display_line(reason, 80)
    why, _, by = rest.partition(":")
    return f"{'your home server' if _is_key(by) else display_line(by, 64)} refused it for good: {_why(why)}"


def _who(carrier: str, name: str) -> str:
    if carrier in ("", "direct"):
        return "the recipient"
    if name:
        return display_line(name, 64)
    return carrier[:SHOWN_DIGITS] if _is_key(carrier) else display_line(carrier, 64)


def _is_key(carrier: str) -> bool:
    return len(carrier) == KEY_DIGITS and "." not in carrier


def _why(reason: str) -> str:
    return _WHY.get(reason) or ("no reason given" if reason in ("", "none") else display_line(reason, 40))
