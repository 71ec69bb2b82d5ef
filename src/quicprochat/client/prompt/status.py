"""The status line: who we are, what the node does, and whom plain lines go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prompt_toolkit.utils import get_cwidth

from quicprochat.client.output import display_line, plural
from quicprochat.client.prompt.render import channel
from quicprochat.client.prompt.words import Conversation, Kind

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Fragments

Json = dict[str, Any]

CHANNELS_SHOWN = 3
"""Channels with unread posts that are named in the line."""


def status_line(
    status: Json | None,
    current: Conversation | None,
    behind: int,
    block: int,
    busy: str,
    width: int,
    *,
    away: bool = False,
) -> Fragments:
    """Return the line in exactly ``width`` columns.

    ``status`` is the newest object of ``watch``; ``behind`` counts lines that wait for the terminal, ``block`` the
    lines of what stands in the input; ``busy`` names a command under way; ``away`` says that no link leads to whom the
    conversation is with.
    """
    parts = [_who(status)]
    if status is not None:
        parts.append(plural(status["links"], "link") if status["networked"] else "no network")
        if status.get("server", "none") != "none":
            parts.append("server" if status["server"] == "connected" else f"server {status['server']}")
        if status["waiting"]:
            parts.append(f"{status['waiting']} waiting")
        parts += _unread(status, current)
    if behind:
        parts.append(f"{behind} more to show")
    parts.append(_where(current, away))
    left = f" {' | '.join(parts)}"
    right = ""
    if block > 1:
        right = f"{block} lines: Enter sends them as one message, Ctrl-C drops them "
    elif busy:
        right = f"{busy} ... Ctrl-C stops it "
    elif status is not None and status.get("disk_low"):
        right = "the disk is almost full "
    left = _cut(left, max(0, width - get_cwidth(right) - 1)) if right else _cut(left, width)
    right = _cut(right, width)
    gap = " " * max(0, width - get_cwidth(left) - get_cwidth(right))
    return [("class:status", left + gap), ("class:status.alert", right)]


def _unread(status: Json, current: Conversation | None) -> list[str]:
    """Return what is unread: of each other channel, and of all else together."""
    channels = status.get("unread_posts", ())
    here = current.target if current is not None and current.kind is Kind.CHANNEL else None
    others = [found for found in channels if found["topic"] != here]
    rest = status["unread"] - sum(found["unread"] for found in others)
    parts = [f"{rest} unread"] if rest > 0 else []
    parts += [f"{channel(found)} {found['unread']}" for found in others[:CHANNELS_SHOWN]]
    more = sum(found["unread"] for found in others[CHANNELS_SHOWN:])
    return [*parts, f"{more} elsewhere"] if more else parts


def _who(status: Json | None) -> str:
    if status is None:
        return "starting"
    return display_line(status["name"], 24) or str(status["public_key"][:8])


def _where(current: Conversation | None, away: bool) -> str:
    if current is None:
        return "no conversation: /query <peer>"
    return f"to {current.name}{' (away)' if away else ''}" if current.kind is Kind.PEER else f"in {current.name}"


def _cut(text: str, width: int) -> str:
    if get_cwidth(text) <= width:
        return text
    columns = 0
    for n, character in enumerate(text):
        columns += get_cwidth(character)
        if columns > width:
            return text[:n]
    return text
