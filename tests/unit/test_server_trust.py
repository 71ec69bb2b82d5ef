"""Federation's files, read together; who loses trust later; what is said of those who are refused."""

from __future__ import annotations

import datetime
import json
import logging
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.unit.authorities import DAY, NOW, authority, leaf
from tests.unit.issued import DER, DOMAIN, PEM, certificate, write_key
from tests.unit.quic_pairs import LOOPBACK, SOON_S, run, soon, until

from quicprochat.adapters import quic, system
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.core.time import Instant
from quicprochat.server import config as module
from quicprochat.server.certificates import DAYS, init_authority, issue
from quicprochat.server.cli import main
from quicprochat.server.config import Config, load
from quicprochat.server.trust import (
    REFUSALS_A_MINUTE,
    Loaded,
    RefusalLog,
    end_distrusted,
    load_trust,
    standing,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of the machine that runs the tests."""
    monkeypatch.setattr(module, "SYSTEM_DIRECTORY", tmp_path / "etc")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    init_authority(tmp_path / "ca", NOW)
    return tmp_path / "ca"


@pytest.fixture
def node(tmp_path: Path, ca: Path) -> Path:
    issue(ca, DOMAIN, tmp_path / "node1", DAYS, NOW)
    return tmp_path / "node1"


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "utc_now", lambda: NOW)


def configured(tmp_path: Path, node: Path, text: str = "", domain: str = DOMAIN) -> Config:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    files = "".join(f'federation_{key} = "{node}/{key}.der"\n' for key in ("cert", "key", "ca"))
    (home / "qpc-server.toml").write_text(f'federation_domain = "{domain}"\nfederation_enabled = true\n{files}{text}')
    return load({"home": str(home)}, {})


def loaded(tmp_path: Path, node: Path, text: str = "", now: datetime.datetime = NOW, domain: str = DOMAIN) -> Loaded:
    return load_trust(configured(tmp_path, node, text, domain), lambda: now)


def test_files_of_one_issue_are_read(ca: Path, node: Path, tmp_path: Path) -> None:
    text = (
        '[federation_peers]\n"Node2.mesh.local" = "192.0.2.2:7001"\n"x.net" = ""\n[federation_cas]\n"x.net" = "x.der"'
    )
    (tmp_path / "home").mkdir()
    pinned = authority()
    (tmp_path / "home" / "x.der").write_bytes(pinned.certificate.public_bytes(DER))
    made = loaded(tmp_path, node, text)
    assert made.trust.domain == DOMAIN
    assert made.trust.domains == {"node2.mesh.local", "x.net"}
    assert made.trust.authority("node2.mesh.local") == certificate(ca / "ca.der")
    assert made.trust.authority("x.net") == pinned.certificate
    assert made.credentials.certificate == certificate(node / "cert.der")
    assert (made.untimely, made.remark) == ("", "")
    assert standing(made)["certificate_days_left"] == DAYS
    assert standing(made)["certificate_expires_at"] == "2027-08-02T12:00:00.000Z"


def pem(path: Path) -> None:
    path.write_bytes(certificate(path).public_bytes(PEM))


WRONG = {
    "certificate missing": (lambda node: (node / "cert.der").unlink(), "cert.der cannot be read: No such file"),
    "certificate in PEM": (
        lambda node: pem(node / "cert.der"),
        r"cert.der is PEM, and DER is needed: openssl x509 -in .*cert.der -outform der -out NEW.der",
    ),
    "certificate is garbage": (lambda node: (node / "cert.der").write_bytes(b"x"), "cert.der is no certificate in DER"),
    "certificate is huge": (lambda node: (node / "cert.der").write_bytes(bytes(70_000)), "no file of ours"),
    "key in PEM": (
        lambda node: write_key(node / "key.der", ec.generate_private_key(ec.SECP256R1()), PEM),
        "key.der is PEM, and DER is needed: openssl pkey",
    ),
    "key is locked": (
        lambda node: write_key(node / "key.der", ec.generate_private_key(ec.SECP256R1()), locked=True),
        "locked with a passphrase",
    ),
    "key is garbage": (lambda node: (node / "key.der").write_bytes(b"x"), "key.der is no private key in DER"),
    "key of another kind": (
        lambda node: write_key(node / "key.der", rsa.generate_private_key(65537, 2048)), "P-256 and Ed25519 are taken",
    ),
    "key on another curve": (
        lambda node: write_key(node / "key.der", ec.generate_private_key(ec.SECP384R1())), "P-256 and Ed25519 are",
    ),
    "key of another certificate": (
        lambda node: write_key(node / "key.der", ed25519.Ed25519PrivateKey.generate()),
        "key.der is not the key of .*cert.der",
    ),
    "key open to all": (lambda node: (node / "key.der").chmod(0o604), "run: chmod o= "),
    "authority is none": (
        lambda node: (node / "ca.der").write_bytes((node / "cert.der").read_bytes()), "is not an authority's cert",
    ),
    "another authority": (
        lambda node: (node / "ca.der").write_bytes(authority().certificate.public_bytes(DER)),
        "cert.der is not from the authority in federation_ca",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file_is_named_in_a_sentence(case: str, node: Path, tmp_path: Path) -> None:
    spoil, why = WRONG[case]
    loaded(tmp_path, node)
    spoil(node)
    with pytest.raises((LocalError, UnavailableError), match=why):
        loaded(tmp_path, node)


def test_certificate_of_another_domain_is_refused(ca: Path, tmp_path: Path) -> None:
    issue(ca, "node2.mesh.local", tmp_path / "two", DAYS, NOW)
    with pytest.raises(LocalError, match=r"is a certificate for node2.mesh.local, and federation_domain is node1"):
        loaded(tmp_path, tmp_path / "two")


def test_certificate_for_half_of_it_is_refused(node: Path, tmp_path: Path) -> None:
    issuer = authority()
    half = leaf(DOMAIN, issuer, usages=[])
    write_key(node / "key.der", half.key)
    (node / "cert.der").write_bytes(half.certificate.public_bytes(DER))
    (node / "ca.der").write_bytes(issuer.certificate.public_bytes(DER))
    with pytest.raises(LocalError, match="its extended key usage must be serverAuth and clientAuth"):
        loaded(tmp_path, node)


def test_authority_with_an_ed25519_key_is_refused(node: Path, tmp_path: Path) -> None:
    made = leaf("x", None, key=ed25519.Ed25519PrivateKey.generate(), ca=True)
    usage = certificate(node / "ca.der").extensions.get_extension_for_class(x509.KeyUsage).value
    key = made.key
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    builder = x509.CertificateBuilder(
        made.certificate.subject, made.certificate.subject, key.public_key(), 1, NOW, NOW + DAY
    )
    builder = builder.add_extension(usage, True).add_extension(x509.BasicConstraints(True, 0), True)
    (node / "ca.der").write_bytes(builder.sign(key, None).public_bytes(DER))
    with pytest.raises(LocalError, match="has a key of a kind that no authority may have here"):
        loaded(tmp_path, node)


@pytest.mark.parametrize(
    ("days", "why"),
    [(0, ""), (DAYS - 31, ""), (DAYS - 30, "ends in 30 days"), (DAYS + 1, "was valid until"), (-9, "not valid before")],
)
def test_time_is_a_remark_that_stops_no_server(node: Path, tmp_path: Path, days: int, why: str) -> None:
    made = loaded(tmp_path, node, now=NOW + days * DAY)
    assert why in made.remark
    assert bool(made.remark) is bool(why)
    assert bool(made.untimely) is ("valid" in why)


@pytest.mark.usefixtures("at_noon")
def test_config_check_looks_at_the_files(
    node: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(tmp_path, node, '[federation_peers]\n"x.net" = "192.0.2.1:7001"')
    words = ["config", "check", "--home", str(tmp_path / "home")]
    assert main(words) == 0
    told = capfd.readouterr().out
    assert "x.net at 192.0.2.1:7001" in told
    assert "valid until 2027-08-02, 397 days left" in told
    assert main([*words, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["federation"]["certificate_days_left"] == DAYS
    assert found["federation_peers"] == {"x.net": "192.0.2.1:7001"}
    monkeypatch.setattr(system, "utc_now", lambda: NOW + 500 * DAY)
    assert main(words) == 2
    assert "clock says 2027-11-13: the certificate of node1.mesh.local was valid until" in capfd.readouterr().err
    (node / "cert.der").unlink()
    assert main(words) == 3


# --- what is said of those who are refused


def test_refusals_are_said_once_a_minute_and_few(caplog: pytest.LogCaptureFixture) -> None:
    now = [0]
    refusals = RefusalLog(lambda: Instant(now[0]))
    with caplog.at_level(logging.WARNING, "quicprochat.federation"):
        for _ in range(50):
            refusals(quic.UntrustedError("x.net is not in the list"))
        for number in range(50):
            refusals(quic.UntrustedError(f"{number}.net is not in the list"))
        assert len(caplog.messages) == REFUSALS_A_MINUTE
        now[0] = 60_000
        refusals(quic.UntrustedError("x.net is not in the list"))
    assert caplog.messages[-2:] == [
        f"servers were refused {100 - REFUSALS_A_MINUTE} more times",
        "a server was refused: x.net is not in the list",
    ]


# --- afterwards


def test_reload_ends_the_connections_of_those_who_lost_our_trust(
    ca: Path, node: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One whose authority was replaced, one off the list; the third stays. Each is told at once."""
    domains = ("two.net", "three.net", "four.net")
    for domain in domains:
        issue(ca, domain, tmp_path / domain, DAYS, NOW)
    before = loaded(tmp_path, node, "[federation_peers]\n" + "".join(f'"{domain}" = ""\n' for domain in domains))
    (tmp_path / "home" / "x.der").write_bytes(authority().certificate.public_bytes(DER))
    after = loaded(
        tmp_path, node, '[federation_peers]\n"two.net" = ""\n"four.net" = ""\n[federation_cas]\n"two.net" = "x.der"'
    )

    async def scenario() -> None:
        trust = [before.trust]
        accepted: list[quic.Connection] = []
        checks = {quic.FEDERATION_ALPN: quic.federated(lambda: trust[0])}
        listener = await quic.listen(LOOPBACK, before.credentials, checks, accepted.append, limit=9)
        dialled: dict[str, quic.Connection] = {}
        for domain in domains:
            theirs = loaded(tmp_path, tmp_path / domain, f'[federation_peers]\n"{DOMAIN}" = ""', domain=domain)
            check = quic.federated(lambda theirs=theirs: theirs.trust, DOMAIN)  # type: ignore[misc]
            dialled[domain] = await quic.connect(
                listener.address, quic.FEDERATION_ALPN, theirs.credentials, check, SOON_S
            )
        await until(lambda: len(accepted) == 3)
        assert end_distrusted(trust[0], accepted) == 0
        trust[0] = after.trust
        assert end_distrusted(trust[0], accepted) == 2
        assert end_distrusted(trust[0], [one for one in accepted if one.peer == b"four.net"]) == 0
        for domain in ("two.net", "three.net"):
            assert await soon(dialled[domain].ended()) == "this certificate is not accepted any more"
        await soon(dialled["four.net"].ping())
        assert not dialled["four.net"].over
        await until(lambda: [one.peer for one in listener.connections] == [b"four.net"])
        await dialled["four.net"].leave()
        await listener.close()

    with caplog.at_level(logging.WARNING, "quicprochat.federation"):
        run(scenario)
    assert any("the connection with three.net is ended: three.net is not in" in line for line in caplog.messages)
