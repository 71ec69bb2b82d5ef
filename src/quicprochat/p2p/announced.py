"""Picking a home server that announces itself on the local network: its first use asks.

An announcement is anybody's word. It says where to go and which fingerprint to expect there, and a person who can ask
the operator decides whether that is the right one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quicprochat.core.address import check_server
from quicprochat.core.errors import LocalError
from quicprochat.core.identity import KEY_PREFIX_MIN
from quicprochat.p2p.account import Account
from quicprochat.p2p.views import ServerView

LOOK_FOR_S = 3.0
"""How long a server that was not heard of yet is waited for: a node that just started asks the network only now."""
LOOK_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Choice:
    """An announced server that was picked; ``known`` says that it was used before, under this fingerprint."""

    server: str
    domain: str
    fingerprint: bytes
    known: bool


def spoken(fingerprint: bytes) -> str:
    """Return a fingerprint in groups of four digits, as it is read to somebody."""
    digits = fingerprint.hex()
    return " ".join(digits[n : n + 4] for n in range(0, len(digits), 4))


def matching(servers: Sequence[ServerView], text: str) -> list[ServerView]:
    """Return the announced servers that a domain, or the first digits of a fingerprint or key, means."""
    wanted = text.lower()
    found = [one for one in servers if one.domain and one.domain.lower() == wanted]
    if len(wanted) >= KEY_PREFIX_MIN:
        digits = [(one, (one.fingerprint, one.key.hex() if one.key is not None else "")) for one in servers]
        found += [one for one, keys in digits if one not in found and any(key.startswith(wanted) for key in keys)]
    return found


async def find(text: str, servers: Callable[[], Sequence[ServerView]] | None, account: Account) -> Choice:
    """Return the announced server that is meant, once it is heard of; ``servers`` is None where nobody listens.

    Raises: LocalError when there is none, or more than one; with code ``untrusted`` when it announces another
    fingerprint than it had.
    """
    if servers is None:
        check_server(text)  # says how an address is written: nothing else can be meant here
        raise LocalError("this node does not listen to the local network; write the server's host:port")
    found: list[ServerView] = []
    try:
        async with asyncio.timeout(LOOK_FOR_S):
            while not (found := matching(servers(), text)):  # noqa: ASYNC110 - announcements wake nobody
                await asyncio.sleep(LOOK_AGAIN_S)
    except TimeoutError:
        raise LocalError(
            f"no server {text[:60]!r} announces itself on this network (those that do: qpc mesh peers --scan 3); "
            "elsewhere write host:port, as in mesh.example.org:7000",
            code="not_found",
        ) from None
    if len(found) > 1:
        digits = ", ".join(f"{one.fingerprint[:16]} at {one.server}" for one in found[:5])
        raise LocalError(f"more than one server here is {text[:60]!r}: write digits of its fingerprint: {digits}",
                         code="ambiguous")  # fmt: skip
    (one,) = found
    fingerprint = bytes.fromhex(one.fingerprint)
    if not fingerprint:
        raise LocalError(f"this server announces no fingerprint to compare; if you know it: qpc server {one.server}")
    pin = await account.pin(one.server)
    if pin is not None and pin != fingerprint:
        raise LocalError(
            f"{one.server} announces the fingerprint {spoken(fingerprint)}, and you know it by another; nothing was "
            f"sent. If its operator confirms the new one: qpc server {one.server} --trust {fingerprint.hex()}",
            code="untrusted",
        )
    return Choice(one.server, one.domain, fingerprint, known=pin is not None)


async def pick(text: str, choice: Choice, trust: bytes | None, account: Account) -> None:
    """Connect to the server that ``text`` meant, and make it the home server if it is who it is said to be.

    ``trust`` is the fingerprint that a person confirmed. Raises: LocalError, with code ``untrusted`` where
    nobody confirmed it or somebody else answers; UnavailableError.
    """
    if trust not in (None, choice.fingerprint):
        raise LocalError(
            f"{choice.server} announces another fingerprint than the one you trust: {spoken(choice.fingerprint)}; "
            "nothing was sent",
            code="untrusted",
        )
    if choice.known:
        await account.use(choice.server)
    elif trust is None:
        raise LocalError(
            f"{choice.server} announces the fingerprint {spoken(choice.fingerprint)}, and anybody on this network can "
            f"announce anything. Ask its operator (qpc-server status); if it is the same: qpc server {text} --trust "
            f"{choice.fingerprint.hex()}",
            code="untrusted",
        )
    else:
        await account.pick(choice.server, choice.fingerprint)
