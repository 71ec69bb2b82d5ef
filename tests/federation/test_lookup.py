"""Names and records of other domains: that domain's word, kept for a while."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.federation.villages import NORTH, SOUTH, Desk, Person, Villages, pretending, scene, soon, stranger

from quicprochat.adapters import rpc
from quicprochat.adapters.rpc import Problem
from quicprochat.core.errors import UnavailableError
from quicprochat.core.ids import PeerKey
from quicprochat.core.record import PeerRecord, sign_record
from quicprochat.core.time import Instant
from quicprochat.server.federation import lookup, rules
from quicprochat.server.federation.lookup import Answers


async def find_name(who: Person, name: str, domain: str) -> bytes:
    answer = await soon(rpc.Remote.ask(who.caller.session.findName(name, domain), "finding"))
    return bytes(answer.key)


async def find_record(who: Person, key: bytes, domain: str) -> tuple[bytes, int]:
    answer = await soon(rpc.Remote.ask(who.caller.session.findRecord(key, domain), "finding"))
    return bytes(answer.record), answer.ageMs


def record_of(who: Person, **fields: Any) -> bytes:
    return sign_record(PeerRecord(who.key, 1, 1, **fields), who.caller.signer)


def test_name_and_record_are_found_at_their_domain_and_kept_while_it_is_away(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada:
            async with them.person(SOUTH) as bob:
                await soon(rpc.Remote.ask(bob.caller.session.register("bob", ""), "registering"))
                await bob.publish(record := record_of(bob, name="Bob"))
                key = bob.key
                for domain in (SOUTH, SOUTH.upper() + "."):
                    assert await find_name(ada, "bob", domain) == key
                    assert (await find_record(ada, key, domain))[0] == record
                assert await find_record(ada, ada.key, SOUTH) == (b"", 0)
                assert await find_record(ada, key, "") == (b"", 0)
            await them.stop(SOUTH)
            assert await find_name(ada, "bob", SOUTH) == key
            assert (await find_record(ada, key, SOUTH))[0] == record
            with pytest.raises(Problem) as caught:
                await find_name(ada, "eve", SOUTH)
            assert caught.value.code == "unavailable"
            with pytest.raises(Problem) as caught:
                await find_name(ada, "bob", "nobody.example")
            assert caught.value.code == "policy"
            with pytest.raises(Problem) as caught:
                await find_name(ada, "bob", NORTH)
            assert caught.value.code == "not_found"

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_nobody_of_that_name_there_is_said_as_such(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada:
            with pytest.raises(Problem) as caught:
                await find_name(ada, "bob", SOUTH)
            assert caught.value.code == "not_found"

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_record_of_somebody_else_or_of_nobody_is_not_passed_on(tmp_path: Path) -> None:
    class Liar(Desk):
        lie = b""

        async def own_record(self, key: Any) -> tuple[bytes, int]:
            return self.lie, 0

    async def scenario(them: Villages) -> None:
        desk = Liar(SOUTH)
        async with them.person(NORTH) as ada, pretending(them, desk):
            somebody = os.urandom(32)
            for desk.lie in (record_of(ada), record_of(ada)[:-1] + b"x", b"nonsense", bytes(3_000)):
                with pytest.raises(Problem) as caught:
                    await find_record(ada, somebody, SOUTH)
                assert caught.value.code == "unavailable"

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


def test_many_look_ups_at_once_do_not_make_us_hung_up_on(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with them.person(NORTH) as ada:
            answers = await asyncio.gather(
                *(find_name(ada, f"nobody-{n}", SOUTH) for n in range(100)), return_exceptions=True
            )
            assert {getattr(one, "code", one) for one in answers} == {"not_found"}
            assert them.up[SOUTH].meter.totals().get("refused.federation_calls", 0) == 0

    scene(tmp_path, NORTH, SOUTH)(scenario)


def test_arguments_are_bounded(tmp_path: Path) -> None:
    async def scenario(them: Villages) -> None:
        async with stranger(them, SOUTH, NORTH) as south:
            await south.reach(NORTH)
            peer = south._links[NORTH].peer
            for ask, code in (
                (peer.findName(NORTH, "x" * 2_000), "too_long"),
                (peer.findName("x" * 2_000, "bob"), "too_long"),
                (peer.findRecord(NORTH, b"short"), "usage"),
                (peer.findRecord(NORTH, bytes(10_000)), "usage"),
            ):
                with pytest.raises(Problem) as caught:
                    await soon(rpc.Remote.ask(ask, "asking"))
                assert caught.value.code == code

    scene(tmp_path, NORTH, SOUTH, up=1)(scenario)


class Clock:
    at = Instant(1_000_000)

    def __call__(self) -> Instant:
        return self.at


KEY = PeerKey(bytes(32))


def asked(answers: Answers[PeerKey], ask: Any, what: bytes = b"bob") -> PeerKey:
    return asyncio.run(answers.find(SOUTH, what, ask))[0]


class Asker:
    """Answers, or fails, and counts."""

    def __init__(self, answer: PeerKey | Exception) -> None:
        self.answer = answer
        self.times = 0

    async def __call__(self) -> PeerKey:
        self.times += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_fresh_answer_is_not_asked_for_again_and_a_stale_one_is() -> None:
    clock, asker = Clock(), Asker(KEY)
    answers: Answers[PeerKey] = Answers(clock)
    for later, times in ((0, 1), (rules.FRESH_MS - 1, 1), (1, 2)):
        clock.at = Instant(clock.at + later)
        assert asked(answers, asker) == KEY
        assert asker.times == times


def test_old_answer_serves_for_a_day_when_the_domain_is_silent() -> None:
    clock, asker = Clock(), Asker(KEY)
    answers: Answers[PeerKey] = Answers(clock)
    asked(answers, asker)
    asker.answer = UnavailableError("silent")
    clock.at = Instant(clock.at + rules.STALE_MS - 1)
    assert asked(answers, asker) == KEY
    clock.at = Instant(clock.at + 1)
    with pytest.raises(UnavailableError, match="silent"):
        asked(answers, asker)


def test_that_there_is_nobody_is_believed_for_a_minute_and_ends_what_was_known() -> None:
    clock, asker = Clock(), Asker(KEY)
    answers: Answers[PeerKey] = Answers(clock)
    asked(answers, asker)
    clock.at = Instant(clock.at + rules.FRESH_MS)
    asker.answer = Problem("nobody", "not_found")
    for times in (2, 2):
        with pytest.raises(Problem, match="nobody"):
            asked(answers, asker)
        assert asker.times == times
    asker.answer = UnavailableError("silent")
    clock.at = Instant(clock.at + rules.NOT_FOUND_MS)
    with pytest.raises(UnavailableError):
        asked(answers, asker)


def test_answers_are_few_and_those_not_asked_for_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "ANSWERS_MAX", 2)
    asker = Asker(KEY)
    answers: Answers[PeerKey] = Answers(Clock())
    for what, times in ((b"a", 1), (b"b", 2), (b"a", 2), (b"c", 3), (b"a", 3), (b"b", 4)):
        asked(answers, asker, what)
        assert asker.times == times
    assert len(answers) == 2
    answers.forget(SOUTH)
    assert len(answers) == 0
