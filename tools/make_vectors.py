#!/usr/bin/env python3
"""Write docs/test-vectors.json: examples of every format in docs/protocol.md, and cases that must be refused.

    python -m tools.make_vectors [FILE]

Everything comes from fixed seeds, so the same code writes the same file; what HPKE sealed once is kept from the file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.vectors import base, moved, plain, routes, sealed

from quicprochat.core.envelope import CORE_BYTES
from quicprochat.core.identity import pair_fingerprint
from quicprochat.core.ids import Label, domain, labelled_hash

FILE = Path(__file__).resolve().parents[1] / "docs" / "test-vectors.json"


def vectors() -> base.Json:
    labels = [
        {"label": label.value, "bytes": domain(label), "hash of nothing": labelled_hash(label)} for label in Label
    ]
    pair = {"keys": [base.ALICE.key, base.BOB.key], "digits": pair_fingerprint(base.ALICE.key, base.BOB.key)}
    return {
        "about": "Examples for docs/protocol.md; bytes are hexadecimal. Written by tools/make_vectors.py. "
        "HPKE ciphertexts are for opening only: sealing draws its own key.",
        "version": 1,
        "core_bytes": CORE_BYTES,
        "labels": labels,
        "keys": base.keys(),
        "pair": pair,
        "improper_keys": base.improper_keys(),
        "signatures_refused": base.signatures_refused(),
        "tickets": plain.tickets(),
        "tickets_refused": plain.tickets_refused(),
        "exports": moved.exports(),
        "exports_refused": moved.exports_refused(),
        "envelopes": sealed.envelopes(),
        "transit": sealed.transit(),
        "envelopes_refused": sealed.envelopes_refused(),
        "messages": sealed.messages(),
        "messages_unopenable": sealed.messages_unopenable(),
        "receipts": plain.receipts(),
        "receipts_refused": plain.receipts_refused(),
        "records": plain.records(),
        "records_refused": plain.records_refused(),
        "channels": plain.channels(),
        "topics_refused": [
            "", " ", "two words", "#tag", "/cmd", "-x", "@home", "a\u200bb", "a\0b", "a\u202eb", "news.*", "a>b", "x" * 65,
        ],  # fmt: skip
        "invites": plain.invites(),
        "invites_refused": plain.invites_refused(),
        "charters": plain.charters(),
        "charters_refused": plain.charters_refused(),
        "words": plain.words(),
        "words_refused": plain.words_refused(),
        "channel_keys": plain.channel_keys(),
        "posts": plain.posts(),
        "posts_refused": plain.posts_refused(),
        "frames": plain.frames(),
        "frames_refused": plain.frames_refused(),
        "announcements": routes.announcements(),
        "announcements_refused": routes.announcements_refused(),
        "routes": routes.routes(),
        "routes_refused": routes.routes_refused(),
    }


def text(previous: str) -> str:
    """Return the file's text; ``previous`` is what it held before."""
    old = json.loads(previous) if previous else {}
    sealed.KEPT[:] = [
        bytes.fromhex(case["payload"]) for case in (*old.get("messages", ()), *old.get("messages_unopenable", ()))
    ]
    return json.dumps(vectors(), indent=1, ensure_ascii=False, default=bytes.hex) + "\n"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.write_text(text(target.read_text("utf-8") if target.exists() else ""), "utf-8")
