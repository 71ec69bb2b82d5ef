"""Which servers are let in, and which are called: the whole matrix of refusals, in both directions, no call served."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aioquic import tls
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtensionOID
from tests.unit.authorities import (
    ADDRESS,
    BOTH,
    CLIENT_AUTH,
    DAY,
    NOW,
    SERVER_AUTH,
    Issuer,
    authority,
    leaf,
)
from tests.unit.quic_pairs import LOOPBACK, SOON_S, Forger, Taker, bare, credentials, run, soon, until

from quicprochat.adapters import quic
from quicprochat.adapters.quic import FEDERATION_ALPN, Trust, UntrustedError
from quicprochat.core.errors import QuicprochatError, UnavailableError

CERTIFICATE_REQUIRED, ACCESS_DENIED, DECRYPT_ERROR, NO_ALPN, EXPIRED = 0x174, 0x131, 0x133, 0x178, 0x12D

LOOPBACK_RTT_S = 0.01
"""What aioquic assumes is ten times as long, and a closed connection stays for nine times that."""

CA = authority()
SAME_NAME = authority()
PINNED = authority("authority of pinned.net")
OLD = authority("old authority", start=-300, days=-10)
SUBORDINATE = authority("subordinate", under=CA)
PEER = leaf("x.net", CA)

TRUST = Trust(
    domain="b.net",
    domains=frozenset({"a.net", "pinned.net", "old.net"}),
    ca=CA.certificate,
    cas={"pinned.net": PINNED.certificate, "old.net": OLD.certificate},
    now=lambda: NOW,
)
HERE = leaf("b.net", CA)
THERE = leaf("a.net", CA)


def as_client(domain: str) -> Trust:
    """The same trust, of a server that calls ``domain``."""
    return replace(TRUST, domain="c.net", domains=TRUST.domains | {domain})


@dataclass
class Serving:
    """A server on its port, and what it was brought to do."""

    listener: quic.Listener
    accepted: list[quic.Connection] = field(default_factory=list)
    calls: list[bytes] = field(default_factory=list)
    why: list[str] = field(default_factory=list)


@asynccontextmanager
async def serving(
    trust: Callable[[], Trust] = lambda: TRUST, shown: quic.Credentials = HERE, check: quic.Check | None = None
) -> AsyncIterator[Serving]:
    """Serve whoever is accepted: each first word on a stream is a call."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(connection: quic.Connection) -> None:
        try:
            stream = await connection.stream(SOON_S)
        except UnavailableError:
            return
        taker = Taker()
        stream.set_protocol(taker)
        stream.resume_reading()
        await until(lambda: bool(taker.got) or connection.over)
        if taker.got:
            made.calls.append(bytes(taker.got))

    def accept(connection: quic.Connection) -> None:
        made.accepted.append(connection)
        tasks.append(asyncio.create_task(serve(connection)))

    def refuse(error: UntrustedError) -> None:
        made.why.append(str(error))

    checks = {FEDERATION_ALPN: check or quic.federated(trust)}
    listener = await quic.listen(LOOPBACK, shown, checks, accept, limit=10, distrusted=refuse)
    listener._configuration.initial_rtt = LOOPBACK_RTT_S
    made = Serving(listener)
    try:
        yield made
    finally:
        await listener.close()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def calling(
    to: quic.Listener, shown: quic.Credentials | None, chain: Sequence[x509.Certificate] = (), **settings: Any
) -> AsyncIterator[Any]:
    """A client of aioquic's own that trusts everybody, and says its word without waiting for anything."""
    settings = {"alpn_protocols": [FEDERATION_ALPN], "initial_rtt": LOOPBACK_RTT_S, **settings}
    if shown is not None:
        settings |= {"certificate": shown.certificate, "private_key": shown.key, "certificate_chain": list(chain)}
    made = QuicConnection(configuration=QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, **settings))
    async with bare(to, made) as client:
        client.connect(to.address)
        made.send_stream_data(0, b"call")
        client.transmit()
        yield client


# --- the good ones, without which no refusal says anything


@pytest.mark.parametrize(
    ("shown", "domain"),
    [
        (THERE, b"a.net"),
        (leaf("a.net", CA, key=ed25519.Ed25519PrivateKey.generate()), b"a.net"),
        (leaf("A.Net", CA), b"a.net"),
        (leaf("pinned.net", PINNED), b"pinned.net"),
    ],
    ids=["P-256", "Ed25519", "capitals", "pinned"],
)
def test_good_server_is_served(shown: quic.Credentials, domain: bytes) -> None:
    async def scenario() -> None:
        async with serving() as here, calling(here.listener, shown):
            await until(lambda: here.calls == [b"call"])
            assert [one.peer for one in here.accepted] == [domain]
            assert here.accepted[0].certificate == shown.certificate
            assert here.why == []

    run(scenario)


