"""What a person sees. Whatever a peer wrote passes :func:`display` before it reaches a terminal, a log or an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from unicodedata import east_asian_width

from quicprochat.client.catalogue import OPEN_MEANS
from quicprochat.client.fate import explained, happened
from quicprochat.console.text import (
    LOG_MAX_CHARS,
    SHOWN_MAX_CHARS,
    SafeFormatter,
    display,
    display_line,
    plural,
)
from quicprochat.console.text import fields as _fields
from quicprochat.console.text import shown_time as _time

__all__ = [
    "LOG_MAX_CHARS", "SHOWN_MAX_CHARS", "Json", "SafeFormatter", "display", "display_line", "earlier", "empty", "gap",
    "headline", "human", "place", "plural", "table",
]  # fmt: skip

Json = dict[str, Any]

EARLIER_S = 120
"""What was written longer ago than this when it came says so; less is the time that sending takes."""


def human(command: str, item: Json) -> str:
    """Return one object of a command's answer as lines for a person, without the last newline."""
    return _HUMAN[command](item)


def table(command: str, items: Sequence[Json], width: int | None) -> str:
    """Return a list as rows, one an item, in the fullest form of which every row has fewer columns than ``width``.

    What matters least goes first; None is a reader that is as wide as it must be.
    """
    rows: list[str] = []
    for form in _FORMS.get(command, (_HUMAN[command],)):
        rows = [form(item) for item in items]
        if width is None or all(_columns(row) < width for row in rows):
            break
    return "".join(f"{row}\n" for row in rows)


