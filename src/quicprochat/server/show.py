"""Answers as the operator sees them: JSON, or lines for a person."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from quicprochat.console.files import read_keys
from quicprochat.console.text import display_line, fields, plural, shown_time, wrapped
from quicprochat.core.address import Address
from quicprochat.core.errors import LocalError
from quicprochat.server.config import Config
from quicprochat.server.help import size
from quicprochat.server.options import OPTIONS, Kind

Json = dict[str, Any]


def answer(words: tuple[str, ...], items: Sequence[Json], *, as_json: bool) -> str:
    """Return a command's answer: for those that list something a list, else the one object there is."""
    if words == ("users",):
        if as_json:
            return json.dumps(list(items)) + "\n"
        return "".join(_user(item) + "\n" for item in items) or "nobody has been here yet\n"
    if words in (("federation", "poke"), ("federation", "outbox")):
        if as_json:
            return json.dumps(list(items)) + "\n"
        shown = _peer if words[-1] == "poke" else _row
        return "".join(shown(item) + "\n" for item in items) or "nothing waits for other domains\n"
    (item,) = items
    if as_json:
        return json.dumps(item) + "\n"
    match words:
        case ("status",):
            return _status(item) + "\n"
        case ("federation", "status"):
            return _federation(item) + "\n"
        case ("users", "remove"):
            return f"{item['public_key'][:16]}… is forgotten, and {plural(item['messages'], 'message')} that waited\n"
        case ("invite",):
            return f"{item['invite']}\n"
        case ("ca", "init"):
            return _authority(item)
        case ("cert", "issue"):
            return f"{_certificate(item)}\n\n{_to_configure(item)}"
        case ("cert", "show"):
            return _certificate(item) + "\n"
        case _:
            return f"{item['file']}: {bytes_shown(item['bytes'])}\n"


def _user(user: Json) -> str:
    seen = "connected" if user["connected"] else f"last here {shown_time(user['last_seen'])}"
    waits = plural(user["messages"], "message")
    return f"{user['public_key']}  {display_line(user['name'] or '-', 64):<16}  {seen:<26}  {waits}"


def _status(now: Json) -> str:
    minute, oldest = now["last_minute"], now["oldest_s"]
    handled = ", ".join(f"{by} {name.replace('_', ' ')}" for name, by in minute.items())
    return fields(
        ("address", now["address"]),
        ("fingerprint", now["fingerprint"]),
        ("domain", now["domain"] or "(none)"),
        ("version", now["version"]),
        ("up", duration(now["uptime_s"])),
        ("registration", f"{now['registration']}, {plural(now['invites'], 'open invite')}"),
        ("users", f"{now['users']}, {now['sessions']} connected"),
        ("connections", f"{now['connections']} of {now['connections_max']}"),
        ("waiting", f"{plural(now['messages'], 'message')} for {plural(now['recipients'], 'recipient')},"
         f" {bytes_shown(now['bytes'])} of {bytes_shown(now['bytes_max'])}; {plural(now['receipts'], 'receipt')}"),
        ("channels", f"{now['channels']['followed']} followed, {plural(now['channels']['posts'], 'post')} kept,"
         f" {bytes_shown(now['channels']['bytes'])} of {bytes_shown(now['channels']['bytes_max'])}"),
        ("oldest", "-" if oldest is None else duration(oldest)),
        ("last minute", handled or "nothing"),
        ("refused", _counts(now["refused"])),
        ("deferred", _counts(now["deferred"])),
        ("disk", f"{bytes_shown(now['disk_free'])} free" + (": too little, no new messages are taken"
         if now["disk_low"] else "")),
        ("epoch", now["epoch"]),
        *_relay_in_short(now["relay"]),
        *_federation_in_short(now["federation"]),
    )  # fmt: skip


def _relay_in_short(now: Json | None) -> list[tuple[str, str]]:
    if now is None:
        return []
    return [
        ("relay", f"{now['address']}, {now['clients']} of {plural(now['clients_max'], 'client')},"
         f" {bytes_shown(now['bytes'])} carried, {plural(now['dropped'], 'frame')} dropped"),
    ]  # fmt: skip


