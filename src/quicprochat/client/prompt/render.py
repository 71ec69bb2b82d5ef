"""What an event looks like: JSON objects of ``listen`` in, styled text out. Nothing here touches a terminal.

Peer text passes ``display`` first. Further rows of a line, its own or those the width asks for, are set in behind a
bar, so that no text can pass for another line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prompt_toolkit.utils import get_cwidth

from quicprochat.client.catalogue import COMMANDS
from quicprochat.client.output import LOG_MAX_CHARS, display, display_line, earlier, gap, headline

# What is said for the shell; a daemon is started there.
_SHELL = re.compile(rf"\bqpc (?:mesh )?(?=(?:{'|'.join({n for n, c in COMMANDS.items() if c.mesh} | {'help'})})\b)")

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Fragments

Json = dict[str, Any]

BAR = "    | "
SET_IN = "    "
NARROWEST = 20
"""A terminal of fewer columns wraps for itself."""
NAME_MAX = 64
WORDS_MAX = 40
"""How much of a sent message is quoted when its state changes."""

STYLES = {
    "time": "dim",
    "name": "ansigreen bold",
    "channel": "ansicyan bold",
    "own": "ansiblue bold",
    "request": "ansiyellow bold",
    "note": "dim",
    "trouble": "ansired",
    "emergency": "reverse bold",
    "typed": "dim",
    "day": "dim",
    "status": "reverse",
    "status.alert": "reverse bold",
    "pending": "dim",
    # The terminal's own colours, so that the menu is readable on every background and without colours.
    "completion-menu": "fg:default bg:default",
    "completion-menu.completion": "fg:default bg:default",
    "completion-menu.completion.current": "fg:default bg:default reverse",
    "completion-menu.meta.completion": "fg:default bg:default dim",
    "completion-menu.meta.completion.current": "fg:default bg:default reverse",
    "scrollbar.background": "fg:default bg:default",
    "scrollbar.button": "fg:default bg:default reverse",
}


def clock(received_at: str | None) -> str:
    """Return the local time of day; a clock that cannot be right is not quoted."""
    if received_at is None or received_at < "2026":
        return "--:--"
    return f"{datetime.fromisoformat(received_at).astimezone():%H:%M}"


def day(received_at: str | None) -> str:
    """Return the local date, "" when it is not known."""
    if received_at is None or received_at < "2026":
        return ""
    return f"{datetime.fromisoformat(received_at).astimezone():%A, %Y-%m-%d}"


def turn_of_day(date: str) -> Fragments:
    """Return the line that stands between two days."""
    return [("class:day", f"--- {date} ---\n")]


def peer_name(item: Json, key: str) -> str:
    """Return a contact's name, else the key's first digits: names that strangers give themselves prove nothing."""
    return display_line(item["name"], NAME_MAX) if item.get("name") and not item.get("request") else item[key][:16]


def channel(item: Json) -> str:
    """Return a channel as it is shown: its topic, or where that is not known its id; an open one is called open."""
    shown = display_line(topic(item), NAME_MAX).lstrip("#")
    return f"#{shown} (open)" if item.get("kind") == "open" else f"#{shown}"


def topic(item: Json) -> str:
    """Return the topic of what has a channel, as it is typed."""
    return str(item.get("topic") or item["channel"])


def alarm(line: str, width: int) -> Fragments:
    """Return the line that stands above an emergency, over the whole width; nothing where there is none."""
    if not line:
        return []
    columns = max(NARROWEST, width - 1)
    out: Fragments = []
    for row in _rows(line, columns, 0):
        out += [("class:emergency", row + " " * max(0, columns - get_cwidth(row))), ("", "\n")]
    return out


def incoming(item: Json, width: int) -> Fragments:
    """Return a line that arrived."""
    head: Fragments = [("class:time", f"{clock(item.get('received_at'))} ")]
    match item["event"]:
        case "message" if item.get("request"):
            claimed = f" (calls itself {display_line(item['name'], NAME_MAX)})" if item.get("name") else ""
            head += [("class:request", f"request from {item['from'][:16]}"), ("class:note", claimed)]
        case "message":
            head += [("class:name", peer_name(item, "from"))]
        case "post" if item.get("own"):
            return outgoing(item.get("received_at"), channel(item), item.get("text") or "", "", width)
        case "gap":
            return note(gap(item), width)
        case "post":
            stranger = not item.get("name")
            head += [("class:channel", channel(item)), ("", " ")]
            head += [("class:request" if stranger else "class:name", peer_name(item, "from"))]
        case other:
            shown = {key: value for key, value in item.items() if key not in ("event", "cursor", "received_at")}
            return [
                *head,
                *set_in(f"{display_line(str(other), NAME_MAX)}: {display_line(json.dumps(shown))}", 6, width),
            ]
    notes = protection(item) if item["event"] == "message" else ""
    head += [("class:note", earlier(item)), ("", ": ")]
    taken = sum(get_cwidth(part[1]) for part in head)
    above = alarm(headline(item), width)
    return [*above, *head, *set_in(display(item.get("text") or "") + notes, taken, width)]


def protection(item: Json) -> str:
    """Return a note where a message had less than the best protection."""
    word = item.get("protection") or ""
    return "" if word in ("", "forward-secret") else f"  [{display_line(word, 40)}]"


def hint_for_request(item: Json, width: int) -> Fragments:
    """Return what one can do about a stranger."""
    key = item["from"][:8]
    text = f"not a contact; to take them in: /accept {key} --name <name>, to refuse: /block {key}"
    return [("class:note", "".join(f"{BAR}{row}\n" for row in _rows(text, width - 1 - len(BAR), 0, 0)))]


def outgoing(at: str | None, to: str, text: str, state: str, width: int) -> Fragments:
    """Return a line of ours with what is known of it, "" for nothing."""
    head: Fragments = [("class:time", f"{clock(at)} "), ("class:own", f"-> {to}"), ("", ": ")]
    taken = sum(get_cwidth(part[1]) for part in head)
    body = set_in(display(text), taken, width)
    if not state:
        return [*head, *body]
    row = body[-1][1].removesuffix("\n")
    before = len(BAR) if len(body) > 1 else taken
    if before + get_cwidth(row) + 2 + get_cwidth(f"({state})") < max(NARROWEST, width):
        return [*head, *body[:-1], (body[-1][0], row), ("class:note", f"  ({state})\n")]
    return [*head, *body, ("class:note", f"{BAR}({state})\n")]


def changed(to: str, text: str | None, state: str, reason: str) -> Fragments:
    """Return the line that tells of a message's new state."""
    style = "class:trouble" if state in ("expired", "failed") else "class:note"
    said = display_line(text or "", 4 * WORDS_MAX)
    words = f'"{said[:WORDS_MAX]}{"…" if len(said) > WORDS_MAX else ""}"' if text else "an earlier message"
    return [(style, f"      {sentence(to, state, reason)}: {words}\n")]


