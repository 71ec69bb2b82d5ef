"""What a relay costs: two people on one segment, directly and through ``qpc relay``, in the same run; and its limits.

The relayed pair is kept from the direct path by a firewall (nftables), in network namespaces: needs root.

    python -m bench.reach [--count 5000] [--window 512] [--latency 200] [--runs 3]
    python -m bench.reach --clients 200 [--bytes 1200] [--seconds 5]     the relay alone, under its clients' load
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.two_people import Place, run
from tests.labs.bridge import sh
from tests.labs.houses import HUB, SPARE, drop, houses, pass_again

RELAY_IP = "203.0.113.3"
PROGRAM = "import sys; from quicprochat.cli import main; sys.exit(main())"
CONTEXT = "iroh-relay handshake v1 challenge signature"


@contextmanager
def relay(listen: str, *before: str) -> Iterator[subprocess.Popen[str]]:
    command = [*before, sys.executable, "-c", PROGRAM, "relay", "--listen", listen]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.terminate()
        process.communicate()


def pairs(a: argparse.Namespace) -> dict[str, Any]:
    """Measure directly and relayed by turns, so that both meet the same machine."""
    found: dict[str, list[dict[str, float]]] = {"direct": [], "relayed": []}
    with houses() as names:
        here, there = (
            Place(ip, ("ip", "netns", "exec", name)) for name, ip in ((names.hub, HUB), (names.spare, SPARE))
        )
        sh("ip", "-n", names.street, "addr", "add", f"{RELAY_IP}/24", "dev", "br0")
        with relay(f"{RELAY_IP}:7002", "ip", "netns", "exec", names.street):
            os.environ["BENCH_RELAY"] = f"http://{RELAY_IP}:7002"
            for _ in range(a.runs):
                found["direct"].append(run(a, here, there))
                drop(names.hub, "meta l4proto udp")
                found["relayed"].append(run(a, here, there))
                pass_again(names.hub)
    middle = {
        way: {key: round(statistics.median(one[key] for one in runs), 3) for key in runs[0]}
        for way, runs in found.items()
    }
    direct, relayed = middle["direct"], middle["relayed"]
    return {
        "bench": "reach", "count": a.count, "window": a.window, **middle,
        "rate_of_direct": round(relayed["messages_s"] / direct["messages_s"], 3),
        "p50_of_direct": round(relayed["p50_ms"] / direct["p50_ms"], 3),
    }  # fmt: skip


class Client(asyncio.Protocol):
    """Proves a key, then sends what it is given and counts what comes."""

    def __init__(self, secret: bytes) -> None:
        from nacl.signing import SigningKey
        from websockets.client import ClientProtocol
        from websockets.typing import Subprotocol
        from websockets.uri import parse_uri

        self.signer = SigningKey(secret)
        self.received = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.room = asyncio.Event()
        self.room.set()
        self.websocket = ClientProtocol(
            parse_uri("ws://relay/relay"), subprotocols=[Subprotocol("iroh-relay-v2")], max_size=1 << 20
        )

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.websocket.send_request(self.websocket.connect())
        self.flush()

    def flush(self) -> None:
        self.transport.write(b"".join(self.websocket.data_to_send()))

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def data_received(self, data: bytes) -> None:
        if self.ready.done():
            self.received += len(data)
            return
        from blake3 import blake3

        self.websocket.receive_data(data)
        for event in self.websocket.events_received():
            body = getattr(event, "data", b"")
            if body and body[0] == 0:
                signed = self.signer.sign(blake3(bytes(body[1:]), derive_key_context=CONTEXT).digest()).signature
                self.websocket.send_binary(b"\x01" + bytes(self.signer.verify_key) + b"\x40" + signed)
                self.flush()
            elif body and body[0] == 2:
                self.ready.set_result(None)

    def frame(self, to: Client, data: bytes) -> bytes:
        self.websocket.send_binary(b"\x05" + bytes(to.signer.verify_key) + b"\0\x04\xb0" + data)
        return b"".join(self.websocket.data_to_send())


async def load(port: int, a: argparse.Namespace) -> dict[str, Any]:
    """Let each client send to the next one, as fast as the relay reads."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(a.clients):
        _, client = await loop.create_connection(lambda: Client(os.urandom(32)), "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.ready for client in clients))
    began, sent = time.perf_counter(), 0

    async def pump(client: Client, data: bytes) -> None:
        nonlocal sent
        while time.perf_counter() - began < a.seconds:
            await client.room.wait()
            for _ in range(4):
                client.transport.write(data)
            sent += 4 * a.bytes
            await asyncio.sleep(0)

    frames = [client.frame(clients[n - 1], os.urandom(a.bytes)) for n, client in enumerate(clients)]
    await asyncio.gather(*map(pump, clients, frames))
    seconds = time.perf_counter() - began
    received = sum(client.received for client in clients)
    for client in clients:
        client.transport.abort()
    return {"sent_mb_s": round(sent / seconds / 1e6, 1), "received_mb_s": round(received / seconds / 1e6, 1)}


def limits(a: argparse.Namespace) -> dict[str, Any]:
    with relay("127.0.0.1:47102") as process:
        rates = asyncio.run(load(47102, a))
        peak = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    return {"bench": "relay", "clients": a.clients, "bytes": a.bytes, **rates, "peak_mb": round(peak, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--latency", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, help="measure the relay alone")
    parser.add_argument("--bytes", type=int, default=1_200, help="of one frame")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.set_defaults(dir=None, ephemeral=False)
    a = parser.parse_args()
    print(json.dumps(limits(a) if a.clients else pairs(a), indent=2))


if __name__ == "__main__":
    main()
