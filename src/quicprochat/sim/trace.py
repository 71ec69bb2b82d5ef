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
    plotter = _plotter() if "plot" in options else None
    trace = read_trace(Path(file))
    seed = options.get("seed")
    messages = workload(trace, count, ttl_s, None if seed is None else str(seed))
    best = oracle(trace, messages, ttl_s)
    outcome = simulate(
        trace, messages, ttl_s, router, bytes_per_s=options.get("bytes_per_s"), store=options.get("store")
    )
    if plotter is not None:
        _plot(plotter, options["plot"], router, outcome, best)
    report = {"router": router, "nodes": len(trace.ids), "encounters": trace.encounters, "messages": count}
    report |= {"ttl_s": ttl_s, "bytes_per_s": options.get("bytes_per_s"), "store": options.get("store"), "seed": seed}
    return report | summary(outcome, best)


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


def _times(ttl_s: int) -> list[int]:
    return [after for after in (3_600, 6 * 3_600, 24 * 3_600) if after < ttl_s] + [ttl_s]


def text(report: Mapping[str, Any]) -> str:
    """Return the report for a person."""
    limits = [
        f"{report['bytes_per_s']} bytes/s a contact" if report["bytes_per_s"] else "",
        f"{report['store']} messages of others in a node" if report["store"] else "",
    ]
    head = [
        f"{report['nodes']} nodes, {report['encounters']} encounters; {report['messages']} messages that live"
        f" {_hours(report['ttl_s'])}; router {report['router']}; {', '.join(filter(None, limits)) or 'no limits'}.",
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
    return "\n".join((*head, fields(*rows))) + "\n"


def _hours(seconds: float | None) -> str:
    if seconds is None:
        return "none"
    hours = seconds * SECOND_MS / HOUR_MS
    return f"{hours:.0f} h" if hours == int(hours) else f"{hours:.1f} h"


def _plotter() -> Any:
    """Return matplotlib's ``Figure``. Raises: LocalError where there is none, before anything long begins."""
    try:
        from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise LocalError(
            "--plot draws with matplotlib, which is not installed; install it or leave out --plot"
        ) from None
    return Figure


def _plot(figure_of: Any, path: str, router: str, outcome: Outcome, best: Outcome) -> None:
    """Draw what was delivered within each time. Raises: LocalError when the file cannot be written."""
    figure = figure_of(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, one, width in (("best possible (earliest arrival)", best, 5), (router, outcome, 1.5)):
        delays = sorted(one.delays.values())
        hours = [0.0, *(delay / 3_600 for delay in delays), one.ttl_s / 3_600]
        shares = [number / len(one.messages) for number in (*range(len(delays) + 1), len(delays))]
        axes.step(hours, shares, where="post", linewidth=width, alpha=1 if one is outcome else 0.4, label=name)
    axes.set(xlabel="hours since a message was written", ylabel="part of the messages that arrived")
    axes.set(ylim=(0, 1), xlim=(0, outcome.ttl_s / 3_600))
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise LocalError(f"cannot draw into {display(path)}: {error}") from None
