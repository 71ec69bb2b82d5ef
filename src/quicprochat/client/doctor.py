"""``qpc doctor``: look at everything that a message needs on its way out of here, and say what works.

The home's node is asked for what only it knows; where none runs, this call runs one for as long as it looks. Nothing
is contacted that the stricter of two network modes does not allow: the running node's and this call's own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict

from quicprochat.adapters import machine
from quicprochat.adapters.home import Home
from quicprochat.adapters.interfaces import interface_name, interfaces
from quicprochat.adapters.mdns.probe import Heard, ask_all
from quicprochat.adapters.relay.probe import answers
from quicprochat.adapters.sqlite.ballast import free_bytes
from quicprochat.adapters.system import SystemClock, kernel_synchronised
from quicprochat.client import checks
from quicprochat.client.checks import Step
from quicprochat.client.errors import OK, UNREACHABLE
from quicprochat.client.extra import mesh_installed
from quicprochat.client.grammar import Request
from quicprochat.client.output import display_line
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.socket import Json
from quicprochat.client.stdio import Output
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.network import Interface, Network, relay_is_allowed
from quicprochat.core.time import plausible
from quicprochat.p2p.options import Options

OPEN_S = 5.0
"""How long the home's owner may take to answer, or a node of our own to start."""
LISTEN_S = 1.0
"""How long answers to a multicast question are waited for; mDNS spreads them over half a second (RFC 6762 §6)."""
RELAY_S = 1.5
SETTLE_S = 1.5
"""How long a node that has just started gets to reach its home server and its contacts."""
RELAYS_MAX = 16
_STRICT = (Network.LAN, Network.COMMUNITY, Network.INTERNET)


async def doctor(request: Request, settings: Settings) -> int:
    """Examine, and say what was found; the exit code is 3 where something failed. Raises: QuicprochatError."""
    steps = await examine(settings)
    if settings.json:
        await Output().write(json.dumps({"steps": [asdict(step) for step in steps]}) + "\n")
    else:
        await Output().write("".join(f"{line(step)}\n" for step in steps))
    return UNREACHABLE if any(step.state == checks.FAIL for step in steps) else OK


def line(step: Step) -> str:
    """Return a step on one line."""
    advice = f"; {step.advice}" if step.advice else ""
    return display_line(f"{step.state:<4}  {step.name}: {step.text}{advice}")


async def examine(settings: Settings) -> list[Step]:
    """Look at everything, most of it at once."""
    session = Session(settings, stays=False, network=True)
    view, trouble = None, ""
    try:
        async with asyncio.timeout(OPEN_S):
            await session.open()
            view = await session.ask("doctor", {})
    except TimeoutError:
        trouble = f"the home's node did not answer within {OPEN_S:g} s"
    except QuicprochatError as error:
        trouble = str(error)
    try:
        return await _look(settings, session, view, trouble)
    finally:
        await session.close()


async def _look(settings: Settings, session: Session, view: Json | None, trouble: str) -> list[Step]:
    own_node = session.node is not None
    mode = Network(settings.network)
    if view is not None:
        mode = min(mode, Network(view["network"]), key=_STRICT.index)
    here = interfaces()
    ips = {interface.ip for interface in here}
    names = {interface.index: interface_name(interface.index) for interface in here}
    listens = not settings.no_discovery and (view is None or own_node or view["announced"] is not None)
    known = _relays(settings, view)
    heard, relays, disk, later = await asyncio.gather(
        _listen(here, wanted=listens), _ask_relays(known, mode, here), _disk(settings), _settled(session, view)
    )
    mesh = mesh_installed()
    wall = SystemClock(None).now().wall
    return [
        checks.installation(mesh=mesh),
        disk,
        checks.node(later, daemon=session.hello.stays, mesh=mesh, trouble=trouble),
        checks.interfaces(here, names),
        checks.ipv6(here),
        checks.multicast(heard, names),
        checks.mdns(heard, ips, later["announced"] if later is not None else None),
        checks.relays(relays, mode),
        checks.server(later["server"] if later is not None else None),
        checks.nat(later, ips, relayed=any(ms is not None for _, ms, _ in relays)),
        checks.clock(synchronised=kernel_synchronised(), plausible=plausible(wall)),
        checks.buffers(machine.receive_buffer_max_bytes()),
        checks.underlay(later),
    ]


async def _settled(session: Session, view: Json | None) -> Json | None:
    """Ask a node of our own once more when it has looked around; any other has done so long ago."""
    if view is None or session.node is None:
        return view
    try:
        return await session.ask("doctor", {"timeout": SETTLE_S})
    except QuicprochatError:
        return view


async def _listen(here: Sequence[Interface], *, wanted: bool) -> list[Heard] | None:
    return await ask_all(here, LISTEN_S) if wanted else None


def _relays(settings: Settings, view: Json | None) -> list[Json]:
    """Return the relays to ask: this call's own, and those the node knows."""
    found: list[Json] = list(view["relays"]) if view is not None else []
    if settings.relay and settings.relay not in (relay["url"] for relay in found):
        found.insert(0, {"url": settings.relay, "owner": True, "home": False})
    return found[:RELAYS_MAX]


async def _ask_relays(
    found: Sequence[Json], mode: Network, here: Sequence[Interface]
) -> list[tuple[Json, float | None, bool]]:
    clock = asyncio.get_running_loop().time

    async def ask(relay: Json) -> tuple[Json, float | None, bool]:
        if not relay_is_allowed(relay["url"], mode, here, owner=relay["owner"]):
            return relay, None, False
        began = clock()
        answered = await answers(relay["url"], RELAY_S)
        return relay, (clock() - began) * 1_000 if answered else None, True

    return list(await asyncio.gather(*map(ask, found)))


async def _disk(settings: Settings) -> Step:
    clock = asyncio.get_running_loop().time
    reserve = Options(settings.home).disk_reserve_bytes
    sync_ms: float | None = None
    trouble, wal, free = "", None, 0
    try:
        home = Home(settings.home)
        free = free_bytes(home.path)
        wal = None if settings.ephemeral else machine.has_write_ahead_log(home.database)
        began = clock()
        await asyncio.to_thread(machine.write_through, home.path)
        sync_ms = (clock() - began) * 1_000
    except (OSError, QuicprochatError) as error:
        trouble = str(error)
    return checks.disk(free, reserve, sync_ms, trouble, wal=wal)
