"""``qpc sim trace``: people meet and part, and carry each other's messages; how much of what is possible arrives?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quicprochat.console.text import display, fields
from quicprochat.core.errors import LocalError
from quicprochat.core.time import HOUR_MS, SECOND_MS
from quicprochat.sim.carriers import Carriers
from quicprochat.sim.contacts import Trace, Written, read_trace, workload
from quicprochat.sim.oracle import oracle
from quicprochat.sim.outcome import Outcome
from quicprochat.sim.plot import check, deliveries, save
from quicprochat.sim.progress import Progress
from quicprochat.sim.routers import SPRAY_COPIES, Direct, Prophet, Router, Spray, play

MESSAGES = 1_000
MESSAGES_MAX = 100_000
TTL_S = 86_400

ROUTERS: dict[str, Callable[[Trace], Router] | None] = {
    "epidemic": None,
    "prophet": lambda trace: Prophet(len(trace.ids)),
    "spray": lambda trace: Spray(SPRAY_COPIES),
    "direct": lambda trace: Direct(),
}
"""The comparison routers; ``epidemic`` is the carrying of a real node."""
PAYING = "-paying"
ROUTERS |= {name + PAYING: ROUTERS[name] for name in ("prophet", "spray")}


def run(file: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Simulate and return the report. Raises: LocalError."""
    router = options.get("router", "epidemic")
    if router not in ROUTERS:
        raise LocalError(f"there is no router {display(str(router)[:64])!r}; there are {', '.join(ROUTERS)}")
    if (count := options.get("messages", MESSAGES)) > MESSAGES_MAX:
        raise LocalError(f"{count} messages are too many; {MESSAGES_MAX} are allowed")
    if (ttl_s := int(options.get("ttl", TTL_S))) < 1:
        raise LocalError("a message must live a second at least; give a longer --ttl")
    plot = options.get("plot")
    if plot is not None:
        check(plot)
    trace = read_trace(Path(file))
    seed = options.get("seed")
    messages = workload(trace, count, ttl_s, None if seed is None else str(seed))
    best = oracle(trace, messages, ttl_s)
    bytes_per_s, store = options.get("bytes_per_s"), options.get("store")
    others = (name for name in ROUTERS if name != router and not name.endswith(PAYING))
    wanted = [router, *others] if options.get("against") else [router]
    runs = {name: simulate(trace, messages, ttl_s, name, bytes_per_s=bytes_per_s, store=store) for name in wanted}
    if plot is not None:
        title = f"{len(trace.ids)} nodes, {count} messages; {limits(bytes_per_s, store)}"
        save(deliveries(runs, best, title), plot)
    report = {"router": router, "nodes": len(trace.ids), "encounters": trace.encounters, "messages": count}
    report |= {"ttl_s": ttl_s, "bytes_per_s": bytes_per_s, "store": store, "seed": seed}
    report |= summary(runs.pop(router), best)
    if runs:
        report["against"] = [{"router": name, **_beside(outcome)} for name, outcome in runs.items()]
    return report


def simulate(
    trace: Trace, messages: Sequence[Written], ttl_s: int, router: str = "epidemic", *,
    bytes_per_s: int | None = None, store: int | None = None,
) -> Outcome:  # fmt: skip
    """Play a trace with one router."""
    progress = Progress(router)
    made = ROUTERS[router]
    if made is None:
        outcome = Carriers(trace, messages, ttl_s, bytes_per_s=bytes_per_s, store=store).run(progress.at)
    else:
        outcome = play(
            trace, messages, ttl_s, made(trace), bytes_per_s=bytes_per_s, store=store, pays=router.endswith(PAYING),
            progress=progress.at,
        )  # fmt: skip
    progress.end()
    return outcome


def summary(outcome: Outcome, best: Outcome) -> dict[str, Any]:
    """Return the figures of a run beside the best possible."""
    return {
        "delivered_ratio": round(outcome.ratio(), 6),
        "oracle_ratio": round(best.ratio(), 6),
        "median_delay_s": outcome.median_delay_s,
        "oracle_median_delay_s": best.median_delay_s,
        "copies_per_message": round(outcome.copies_per_message, 3),
        "oracle_copies_per_message": round(best.copies_per_message, 3),
        "copies_after_delivery": round(outcome.late_copies / len(outcome.messages), 3),
        "duplicate_payloads": outcome.duplicates,
        "control_bytes": outcome.control_bytes,
        "delivered_after": [
            {"s": after, "delivered_ratio": round(outcome.ratio(after), 6), "oracle_ratio": round(best.ratio(after), 6)}
            for after in _times(outcome.ttl_s)
        ],
    }


def _beside(outcome: Outcome) -> dict[str, Any]:
    return {
        "delivered_ratio": round(outcome.ratio(), 6),
        "median_delay_s": outcome.median_delay_s,
        "copies_per_message": round(outcome.copies_per_message, 3),
    }


def limits(bytes_per_s: int | None, store: int | None) -> str:
    """Say what bounds the nodes and their contacts."""
    words = [
        f"{bytes_per_s} bytes/s a contact" if bytes_per_s else "",
        f"{store} messages of others in a node" if store else "",
    ]
    return ", ".join(filter(None, words)) or "no limits"


def _times(ttl_s: int) -> list[int]:
    return [after for after in (3_600, 6 * 3_600, 24 * 3_600) if after < ttl_s] + [ttl_s]


def text(report: Mapping[str, Any]) -> str:
    """Return the report for a person."""
    head = [
        f"{report['nodes']} nodes, {report['encounters']} encounters; {report['messages']} messages that live"
        f" {_hours(report['ttl_s'])}; router {report['router']}; {limits(report['bytes_per_s'], report['store'])}.",
        "",
    ]
    rows = [
        (f"within {_hours(row['s'])}", f"{row['delivered_ratio']:.1%} of {row['oracle_ratio']:.1%} possible")
        for row in report["delivered_after"]
    ]
    rows += [
        ("median delay", f"{_hours(report['median_delay_s'])}; of the best possible"
                         f" {_hours(report['oracle_median_delay_s'])}"),
        ("copies", f"{report['copies_per_message']:.1f} a message until it arrived, and"
                   f" {report['copies_after_delivery']:.1f} after; flooding {report['oracle_copies_per_message']:.1f}"),
        ("duplicates", str(report["duplicate_payloads"])),
        ("control traffic", f"{report['control_bytes'] / report['messages'] / 1_000:.1f} kB a message"),
    ]  # fmt: skip
    for one in report.get("against", ()):
        words = f"{one['delivered_ratio']:.1%}; median delay {_hours(one['median_delay_s'])},"
        rows.append((f"with {one['router']}", f"{words} {one['copies_per_message']:.1f} copies a message"))
    return "\n".join((*head, fields(*rows))) + "\n"


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    hours = seconds * SECOND_MS / HOUR_MS
    return f"{hours:.0f} h" if hours == int(hours) else f"{hours:.1f} h"
