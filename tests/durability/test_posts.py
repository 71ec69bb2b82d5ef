"""kill -9 in the midst of posting: every post that was said to be safe is there, and no number was given twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.durability.harness import seeded

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite import SqliteStore
from quicprochat.adapters.system import entropy
from quicprochat.core.channel import BroadcastChannel, open_post
from quicprochat.core.envelope import MeshEnvelope

ROOT = Path(__file__).resolve().parents[2]
KEY = b"k" * 32
KILLS = 8
POSTER = f"""
import asyncio, sys
from pathlib import Path
from quicprochat.p2p import Options, P2pNode

async def main():
    async with P2pNode(Options(Path(sys.argv[1])), network=False) as node:
        await node.subscribe("family", {KEY!r})
        while True:
            posts = await asyncio.gather(*(node.broadcast("family", "hello") for _ in range(3)))
            print(*(post.uid.hex() for post in posts), sep="\\n", flush=True)

asyncio.run(main())
"""


def test_a_node_killed_while_it_posts_repeats_no_number(tmp_path: Path) -> None:
    dice, safe = seeded("posts"), list[str]()
    for _ in range(KILLS):
        poster = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", POSTER, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert poster.stdout is not None
        for _ in range(dice.randrange(1, 60)):
            safe.append(poster.stdout.readline().strip())
        poster.kill()
        safe += [line for line in poster.communicate()[0].split("\n") if len(line) == 32]
    store = SqliteStore.open(Home(tmp_path).database)
    channel, crypto = BroadcastChannel.private(KEY), SodiumCrypto(entropy)
    posts = [open_post(MeshEnvelope.decode(held.wire), KEY, crypto) for held in store.waiting(channel.id, 0, 100_000)]
    assert store.counters().get("damaged", 0) == 0
    store.close()
    numbers = [post.seq for post in posts if post is not None]
    assert numbers == list(range(numbers[0], numbers[0] + len(posts))), "the window may have slid, but has no holes"
    assert numbers[-1] >= len(safe)
    assert {post.uid.hex() for post in posts if post is not None} >= set(safe[-900:]), "the last ones are in the window"
    assert len(safe) >= KILLS * 3
