"""A stand-in for suite 1 that keeps its shape and counts its cost, but hides nothing from who reads this process.

A signature is a hash keyed with the signer's seed, which only nature, :class:`SimCrypto`, knows beside its owner. A
seal is a mask and a tag that fit one public key. Sizes are those of the real suite, so quotas and bandwidth hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b, shake_256

from quicprochat.core.ids import KEY_BYTES, SIGNATURE_BYTES, Label, PeerKey, domain

TAG_BYTES = 16


@dataclass(slots=True)
class Tally:
    """How often each costly primitive was used."""

    signs: int = 0
    verifies: int = 0
    seals: int = 0
    opens: int = 0


def _hash(purpose: bytes, *parts: bytes, size: int = 32) -> bytes:
    digest = blake2b(person=purpose, digest_size=size)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()


def _mask(key: bytes, data: bytes) -> bytes:
    stream = int.from_bytes(shake_256(key).digest(len(data)), "big")
    return (int.from_bytes(data, "big") ^ stream).to_bytes(len(data), "big")


class SimEntropy:
    """Bytes that no other seed gives; the same seed gives them again, call for call."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._calls = 0

    def __call__(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        self._calls += 1
        return shake_256(self._seed + self._calls.to_bytes(8, "big")).digest(count)


@dataclass(frozen=True, slots=True)
class SimPrivate:
    """Who holds this object may open what was sealed to ``public``."""

    public: bytes


class SimSigner:
    """Signs for one seed."""

    __slots__ = ("_seed", "_tally", "key")

    def __init__(self, seed: bytes, tally: Tally) -> None:
        self.key = PeerKey(_hash(b"key", seed))
        self._seed = seed
        self._tally = tally

    def sign(self, label: Label, message: bytes) -> bytes:
        """Return 64 bytes that only this seed and this message under this label give."""
        self._tally.signs += 1
        return _hash(b"signature", self._seed, domain(label), message, size=SIGNATURE_BYTES)

    def exchange_private(self) -> SimPrivate:
        """Return the key that opens what was sealed to the identity key."""
        return SimPrivate(_hash(b"exchange", self.key))


class SimCrypto:
    """Implements :class:`quicprochat.core.crypto.Crypto` for all peers of one world."""

    def __init__(self, seed: bytes) -> None:
        self.tally = Tally()
        self._entropy = SimEntropy(seed)
        self._seeds: dict[bytes, bytes] = {}

    def signer(self, seed: bytes) -> SimSigner:
        """Return the signer of a seed and let its signatures be checked from now on."""
        signer = SimSigner(seed, self.tally)
        self._seeds[signer.key] = seed
        return signer

    def verify(self, key: bytes, label: Label, message: bytes, signature: bytes) -> bool:
        """Say whether the owner of ``key`` made this signature."""
        self.tally.verifies += 1
        seed = self._seeds.get(key)
        return seed is not None and signature == _hash(b"signature", seed, domain(label), message, size=SIGNATURE_BYTES)

    def valid_key(self, key: bytes) -> bool:
        """Say whether somebody in this world can hold the key."""
        return key in self._seeds

    def new_prekey(self) -> tuple[bytes, SimPrivate]:
        """Return a fresh key pair."""
        secret = self._entropy(KEY_BYTES)
        return secret, self.load_prekey(secret)

    def load_prekey(self, secret: bytes) -> SimPrivate:
        """Return the usable key for stored private bytes."""
        return SimPrivate(_hash(b"prekey", secret))

    def exchange_key(self, key: bytes) -> bytes:
        """Return the public exchange key that belongs to an identity key."""
        return _hash(b"exchange", key)

    def seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """Return ``enc 32 || masked text || tag 16``, different each time."""
        self.tally.seals += 1
        enc = self._entropy(KEY_BYTES)
        tag = _hash(b"seal", public, enc, info, plaintext, size=TAG_BYTES)
        return enc + _mask(public + enc, plaintext) + tag

    def open(self, private: object, info: bytes, sealed: bytes) -> bytes | None:
        """Undo :meth:`seal`; None when key, info or text do not fit."""
        assert isinstance(private, SimPrivate)
        self.tally.opens += 1
        if len(sealed) < KEY_BYTES + TAG_BYTES:
            return None
        enc, text, tag = sealed[:KEY_BYTES], sealed[KEY_BYTES:-TAG_BYTES], sealed[-TAG_BYTES:]
        plaintext = _mask(private.public + enc, text)
        return plaintext if tag == _hash(b"seal", private.public, enc, info, plaintext, size=TAG_BYTES) else None

    def hkdf(self, secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
        """Return ``length`` bytes that these inputs, and no others, give."""
        return shake_256(_hash(b"hkdf", secret, salt, info)).digest(length)

    def aead_seal(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """Return ``masked text || tag 16``."""
        return _mask(key, plaintext) + _hash(b"aead", key, aad, plaintext, size=TAG_BYTES)

    def aead_open(self, key: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
        """Undo :meth:`aead_seal`; None when the tag does not fit."""
        if len(ciphertext) < TAG_BYTES:
            return None
        plaintext = _mask(key, ciphertext[:-TAG_BYTES])
        tag = _hash(b"aead", key, aad, plaintext, size=TAG_BYTES)
        return plaintext if ciphertext[-TAG_BYTES:] == tag else None
