"""What a person sees. Whatever a peer wrote passes :func:`display` before it reaches a terminal, a log or an error."""

from __future__ import annotations

from typing import Any

from quicprochat.client.catalogue import OPEN_MEANS
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
    "LOG_MAX_CHARS", "SHOWN_MAX_CHARS", "Json", "SafeFormatter", "display", "display_line", "empty", "human", "plural",
]  # fmt: skip

Json = dict[str, Any]


def human(command: str, item: Json) -> str:
    """Return one object of a command's answer as lines for a person, without the last newline."""
    return _HUMAN[command](item)


def empty(command: str) -> str:
    """Return what to say when a list is empty."""
    return _EMPTY.get(command, "")


def _peer_name(item: Json, key: str) -> str:
    """Return a name one can trust to be the owner's own choice, else the key's first digits."""
    return display_line(item["name"], 64) if item.get("name") else item[key][:16]


def _contact_name(item: Json) -> str:
    return _peer_name(item, "public_key") if item["contact"] else str(item["public_key"][:16])


def _marks(item: Json) -> str:
    states = ("linked", "verified", "blocked")
    return ", ".join(state for state in states if item.get(state))


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
        f"  {_peer_name(peer, 'public_key'):<16}  {peer['public_key'][:16]}  {_marks(peer)}".rstrip()
        for peer in item["peers"]
    ]
    lines += [f"ALARM: {display_line(alarm['text'])}" for alarm in item.get("alarms", ())]
    return "\n".join(lines)


def _peer(item: Json) -> str:
    if item.get("role") == "server":
        return f"{'(home server)':<16}  {item['public_key'][:16]:<16}  {display_line(item['domain'], 64):<24}  " + (
            display_line(item["server"])
        )
    # A name that a peer gave itself is no more than a claim, and is shown as one.
    shown = display_line(item["name"], 64).strip()
    claimed = f"({shown})" if shown else "-"
    name = _peer_name(item, "public_key") if item["contact"] else claimed
    seen = f"last seen {_time(item['last_seen'])}" if item["last_seen"] else "never seen"
    if item.get("announced"):
        seen = "announced here"
    where = " ".join(item["addresses"])
    line = f"{name:<16}  {item['public_key'][:16]}  {_marks(item) or seen:<24}  {where}".rstrip()
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


def _added(item: Json) -> str:
    return f"{_peer_name(item, 'public_key')} is a contact now (key {item['public_key'][:16]}…)"


def _verified(item: Json) -> str:
    digits = item["fingerprint"].split(" ")
    rows = "\n".join("  " + " ".join(digits[n : n + 4]) for n in range(0, len(digits), 4))
    word = "verified" if item["verified"] else "not verified yet: compare these digits with theirs"
    return f"{_contact_name(item)}: {word}\n{rows}"


def _blocked(item: Json) -> str:
    return f"{_contact_name(item)} is {'' if item['blocked'] else 'not '}blocked"


def _sent(item: Json) -> str:
    reason = f" ({item['reason']})" if item["reason"] else ""
    return f"{item['id']}  {item['state']}{reason}  {item['protection']}"


def _waiting(item: Json) -> str:
    said = display_line(item["text"], 60)
    return f"{item['id']}  {_time(item['created_at'])}  {item['state']:<7}  to {_peer_name(item, 'to')}: {said}"


def line(item: Json) -> str:
    """Return a line of the journal. A message's further lines are set in, so that they cannot pass for others."""
    if item["event"] == "receipt":
        reason = f" ({display_line(item['reason'], 80)})" if item["reason"] else ""
        return f"{_time(item['received_at'])}  {item['id']} to {_peer_name(item, 'to')}: {item['state']}{reason}"
    who = _peer_name(item, "from")
    author = f"request from {item['from'][:16]}" if item["request"] else who
    if item["event"] == "post":
        text = display(item["text"]).replace("\n", "\n    | ")
        return f"{_time(item['received_at'])}  {_place(item)} {author}: {text}"
    notes = "" if item["protection"] == "forward-secret" else f"  [{display_line(item['protection'], 40)}]"
    text = display(item["text"]).replace("\n", "\n    | ")
    return f"{_time(item['received_at'])}  {author}: {text}{notes}"


def _place(item: Json) -> str:
    """Return a channel as it stands before a post; whoever reads or writes in an open one is told each time."""
    name = display_line(item["topic"], 64) or item["channel"][:16]
    return f"#{name} (open)" if item["kind"] == "open" else f"#{name}"


def _access(item: Json) -> str:
    return f"open: {OPEN_MEANS}" if item["kind"] == "open" else "private: whoever has the key can read it"


def _channel(item: Json) -> str:
    counts = f"{plural(item['posts'], 'post')}, {item['unread']} unread" if "posts" in item else ""
    return f"{display_line(item['topic'], 64):<16}  {item['channel'][:16]}  {_access(item):<46}  {counts}".rstrip()


def _subscribed(item: Json) -> str:
    key = f"\nkey: {item['key']}" if "key" in item else ""
    return f"you are in #{display_line(item['topic'], 64)} now. {_access(item)}{key}"


def _unsubscribed(item: Json) -> str:
    return f"you have left #{display_line(item['topic'], 64)}"


def _posted(item: Json) -> str:
    subscribers = plural(item["subscribers"], "linked subscriber")
    return f"{item['id']}  posted to {_place(item)}: {subscribers}"


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
    return f"{name:<16}  {item['via']:<7} {hops}, cost {item['metric']}, {item['age_s']:.0f} s old"


def _trace(item: Json) -> str:
    lines = [_sent(item)]
    for event in item["events"]:
        carrier = f"  {display_line(event['carrier'], 64)}" if event["carrier"] else ""
        lines.append(f"  {_time(event['at'])}  {display_line(event['state'], 40)}{carrier}")
    lines += [f"  envelope {id}" for id in item["envelopes"]]
    return "\n".join(lines)


def _request(item: Json) -> str:
    claimed = f"  calls itself {display_line(item['name'], 64)}" if item["name"] else ""
    count = plural(item["messages"], "message")
    return f"{item['public_key'][:16]}  {count}, last {_time(item['received_at'])}{claimed}"


_HUMAN = {
    "identity": _identity,
    "peers": _peer,
    "server": _server,
    "add": _added,
    "accept": _added,
    "verify": _verified,
    "block": _blocked,
    "unblock": _blocked,
    "send": _sent,
    "outbox": _waiting,
    "cancel": _sent,
    "inbox": line,
    "listen": line,
    "store": _store,
    "route": _route,
    "trace": _trace,
    "requests": _request,
    "subscribe": _subscribed,
    "unsubscribe": _unsubscribed,
    "channels": _channel,
    "broadcast": _posted,
}

_EMPTY = {
    "outbox": "nothing waits: every message of yours was confirmed, or its time is over",
    "peers": "nobody is known or found yet; add somebody with: qpc mesh add <ticket>",
    "route": "there is no way to anybody at this moment",
    "requests": "no stranger is waiting",
    "inbox": "nothing has come",
    "channels": "you are in no channel; join one with: qpc mesh subscribe <topic>",
}