@pytest.mark.parametrize("key", [None, ed25519.Ed25519PrivateKey.generate()], ids=["P-256", "Ed25519"])
def test_good_server_is_called(key: ed25519.Ed25519PrivateKey | None) -> None:
    async def scenario() -> None:
        async with serving(shown=leaf("b.net", CA, key=key)) as here:
            check = quic.federated(lambda: as_client("b.net"), "b.net")
            there = await quic.connect(here.listener.address, FEDERATION_ALPN, THERE, check, SOON_S)
            assert there.peer == b"b.net"
            assert quic.domain_of(there.certificate) == "b.net"
            stream = await there.stream(SOON_S)
            stream.set_protocol(Taker())
            stream.write(b"call")
            await until(lambda: here.calls == [b"call"])
            await there.leave()

    run(scenario)


# --- who is refused, at either end

GARBAGE = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x05junk")


def unreadable(domain: str) -> quic.Credentials:
    made = leaf(domain, CA, names=[])
    key = made.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder(
        CA.certificate.subject, made.certificate.subject, key.public_key(), 5, NOW - DAY, NOW + DAY
    ).add_extension(GARBAGE, critical=False)
    return quic.Credentials(builder.sign(CA.key, hashes.SHA256()), key)


DNS = x509.DNSName
_PEER = Issuer(PEER.certificate, PEER.key)  # type: ignore[arg-type]
BAD: dict[str, tuple[Callable[[str], quic.Credentials], Sequence[x509.Certificate], int, str]] = {
    "self-signed": (lambda d: leaf(d, None), (), ACCESS_DENIED, "not from the authority in federation_ca"),
    "self-signed authority": (lambda d: leaf(d, None, ca=True), (), ACCESS_DENIED, "not from the authority in"),
    "other authority of the same name": (lambda d: leaf(d, SAME_NAME), (), ACCESS_DENIED, "not from the authority"),
    "other authority, sent along": (
        lambda d: leaf(d, SAME_NAME), (SAME_NAME.certificate,), ACCESS_DENIED, "not from the authority",
    ),
    "issued by a leaf": (lambda d: leaf(d, _PEER), (PEER.certificate,), ACCESS_DENIED, "not from the authority"),
    "issued by a subordinate": (
        lambda d: leaf(d, SUBORDINATE), (SUBORDINATE.certificate,), ACCESS_DENIED, "not from the authority",
    ),
    "the authority itself": (lambda _: quic.Credentials(CA.certificate, CA.key), (), ACCESS_DENIED, "name one domain"),
    "an authority with a name": (lambda d: leaf(d, CA, ca=True), (), ACCESS_DENIED, "not from the authority"),
    "expired": (
        lambda d: leaf(d, CA, start=-20, days=-2), (), EXPIRED, "clock says 2026-07-01: .* was valid until 2026-06-29;",
    ),
    "not yet valid": (
        lambda d: leaf(d, CA, start=2), (), EXPIRED, "clock says 2026-07-01: .* is not valid before 2026-07-03;",
    ),
    "serverAuth alone": (lambda d: leaf(d, CA, usages=[SERVER_AUTH]), (), ACCESS_DENIED, "serverAuth and clientAuth"),
    "clientAuth alone": (lambda d: leaf(d, CA, usages=[CLIENT_AUTH]), (), ACCESS_DENIED, "serverAuth and clientAuth"),
    "any usage": (
        lambda d: leaf(d, CA, usages=[x509.ObjectIdentifier("2.5.29.37.0")]), (), ACCESS_DENIED, "serverAuth and",
    ),
    "no usage": (lambda d: leaf(d, CA, usages=[]), (), ACCESS_DENIED, "serverAuth and clientAuth"),
    "no name": (lambda d: leaf(d, CA, names=[]), (), ACCESS_DENIED, "name one domain"),
    "an address": (lambda d: leaf(d, CA, names=[ADDRESS]), (), ACCESS_DENIED, "name one domain"),
    "an address as a domain": (lambda d: leaf(d, CA, names=[DNS("127.0.0.1")]), (), ACCESS_DENIED, "name one domain"),
    "a name and an address": (lambda d: leaf(d, CA, names=[DNS(d), ADDRESS]), (), ACCESS_DENIED, "name one domain"),
    "two names": (lambda d: leaf(d, CA, names=[DNS(d), DNS("x.net")]), (), ACCESS_DENIED, "name one domain"),
    "a name twice": (lambda d: leaf(d, CA, names=[DNS(d), DNS(d)]), (), ACCESS_DENIED, "name one domain"),
    "wildcard": (lambda d: leaf(d, CA, names=[DNS("*.net")]), (), ACCESS_DENIED, "name one domain"),
    "a dot at the end": (lambda d: leaf(d, CA, names=[DNS(d + ".")]), (), ACCESS_DENIED, "name one domain"),
    "unreadable": (unreadable, (), ACCESS_DENIED, "cannot be read"),
    "authority of another domain": (lambda d: leaf(d, PINNED), (), ACCESS_DENIED, "not from the authority in fed"),
    "wrong key": (
        lambda d: replace(leaf(d, CA), key=ec.generate_private_key(ec.SECP256R1())), (), DECRYPT_ERROR, "",
    ),
}  # fmt: skip
CALLED_BY = {
    "domain not allowed": (lambda _: leaf("x.net", CA), (), ACCESS_DENIED, r"x.net is not in \[federation_peers\]"),
    "our own domain": (lambda _: leaf("b.net", CA), (), ACCESS_DENIED, "b.net, this server's own domain"),
    "pinned domain by the common authority": (
        lambda _: leaf("pinned.net", CA), (), ACCESS_DENIED, r"not from the authority that \[federation_cas\] names",
    ),
    "expired authority": (
        lambda _: leaf("old.net", OLD, start=-200), (), EXPIRED, "authority.s certificate of old.net was valid until",
    ),
    "a client's certificate": (lambda _: credentials(), (), ACCESS_DENIED, "name one domain"),
}  # fmt: skip