def _federation_in_short(now: Json | None) -> list[tuple[str, str]]:
    if now is None:
        return []
    waits = sum(peer["messages"] for peer in now["peers"])
    down = [peer["domain"] for peer in now["peers"] if peer["listed"] and peer["trouble"] and not peer["connected"]]
    return [
        ("federation", f"{plural(len(now['peers']), 'domain')}, {plural(waits, 'message')} waiting"
         + (f"; not reached: {', '.join(down)}" if down else "")),
        ("certificate", f"{plural(now['certificate_days_left'], 'day')} left"),
    ]  # fmt: skip


def _federation(now: Json) -> str:
    head = fields(
        ("domain", now["domain"]),
        ("address", now["address"]),
        ("certificate", f"until {(now['certificate_expires_at'] or '?')[:10]},"
         f" {plural(now['certificate_days_left'], 'day')} left"),
        ("fingerprint", now["certificate_fingerprint"]),
    )  # fmt: skip
    return "\n".join((head, *(("", *map(_peer, now["peers"])) if now["peers"] else ())))


def _peer(peer: Json) -> str:
    where = peer["address"] or peer["announced_at"] or "(address not known)"
    counts = f"sent {peer['sent']['stored']}, received {peer['received']['stored']}"
    line = f"{peer['domain']} at {where}: {_how(peer)}; {plural(peer['messages'], 'message')} waiting, {counts}"
    if peer["trouble"] and not peer["connected"]:
        line += "\n" + indent(wrapped(display_line(peer["trouble"], 300)), "  ")
    return line + _shared(peer["channels"], peer["trouble"])


def _shared(now: Json, told: str) -> str:
    """Say how channels are shared with a domain, where they are."""
    if not now["shared"]:
        return ""
    told = "not told yet" if now["followed_here"] is None else f"{now['followed_here']} here"
    line = (
        f"\n  channels: {now['followed_there']} followed there, {told}; {plural(now['posts']['stored'], 'post')} sent"
    )
    if now["trouble"] not in ("", told):
        line += "\n" + indent(wrapped(display_line(now["trouble"], 300)), "  ")
    return line


def _how(peer: Json) -> str:
    """Say how a domain is connected; either side may be unable to call the other."""
    if peer["connected"]:
        return "connected"
    if peer["connecting"]:
        how = "being called"
    elif peer["retry_in_s"] is not None:
        how = f"not reached, next attempt in {duration(peer['retry_in_s'])}"
    elif peer["trouble"]:
        how = "not reached" if peer["listed"] else "not listed"
    else:
        how = "not connected" if peer["rows"] else "not connected, nothing to send"
    return f"{how}; it has called us" if peer["connections_in"] else how


def _row(row: Json) -> str:
    answer = f"{row['answer']} ({row['reason']})" if row["reason"] else row["answer"] or "not answered yet"
    when = "set aside" if row["due_in_s"] is None else f"next in {duration(row['due_in_s'])}"
    return (
        f"{row['id'][:16]}  {row['destination']:<24}  {row['kind']:<8}  from {row['user'][:16]}  {answer}, {when},"
        f" expires in {duration(row['expires_in_s'])}"
    )


def _authority(made: Json) -> str:
    rows = fields(
        ("certificate", made["certificate"]),
        ("key", made["key"]),
        ("valid until", made["expires_at"][:10]),
        ("fingerprint", made["fingerprint"]),
    )
    advice = f"{made['key']} belongs on no server: whoever has it can speak for every domain that it certifies."
    return f"{rows}\n\n{wrapped(advice)}\n"


def _certificate(found: Json) -> str:
    days = "" if found["days_left"] is None else f", {plural(found['days_left'], 'day')} left"
    rows = [
        ("file", found["file"]),
        ("domain", found["domain"] or ("(an authority's certificate)" if found["authority"] else "(none)")),
        ("authority", display_line(found["issuer"], 200)),
        ("valid", f"from {(found['not_before'] or '?')[:10]} until {(found['expires_at'] or '?')[:10]}{days}"),
        ("usages", ", ".join(found["usages"]) or "-"),
        ("fingerprint", found["fingerprint"]),
        ("of authority", found["authority_fingerprint"] or "(ca.der does not lie beside it, or is another's)"),
    ]
    if found["problem"]:
        rows.append(("problem", display_line(found["problem"], 300)))
    return fields(*rows)


