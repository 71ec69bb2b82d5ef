"""Between servers nothing is resumed, wrong clocks are named, and trust that is lost counts at once."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import replace
from typing import Any

import pytest
from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.asymmetric import ed25519
from tests.unit.authorities import (
    BOTH,
    DAY,
    NOW,
    leaf,
)
from tests.unit.quic_pairs import LOOPBACK, SOON_S, Forger, bare, credentials, run, soon, until
from tests.unit.servers import (
    ACCESS_DENIED,
    CA,
    CERTIFICATE_REQUIRED,
    HERE,
    PINNED,
    SAME_NAME,
    THERE,
    TRUST,
    as_client,
    calling,
    serving,
)

from quicprochat.adapters import quic
from quicprochat.adapters.quic import FEDERATION_ALPN, UntrustedError

# --- nothing is resumed


@pytest.mark.parametrize("certified", [True, False])
def test_ticket_is_worth_nothing_whatever_port_it_is_from(certified: bool) -> None:
    async def scenario() -> None:
        tickets: list[tls.SessionTicket] = []
        day = datetime.timedelta(days=1)
        ticket = tls.SessionTicket(
            age_add=0, cipher_suite=tls.CipherSuite.AES_256_GCM_SHA384, not_valid_before=tls.utcnow() - day,
            not_valid_after=tls.utcnow() + day, resumption_secret=bytes(48), server_name="", ticket=bytes(64),
            max_early_data_size=0xFFFFFFFF,
        )  # fmt: skip
        shown = THERE if certified else None
        async with serving() as here, calling(here.listener, shown, session_ticket=ticket, server_name="") as client:
            client._quic._session_ticket_handler = tickets.append
            if certified:
                await until(lambda: here.calls == [b"call"])
                assert client.resumed is False
                assert [one.peer for one in here.accepted] == [b"a.net"]
            else:
                assert (await soon(client.ended))[0] == CERTIFICATE_REQUIRED
                assert (here.accepted, here.calls) == ([], [])
        assert tickets == []

    run(scenario)


def test_neither_port_gives_a_ticket() -> None:
    async def scenario() -> None:
        tickets: list[tls.SessionTicket] = []
        client_port = await quic.listen(LOOPBACK, credentials(), {"capnp": quic.key_holder}, lambda _: None, limit=5)
        async with serving() as here:
            for listener, shown, alpn in (
                (here.listener, THERE, FEDERATION_ALPN),
                (client_port, credentials(), "capnp"),
            ):
                configuration = QuicConfiguration(
                    is_client=True, verify_mode=ssl.CERT_NONE, alpn_protocols=[alpn],
                    certificate=shown.certificate, private_key=shown.key,
                )  # fmt: skip
                made = QuicConnection(configuration=configuration, session_ticket_handler=tickets.append)
                async with bare(listener, made) as client:
                    client.connect(listener.address)
                    await until(lambda listener=listener: len(listener.connections) == 1)  # type: ignore[misc]
                    await soon(client.ping())
        await client_port.close()
        assert tickets == []

    run(scenario)


# --- clocks

IN_1970 = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def test_clock_in_1970_is_named_by_whoever_has_it() -> None:
    async def scenario() -> None:
        async with serving() as here:
            check = quic.federated(lambda: replace(as_client("b.net"), now=lambda: IN_1970), "b.net")
            with pytest.raises(UntrustedError, match=r"this machine's clock says 1970-01-01: .* set the clock right"):
                await quic.connect(here.listener.address, FEDERATION_ALPN, THERE, check, SOON_S)
        async with serving(lambda: replace(TRUST, now=lambda: IN_1970)) as here:
            check = quic.federated(lambda: as_client("b.net"), "b.net")
            there = await quic.connect(here.listener.address, FEDERATION_ALPN, THERE, check, SOON_S)
            assert "compare the clocks" in await soon(there.ended())
            await until(lambda: here.listener.refused == 1)
            assert (here.accepted, here.calls) == ([], [])
            assert "clock says 1970-01-01" in here.why[0]

    run(scenario)


def test_clock_years_ahead_is_named_too() -> None:
    ahead = replace(TRUST, now=lambda: NOW.replace(year=2190))
    with pytest.raises(UntrustedError, match=r"this machine's clock says 2190-07-01: .* set the clock right"):
        quic.federated(lambda: ahead)(THERE.certificate, ())


def test_nobody_hears_of_clocks_whom_no_authority_knows() -> None:
    """Else anybody could ask which domains are peers, and what time it is here."""

    async def scenario() -> None:
        shown = leaf("a.net", SAME_NAME, start=-20, days=-2)
        async with serving() as here, calling(here.listener, shown) as client:
            assert (await soon(client.ended))[0] == ACCESS_DENIED

    run(scenario)


# --- afterwards


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"ca": PINNED.certificate}, "not from the authority in federation_ca"),
        ({"cas": {"a.net": PINNED.certificate}}, r"that \[federation_cas\] names"),
        ({"cas": {"a.net": CA.certificate}, "ca": PINNED.certificate}, None),
        ({"domains": frozenset({"pinned.net"})}, r"a.net is not in \[federation_peers\]"),
        ({"domain": "a.net"}, "own domain"),
        ({"now": lambda: NOW + 100 * DAY}, "clock says 2026-10-09: .* was valid until"),
        ({"now": lambda: IN_1970}, None),
    ],
    ids=["nothing", "authority", "pinned", "pinned to the same", "list", "own domain", "expired", "clock went back"],
)
def test_connected_server_is_judged_again(change: dict[str, Any], why: str | None) -> None:
    error = quic.distrusted(replace(TRUST, **change), THERE.certificate)
    if why is None:
        assert error is None
    else:
        with pytest.raises(UntrustedError, match=why):
            raise error or AssertionError("it is still trusted")


def test_new_trust_counts_from_the_next_connection() -> None:
    async def scenario() -> None:
        trust = [TRUST]
        async with serving(lambda: trust[0]) as here:
            async with calling(here.listener, THERE):
                await until(lambda: len(here.calls) == 1)
            trust[0] = replace(TRUST, domains=frozenset())
            async with calling(here.listener, THERE) as client:
                assert (await soon(client.ended))[0] == ACCESS_DENIED
            assert len(here.calls) == 1

    run(scenario)


def test_renewed_certificate_is_shown_from_the_next_connection() -> None:
    async def scenario() -> None:
        async with serving() as here:
            check = quic.federated(lambda: as_client("b.net"), "b.net")
            before = await quic.connect(here.listener.address, FEDERATION_ALPN, THERE, check, SOON_S)
            await until(lambda: len(here.listener.connections) == 1)
            renewed = leaf("b.net", CA, key=ed25519.Ed25519PrivateKey.generate())
            here.listener.renew(renewed)
            after = await quic.connect(here.listener.address, FEDERATION_ALPN, THERE, check, SOON_S)
            assert (before.certificate, after.certificate) == (HERE.certificate, renewed.certificate)
            await until(lambda: len(here.listener.connections) == 2)
            assert not before.over
            await before.leave()
            await after.leave()

    run(scenario)


def test_handshake_under_way_begins_anew_when_something_changes() -> None:
    """Its certificate may have been judged by what was trusted before."""

    async def scenario() -> None:
        async with serving() as here:
            forger = Forger(here.listener.address)
            forger.initial()
            await until(lambda: len(here.listener._shaking) == 1)
            here.listener.renew(HERE)
            assert len(here.listener._shaking) == 0
            forger.close()
            async with calling(here.listener, THERE):
                await until(lambda: here.calls == [b"call"])
            assert len(here.accepted) == 1

    run(scenario)


def test_both_usages_are_what_we_say() -> None:
    assert frozenset(BOTH) == quic.USAGES
