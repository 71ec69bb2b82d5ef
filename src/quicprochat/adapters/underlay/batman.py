"""batman-adv, read with ``batctl``: which originator a neighbour's machine is behind, and how good the path there is.

batman-adv is one big switch: it knows machines by their hardware addresses. So an IP address takes three steps: the
kernel's table of neighbours, the translation table (whose client is that), the originators (how good is the path).
``batctl`` asks the kernel as root alone; without that, or without the module, there is nothing to read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from quicprochat.core.errors import UnavailableError
from quicprochat.core.underlay import Hint, Way, throughput_cost, tq_cost

INTERFACE = Path("/sys/class/net/bat0")
"""The mesh interface that batctl looks at unless told otherwise."""
VIA = "batman-adv"
ANSWER_MAX_BYTES = 8 << 20
"""A translation table of 20,000 clients has 5 MB."""


def present() -> bool:
    """Say whether this machine takes part in a mesh of batman-adv that we may look at."""
    return INTERFACE.exists() and os.geteuid() == 0 and shutil.which("batctl") is not None


async def read_batman(neighbours: Iterable[tuple[str, str]], timeout_s: float) -> list[Way]:
    """Return the ways to those neighbours, pairs of IP and hardware address, that are reached over the mesh.

    Raises: UnavailableError when batctl does not answer in time, or with something else than JSON.
    """
    async with asyncio.timeout(timeout_s):
        originators, neighbour_list, clients = [
            await _batctl(command) for command in ("originators_json", "neighbors_json", "transglobal_json")
        ]
    costs = parse_neighbours(neighbour_list)
    costs.update(parse_originators(originators))
    return ways(neighbours, costs, parse_clients(clients))


async def _batctl(command: str) -> Any:
    process: asyncio.subprocess.Process | None = None
    try:
        process = await asyncio.create_subprocess_exec(
            "batctl", command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, limit=ANSWER_MAX_BYTES,
        )  # fmt: skip
        assert process.stdout is not None
        data = b""
        while (part := await process.stdout.read(ANSWER_MAX_BYTES)) and len(data) <= ANSWER_MAX_BYTES:
            data += part
        if len(data) > ANSWER_MAX_BYTES:
            raise UnavailableError("batctl says more than can be")
        return json.loads(data)
    except (OSError, ValueError) as error:
        raise UnavailableError(f"batctl {command} does not answer") from error
    finally:
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def parse_originators(found: Any) -> dict[str, int]:
    """Return the cost of the best path to each originator: that through the next hop which batman-adv uses."""
    return _costs(found, "orig_address", only_best=True)


def parse_neighbours(found: Any) -> dict[str, int]:
    """Return the cost of each direct neighbour; only BATMAN V says it there."""
    return _costs(found, "neigh_address", only_best=False)


def _costs(found: Any, key: str, *, only_best: bool) -> dict[str, int]:
    costs: dict[str, int] = {}
    for entry in _entries(found):
        mac = entry.get(key)
        if not isinstance(mac, str) or (only_best and entry.get("best") is not True):
            continue
        if (tq := _number(entry.get("tq"))) is not None:
            cost = tq_cost(tq)
        elif (kbit_s := _number(entry.get("throughput"))) is not None:
            cost = throughput_cost(kbit_s)
        else:
            continue
        costs[mac] = min(cost, costs.get(mac, cost))
    return costs


def parse_clients(found: Any) -> dict[str, set[str]]:
    """Return behind which originators each machine of the mesh is."""
    clients: dict[str, set[str]] = {}
    for entry in _entries(found):
        client, originator = entry.get("tt_address"), entry.get("orig_address")
        if isinstance(client, str) and isinstance(originator, str):
            clients.setdefault(client, set()).add(originator)
    return clients


def ways(neighbours: Iterable[tuple[str, str]], costs: dict[str, int], clients: dict[str, set[str]]) -> list[Way]:
    """Put the three steps together."""
    found = []
    for ip, mac in neighbours:
        known = [costs[originator] for originator in (mac, *sorted(clients.get(mac, ()))) if originator in costs]
        if known:
            found.append(Way(ipaddress.ip_network(ip), Hint(min(known), VIA)))
    return found


def _entries(found: Any) -> Iterable[dict[str, Any]]:
    return (entry for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
