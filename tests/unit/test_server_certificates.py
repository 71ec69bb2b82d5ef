"""Certificates that ``qpc-server`` makes, and what it says of others."""

from __future__ import annotations

import datetime
import json
import random
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from tests.unit.authorities import DAY, NOW, authority, leaf
from tests.unit.issued import DER, DOMAIN, certificate, write_key

from quicprochat.adapters import quic, system
from quicprochat.adapters.quic import UntrustedError
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.server.certificates import DAYS, describe, init_authority, issue
from quicprochat.server.cli import main, parse


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    init_authority(tmp_path / "ca", NOW)
    return tmp_path / "ca"


@pytest.fixture
def node(tmp_path: Path, ca: Path) -> Path:
    issue(ca, DOMAIN, tmp_path / "node1", DAYS, NOW)
    return tmp_path / "node1"


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


# --- ca init


def test_authority_is_made_and_its_key_is_the_owners_alone(ca: Path) -> None:
    made = certificate(ca / "ca.der")
    quic.check_authority(made)
    assert isinstance(made.public_key(), ec.EllipticCurvePublicKey)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert made.not_valid_before_utc == NOW - DAY
    assert made.not_valid_after_utc == NOW + 3_653 * DAY
    assert (mode(ca), mode(ca / "ca-key.der")) == (0o700, 0o600)
    assert sorted(file.name for file in ca.iterdir()) == ["ca-key.der", "ca.der"]


@pytest.mark.parametrize("gone", ["ca.der", "ca-key.der"])
def test_authority_is_never_written_over(ca: Path, gone: str) -> None:
    before = (ca / "ca-key.der").read_bytes()
    (ca / gone).rename(ca / "away")
    with pytest.raises(LocalError, match="exists already, and nothing is written over") as refused:
        init_authority(ca, NOW)
    assert refused.value.code == "exists"
    assert not (ca / gone).exists()
    (ca / "away").rename(ca / gone)
    assert (ca / "ca-key.der").read_bytes() == before


def test_place_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnavailableError, match="cannot be made: File exists"):
        init_authority(tmp_path / "file", NOW)


# --- cert issue


def test_issued_certificate_is_one_that_servers_accept(ca: Path, node: Path) -> None:
    made = certificate(node / "cert.der")
    assert quic.check_own(DOMAIN, made, certificate(ca / "ca.der"), NOW) == ""
    assert made.not_valid_before_utc == NOW - DAY
    assert made.not_valid_after_utc == NOW + DAYS * DAY
    assert (node / "ca.der").read_bytes() == (ca / "ca.der").read_bytes()
    assert (mode(node), mode(node / "key.der")) == (0o700, 0o600)
    extensions = made.extensions
    identifier = certificate(ca / "ca.der").extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == identifier.digest
    assert extensions.get_extension_for_class(x509.KeyUsage).critical
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    trust = quic.Trust("x.net", frozenset({DOMAIN}), certificate(ca / "ca.der"), {}, lambda: NOW)
    assert quic.federated(lambda: trust)(made, ()) == DOMAIN.encode()


def test_issuing_again_renews_and_keeps_the_key(ca: Path, node: Path) -> None:
    key, before = (node / "key.der").read_bytes(), certificate(node / "cert.der")
    later = NOW + 300 * DAY
    issue(ca, DOMAIN.upper() + ".", node, 30, later)
    after = certificate(node / "cert.der")
    assert (node / "key.der").read_bytes() == key
    assert after.public_key() == before.public_key()
    assert after.serial_number != before.serial_number
    assert after.not_valid_after_utc == later + 30 * DAY
    assert sorted(file.name for file in node.iterdir()) == ["ca.der", "cert.der", "key.der"]


