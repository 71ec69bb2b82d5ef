"""A bot that answers: whoever writes to it gets the text back.

    python examples/echo_bot.py HOME [--bind IP:PORT]

HOME is a directory of its own; the first run makes an identity in it. The ticket that is printed is what people add.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from quicprochat import Address, LocalError, Options, P2pNode, QuicprochatError

ANSWER = "you said: "


async def answer(options: Options) -> None:
    """Answer until the node stops. Raises: QuicprochatError."""
    async with P2pNode(options) as node:
        if not node.name:
            await node.rename("Echo")
        print(f"ticket {node.ticket()}", flush=True)
        async for message in node.messages():
            if message.text.startswith(ANSWER):
                continue  # two bots would never come to an end
            try:
                await node.send(message.peer, ANSWER + message.text)
            except LocalError as error:  # too long with our words before it, or the outbox is full
                print(f"no answer: {error}", file=sys.stderr, flush=True)
        await node.failed()


def main() -> int:
    """Read the arguments and run; 3 is what the program itself ends with when a node cannot run."""
    parser = argparse.ArgumentParser(description="A bot that answers.")
    parser.add_argument("home", type=Path)
    parser.add_argument("--bind", type=Address.parse)
    args = parser.parse_args()
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(answer(Options(args.home, bind=args.bind)))
    except QuicprochatError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
