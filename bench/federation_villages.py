"""Servers and people of bench/federation.py: who there is, and where."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.federation_parts import Process, make_certificates
from bench.home_server import Inbox, only_confirm

HERE, THERE, ELSEWHERE = "node1.mesh.local", "node2.mesh.local", "node3.mesh.local"


class Villages:
    """Servers that know each other, each a process."""

    def __init__(self, place: Path, *domains: str) -> None:
        self.place = place
        self.ports = dict(zip(domains, free_ports(len(domains)), strict=True))
        self.up: dict[str, Process] = {}
        self.all: list[Process] = []
        make_certificates(place, domains)

    def peers(self, domain: str) -> dict[str, str]:
        return {other: f"127.0.0.1:{port}" for other, port in self.ports.items() if other != domain}

    async def start(self, domain: str, peers: Mapping[str, str] | None = None) -> Process:
        """Start a domain's server; it knows all others, unless ``peers`` says whom it knows."""
        listed = json.dumps(self.peers(domain) if peers is None else peers)
        server = await self.run(domain.split(".")[0], "server", self.place, domain, self.ports[domain], listed)
        self.up[domain] = server
        return server

    async def person(self, name: str, domain: str) -> Process:
        """Start somebody's node; whose home server is that of a domain."""
        return await self.run(name, "person", self.place / name, f"127.0.0.1:{self.port(domain)}")

    async def run(self, name: str, *arguments: object) -> Process:
        process = await Process.start(name, *arguments)
        self.all.append(process)
        return process

    def port(self, domain: str) -> int:
        """Return where a server's clients connect."""
        return int(self.up[domain].ready["port"])


@asynccontextmanager
async def villages(directory: str | None, *domains: str) -> AsyncIterator[Villages]:
    with tempfile.TemporaryDirectory(dir=directory) as base:
        found = Villages(Path(base), *domains)
        try:
            yield found
            for process in reversed(found.all):
                await process.end()
        finally:
            for process in found.all:
                process.kill()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Author(Inbox):
    """A client that is told what other domains answer."""

    def __init__(self) -> None:
        super().__init__(0, only_confirm)

    async def report_context(self, context: Any) -> None:
        """All is heard."""
