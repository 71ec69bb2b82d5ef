"""babeld's local interface: its routes, read and nothing written (babeld(8), "Local configuration interface").

babeld opens it with ``-g PORT``, on ::1, or ``-g PATH``. It greets with a few lines, then answers each request with
lines and a last one: ok, no or bad.
"""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import suppress

from quicprochat.core.errors import UnavailableError
from quicprochat.core.underlay import Hint, Way, babel_cost

PORT = 33_123
SOCKETS = ("/run/babeld.sock", "/var/run/babeld.sock")
VIA = "babel"
LINE_MAX_BYTES = 4_096
LINES_MAX = 50_000
"""The largest community networks have some thousand routes; bounds what whoever has the port makes us hold."""
LAST_WORDS = frozenset({"ok", "no", "bad"})


async def read_babel(timeout_s: float) -> list[Way]:
    """Return the routes that babeld uses now. Raises: UnavailableError when none answers in time."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connect()
            greeting = await _answer(reader)
            if not greeting or not greeting[0].startswith("BABEL "):
                raise UnavailableError("what answers at babeld's port is not babeld")
            writer.write(b"dump\n")
            return parse_routes(await _answer(reader))
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise UnavailableError("no babeld answers on this machine") from error
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await writer.wait_closed()


async def _connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for path in SOCKETS:
        with suppress(OSError):
            return await asyncio.open_unix_connection(path, limit=LINE_MAX_BYTES)
    return await asyncio.open_connection("::1", PORT, limit=LINE_MAX_BYTES)


async def _answer(reader: asyncio.StreamReader) -> list[str]:
    """Return the lines up to the last word. Raises: ValueError when they are endless; what a broken stream raises."""
    lines: list[str] = []
    while len(lines) < LINES_MAX:
        line = (await reader.readuntil(b"\n")).decode("ascii", "replace").rstrip()
        if line in LAST_WORDS:
            return lines
        lines.append(line)
    raise ValueError("endless")


def parse_routes(lines: list[str]) -> list[Way]:
    """Read the routes in use out of a dump; a line that is none, or not understood, is passed over.

    add route <id> prefix <p> from <p> installed yes|no id <router> metric <m> refmetric <m> via <ip> if <name>
    """
    ways = []
    for line in lines:
        words = line.split()
        if words[:2] != ["add", "route"]:
            continue
        named = dict(zip(words[3::2], words[4::2], strict=False))
        if named.get("installed") != "yes":
            continue
        with suppress(ValueError, KeyError):
            network, source = ipaddress.ip_network(named["prefix"]), ipaddress.ip_network(named["from"])
            if not source.prefixlen:  # a route for some senders only says nothing of ours
                ways.append(Way(network, Hint(babel_cost(int(named["metric"])), VIA)))
    return ways
