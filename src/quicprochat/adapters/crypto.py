"""Suite 1 for real: Ed25519 from libsodium (PyNaCl), HPKE, HKDF and ChaCha20-Poly1305 from ``cryptography``.

libsodium verifies, because it refuses small-order keys, under which one signature would fit every message;
``cryptography`` does not.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl import bindings
from nacl.exceptions import BadSignatureError
from nacl.exceptions import RuntimeError as SodiumRuntimeError

from quicprochat.core.crypto import Entropy, PrivateKey
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import Label, PeerKey, domain

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_ZERO_NONCE = bytes(12)


@lru_cache(maxsize=4_096)
def _valid_point(key: bytes) -> bool:
    # Costs as much as a signature, and peers are few: asked once for each.
    return len(key) == 32 and bindings.crypto_core_ed25519_is_valid_point(key)


@lru_cache(maxsize=1_024)
def _exchange_public(public: bytes) -> X25519PublicKey:
    # Most messages go to a key that one went to before.
    return X25519PublicKey.from_public_bytes(public)


class Ed25519Signer:
    """Signs for one seed of 32 bytes (RFC 8032 §5.1); the secret never shows in ``repr``."""

    __slots__ = ("_secret", "key")

    def __init__(self, seed: bytes) -> None:
        public, secret = bindings.crypto_sign_seed_keypair(seed)
        self.key = PeerKey(public)
        self._secret = secret

    def sign(self, label: Label, message: bytes) -> bytes:
        """Return the signature over ``domain(label) || message``."""
        return bindings.crypto_sign(domain(label) + message, self._secret)[:64]

    def exchange_private(self) -> X25519Private:
        """Return the X25519 key that belongs to the same identity, for messages sealed before a prekey was known."""
        return X25519Private(bindings.crypto_sign_ed25519_sk_to_curve25519(self._secret))


class X25519Private:
    """A private key ready for opening."""

    __slots__ = ("key", "public")

    def __init__(self, secret: bytes) -> None:
        self.key = X25519PrivateKey.from_private_bytes(secret)
        self.public = self.key.public_key().public_bytes_raw()


class SodiumCrypto:
    """The real primitives; no state but where fresh keys come from, safe in threads."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy

    def verify(self, key: bytes, label: Label, message: bytes, signature: bytes) -> bool:
        """Check a signature over ``domain(label) || message``."""
        if len(key) != 32 or len(signature) != 64:
            # libsodium takes both by address: a longer signature would push the label out of its place.
            return False
        try:
            bindings.crypto_sign_open(signature + domain(label) + message, key)
        except (BadSignatureError, ValueError, SodiumRuntimeError):
            return False
        return True

    def valid_key(self, key: bytes) -> bool:
        """Say whether this is a canonical key on the main subgroup."""
        return _valid_point(key)

    def new_prekey(self) -> tuple[bytes, X25519Private]:
        """Return a fresh X25519 key pair."""
        secret = self._entropy(32)
        return secret, X25519Private(secret)

    def load_prekey(self, secret: bytes) -> X25519Private:
        """Return the usable key for stored private bytes."""
        return X25519Private(secret)

    def exchange_key(self, key: bytes) -> bytes:
        """Convert an Ed25519 public key to X25519. Raises: LocalError for a key that is no point."""
        try:
            return bindings.crypto_sign_ed25519_pk_to_curve25519(key)
        except (SodiumRuntimeError, ValueError, TypeError):
            raise LocalError("this public key is not a valid Ed25519 key; nothing can be sealed to it") from None

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """HPKE base mode, single shot. Raises: LocalError for a key of low order, to which nobody can seal."""
        try:
            return _SUITE.encrypt(plaintext, _exchange_public(public), info=info)
        except ValueError:
            raise LocalError("the recipient's key is not a proper one; nothing can be sealed to it") from None

    def open(self, private: PrivateKey, info: bytes, sealed: bytes) -> bytes | None:
        """Undo :meth:`seal`; None when it does not open."""
        assert isinstance(private, X25519Private)
        try:
            return _SUITE.decrypt(sealed, private.key, info=info)
        except (InvalidTag, ValueError):
            return None

    def hkdf(self, secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
        """HKDF-SHA256."""
        return HKDF(SHA256(), length, salt, info).derive(secret)

    def aead_seal(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """ChaCha20-Poly1305 under a key used once."""
        return ChaCha20Poly1305(key).encrypt(_ZERO_NONCE, plaintext, aad)

    def aead_open(self, key: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
        """Undo :meth:`aead_seal`."""
        try:
            return ChaCha20Poly1305(key).decrypt(_ZERO_NONCE, ciphertext, aad)
        except (InvalidTag, ValueError):
            return None
