"""Certificates on disk, made by the server's own commands, for the tests of those who read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
DOMAIN = "node1.mesh.local"


def certificate(file: Path) -> x509.Certificate:
    return x509.load_der_x509_certificate(file.read_bytes())


def write_key(path: Path, key: Any, encoding: Any = DER, locked: bool = False) -> None:
    how = serialization.BestAvailableEncryption(b"x") if locked else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, how))
    path.chmod(0o600)
