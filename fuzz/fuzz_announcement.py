"""Any bytes are an announcement that is understood, written and read back, or none; or no server."""

from __future__ import annotations

from contextlib import suppress

from fuzz.common import instrumented, run

with instrumented():
    from quicprochat.core.address import check_server
    from quicprochat.core.announcement import Announcement
    from quicprochat.core.errors import LocalError


def one_input(data: bytes) -> None:
    found = Announcement.parse(data)
    if found is not None:
        with suppress(LocalError):  # a domain may be too long to be announced by us
            assert Announcement.parse(found.encode()) == found
    with suppress(LocalError):
        server = check_server(data.decode("utf-8", "surrogateescape"))
        assert check_server(server) == server


if __name__ == "__main__":
    run(one_input)
