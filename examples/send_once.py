"""Send one message, say what became of it, and end.

    python examples/send_once.py HOME TICKET TEXT [--bind IP:PORT] [--timeout SECONDS]

Exit code 0: the other side has it. 6: not yet; it waits in HOME and leaves when a node runs there again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from quicprochat import Address, Options, P2pNode, QuicprochatError, State


async def send(options: Options, ticket: str, text: str, timeout_s: float) -> State:
    """Return the state that the message is in after so long. Raises: QuicprochatError."""
    async with P2pNode(options) as node:
        peer = await node.add(ticket)
        sent = await node.send(peer.key, text)  # on the disk from here on, whatever happens
        try:
            sent = await node.wait(sent.uid, State.DELIVERED, timeout_s)
        except TimeoutError:
            sent = await node.sent(sent.uid)
        return sent.state


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Send one message.")
    parser.add_argument("home", type=Path)
    parser.add_argument("ticket")
    parser.add_argument("text")
    parser.add_argument("--bind", type=Address.parse)
    parser.add_argument("--timeout", type=float, default=30.0)
    args = parser.parse_args()
    try:
        state = asyncio.run(send(Options(args.home, bind=args.bind), args.ticket, args.text, args.timeout))
    except QuicprochatError as error:
        print(error, file=sys.stderr)
        return 3
    print(state.value)
    return 0 if state is State.DELIVERED else 6


if __name__ == "__main__":
    sys.exit(main())
