"""Any bytes are an envelope that writes exactly these bytes, or a WireError."""

from __future__ import annotations

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.envelope import HOPS_MAX, TTL_MAX_S, Header, MeshEnvelope
    from quicprochat.core.errors import WireError


def one_input(data: bytes) -> None:
    try:
        envelope = MeshEnvelope.decode(data)
    except WireError:
        return
    assert envelope.wire() == data
    assert len(envelope.id) == 32
    assert 0 < envelope.ttl_s <= TTL_MAX_S
    assert 0 < envelope.max_hops <= HOPS_MAX
    if envelope.suite == 1:
        assert Header.of(envelope).core(envelope.payload) == envelope.core


if __name__ == "__main__":
    run(one_input)