def test_key_that_is_brought_is_certified(ca: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    key = ed25519.Ed25519PrivateKey.generate()
    write_key(out / "key.der", key)
    issue(ca, DOMAIN, out, 5, NOW)
    made = certificate(out / "cert.der")
    assert made.public_key() == key.public_key()
    assert quic.check_own(DOMAIN, made, certificate(ca / "ca.der"), NOW) == ""


@pytest.mark.parametrize("domain", ["village", "xn--bcher-kva.example", "a" * 63 + "." + "b" * 63 + ".net"])
def test_unusual_domains_are_certified(ca: Path, tmp_path: Path, domain: str) -> None:
    issue(ca, domain, tmp_path / "out", 5, NOW)
    assert quic.check_own(domain, certificate(tmp_path / "out" / "cert.der"), certificate(ca / "ca.der"), NOW) == ""


@pytest.mark.parametrize(
    "domain",
    ["*.example.net", "192.0.2.1", "2001:db8::1", "a_b.net", "-a.net", "a-.net", "a..net", ".", "büro.net",
     "a" * 64 + ".net", ".".join(["a" * 49] * 5) + ".abcde", "x.net\n", "x.net:7001", "\u212aelvin.net"],
)  # fmt: skip
def test_what_is_no_domain_is_not_certified(ca: Path, tmp_path: Path, domain: str) -> None:
    with pytest.raises(LocalError, match="is no domain"):
        issue(ca, domain, tmp_path / "out", 5, NOW)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("days", [0, 3_654])
def test_days_have_bounds(ca: Path, tmp_path: Path, days: int) -> None:
    with pytest.raises(LocalError, match="lasts for 1 to 3653 days"):
        issue(ca, DOMAIN, tmp_path / "out", days, NOW)


def test_certificate_ends_with_its_authority(ca: Path, tmp_path: Path) -> None:
    issue(ca, DOMAIN, tmp_path / "out", 3_653, NOW + 100 * DAY)
    assert certificate(tmp_path / "out" / "cert.der").not_valid_after_utc == NOW + 3_653 * DAY
    with pytest.raises(LocalError, match=r"clock says 2036-07-01, and the authority in .* make a new authority"):
        issue(ca, DOMAIN, tmp_path / "out", 5, NOW + 3_653 * DAY)


def test_directory_of_somebody_else_is_left_alone(ca: Path, node: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in node.iterdir()}
    with pytest.raises(LocalError, match=f"has the certificate of {DOMAIN}; choose another --out"):
        issue(ca, "node2.mesh.local", node, 5, NOW)
    init_authority(tmp_path / "other", NOW)
    with pytest.raises(LocalError, match="is of another authority; choose another --out"):
        issue(tmp_path / "other", DOMAIN, node, 5, NOW)
    assert {file.name: file.read_bytes() for file in node.iterdir()} == before
    with pytest.raises(LocalError, match="authority's own directory"):
        issue(ca, DOMAIN, ca, 5, NOW)
    with pytest.raises(LocalError, match="has no authority; make one: qpc-server ca init") as refused:
        issue(tmp_path / "nowhere", DOMAIN, node, 5, NOW)
    assert refused.value.code == "not_found"


@pytest.mark.parametrize("year", [1970, 2023, 2190])
def test_clock_that_cannot_be_right_makes_no_certificate(ca: Path, tmp_path: Path, year: int) -> None:
    now = datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)
    for attempt in (
        lambda: init_authority(tmp_path / "new", now),
        lambda: issue(ca, DOMAIN, tmp_path / "new", 5, now),
    ):
        with pytest.raises(LocalError, match=f"this machine's clock says {year}-01-01, .* Set the clock"):
            attempt()
    assert not (tmp_path / "new").exists()


# --- cert show


def test_certificate_is_shown(ca: Path, node: Path) -> None:
    shown = describe(node / "cert.der", NOW + DAY)
    assert shown["domain"] == DOMAIN
    assert shown["days_left"] == DAYS - 1
    assert shown["usages"] == ["serverAuth", "clientAuth"]
    assert shown["not_before"] == "2026-06-30T12:00:00.000Z"
    assert shown["expires_at"] == "2027-08-02T12:00:00.000Z"
    assert len(shown["fingerprint"]) == 64
    assert (shown["authority"], shown["problem"]) == (False, "")
    above = describe(ca / "ca.der", NOW)
    assert shown["authority_fingerprint"] == above["fingerprint"] == above["authority_fingerprint"]
    assert (above["authority"], above["domain"], above["problem"]) == (True, None, "")


