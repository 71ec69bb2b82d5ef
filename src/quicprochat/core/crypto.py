"""What the core needs of cryptography, as interfaces: the real ones are adapters, the simulator counts.

Nobody signs a caller's bytes without a label: ``Signer.sign`` takes one and puts its prefix first.
"""

from __future__ import annotations

from typing import Protocol

from quicprochat.core.ids import Label, PeerKey


class PrivateKey(Protocol):
    """An X25519 private key, opaque to the core."""

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        ...


class Entropy(Protocol):
    """A source of secret randomness, for keys, nonces and uids; never used where a seeded jitter would do."""

    def __call__(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""
        ...


class Signer(Protocol):
    """Who we are: signs for one Ed25519 key, always under a label."""

    @property
    def key(self) -> PeerKey:
        """The 32-byte public key."""
        ...

    def sign(self, label: Label, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature over ``domain(label) || message`` (RFC 8032)."""
        ...


class Crypto(Protocol):
    """Stateless primitives of suite 1."""

    def verify(self, key: bytes, label: Label, message: bytes, signature: bytes) -> bool:
        """Check an Ed25519 signature over ``domain(label) || message``; refuses small-order keys and S >= L."""
        ...

    def valid_key(self, key: bytes) -> bool:
        """Say whether 32 bytes are a canonical Ed25519 key of full order."""
        ...

    def new_prekey(self) -> tuple[bytes, PrivateKey]:
        """Return a fresh X25519 key pair: the private key's 32 bytes, to be stored, and the usable key."""
        ...

    def load_prekey(self, secret: bytes) -> PrivateKey:
        """Return the usable key for stored private bytes."""
        ...

    def exchange_key(self, key: bytes) -> bytes:
        """Return the X25519 public key of an Ed25519 public key (RFC 7748 §4.1 birational map)."""
        ...

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """HPKE base mode, X25519/HKDF-SHA256/ChaCha20-Poly1305: ``enc 32 || text || tag 16`` (RFC 9180 §5.1.1)."""
        ...

    def open(self, private: PrivateKey, info: bytes, sealed: bytes) -> bytes | None:
        """Undo :meth:`seal`; None when anything does not fit, without saying what."""
        ...

    def hkdf(self, secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
        """HKDF-SHA256 (RFC 5869)."""
        ...

    def aead_seal(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """ChaCha20-Poly1305 with a zero nonce, for a key used once (RFC 8439)."""
        ...

    def aead_open(self, key: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
        """Undo :meth:`aead_seal`; None when the tag does not fit."""
        ...
