"""The real primitives: published vectors, and what must be refused."""

from __future__ import annotations

import ast
import inspect
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl import bindings as sodium
from tests.conformance import second_implementation as second
from tests.conformance.vectors import VECTORS, Case, each

from quicprochat.adapters import crypto as adapter
from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto, X25519Private
from quicprochat.core.crypto import Signer
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import Label, domain

h = bytes.fromhex
CRYPTO = SodiumCrypto(lambda count: bytes(range(count)))
SIGNER = Ed25519Signer(bytes(range(32)))


# --- published vectors

RFC_8032 = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_rfc_8032_section_7_1(seed: str, public: str, message: str, signature: str) -> None:
    """Ours takes labelled messages only, so the vectors hold for the library beneath, and for the keys."""
    assert Ed25519Signer(h(seed)).key == h(public) == second.public(h(seed))
    assert sodium.crypto_sign_open(h(signature) + h(message), h(public)) == h(message)
    assert Ed25519PrivateKey.from_private_bytes(h(seed)).sign(h(message)) == h(signature)


A2_INFO, A2_TEXT = h("4f6465206f6e2061204772656369616e2055726e"), b"Beauty is truth, truth beauty"
A2_SECRET_E = h("f4ec9b33b792c372c1d2c2063507b684ef925b8c75a42dbcbf57d63ccd381600")
A2_PUBLIC_E = h("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
A2_SECRET_R = h("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
A2_PUBLIC_R = h("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
A2_SEALED = h("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")


def test_rfc_9180_a_2_1_holds_for_the_second_implementation() -> None:
    """The published ciphertexts have an AAD, which ours never has; so the vector binds the second implementation..."""
    sealed = second.hpke_seal(A2_PUBLIC_R, A2_SECRET_E, A2_INFO, A2_TEXT, b"Count-0")
    assert sealed == A2_PUBLIC_E + A2_SEALED
    assert second.hpke_open(A2_SECRET_R, A2_INFO, sealed, b"Count-0") == A2_TEXT


def test_the_product_opens_what_the_second_implementation_seals_with_the_keys_of_rfc_9180_a_2_1() -> None:
    """...and the second implementation binds ours."""
    sealed = second.hpke_seal(A2_PUBLIC_R, A2_SECRET_E, A2_INFO, A2_TEXT)
    private = X25519Private(A2_SECRET_R)
    assert private.public == A2_PUBLIC_R
    assert CRYPTO.open(private, A2_INFO, sealed) == A2_TEXT
    assert second.hpke_open(A2_SECRET_R, A2_INFO, CRYPTO.seal(A2_PUBLIC_R, A2_INFO, A2_TEXT)) == A2_TEXT


RFC_5869 = [
    (b"\x0b" * 22, h("000102030405060708090a0b0c"), h("f0f1f2f3f4f5f6f7f8f9"),
     "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"),
    (b"\x0b" * 22, b"", b"",
     "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"),
]  # fmt: skip


@pytest.mark.parametrize(("secret", "salt", "info", "okm"), RFC_5869)
def test_rfc_5869_cases_1_and_3(secret: bytes, salt: bytes, info: bytes, okm: str) -> None:
    assert CRYPTO.hkdf(secret, salt, info, 42) == h(okm)
    assert second.hkdf_expand(second.hkdf_extract(salt, secret), info, 42) == h(okm)


def test_rfc_8439_key_stream_of_zero_key_and_nonce() -> None:
    """A.1 case 2: block 1, which an AEAD encrypts with first."""
    stream = h(
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    assert CRYPTO.aead_seal(bytes(32), bytes(64), b"")[:64] == stream


def test_rfc_8439_section_2_8_2_holds_for_the_second_implementation_and_that_for_ours() -> None:
    key, aad = bytes(range(0x80, 0xA0)), h("50515253c0c1c2c3c4c5c6c7")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = second.aead_seal(key, h("070000004041424344454647"), text, aad)
    assert sealed[:16] == h("d31a8d34648e60db7b86afbc53ef7ec2")
    assert sealed[-16:] == h("1ae10b594f09e26a7e902ecbd0600691")
    assert CRYPTO.aead_seal(key, text, aad) == second.aead_seal(key, bytes(12), text, aad)


# --- signatures


@pytest.mark.parametrize("label", Label)
def test_a_signature_is_over_the_domain_and_the_message(label: Label) -> None:
    signature = SIGNER.sign(label, b"message")
    raw = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(domain(label) + b"message")
    assert signature == raw
    assert CRYPTO.verify(SIGNER.key, label, b"message", signature)
    assert not CRYPTO.verify(SIGNER.key, label, b"messagf", signature)


def test_a_signature_under_one_label_is_refused_under_every_other() -> None:
    signatures = {label: SIGNER.sign(label, b"message") for label in Label}
    pairs = list(permutations(Label, 2))
    assert len(pairs) == len(Label) * (len(Label) - 1)
    assert not any(CRYPTO.verify(SIGNER.key, there, b"message", signatures[here]) for here, there in pairs)


def test_nothing_signs_bytes_without_a_label() -> None:
    raw: Any = b"raw"
    with pytest.raises(KeyError):
        SIGNER.sign(raw, b"message")
    for signer in (Signer, Ed25519Signer):
        names = [name for name in vars(signer) if not name.startswith("_")]
        assert set(names) <= {"key", "sign", "exchange_private"}
        assert list(inspect.signature(signer.sign).parameters) == ["self", "label", "message"]
    tree = ast.parse(Path(adapter.__file__).read_text("utf-8"))
    signing = {"crypto_sign", "crypto_sign_detached", "sign", "crypto_sign_ed25519ph_final_create"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    used = [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr in signing]
    assert [ast.unparse(node.args[0]) for node in used] == ["domain(label) + message"]


@each("signatures_refused")
def test_signatures_that_are_not_exactly_right_are_refused(case: Case) -> None:
    """S + L among them: a second signature for the same message."""
    assert not CRYPTO.verify(case["key"], Label(case["label"]), case["message"], case["signature"])


@pytest.mark.parametrize("size", [0, 1, 32, 63])
def test_a_short_signature_is_refused(size: int) -> None:
    assert not CRYPTO.verify(SIGNER.key, Label.ID, b"message", SIGNER.sign(Label.ID, b"message")[:size])


def test_a_long_signature_cannot_stand_in_for_the_label() -> None:
    secret = sodium.crypto_sign_seed_keypair(bytes(range(32)))[1]
    unlabelled = sodium.crypto_sign(b"some bytes" + domain(Label.ID) + b"message", secret)[:64]
    assert not CRYPTO.verify(SIGNER.key, Label.ID, b"message", unlabelled + b"some bytes")


def test_a_key_of_another_length_is_refused() -> None:
    signature = SIGNER.sign(Label.ID, b"message")
    assert not CRYPTO.verify(SIGNER.key + b"!", Label.ID, b"message", signature)


# --- keys


def test_proper_keys_are_accepted() -> None:
    assert all(CRYPTO.valid_key(Ed25519Signer(bytes([n]) * 32).key) for n in range(16))


@each("improper_keys")
def test_improper_keys_are_refused(case: Case) -> None:
    assert not CRYPTO.valid_key(case["key"])
    with pytest.raises(LocalError):
        CRYPTO.exchange_key(case["key"])


@each("improper_keys")
def test_small_and_badly_written_keys_verify_nothing(case: Case) -> None:
    accepted = CRYPTO.verify(case["key"], Label.ENVELOPE, b"any message", case["signature"] or bytes(64))
    # Of mixed order is what the signature alone does not show; whoever takes keys from outside asks valid_key too.
    assert not accepted or case["why"].startswith("mixed order")


def test_a_mixed_order_key_can_pass_for_its_signature_so_its_validity_must_be_asked_for() -> None:
    mixed = [case for case in VECTORS["improper_keys"] if case["why"].startswith("mixed order") and case["signature"]]
    assert any(CRYPTO.verify(case["key"], Label.ENVELOPE, b"any message", case["signature"]) for case in mixed)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_valid_key_has_32_bytes(size: int) -> None:
    assert not CRYPTO.valid_key((SIGNER.key * 2)[:size])


def test_the_converted_key_pair_belongs_together() -> None:
    assert CRYPTO.exchange_key(SIGNER.key) == SIGNER.exchange_private().public


def test_secrets_do_not_show() -> None:
    private = SIGNER.exchange_private()
    shown = f"{SIGNER!r} {private!r} {SIGNER} {CRYPTO!r}"
    assert bytes(range(32)).hex() not in shown
    assert private.key.private_bytes_raw().hex() not in shown


def test_a_new_prekey_comes_from_the_entropy_given() -> None:
    secret, private = CRYPTO.new_prekey()
    assert secret == bytes(range(32))
    assert private.public == CRYPTO.load_prekey(secret).public == sodium.crypto_scalarmult_base(secret)


# --- sealing


def test_what_was_sealed_opens_and_nothing_else_does() -> None:
    private = X25519Private(bytes(range(32)))
    sealed = CRYPTO.seal(private.public, b"info", b"text")
    assert len(sealed) == 32 + 4 + 16
    assert CRYPTO.open(private, b"info", sealed) == b"text"
    assert CRYPTO.open(private, b"other", sealed) is None
    assert CRYPTO.open(X25519Private(b"\1" * 32), b"info", sealed) is None
    assert CRYPTO.seal(private.public, b"info", b"text") != sealed
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= 1
        assert CRYPTO.open(private, b"info", bytes(altered)) is None
        assert CRYPTO.open(private, b"info", sealed[:at]) is None


LOW_ORDER = [bytes(32), b"\1" + bytes(31), h("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")]


@pytest.mark.parametrize("public", LOW_ORDER, ids=bytes.hex)
def test_a_low_order_share_does_not_open(public: bytes) -> None:
    assert CRYPTO.open(X25519Private(bytes(range(32))), b"info", public + bytes(32)) is None


@pytest.mark.parametrize("public", LOW_ORDER, ids=bytes.hex)
def test_a_low_order_prekey_is_refused_with_a_sentence(public: bytes) -> None:
    """Prekeys come from strangers' records: one of these must not end the node."""
    with pytest.raises(LocalError):
        CRYPTO.seal(public, b"info", b"text")


def test_an_aead_opens_only_as_it_was_sealed() -> None:
    key = bytes(range(32))
    sealed = CRYPTO.aead_seal(key, b"text", b"aad")
    assert CRYPTO.aead_open(key, sealed, b"aad") == b"text"
    assert CRYPTO.aead_open(key, sealed, b"AAD") is None
    assert CRYPTO.aead_open(bytes(32), sealed, b"aad") is None
    assert all(CRYPTO.aead_open(key, sealed[:size], b"aad") is None for size in range(len(sealed)))