def test_what_is_wrong_is_shown(node: Path, tmp_path: Path) -> None:
    assert "was valid until 2027-08-02" in describe(node / "cert.der", NOW + 500 * DAY)["problem"]
    in_1970 = describe(node / "cert.der", datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC))
    assert in_1970["days_left"] is None
    assert "clock says 1970-01-01" in in_1970["problem"]
    (node / "ca.der").unlink()
    assert describe(node / "cert.der", NOW)["authority_fingerprint"] is None
    other = tmp_path / "other.der"
    wild = leaf("*.net", authority())
    other.write_bytes(wild.certificate.public_bytes(DER))
    shown = describe(other, NOW)
    assert shown["domain"] is None
    assert "must name one domain" in shown["problem"]


def test_spoilt_certificates_are_a_sentence_and_never_trusted(ca: Path, node: Path, tmp_path: Path) -> None:
    """Bits turned, bytes replaced, removed and added, in a certificate that was good."""
    chance = random.Random(5)
    trust = quic.Trust("x.net", frozenset({DOMAIN}), certificate(ca / "ca.der"), {}, lambda: NOW)
    good, judged = (node / "cert.der").read_bytes(), 0
    for _ in range(600):
        spoilt = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(spoilt))
            spoilt[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
        if spoilt == good:
            continue
        (node / "cert.der").write_bytes(spoilt)
        with suppress(LocalError):
            describe(node / "cert.der", NOW)
        with suppress(ValueError, x509.InvalidVersion):  # aioquic ends the handshake there
            one = x509.load_der_x509_certificate(bytes(spoilt))
            with pytest.raises((UntrustedError, ValueError)):
                quic.federated(lambda: trust)(one, ())
            judged += 1
    assert judged > 50


# --- the command line


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "utc_now", lambda: NOW)


@pytest.mark.usefixtures("at_noon")
def test_commands_as_they_are_typed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> Any:
        assert main([*words, "--json"]) == 0
        return json.loads(capfd.readouterr().out)

    made = call("ca", "init", str(tmp_path / "ca"))
    assert made["key"] == str(tmp_path / "ca" / "ca-key.der")
    words = ["cert", "issue", "--ca", str(tmp_path / "ca"), "--domain", DOMAIN, "--out", str(tmp_path / "n")]
    issued = call(*words, "--days", "40")
    assert (issued["domain"], issued["days_left"], issued["directory"]) == (DOMAIN, 40, str(tmp_path / "n"))
    assert issued["authority_fingerprint"] == made["fingerprint"]
    shown = call("cert", "show", str(tmp_path / "n" / "cert.der"))
    assert shown == {key: value for key, value in issued.items() if key != "directory"}
    assert main(words) == 0
    printed = capfd.readouterr().out.partition("#")[2].partition("\n")[2]
    (tmp_path / "n" / "qpc-server.toml").write_text(printed)
    assert main(["config", "check", "--home", str(tmp_path / "n")]) == 0, capfd.readouterr().err
    assert "certificate" in capfd.readouterr().out
    assert main(["cert", "show", str(tmp_path / "n" / "key.der")]) == 2
    assert "is no certificate in DER" in capfd.readouterr().err
    assert main(["cert", "show", str(tmp_path / "nothing")]) == 3


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["cert", "issue"], r"write: qpc-server cert issue --ca DIR --domain DOMAIN --out DIR \[--days N\]"),
        (["cert", "issue", "--ca", "x", "--domain", "", "--out", "y"], "write: qpc-server cert issue"),
        (["cert", "show"], "write: qpc-server cert show FILE"),
        (["ca", "init", "x", "--days", "5"], "--days belongs to: qpc-server invite, qpc-server cert issue"),
        (["status", "--ca", "x"], "--ca belongs to: qpc-server cert issue"),
        (["cert", "issue", "--ca", "x", "--domain", "x.net", "--out", "y", "--days", "-1"], "is a whole number"),
        (["cert", "issue", "--ca", "x", "--domain", "x.net", "--out", "y", "--days", "x"], "is a whole number"),
    ],
)
def test_command_that_lacks_something_is_shown_as_it_should_be(words: list[str], why: str) -> None:
    with pytest.raises(LocalError, match=why):
        parse(words)
