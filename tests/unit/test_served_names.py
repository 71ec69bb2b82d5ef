"""Names at domains: whom is asked, what is remembered, and what a person is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit.drivers import driven

from quicprochat.console.errors import NOT_FOUND, REFUSED, UNREACHABLE, UNTRUSTED, USAGE, exit_code
from quicprochat.core.errors import LocalError, QuicprochatError, UnavailableError
from quicprochat.core.identity import fingerprint
from quicprochat.core.ids import PeerKey
from quicprochat.p2p.book import lives_at_domain
from quicprochat.p2p.names import Names

BOB, EVE = PeerKey(b"b" * 32), PeerKey(b"e" * 32)
PLACE = "node2.mesh.local"


class ServerError(QuicprochatError):
    """As a home server's problem arrives."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Account:
    """Answers with a key, or an error."""

    def __init__(self) -> None:
        self.answer: PeerKey | QuicprochatError = BOB
        self.asked: list[tuple[str, str]] = []
        self.reached = False

    async def settled(self) -> None:
        """The server was reached."""
        self.reached = True

    async def find_name(self, name: str, domain: str) -> PeerKey:
        assert self.reached, "asked before the server was reached"
        self.asked.append((name, domain))
        if isinstance(self.answer, QuicprochatError):
            raise self.answer
        return self.answer


def run(work: Callable[[Names, Account], Awaitable[Any]]) -> None:
    async def scenario() -> None:
        async with driven() as home:
            account = Account()
            await work(Names(home.driver, account, account.settled), account)  # type: ignore[arg-type]

    asyncio.run(scenario())


def test_a_name_of_any_domain_is_asked_for_there() -> None:
    async def work(names: Names, account: Account) -> None:
        assert await names.resolve("Bob@Node2.Mesh.Local.") == (BOB, PLACE)
        assert account.asked == [("bob", PLACE)]

    run(work)


def test_a_key_at_a_domain_needs_nobodys_word() -> None:
    async def work(names: Names, account: Account) -> None:
        account.answer = UnavailableError("no server")
        assert await names.resolve(f"{EVE.hex().upper()}@{PLACE}") == (EVE, PLACE)
        assert account.asked == []

    run(work)


def test_another_key_than_the_first_is_not_believed() -> None:
    async def work(names: Names, account: Account) -> None:
        await names.resolve(f"bob@{PLACE}")
        account.answer = EVE
        for _ in range(2):  # nor the second time
            with pytest.raises(LocalError, match="Nothing was sent") as refused:
                await names.resolve(f"bob@{PLACE}")
            assert exit_code(refused.value) == UNTRUSTED
            assert fingerprint(BOB) in str(refused.value)
            assert f"{EVE.hex()}@{PLACE}" in str(refused.value)

    run(work)


def test_the_same_name_elsewhere_is_another_one() -> None:
    async def work(names: Names, account: Account) -> None:
        await names.resolve(f"bob@{PLACE}")
        account.answer = EVE
        assert await names.resolve("bob@third.example") == (EVE, "third.example")

    run(work)


@pytest.mark.parametrize("error", [UnavailableError("no way"), ServerError("no way", "unavailable")])
def test_a_domain_that_is_away_is_said_with_what_to_do_and_a_known_name_stays_what_it_was(
    error: QuicprochatError,
) -> None:
    async def work(names: Names, account: Account) -> None:
        account.answer = error
        with pytest.raises(UnavailableError) as refused:
            await names.resolve(f"bob@{PLACE}")
        assert exit_code(refused.value) == UNREACHABLE
        for words in (PLACE, "no way", "Nothing was sent", f"<key>@{PLACE}"):
            assert words in str(refused.value)
        account.answer = BOB
        await names.resolve(f"bob@{PLACE}")
        account.answer = error
        assert await names.resolve(f"bob@{PLACE}") == (BOB, PLACE)

    run(work)


@pytest.mark.parametrize(("code", "exits"), [("not_found", NOT_FOUND), ("policy", REFUSED)])
def test_a_no_is_a_no_also_for_a_name_that_was_known(code: str, exits: int) -> None:
    async def work(names: Names, account: Account) -> None:
        await names.resolve(f"bob@{PLACE}")
        account.answer = ServerError("the server's own words", code)
        with pytest.raises(LocalError, match="the server's own words") as refused:
            await names.resolve(f"bob@{PLACE}")
        assert exit_code(refused.value) == exits
        assert PLACE in str(refused.value)

    run(work)


@pytest.mark.parametrize("text", ["bob@", "bob@a b", "bob@127.0.0.1", f"{EVE.hex()}@-x", "bob@\u2028"])
def test_what_is_no_domain_is_a_mistake_of_typing(text: str) -> None:
    async def work(names: Names, account: Account) -> None:
        with pytest.raises(LocalError, match="no domain") as refused:
            await names.resolve(text)
        assert exit_code(refused.value) == USAGE
        assert account.asked == []

    run(work)


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        (f"bob@{PLACE}", True),
        (f"{EVE.hex()}@{PLACE}", True),
        (f"{EVE.hex()}@192.0.2.1:7000", False),
        (f"{EVE.hex()}@[2001:db8::1]:7000", False),
        (EVE.hex(), False),
        ("bob", False),
    ],
)
def test_a_key_at_an_address_is_not_one_at_a_domain(text: str, domain: bool) -> None:
    assert lives_at_domain(text) is domain
