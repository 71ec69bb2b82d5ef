"""Who is at the other end: both are proved before a word is said, and an impostor learns nothing."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import replace

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.x509.oid import NameOID
from tests.unit.quic_pairs import (
    ALPN,
    CLIENT,
    CLIENT_KEY,
    PIN,
    SERVER,
    credentials,
    dial,
    foreign,
    listening,
    run,
    soon,
    until,
)

from quicprochat.adapters import quic
from quicprochat.adapters.quic.tls import PeerContext, UntrustedError
from quicprochat.core.errors import UnavailableError

CERTIFICATE_REQUIRED, ACCESS_DENIED, DECRYPT_ERROR, NO_ALPN, UNSUPPORTED = 0x174, 0x131, 0x133, 0x178, 0x12B


def test_each_end_knows_who_the_other_is() -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            out = await dial(listener)
            await until(lambda: bool(accepted))
            assert (out.peer, out.alpn) == (PIN, ALPN)
            assert (accepted[0].peer, accepted[0].alpn) == (CLIENT_KEY, ALPN)
            assert listener.connections == {accepted[0]}

    run(scenario)


@pytest.mark.parametrize(("bind", "to"), [("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1")])
def test_both_families_are_served(bind: str, to: str) -> None:
    async def scenario() -> None:
        accepted: list[quic.Connection] = []
        listener = await quic.listen((bind, 0), SERVER, {ALPN: quic.key_holder}, accepted.append, limit=1)
        out = await quic.connect((to, listener.address[1]), ALPN, CLIENT, quic.pinned(PIN), 5)
        await until(lambda: bool(accepted))
        await out.leave()
        await listener.close()

    run(scenario)


def test_first_use_learns_the_fingerprint() -> None:
    async def scenario() -> None:
        async with listening() as (listener, _):
            assert (await dial(listener, quic.anybody)).peer == PIN

    run(scenario)


@pytest.fixture
def certificates_seen(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every client's Certificate message that reaches a server here, whatever becomes of it."""
    seen: list[bytes] = []
    honest = tls.Context._server_handle_certificate

    def note(context: tls.Context, buffer: Buffer) -> None:
        seen.append(buffer.data)
        honest(context, buffer)

    monkeypatch.setattr(tls.Context, "_server_handle_certificate", note)
    return seen


def test_impostor_never_sees_the_clients_certificate(certificates_seen: list[bytes]) -> None:
    async def scenario() -> None:
        claimed: list[bytes] = []

        def spy(leaf: x509.Certificate, _: object) -> bytes:
            claimed.append(leaf.public_bytes(serialization.Encoding.DER))
            return b"somebody"

        async with listening({ALPN: spy}) as (impostor, accepted):
            with pytest.raises(UntrustedError, match="key has changed"):
                await dial(impostor, quic.pinned(bytes(32)))
            await until(lambda: impostor.refused == 1)  # it has heard all that the client had to say
            assert (claimed, certificates_seen, accepted) == ([], [], [])
            await dial(impostor, quic.pinned(PIN))  # with the right pin it would have seen it
            await until(lambda: bool(accepted))
            assert len(claimed) == len(certificates_seen) == 1

    run(scenario)


def test_server_that_was_refused_serves_others() -> None:
    async def scenario() -> None:
        async with listening() as (listener, accepted):
            for _ in range(3):
                with pytest.raises(UntrustedError):
                    await dial(listener, quic.pinned(b"another"))
            await dial(listener)
            await until(lambda: len(accepted) == 1)

    run(scenario)


def certificate(key: object, signer: object, algorithm: hashes.HashAlgorithm | None) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key, 1, day, day.replace(year=2090))  # type: ignore[arg-type]
    return builder.sign(signer, algorithm)  # type: ignore[arg-type]


def of_another_kind() -> quic.Credentials:
    key = ec.generate_private_key(ec.SECP256R1())
    return quic.Credentials(certificate(key.public_key(), key, hashes.SHA256()), key)


def that_cannot_sign() -> quic.Credentials:
    key = x25519.X25519PrivateKey.generate()
    return quic.Credentials(
        certificate(key.public_key(), ed25519.Ed25519PrivateKey.generate(), None), ed25519.Ed25519PrivateKey.generate()
    )


def of_an_unknown_kind() -> quic.Credentials:
    der = CLIENT.certificate.public_bytes(serialization.Encoding.DER)
    unknown = der.replace(b"\x06\x03\x2b\x65\x70\x03\x21", b"\x06\x03\x2b\x65\x63\x03\x21")
    return quic.Credentials(x509.load_der_x509_certificate(unknown), CLIENT.key)