def sentence(to: str, state: str, reason: str) -> str:
    """Say truthfully what became of a message; ``to`` is safe for a terminal already."""
    reason = display_line(reason, 80)
    match state:
        case "delivered" if reason == "volatile":
            return f"delivered to {to}, who keeps it in memory only"
        case "delivered":
            return f"delivered to {to}"
        case "relayed":
            return f"on its way to {to}, another node has a copy"
        case "expired":
            return f"expired: {to} did not confirm it in time; it may have arrived"
        case "failed":
            return f"failed: {to} has not got it ({reason or 'no reason given'})"
        case "cancelled":
            return f"cancelled, a copy that had left may still reach {to}"
        case _:
            return f"{display_line(state, 40)} for {to}" + (f" ({reason})" if reason else "")


def short(state: str, reason: str) -> str:
    """Return a state in a word or two, for the end of a line of ours."""
    match state:
        case "queued":
            return "queued"
        case "relayed":
            return "relayed"
        case "delivered":
            return "delivered" if reason != "volatile" else "delivered, kept in memory only"
        case "expired":
            return "expired: nobody confirmed; it may have arrived"
        case _:
            return f"{display_line(state, 40)}: {display_line(reason, 80)}" if reason else display_line(state, 40)


def talk(text: str, width: int, style: str = "") -> Fragments:
    """Return text of the program's own, whatever is in it made safe. Rows end at spaces, and further ones are set in.

    A line with a word that is wider than the terminal stands as it is: keys, tickets and codes are to be copied.
    """
    lines = display(text, LOG_MAX_CHARS).removesuffix("\n").split("\n")
    return [(style, "".join(f"{row}\n" for line in lines for row in _whole_words(line, width - 1)))]


def note(text: str, width: int, style: str = "class:note") -> Fragments:
    """Return a sentence of the program's own, in rows of whole words, with commands as they are typed here."""
    text = text if "in the shell" in text else _SHELL.sub("/", text)
    rows = _rows(display(text), max(NARROWEST, width - 1), 0, 0)
    return [(style, "".join(f"{row}\n" for row in rows))]


# --- rows


def set_in(text: str, taken: int, width: int) -> Fragments:
    """Return a text in rows: the first has ``taken`` columns less, further ones stand behind a bar.

    Units: columns of the terminal, by the width tables of Unicode.
    """
    out: Fragments = []
    for n, row in enumerate(_rows(text, max(NARROWEST, width - 1), taken)):
        if n:
            out.append(("class:note", BAR))
        out.append(("", f"{row}\n"))
    return out


def _whole_words(line: str, width: int) -> Iterator[str]:
    words = line.split(" ")
    if get_cwidth(line) <= width or any(get_cwidth(word) > width - len(SET_IN) for word in words):
        yield line
        return
    row = words[0]
    for word in words[1:]:
        if row.strip() and word and get_cwidth(f"{row} {word}") > width:
            yield row.rstrip()
            row = f"{SET_IN}{word}"
        else:
            row = f"{row} {word}"
    yield row


def _rows(text: str, width: int, taken: int, set_in: int = len(BAR)) -> Iterator[str]:
    """Yield a text in rows that fill the width; the first has ``taken`` columns less, all further ones ``set_in``."""
    room = max(NARROWEST // 2, width - taken)
    for line in text.split("\n"):
        rest = line
        while (cut := _fits(rest, room)) < len(rest):
            # At a space, unless that would leave most of the row empty.
            space = rest.rfind(" ", cut // 2, cut + 1)
            yield rest[:cut] if space < 0 else rest[:space]
            rest = rest[cut:] if space < 0 else rest[space + 1 :]
            room = max(NARROWEST // 2, width - set_in)
        yield rest
        room = max(NARROWEST // 2, width - set_in)


def _fits(text: str, room: int) -> int:
    """Return how many characters fit, at least one."""
    if text.isascii():
        return max(1, min(len(text), room))
    columns = 0
    for n, character in enumerate(text):
        columns += get_cwidth(character)
        if columns > room:
            return max(1, n)
    return len(text)
