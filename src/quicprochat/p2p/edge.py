"""The edge: where words become sealed envelopes. The node behind it moves them unread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from quicprochat.core.channel import Secrets, Subscription, secrets_of
from quicprochat.core.crypto import Crypto, Entropy, PrivateKey, Signer
from quicprochat.core.envelope import TTL_MAX_S, Header, Kind, MeshEnvelope, make
from quicprochat.core.events import Reseal, Resealed, ResealFailed, Written
from quicprochat.core.ids import UID_BYTES, PeerKey, Uid
from quicprochat.core.rotation import ChannelKey
from quicprochat.core.seal import BOOTSTRAP_ID, TYPE_KEY, TYPE_TEXT, Letter, Prekey, Protection, seal
from quicprochat.core.store import StoredPrekey
from quicprochat.core.time import Now, WallTime

NONCE_BYTES = 16
KEY_TTL_S = TTL_MAX_S
"""A member may be away for long; the secret is of use to it until the next one."""


class Edge:
    """Composes and seals what the owner writes; keeps the keys that open what arrives."""

    def __init__(self, signer: Signer, identity_key: PrivateKey, crypto: Crypto, entropy: Entropy) -> None:
        self._signer = signer
        self._crypto = crypto
        self._entropy = entropy
        self.domain = ""
        """Our home domain: stands inside the seal, so that receipts find their way back."""
        self._identity_key = identity_key
        self.keys: dict[bytes, PrivateKey] = {BOOTSTRAP_ID: identity_key}
        self.channels: Secrets = {}

    def load_prekeys(self, stored: Callable[[], Iterable[StoredPrekey]]) -> None:
        """Take over the stored prekeys; the dictionary is replaced, since threads may be opening with the old one."""
        known = self.keys
        self.keys = {BOOTSTRAP_ID: self._identity_key} | {
            p.id: known.get(p.id) or self._crypto.load_prekey(p.secret) for p in stored()
        }

    def load_channels(self, subscriptions: Iterable[Subscription]) -> None:
        """Take over the secrets of the channels we are in; replaced as a whole, like the prekeys."""
        self.channels = secrets_of(subscriptions)

    def write(
        self, to: PeerKey, text: str, prekey: Prekey | None, ttl_s: int, now: Now, *, claim_time: bool, require_fs: bool
    ) -> Written:
        """Seal a new message. Raises: LocalError when the text is too long or the key is no key."""
        uid = Uid(self._entropy(UID_BYTES))
        letter = Letter(self._signer.key, uid, text, self.domain)
        envelope = self._seal(letter, to, prekey, ttl_s, now if claim_time else Now(now.at))
        return Written(envelope, uid, text, _protection(prekey), require_fs)

    def write_key(self, to: PeerKey, key: ChannelKey, prekey: Prekey | None, now: Now, *, claim_time: bool) -> Written:
        """Seal a channel's secret for a member. Raises: LocalError when the key is no key."""
        uid = Uid(self._entropy(UID_BYTES))
        letter = Letter(self._signer.key, uid, "", self.domain, TYPE_KEY, key.encode())
        envelope = self._seal(letter, to, prekey, KEY_TTL_S, now if claim_time else Now(now.at))
        return Written(envelope, uid, key.reference, _protection(prekey), type=TYPE_KEY)

    def reseal(self, request: Reseal, now: Now) -> Resealed | ResealFailed:
        """Seal a message again under its old uid; its age goes on, and the time it claims agrees with that."""
        text = request.text if request.type == TYPE_TEXT else ""
        letter = Letter(self._signer.key, request.uid, text, self.domain, request.type, request.body)
        envelope = self._seal(
            letter, request.to, request.prekey, request.ttl_s,
            replace(now, wall=WallTime(now.wall - request.age_ms)) if request.claim_time else Now(now.at),
        )  # fmt: skip
        if request.age_ms >= request.ttl_s * 1_000:
            return ResealFailed(request.uid)
        return Resealed(request.uid, replace(envelope, age_ms=request.age_ms), _protection(request.prekey))

    def _seal(self, letter: Letter, to: PeerKey, prekey: Prekey | None, ttl_s: int, now: Now) -> MeshEnvelope:
        created = now.wall if now.trusted else 0
        header = Header(Kind.MESSAGE, self._signer.key, to, self._entropy(NONCE_BYTES), created, ttl_s)
        return make(header, seal(header, prekey, letter, self._crypto, self._signer), self._signer)


def _protection(prekey: Prekey | None) -> Protection:
    return Protection.IDENTITY if prekey is None else Protection.PREKEY
