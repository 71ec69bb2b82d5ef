"""Which servers are let in, and which are called: the whole matrix of refusals, in both directions, no call served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtensionOID
from tests.unit.authorities import (
    ADDRESS,
    CLIENT_AUTH,
    DAY,
    NOW,
    SERVER_AUTH,
    Issuer,
    leaf,
)
from tests.unit.quic_pairs import LOOPBACK, SOON_S, Taker, credentials, run, soon, until
from tests.unit.servers import (
    ACCESS_DENIED,
    CA,
    CERTIFICATE_REQUIRED,
    DECRYPT_ERROR,
    EXPIRED,
    HERE,
    NO_ALPN,
    OLD,
    PEER,
    PINNED,
    SAME_NAME,
    SUBORDINATE,
    THERE,
    TRUST,
    as_client,
    calling,
    serving,
)

from quicprochat.adapters import quic
from quicprochat.adapters.quic import FEDERATION_ALPN, Trust, UntrustedError
from quicprochat.core.errors import QuicprochatError, UnavailableError

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