def _columns(text: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def empty(command: str) -> str:
    """Return what to say when a list is empty."""
    return _EMPTY.get(command, "")


def _peer_name(item: Json, key: str) -> str:
    """Return a name one can trust to be the owner's own choice, else the key's first digits."""
    return display_line(item["name"], 64) if item.get("name") else item[key][:16]


def _contact_name(item: Json) -> str:
    return _peer_name(item, "public_key") if item["contact"] else str(item["public_key"][:16])


def _marks(item: Json) -> str:
    states = ("linked", "verified", "trusted", "blocked")
    return ", ".join(state for state in states if item.get(state))


def _lives(item: Json) -> str:
    return f"at {display_line(item['domain'], 64)}  " if item.get("domain") else ""


def _identity(item: Json) -> str:
    lines = [
        _fields(
            ("name", display_line(item["name"], 64) or "(none; choose one with --name)"),
            ("public key", item["public_key"]),
            ("fingerprint", item["fingerprint"]),
            ("addresses", " ".join(item["addresses"]) or "(none: no node with links runs)"),
            ("ticket", item["ticket"]),
            ("contacts", len(item["peers"])),
        )
    ]
    lines += [
        f"  {_peer_name(peer, 'public_key'):<16}  {peer['public_key'][:16]}  {_lives(peer)}{_marks(peer)}".rstrip()
        for peer in item["peers"]
    ]
    lines += [f"ALARM: {display_line(alarm['text'])}" for alarm in item.get("alarms", ())]
    return "\n".join(lines)


def _peer(item: Json, addresses: int | None = None, *, news: bool = True) -> str:
    """Return a peer with so many of its addresses; ``news`` is how it stands with us, or when it was seen."""
    if item.get("role") == "server":
        domain = f"{display_line(item['domain'], 64):<24}  " if addresses is None else ""
        return f"{'(home server)':<16}  {item.get('certificate', '')[:16]:<16}  {domain}{display_line(item['server'])}"
    # A name that a peer gave itself is no more than a claim, and is shown as one.
    shown = display_line(item["name"], 64).strip()
    claimed = f"({shown})" if shown else "-"
    name = _peer_name(item, "public_key") if item["contact"] else claimed
    seen = f"last seen {_time(item['last_seen'])}" if item["last_seen"] else "never seen"
    if item.get("announced"):
        seen = "announced here"
    where = " ".join(item["addresses"][:addresses])
    stands = f"{_marks(item) or seen:<24}  " if news else ""
    line = f"{name:<16}  {item['public_key'][:16]}  {stands}{where}".rstrip()
    like = display_line(item.get("looks_like", ""), 64)
    return f"{line}  NOT your contact {like}: another key" if like else line


def _server(item: Json) -> str:
    if not item["server"]:
        return "(none; choose one with: qpc server <host:port>)"
    domain = f" ({display_line(item['domain'], 64)})" if item["domain"] else ""
    lines = [f"{display_line(item['server'])}{domain}: {item['standing']}"]
    if item["fingerprint"]:
        lines.append(f"fingerprint {item['fingerprint']}")
    if item["trouble"]:
        lines.append(display_line(item["trouble"]))
    return "\n".join(lines)


def _registered(item: Json) -> str:
    if not item["name"]:
        return f"you are a user of {display_line(item['domain'], 64) or 'the server'} now"
    who = f"{display_line(item['name'], 64)}@{display_line(item['domain'], 64)}".rstrip("@")
    return f"{who} is your name now (key {item['public_key'][:16]}…)"


def _added(item: Json) -> str:
    return f"{_peer_name(item, 'public_key')} is a contact now (key {item['public_key'][:16]}…)"


def fingerprint_rows(spoken: str) -> str:
    """Return the groups of a fingerprint in rows of four."""
    digits = spoken.split(" ")
    return "\n".join("  " + " ".join(digits[n : n + 4]) for n in range(0, len(digits), 4))


def _verified(item: Json) -> str:
    rows = fingerprint_rows(item["fingerprint"])
    word = "verified" if item["verified"] else "not verified yet: compare these digits with theirs"
    return f"{_contact_name(item)}: {word}\n{rows}"


def _blocked(item: Json) -> str:
    return f"{_contact_name(item)} is {'' if item['blocked'] else 'no longer '}blocked"


def _trusted(item: Json) -> str:
    if not item["trusted"]:
        return f"what {_contact_name(item)} calls an emergency is an ordinary post to you"
    return f"what {_contact_name(item)} posts as an emergency is shown to you as one"


def _sent(item: Json) -> str:
    reason = f" ({explained(item['reason'])})" if item["reason"] else ""
    return f"{item['id']}  {item['state']}{reason}  {item['protection']}"


def _waiting(item: Json) -> str:
    said = display_line(item["text"], 60) if item.get("carries", "text") == "text" else "(the key of a channel)"
    why = f"  [{explained(item['reason'])}]" if item.get("reason") else ""
    return f"{item['id']}  {_time(item['created_at'])}  {item['state']:<7}  to {_peer_name(item, 'to')}: {said}{why}"


def line(item: Json) -> str:
    """Return a line of the journal. A message's further lines are set in, so that they cannot pass for others."""
    if item["event"] == "receipt":
        reason = f" ({display_line(item['reason'], 80)})" if item["reason"] else ""
        return f"{_time(item['received_at'])}  {item['id']} to {_peer_name(item, 'to')}: {item['state']}{reason}"
    if item["event"] == "gap":
        return f"    {gap(item)}"
    who = "you" if item.get("own") else _peer_name(item, "from")
    author = f"request from {item['from'][:16]}" if item["request"] else who
    if item["event"] == "post":
        text = display(item["text"]).replace("\n", "\n    | ")
        return f"{_time(item['received_at'])}  {_place(item)} {author}{earlier(item)}: {text}"
    notes = "" if item["protection"] == "forward-secret" else f"  [{display_line(item['protection'], 40)}]"
    text = display(item["text"]).replace("\n", "\n    | ")
    return f"{_time(item['received_at'])}  {author}{earlier(item)}: {text}{notes}"


def headline(item: Json) -> str:
    """Return the line that stands before an emergency, "" before anything else.

    It is drawn in reverse video from the first column on, and nothing that a peer wrote ever is.
    """
    if not item.get("emergency") or item.get("event") != "post":
        return ""
    return f"EMERGENCY from {_peer_name(item, 'from')} in {_place(item)}"


def gap(item: Json) -> str:
    """Say what is missing of an author."""
    who = _peer_name(item, "from")
    one = item["first"] == item["last"]
    which = f"post {item['first']}" if one else f"posts {item['first']} to {item['last']}"
    if item["open"]:
        return f"({which} of {who} {'is' if one else 'are'} missing and may still come)"
    return f"({which} of {who} never came)"


def earlier(item: Json) -> str:
    """Return the time at which a line was written, where it came more than :data:`EARLIER_S` later; else nothing."""
    sent, received = item.get("sent_at"), item.get("received_at")
    if not sent or not received:
        return ""
    then, came = (datetime.fromisoformat(text).astimezone() for text in (sent, received))
    if (came - then).total_seconds() <= EARLIER_S:
        return ""
    return f" [{then:%H:%M}, earlier]" if then.date() == came.date() else f" [{then:%Y-%m-%d %H:%M}, earlier]"


def _place(item: Json) -> str:
    """Return a channel as it stands before a post; whoever reads or writes in an open one is told each time."""
    name = display_line(item["topic"], 64) or item["channel"][:16]
    return f"#{name} (open)" if item["kind"] == "open" else f"#{name}"


def place(item: Json) -> str:
    """Return a channel with its kind, as it stands where one talks."""
    name = display_line(item.get("topic") or item["channel"], 64).lstrip("#")
    return f"#{name} ({display_line(item['kind'], 20)})"


def _access(item: Json) -> str:
    match item["kind"]:
        case "open":
            return f"open: {OPEN_MEANS}"
        case "announcement":
            return "announcement: only its posters write there"
    return "private: whoever has the key can read it"


def _channel(item: Json, *, id: bool = True, meaning: bool = True) -> str:
    """Return a channel; ``meaning`` says what the word for its kind means."""
    counts = ""
    if "posts" in item:
        words = [plural(item["posts"], "post"), f"{item['unread']} unread"]
        words += [plural(item["members"], "member")] if meaning and "members" in item else []
        words += [plural(item["gaps"], "gap")] if item.get("gaps") else []
        words += ["muted"] if item.get("muted") else []
        words += [f"{item['unreadable']} without a key"] if item.get("unreadable") else []
        counts = ", ".join(words)
    digits = f"{item['channel'][:16]}  " if id else ""
    access = f"{_access(item):<46}" if meaning else f"{item['kind']:<12}"
    return f"{display_line(item['topic'], 64):<16}  {digits}{access}  {counts}".rstrip()


def _subscribed(item: Json) -> str:
    key = f"\nkey: {item['key']}" if "key" in item else ""
    return f"you are in #{display_line(item['topic'], 64)} now. {_access(item)}{key}"


def _invited(item: Json) -> str:
    return str(item["invite"])


def _member(item: Json) -> str:
    name = _peer_name(item, "public_key")
    marks = [mark for mark, there in (("you", item["you"]), ("owner", item["owner"])) if there]
    marks += ["poster"] if item["poster"] and not item["owner"] else []
    marks += [] if item["state"] == "joined" else [item["state"]]
    key = item.get("key")
    if key and item["state"] == "joined" and not item["you"]:
        marks.append({"has": "has the key", "missing": "has not got the key"}.get(key, f"key {key}"))
    return f"{name:<16}  {item['public_key'][:16]}  {', '.join(marks)}".rstrip()


def _posters(item: Json) -> str:
    lines = [f"#{display_line(item['topic'], 64)}: the owner and {plural(len(item['posters']), 'other')}"]
    lines += [f"  {_peer_name(item['owner'], 'public_key'):<16}  {item['owner']['public_key'][:16]}  owner"]
    lines += [f"  {_peer_name(peer, 'public_key'):<16}  {peer['public_key'][:16]}" for peer in item["posters"]]
    if not item["version"]:
        lines.append("nobody else is listed, as far as is known here")
    return "\n".join(lines)


def _rotated(item: Json) -> str:
    topic = display_line(item["topic"], 64)
    without = (
        f", {', '.join(_peer_name(peer, 'public_key') for peer in item['without'])} left out" if item["without"] else ""
    )
    sent = plural(item["sent"], "member")
    return f"#{topic} has a new key (number {item['epoch']}); it is on its way to {sent}{without}"


def _muted(item: Json) -> str:
    topic = display_line(item["topic"], 64)
    return (
        f"#{topic} is muted: its posts go into the inbox unannounced" if item["muted"] else f"#{topic} is heard again"
    )


def _unsubscribed(item: Json) -> str:
    return f"you have left #{display_line(item['topic'], 64)}"


def takers(item: Json) -> str:
    """Say how many linked nodes take a post that was just written: who reads the channel, and who carries it.

    A node that carries everything does not show which channels it reads, so nobody can count readers alone.
    """
    count = item["subscribers"]
    return f"{plural(count, 'linked node')} {'takes' if count == 1 else 'take'} it"


def _posted(item: Json) -> str:
    emergency = " as an emergency" if item.get("emergency") else ""
    return f"{item['id']}  posted to {_place(item)}{emergency}: {takers(item)}"


def _store(item: Json) -> str:
    waiting = f"{plural(item['messages'], 'message')} for {plural(item['recipients'], 'recipient')}"
    return _fields(
        ("waiting here", f"{waiting}, {item['bytes']} bytes"),
        ("room", f"{item['capacity_per_recipient']} messages of others for each recipient"),
        ("delivered to you", f"{item['delivered']}, of which {item['unread']} unread"),
        ("posts kept", f"{item['posts']}, for subscribers who come later"),
        ("came twice", item["duplicates"]),
        ("expired", item["expired"]),
    )


def _route(item: Json) -> str:
    hops = plural(item["hops"], "hop")
    name = _peer_name(item, "destination")
    return f"{name:<16}  {item['via']:<7} {hops}, cost {item['metric']}, up for {item['age_s']:.0f} s"


def _trace(item: Json) -> str:
    lines = [_sent(item)]
    lines += [f"  {_time(event['at'])}  {happened(event)}" for event in item["events"]]
    lines += [f"  envelope {id}" for id in item["envelopes"]]
    return "\n".join(lines)


def _bundle(item: Json) -> str:
    if "own" in item:
        return (
            f"{plural(item['envelopes'], 'envelope')}, {item['own']} of them yours, in {display_line(item['file'])} "
            f"({item['bytes']} bytes)"
        )
    counts = [f"{item['stored']} new", f"{item['duplicates']} known"]
    for word in ("refused", "deferred"):
        counts += [f"{number} {word} ({reason})" for reason, number in sorted(item[word].items())]
    return f"{plural(item['envelopes'], 'envelope')}: {', '.join(counts)}"


def _request(item: Json) -> str:
    claimed = f"  calls itself {display_line(item['name'], 64)}" if item["name"] else ""
    count = plural(item["messages"], "message")
    return f"{item['public_key'][:16]}  {count}, last {_time(item['received_at'])}{claimed}"


_HUMAN = {
    "identity": _identity,
    "peers": _peer,
    "server": _server,
    "register": _registered,
    "add": _added,
    "accept": _added,
    "verify": _verified,
    "block": _blocked,
    "unblock": _blocked,
    "trust": _trusted,
    "untrust": _trusted,
    "send": _sent,
    "outbox": _waiting,
    "cancel": _sent,
    "inbox": line,
    "listen": line,
    "history": line,
    "store": _store,
    "route": _route,
    "trace": _trace,
    "bundle": _bundle,
    "requests": _request,
    "subscribe": _subscribed,
    "invite": _invited,
    "members": _member,
    "posters": _posters,
    "rotate": _rotated,
    "mute": _muted,
    "unmute": _muted,
    "unsubscribe": _unsubscribed,
    "channels": _channel,
    "broadcast": _posted,
}

_FORMS: dict[str, tuple[Callable[[Json], str], ...]] = {
    "peers": (_peer, partial(_peer, addresses=1), partial(_peer, addresses=0), partial(_peer, addresses=0, news=False)),
    "channels": (_channel, partial(_channel, id=False), partial(_channel, id=False, meaning=False)),
}
"""Lists too wide for some terminals: their rows, from the fullest form to the shortest."""

_EMPTY = {
    "outbox": "nothing waits: every message of yours was confirmed, or its time is over",
    "peers": "nobody is known or found yet; add somebody with: qpc mesh add <ticket>",
    "route": "there is no way to anybody at this moment",
    "requests": "no stranger is waiting",
    "inbox": "nothing has come",
    "history": "no posts there",
    "channels": "you are in no channel; join one with: qpc mesh subscribe <topic>",
}
