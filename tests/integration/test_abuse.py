"""Neighbours that do not play by the rules, over real links: they are cut off, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.attacker import Attacker
from tests.server.attacked import until

from quicprochat.adapters.iroh import Endpoint
from quicprochat.adapters.iroh.addresses import SocketAddress
from quicprochat.core.address import Address
from quicprochat.core.envelope import Header, Kind, MeshEnvelope, make
from quicprochat.core.errors import UnavailableError
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.link import FrameType, decode_results, encode_record, frame
from quicprochat.core.receipt import Receipt, State, Status
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.p2p import Options, P2pNode, links


def node(home: Path, *, stays: bool = True) -> P2pNode:
    return P2pNode(Options(home, bind=Address("127.0.0.1", _free_port()), ephemeral=True, stays=stays))


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scene(tmp_path: Path, play: Callable[[P2pNode, Attacker], Awaitable[None]], *, stays: bool = True) -> None:
    async def run() -> None:
        async with asyncio.timeout(30), node(tmp_path / "victim", stays=stays) as victim, Attacker() as attacker:
            await play(victim, attacker)

    asyncio.run(run())


def test_a_flood_of_bad_signatures_is_cut_off_and_an_honest_peer_is_served(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        async with node(tmp_path / "honest") as honest:
            await victim.add(honest.key.hex(), "honest")
            await honest.add(str(victim.ticket()), "victim")
            await honest.wait_linked(victim.key, 10)
            await attacker.link(victim)
            bad = attacker.forged(victim.key)
            sending = asyncio.create_task(flood(attacker, bad))
            for number in range(50):
                sent = await honest.send("victim", f"message {number}")
                assert (await honest.wait(sent.uid, State.DELIVERED, 10)).state is State.DELIVERED
            reason = await attacker.connection.closed()
            assert "do not verify" in reason
            await asyncio.gather(sending, return_exceptions=True)
            assert len(await victim.inbox()) == 50
            with pytest.raises(UnavailableError):
                await attacker.link(victim)  # banned: the next link ends before its hello

    scene(tmp_path, play)


async def flood(attacker: Attacker, bad: bytes) -> None:
    while True:
        await attacker.say(FrameType.ENVELOPE, bad)


@pytest.mark.parametrize(
    ("say", "code"),
    [
        (b"\x00\x00\x00\x00\x02", "frame of 0 bytes"),
        (b"\xff\xff\xff\xff\x04", "are allowed"),
        (b"\x00\x00\x00\x01\x3f", "unknown type"),
        (b"\x00\x00\x00\x02\x05\x00", "without results"),
        (b"\x00\x00\x00\x01\x06", "cut short"),
    ],
    ids=["empty", "oversize", "unknown", "no results", "short record"],
)
def test_a_frame_that_no_node_sends_ends_the_link_with_a_reason(tmp_path: Path, say: bytes, code: str) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        await attacker.stream.write(say)
        assert code in await attacker.connection.closed()
        assert victim.networked

    scene(tmp_path, play)


def test_types_that_may_be_skipped_are_skipped(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        await attacker.stream.write(b"\x00\x00\x00\x03\x81??")
        await attacker.say(FrameType.PING)
        while (await attacker.hear())[0] != FrameType.PONG:
            pass

    scene(tmp_path, play)


def test_strangers_share_what_is_verified_for_them_however_many_links_they_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "STRANGERS_BURST", 4)
    monkeypatch.setattr(links, "STRANGERS_PER_S", 4)

    async def play(victim: P2pNode, attacker: Attacker) -> None:
        async with Attacker() as other:
            await attacker.link(victim)
            await other.link(victim)
            somebody = os.urandom(32)
            flood = (frame(FrameType.ENVELOPE, attacker.envelope(somebody).wire()) for _ in range(12))
            await attacker.stream.write(b"".join(flood))
            bucket = victim._runtime.links._strangers_bucket
            await until(lambda: bucket.wait_ms(victim._runtime.driver.now().at) > 1_500)
            began = asyncio.get_running_loop().time()
            await other.say(FrameType.ENVELOPE, other.envelope(somebody).wire())
            while (await other.hear())[0] != FrameType.RESULTS:
                pass
            assert asyncio.get_running_loop().time() - began > 1

    scene(tmp_path, play)


def test_an_envelope_without_a_hello_ends_the_link(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.dial(victim)
        await attacker.say(FrameType.ENVELOPE, attacker.envelope(victim.key).wire())
        assert "hello" in await attacker.connection.closed()
        assert (await victim.store_view()).messages == 0

    scene(tmp_path, play)


def test_a_hello_with_somebody_elses_record_ends_the_link(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        other = Attacker()
        await attacker.dial(victim)
        await attacker.say(FrameType.HELLO, other.hello().encode())
        assert "somebody else's record" in await attacker.connection.closed()
        assert not victim.linked()

    scene(tmp_path, play)


def test_what_does_not_open_is_answered_so_that_its_author_learns_of_it(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        envelope = attacker.envelope(victim.key)
        await attacker.say(FrameType.ENVELOPE, envelope.wire())
        kind, body = await attacker.hear()
        while kind != FrameType.ENVELOPE:
            kind, body = await attacker.hear()
        receipt = Receipt.decode(MeshEnvelope.decode(body).payload)
        assert (receipt.status, receipt.ids) == (Status.UNOPENABLE, (envelope.id,))
        assert receipt.record, "with the prekeys to seal with next time"

    scene(tmp_path, play)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"age_ms": 604_800_000}, Reason.EXPIRED),
        ({"hop": 33}, Reason.HOPS),
    ],
    ids=["expired", "too many hops"],
)
def test_an_envelope_past_its_time_is_refused_with_the_reason(
    tmp_path: Path, change: dict[str, int], reason: Reason
) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        envelope = attacker.envelope(victim.key)
        await attacker.say(FrameType.ENVELOPE, envelope.wire(**change))
        kind, body = await attacker.hear()
        while kind != FrameType.RESULTS:
            kind, body = await attacker.hear()
        (result,) = decode_results(body)
        assert (result.id, result.verdict, result.reason) == (envelope.id, Verdict.REFUSED, reason)

    scene(tmp_path, play)


def test_receipts_for_messages_never_sent_change_nothing(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        async with node(tmp_path / "friend") as friend:
            address = friend.ticket()
        await victim.add(str(address), "friend")  # away by now
        sent = await victim.send("friend", "is it there?")
        ids = (await victim.trace(sent.uid)).envelopes
        forged = make(
            Header(Kind.RECEIPT, attacker.signer.key, victim.key, bytes(16)),
            Receipt(Status.DELIVERED, tuple(ids)).encode(),
            attacker.signer,
        )
        await attacker.say(FrameType.ENVELOPE, forged.wire())
        await attacker.say(FrameType.PING)
        while (await attacker.hear())[0] != FrameType.PONG:
            pass
        await victim.settled()
        assert (await victim.sent(sent.uid)).state is State.QUEUED
        assert (await victim.store_view()).messages == 1

    scene(tmp_path, play)


def test_a_blocked_peer_finds_no_room_and_is_not_told_why(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        await victim.block(attacker.signer.key.hex())
        reason = await attacker.connection.closed()
        assert "no room" in reason
        assert "block" not in reason
        with pytest.raises(UnavailableError):
            await attacker.link(victim)

    scene(tmp_path, play)


def test_many_records_are_taken_no_faster_than_allowed(tmp_path: Path) -> None:
    async def play(victim: P2pNode, attacker: Attacker) -> None:
        await attacker.link(victim)
        for _ in range(300):
            other = Attacker()
            record = sign_record(PeerRecord(other.signer.key, 1, 1), other.signer)
            await attacker.say(FrameType.RECORD, encode_record(record, 0))
        await attacker.say(FrameType.PING)
        while (await attacker.hear())[0] != FrameType.PONG:
            pass
        await victim.settled()
        assert len(await victim.peers()) < 200

    scene(tmp_path, play)


def test_a_taken_port_is_said_in_a_sentence(tmp_path: Path) -> None:
    async def run() -> None:
        first = node(tmp_path / "a")
        async with first:
            port = first.addresses()[0].port
            second = P2pNode(Options(tmp_path / "b", bind=Address("127.0.0.1", port), ephemeral=True))
            with pytest.raises(UnavailableError, match="port in use"):
                await second.start()
            third = P2pNode(Options(tmp_path / "b", bind=Address("127.0.0.1", _free_port()), ephemeral=True))
            async with third:  # the failed start holds nothing
                assert third.networked

    asyncio.run(run())


def test_a_port_that_its_last_owner_is_leaving_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    leaving.bind(("127.0.0.1", 0))
    port = leaving.getsockname()[1]
    really = Endpoint.bind

    async def leave(secret: bytes, *, bind: SocketAddress | None, relay_url: str | None) -> Endpoint:
        try:
            return await really(secret, bind=bind, relay_url=relay_url)
        except UnavailableError:
            leaving.close()
            raise

    monkeypatch.setattr(Endpoint, "bind", leave)

    async def run() -> None:
        options = Options(tmp_path, bind=Address("127.0.0.1", port), ephemeral=True)
        async with P2pNode(options) as comer:
            assert comer.networked
            assert [at.port for at in comer.addresses()] == [port]

    with closing(leaving):
        asyncio.run(run())
