"""The table of bench/federation.py: ours, and another system's figures of the same run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.home_table import laid_out

Row = tuple[str, str, str, str]

HEAD: Row = ("what", "a second", "one alone, p50 ms", "first contact ms")


def rows(result: Mapping[str, float], peers: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the rows: ours, then each peer's; a figure that was not measured is left out."""

    def cell(found: Mapping[str, Any], key: str, form: str) -> str:
        value = found.get(key)
        value = value["median"] if isinstance(value, Mapping) else value
        return format(value, form) if isinstance(value, int | float) else ""

    def row(name: str, found: Mapping[str, Any], rate: str, alone: str = "", first: str = "") -> Row:
        return name, cell(found, rate, ",.0f"), cell(found, alone, ".2f"), cell(found, first, ",.0f")

    table = [
        row("server to server, verified and synced at both", result, "servers_s"),
        row("person to person, sealed, synced at all four, receipted", result, "people_s", "message_p50_ms",
            "first_contact_ms"),
        row("what waited for a domain that was down", result, "waiting_s"),
    ]  # fmt: skip
    for peer in peers:
        keys = ("s2s_msgs_s", "s2s_latency_ms_p50", "first_delivery_ms_incl_s2s_setup")
        table.append(row(str(peer["bench"]), peer["result"], *keys))
    return [line for line in table if any(line[1:])]


def text(table: list[Row]) -> str:
    """Lay rows out in columns."""
    return laid_out([HEAD, *table])