def _to_configure(made: Json) -> str:
    return f"""\
# for {display_line(str(Path(made["directory"]) / "qpc-server.toml"), 200)}, wherever you bring that directory:
federation_enabled = true
federation_domain = "{made["domain"]}"
federation_cert = "cert.der"
federation_key = "key.der"
federation_ca = "ca.der"

[federation_peers]
# "another.domain" = "ADDRESS:7001"
"""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{by} {name}" for name, by in counts.items() if by) or "none"


def duration(seconds: int) -> str:
    """Return ``3 d 4 h``, or the two units that fit."""
    units = [("d", seconds // 86_400), ("h", seconds // 3_600 % 24), ("min", seconds // 60 % 60), ("s", seconds % 60)]
    first = next((n for n, (_, count) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2])


def bytes_shown(count: int) -> str:
    """Return a number of bytes with two digits or more of the fitting unit."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} bytes"


def checked(config: Config, now: Callable[[], datetime.datetime], *, as_json: bool) -> str:
    """Return what is decided and where; the files that it names are read too. Raises: LocalError, UnavailableError."""
    listed, blocked = read_keys(config["registration_list"]), read_keys(config["block_list"])
    federation = _checked_federation(config, now) if config["federation_enabled"] else None
    if as_json:
        options = {o.key: {"value": _plain(config[o.key]), "source": config.sources[o.key]} for o in OPTIONS}
        found: Json = {"home": str(config.home), "file": config.file and str(config.file), "options": options}
        found |= {"federation_peers": dict(config.peers)}
        found |= {"federation_cas": {domain: str(path) for domain, path in config.cas.items()}}
        return json.dumps(found | {"listed": len(listed), "blocked": len(blocked), "federation": federation}) + "\n"
    rows = [("home", str(config.home)), ("file", str(config.file or "(none)"))]
    for option in OPTIONS:
        value = config[option.key]
        text = ", ".join(value) if option.kind is Kind.DOMAINS else str(value)
        text = text.lower() if option.kind is Kind.SWITCH else text  # as the file has it
        shown = size(value) if option.kind is Kind.SIZE else "(not set)" if value in (None, "", ()) else text
        rows.append((option.key, f"{shown:<32}  {config.sources[option.key]}"))
    rows += [("listed", plural(len(listed), "key")), ("blocked", plural(len(blocked), "key"))]
    for domain, where in config.peers.items():
        authority = f", by {config.cas[domain]}" if domain in config.cas else ""
        rows.append(("peer", f"{domain} at {where or '(address not set)'}{authority}"))
    if federation is not None:
        days = plural(federation["certificate_days_left"], "day")
        rows.append(("certificate", f"valid until {federation['certificate_expires_at'][:10]}, {days} left"))
    return fields(*rows) + "\n" + _remarks(config)


def _checked_federation(config: Config, now: Callable[[], datetime.datetime]) -> Json:
    """Raises: LocalError, also for a certificate that is not valid now."""
    from quicprochat.server.trust import load_trust, standing

    loaded = load_trust(config, now)
    if loaded.untimely:
        raise LocalError(loaded.untimely)
    return dict(standing(loaded))


def _remarks(config: Config) -> str:
    if config["federation_enabled"]:
        return (
            "" if config.peers else "\n" + wrapped("[federation_peers] names nobody to exchange messages with.") + "\n"
        )
    about = [key for key in config.values if key.startswith("federation_") and config.sources[key] != "default"]
    unused = [key for key in about if key not in ("federation_domain", "federation_enabled")]
    unused += [
        f"[{table}]" for table, found in (("federation_peers", config.peers), ("federation_cas", config.cas)) if found
    ]
    if not unused:
        return ""
    return "\n" + wrapped(f"Federation is off (federation_enabled); without effect: {', '.join(unused)}.") + "\n"


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path | Address) else value
