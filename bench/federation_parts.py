"""The processes of bench/federation.py: home servers that federate, and nodes of people at them.

Each reads commands from standard input, one JSON object a line, answers each with one line, and ends with its input.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.home_parts import ROOMY, TEXT, Correspondence, rss_kb

from quicprochat.adapters import quic, rpc
from quicprochat.adapters.sqlite import ServerStore
from quicprochat.core.address import Address
from quicprochat.core.federation import Outgoing
from quicprochat.core.ids import PeerKey
from quicprochat.core.receipt import State
from quicprochat.core.store import Fate, Held
from quicprochat.core.time import DAY_MS, Instant, WallTime
from quicprochat.p2p import Options, P2pNode
from quicprochat.server import certificates, trust
from quicprochat.server.federation import FederationOptions, FederationRules
from quicprochat.server.home_server import HomeServer, ServerOptions

ROOMY_RULES = FederationRules(
    outbox_bytes=1 << 40, outbox_messages=10**9, user_bytes=1 << 40, user_messages=10**9, share=1.0, rate=10**6
)
LONG_DOWN = 20
"""Failures after which the pauses between attempts are as long as they get."""
PATIENCE_S = 120.0


class Process:
    """One of these processes, seen from outside."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.pid = process.pid
        self.ready: dict[str, Any] = {}
        self._process = process

    @classmethod
    async def start(cls, name: str, *arguments: object) -> Process:
        """Start one, and wait until it is ready. ``BENCH_PROFILE_DIR`` is where it leaves its profile at its end."""
        command = [sys.executable, "-m", "bench.federation_parts", *map(str, arguments)]
        if profiles := os.environ.get("BENCH_PROFILE_DIR"):
            command[1:2] = ["-m", "cProfile", "-o", f"{profiles}/{name}.prof", "-m"]
        pipe = asyncio.subprocess.PIPE
        process = cls(name, await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        process.ready = await process._answer()
        return process

    async def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Give a command; return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early")
        return dict(json.loads(line))

    async def end(self) -> None:
        """Let it end in order, so that it writes its profile."""
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await asyncio.wait_for(self._process.wait(), 60)

    def kill(self) -> None:
        """End it at once."""
        if self._process.returncode is None:
            self._process.kill()


async def processor(processes: Mapping[str, Process]) -> dict[str, float]:
    """Return the seconds of processor time that each has used until now."""
    return {name: (await process.ask("used"))["cpu"] for name, process in processes.items()}


# --- certificates


def make_certificates(place: Path, domains: Sequence[str]) -> None:
    """Make an authority and certificates, as the operator's commands do."""
    now = datetime.datetime.now(datetime.UTC)
    certificates.init_authority(place / "ca", now)
    for domain in domains:
        certificates.issue(place / "ca", domain, place / domain, 2, now)


def federation(place: Path, domain: str, port: int, peers: Mapping[str, str]) -> FederationOptions:
    """Return what the operator of a domain has decided."""
    files = place / domain
    shown = quic.Credentials(
        trust.read_certificate(files / certificates.CERTIFICATE), trust.read_key(files / certificates.KEY)
    )
    authority = trust.read_authority(files / certificates.AUTHORITY)
    trusted = quic.Trust(domain, frozenset(peers), authority, {}, lambda: datetime.datetime.now(datetime.UTC))
    return FederationOptions(domain, Address("127.0.0.1", port), trust.Loaded(shown, trusted), peers, ROOMY_RULES)


# --- a server


async def server(place: Path, domain: str, port: int, peers: Mapping[str, str]) -> None:
    """Serve a domain until standard input ends."""
    options = ServerOptions(
        place / f"{domain}.home", Address("127.0.0.1", 0), domain, ROOMY, disk_reserve_bytes=0,
        federation=federation(place, domain, port, peers),
    )  # fmt: skip
    async with rpc.running(), HomeServer(options) as running:
        assert running.exchange is not None
        answers = ServerAnswers(place, running)
        say(port=running.address.port)
        await obey(answers)


class ServerAnswers:
    """What a server in a benchmark can be asked."""

    def __init__(self, place: Path, running: HomeServer) -> None:
        assert running.exchange is not None
        self._place = place
        self._running = running
        self._exchange = running.exchange

    async def peers(self, peers: dict[str, str]) -> None:
        """Change the list of peers, as a reload does. Nobody is greeted."""
        listen = self._exchange.options.listen
        loaded = federation(self._place, self._exchange.domain, listen.port, peers)
        await self._running.reload(replace(self._running.options, federation=loaded))

    async def taken_in(self, count: int) -> dict[str, Any]:
        """Wait until so many envelopes of other domains were stored since the start."""
        traffic = self._exchange.traffic
        while sum(one["in_stored"] for one in traffic.values()) < count:
            await asyncio.sleep(0.002)
        return {"at": time.perf_counter()}

    async def emptied(self, domain: str) -> dict[str, Any]:
        """Wait until nothing waits for a domain."""
        while self._running.store.outgoing_domains().get(domain):
            await asyncio.sleep(0.005)
        return {"at": time.perf_counter()}

    async def long_down(self, domain: str) -> dict[str, Any]:
        """Let a domain have been unreachable for long: fail once more, and rest as long as couriers do then."""
        courier = self._exchange.couriers[domain]
        courier.failures = LONG_DOWN
        courier.contact()
        while courier.failures == LONG_DOWN or courier.retry_at is None:
            await asyncio.sleep(0.01)
        now = self._running.driver.now().at
        return {"pause_s": (courier.retry_at - now) / 1_000, "failures": courier.failures}

    async def used(self) -> dict[str, Any]:
        """Return processor time and memory."""
        return {"cpu": time.process_time(), "rss_mb": rss_kb() / 1_024}


def fill(place: Path, domain: str, to: str, people: Correspondence, count: int) -> None:
    """Make a server's database with so many envelopes of one user waiting for another domain."""
    home = place / f"{domain}.home"
    home.mkdir(mode=0o700, exist_ok=True)
    store = ServerStore.open(home / "server.db", synchronous="NORMAL")
    now, expires = Instant(1), Instant(7 * DAY_MS)
    author, reader = people.signer.key, people.to
    store.begin()
    store.see_user(author, now, WallTime(0))
    for n, envelope in enumerate(people.copies(count)):
        wire = envelope.wire()
        store.hold(Held(envelope.id, envelope.kind, author, reader, author, wire, now, expires))
        store.remember(envelope.id, Fate.HELD, Instant(30 * DAY_MS))
        store.put_outgoing(
            Outgoing(envelope.id, domain, to, author, envelope.kind, len(wire), expires, now)
        )  # fmt: skip
        if n % 5_000 == 0:
            store.commit()
            store.begin()
    store.commit()
    store.close()


# --- a person


async def person(home: Path, home_server: str) -> None:
    """Run somebody's node, which knows no way but its home server, until standard input ends."""
    sys.modules["iroh"] = None  # type: ignore[assignment]  # as if the extra were not installed
    async with P2pNode(Options(home, server=home_server)) as node:
        async with asyncio.timeout(PATIENCE_S):
            while node.server().standing != "connected":
                await asyncio.sleep(0.01)
        say(key=node.key.hex())
        await obey(PersonAnswers(node))


class PersonAnswers:
    """What a person in a benchmark can be asked."""

    def __init__(self, node: P2pNode) -> None:
        self._node = node
        self._lines = node.listen()

    async def knows(self, key: str) -> None:
        """Have a contact, whose messages are no requests."""
        await self._node.add(key, "friend")

    async def register(self, name: str) -> None:
        """Take a name at the home server."""
        await self._node.register(name)

    async def write(self, to: str) -> dict[str, Any]:
        """Send one message that says when; done when it is delivered."""
        began = time.monotonic_ns()
        sent = await self._node.send(to, f"{began} {TEXT}"[:300])
        await self._node.wait(sent.uid, State.DELIVERED, PATIENCE_S)
        return {"delivered_ms": (time.monotonic_ns() - began) / 1e6}

    async def line(self) -> dict[str, Any]:
        """Wait for the next line of the inbox; say how long after the call that sent it."""
        line = await anext(self._lines)
        return {"delay_ms": (time.monotonic_ns() - int(line.text.split(" ", 1)[0])) / 1e6}

    async def write_many(self, to: str, count: int, window: int) -> dict[str, Any]:
        """Send so many messages, ``window`` of them on their way at a time; done when all are delivered."""
        room = asyncio.Semaphore(window)
        key, text = PeerKey(bytes.fromhex(to)), f"0 {TEXT}"[:300]

        async def one() -> None:
            async with room:
                sent = await self._node.send(key, text)
                await self._node.wait(sent.uid, State.DELIVERED, PATIENCE_S)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        return {"seconds": time.perf_counter() - began}

    async def used(self) -> dict[str, Any]:
        """Return processor time and memory."""
        return {"cpu": time.process_time(), "rss_mb": rss_kb() / 1_024}


# --- commands


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


async def obey(answers: ServerAnswers | PersonAnswers) -> None:
    """Follow commands until there are no more."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        say(**(await getattr(answers, command.pop("do"))(**command) or {}))


if __name__ == "__main__":
    if sys.argv[1] == "server":
        place, domain, port, peers = sys.argv[2:]
        asyncio.run(server(Path(place), domain, int(port), json.loads(peers)))
    else:
        asyncio.run(person(Path(sys.argv[2]), sys.argv[3]))
