"""The vectors of exported identities, read by the product and by the second implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance import second_export
from tests.conformance.second_implementation import Refused
from tests.conformance.vectors import Case, each

from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.passphrase import stretch
from quicprochat.adapters.system import entropy
from quicprochat.core.channel import Access, BroadcastChannel, Earlier, Member, Subscription
from quicprochat.core.errors import LocalError
from quicprochat.core.export import Aged, Membership, open_export, passphrase_bytes

CRYPTO = SodiumCrypto(entropy)


def test_the_second_implementation_imports_nothing_of_the_product() -> None:
    assert "from quicprochat" not in Path(second_export.__file__).read_text("utf-8")


@each("exports")
def test_exports(case: Case) -> None:
    found = open_export(case["file"], passphrase_bytes(case["passphrase"]), stretch, CRYPTO)
    assert (found.identity.seed, [*found.version], found.wall) == (case["seed"], case["record"], case["wall"])
    assert found.prekeys == tuple(Aged(item["secret"], item["age_ms"]) for item in case["prekeys"])
    assert found.records == tuple(Aged(item["data"], item["age_ms"]) for item in case["records"])
    assert found.channels == tuple(membership(item) for item in case["channels"])
    read = second_export.read_export(case["file"], case["passphrase"])
    assert read == {name: case[name] for name in ("seed", "record", "prekeys", "records", "wall", "channels")}


def membership(item: Case) -> Membership:
    channel = BroadcastChannel(
        item["id"], Access(item["kind"]), item["secret"], item["epoch"], item["topic"], item["owner"], item["salt"]
    )
    earlier = tuple(Earlier(old["epoch"], old["left_ms"], old["secret"]) for old in item["earlier"])
    rest = (item["charter"], tuple(item["posters"]), item["said"], item["muted"])
    subscription = Subscription(channel, tuple(item["heads"]), item["left"], earlier, *rest)
    members = tuple(
        Member(item["id"], one["key"], one["present"], one["said"], one["removed"], one["epoch"])
        for one in item["members"]
    )
    return Membership(subscription, item["seq"], members)


@each("exports_refused")
def test_refused_exports(case: Case) -> None:
    with pytest.raises(Refused):
        second_export.read_export(case["file"], case["passphrase"])
    with pytest.raises(LocalError):
        open_export(case["file"], passphrase_bytes(case["passphrase"]), stretch, CRYPTO)
