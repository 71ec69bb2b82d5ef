"""The table of bench/home_server.py: ours, the ceiling, and another system's figures of the same run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Row = tuple[str, str, str, str]

HEAD: Row = ("what", "in flight", "a call", "a second")


def rows(
    result: Mapping[str, float], calls: tuple[int, int], batch: int, peers: Iterable[Mapping[str, Any]]
) -> list[Row]:
    """Return the rows: ours with its windows (``calls``: batches and single calls in flight), then each peer's."""
    batches, singly = calls
    found: list[Row] = []
    for name, key in (("home server", ""), ("pycapnp over TCP, nothing behind it", "ceiling_")):
        found.append((f"{name}: in", f"{batches} x {batch}", str(batch), _rate(result[f"{key}batches_s"])))
        found.append((f"{name}: in", str(singly), "1", _rate(result[f"{key}single_s"])))
    for key, client in (("drain_confirm_s", "confirms"), ("drain_full_s", "opens and stores")):
        found.append((f"home server: out, to a client that {client}", f"4 x {batch}", str(batch), _rate(result[key])))
    for peer in peers:
        window = str(peer.get("window", "?"))
        for key, value in peer["result"].items():
            rate = value["median"] if isinstance(value, Mapping) else value
            if key.endswith("_msgs_s") and isinstance(rate, int | float):
                in_flight = "1" if "sequential" in key else window
                found.append((f"{peer['bench']}: {key.removesuffix('_msgs_s')}", in_flight, "1", _rate(rate)))
    return found


def text(table: list[Row]) -> str:
    """Lay rows out in columns."""
    return laid_out([HEAD, *table])


def laid_out(lines: list[Row]) -> str:
    """Return rows as lines of text, each column as wide as its widest cell."""
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _rate(value: float) -> str:
    return f"{value:,.0f}"
