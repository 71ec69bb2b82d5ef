"""Any text is an invite that is written just so but for capitals and spaces around it, or a LocalError."""

from __future__ import annotations

import base64
from contextlib import suppress

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.errors import LocalError
    from quicprochat.core.ids import Label, labelled_hash
    from quicprochat.core.invite import INVITE_PREFIX, Invite


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    # The same bytes as a body with a right checksum, so that what stands behind it is reached.
    whole = base64.b32encode(data + labelled_hash(Label.INVITE, data)[:4]).decode().rstrip("=").lower()
    for said in (text, INVITE_PREFIX + whole):
        with suppress(LocalError):
            found = Invite.parse(said)
            assert str(found) == said.strip().lower()
            assert Invite.parse(str(found)) == found


if __name__ == "__main__":
    run(one_input)