def with_another_key() -> quic.Credentials:
    return replace(credentials(), key=CLIENT.key)


@pytest.mark.parametrize(
    ("make", "alert"),
    [
        (None, CERTIFICATE_REQUIRED),
        (of_another_kind, ACCESS_DENIED),
        (that_cannot_sign, ACCESS_DENIED),
        (of_an_unknown_kind, UNSUPPORTED),
        (with_another_key, DECRYPT_ERROR),
    ],
)
def test_client_without_a_good_certificate_is_refused(
    make: Callable[[], quic.Credentials] | None, alert: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        shown = make() if make else None
        settings = {"certificate": shown.certificate, "private_key": shown.key} if shown else {}
        async with listening() as (listener, accepted), foreign(listener, **settings) as client:
            code, _ = await soon(client.ended)
            assert code == alert
            await until(lambda: listener.refused == 1)
            assert (accepted, listener.connections) == ([], frozenset())

    run(scenario)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("alpns", [None, ["h3"], ["quicprochat/p2p/1", "Capnp"]])
def test_client_of_another_protocol_is_refused(alpns: list[str] | None) -> None:
    async def scenario() -> None:
        shown = {"certificate": CLIENT.certificate, "private_key": CLIENT.key}
        async with listening() as (listener, accepted), foreign(listener, alpn_protocols=alpns, **shown) as client:
            assert (await soon(client.ended))[0] == NO_ALPN
            assert accepted == []

    run(scenario)


def test_check_belongs_to_the_protocol() -> None:
    async def scenario() -> None:
        def nobody(*_: object) -> bytes:
            raise UntrustedError("nobody")

        async with listening({ALPN: quic.key_holder, "closed": nobody}) as (listener, accepted):
            refused = await dial(listener, alpn="closed")
            assert "not accepted" in await soon(refused.ended())
            await dial(listener)
            await until(lambda: [one.alpn for one in accepted] == [ALPN])

    run(scenario)


@pytest.mark.parametrize("certified", [True, False])
def test_offered_session_ticket_is_worth_nothing(certified: bool) -> None:
    async def scenario() -> None:
        day = datetime.timedelta(days=1)
        ticket = tls.SessionTicket(
            age_add=0, cipher_suite=tls.CipherSuite.AES_256_GCM_SHA384, not_valid_before=tls.utcnow() - day,
            not_valid_after=tls.utcnow() + day, resumption_secret=bytes(48), server_name="", ticket=bytes(64),
            max_early_data_size=None,
        )  # fmt: skip
        shown = {"certificate": CLIENT.certificate, "private_key": CLIENT.key} if certified else {}
        async with (
            listening() as (listener, accepted),
            foreign(listener, session_ticket=ticket, server_name="", **shown) as client,
        ):
            if certified:
                await until(lambda: len(accepted) == 1)
                assert client.resumed is False
                assert accepted[0].peer == CLIENT_KEY
            else:
                assert (await soon(client.ended))[0] == CERTIFICATE_REQUIRED
                assert accepted == []

    run(scenario)


def test_finished_after_an_empty_certificate_ends_no_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the alert got lost on its way: no later message completes what was refused."""

    async def scenario() -> None:
        states: list[tls.State] = []
        honest = PeerContext._server_handle_certificate

        def note(context: PeerContext, buffer: object) -> None:
            try:
                honest(context, buffer)
            finally:
                states.append(context.state)

        monkeypatch.setattr(PeerContext, "_server_handle_certificate", note)
        async with listening() as (listener, _), foreign(listener) as client:
            await soon(client.ended)
            assert states == [tls.State.SERVER_EXPECT_CERTIFICATE]

    run(scenario)


def test_handshake_without_a_check_has_no_identity() -> None:
    quic_connection = QuicConnection.__new__(QuicConnection)
    quic_connection.tls = tls.Context(is_client=True)
    with pytest.raises(UntrustedError):
        quic.tls.identity_of(quic_connection)


def test_nobody_answers() -> None:
    async def scenario() -> None:
        async with listening() as (listener, _):
            address = listener.address
        with pytest.raises(UnavailableError, match="did not answer"):
            await quic.connect(address, ALPN, CLIENT, quic.anybody, 0.3)
        await asyncio.sleep(0)

    run(scenario)


def test_port_that_is_taken_is_one_sentence() -> None:
    async def scenario() -> None:
        async with listening() as (listener, _):
            with pytest.raises(UnavailableError, match="another program may have it"):
                await quic.listen(listener.address, SERVER, {ALPN: quic.key_holder}, lambda _: None, limit=1)

    run(scenario)