@pytest.mark.parametrize("case", [*BAD, *CALLED_BY])
def test_bad_server_that_calls_is_not_served(case: str) -> None:
    make, chain, alert, why = {**BAD, **CALLED_BY}[case]

    async def scenario() -> None:
        async with serving() as here, calling(here.listener, make("a.net"), chain) as client:
            code, _ = await soon(client.ended)
            assert code == alert
            await until(lambda: here.listener.refused == 1)
            assert (here.accepted, here.calls, here.listener.connections) == ([], [], frozenset())
            assert len(here.why) == (1 if why else 0)

    run(scenario)
    if why:
        with pytest.raises(UntrustedError, match=why):
            quic.federated(lambda: TRUST)(make("a.net").certificate, ())


@pytest.mark.parametrize("case", BAD)
def test_bad_server_that_is_called_learns_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, chain, _, why = BAD[case]
    seen: list[bytes] = []

    def spy(leaf: x509.Certificate, _: object) -> bytes:
        seen.append(leaf.public_bytes(serialization.Encoding.DER))
        return b"anybody"

    async def scenario() -> None:
        async with serving(shown=make("b.net"), check=spy) as here:
            here.listener._configuration.certificate_chain = list(chain)
            check = quic.federated(lambda: as_client("b.net"), "b.net")
            with pytest.raises(UntrustedError if why else UnavailableError, match=why or None):
                await quic.connect(here.listener.address, FEDERATION_ALPN, THERE, check, SOON_S)
            await until(lambda: here.listener.refused == 1)
            assert (here.accepted, here.calls, seen) == ([], [], [])

    run(scenario)


@pytest.mark.parametrize(
    ("trust", "shown", "expected", "why"),
    [
        (as_client("b.net"), leaf("a.net", CA), "b.net", "where b.net was called, .* for a.net; nothing was sent"),
        (TRUST, HERE, "b.net", "own domain"),
        (TRUST, leaf("x.net", CA), "x.net", r"not in \[federation_peers\]"),
        (TRUST, leaf("pinned.net", CA), "pinned.net", r"that \[federation_cas\] names"),
        (TRUST, leaf("old.net", OLD, start=-200), "old.net", "authority's certificate of old.net was valid until"),
    ],
    ids=["another peer", "our own domain", "taken off the list", "pinned", "expired authority"],
)
def test_wrong_server_is_not_called(trust: Trust, shown: quic.Credentials, expected: str, why: str) -> None:
    async def scenario() -> None:
        async with serving(shown=shown, check=quic.anybody) as here:
            with pytest.raises(UntrustedError, match=why):
                await quic.connect(
                    here.listener.address, FEDERATION_ALPN, THERE, quic.federated(lambda: trust, expected), SOON_S
                )
            await until(lambda: here.listener.refused == 1)
            assert (here.accepted, here.calls) == ([], [])

    run(scenario)


def test_server_without_a_certificate_is_not_served() -> None:
    async def scenario() -> None:
        async with serving() as here, calling(here.listener, None) as client:
            assert (await soon(client.ended))[0] == CERTIFICATE_REQUIRED
            await until(lambda: here.listener.refused == 1)
            assert (here.accepted, here.calls) == ([], [])

    run(scenario)


@pytest.mark.parametrize("alpns", [None, ["h3"], ["capnp"], ["quicprochat/federation/2"]])
def test_server_of_another_protocol_is_not_served(alpns: list[str] | None) -> None:
    async def scenario() -> None:
        async with serving() as here, calling(here.listener, THERE, alpn_protocols=alpns) as client:
            assert (await soon(client.ended))[0] == NO_ALPN
            assert (here.accepted, here.calls) == ([], [])

    run(scenario)


@pytest.mark.parametrize("alpns", [None, ["capnp"]])
def test_server_of_another_protocol_is_not_called(alpns: list[str] | None) -> None:
    """One without any protocol goes on with the handshake; RFC 9001 §8.1 leaves it to us to end it."""

    async def scenario() -> None:
        there = QuicConfiguration(
            is_client=False, alpn_protocols=alpns, certificate=HERE.certificate, private_key=HERE.key
        )
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: QuicServer(configuration=there), LOOPBACK)
        try:
            check = quic.federated(lambda: as_client("b.net"), "b.net")
            with pytest.raises(QuicprochatError, match=r"ALPN|protocol"):
                await quic.connect(transport.get_extra_info("sockname"), FEDERATION_ALPN, THERE, check, SOON_S)
        finally:
            transport.close()

    run(scenario)


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
