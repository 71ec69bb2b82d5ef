"""What an announcement says: written, read back, and whatever strangers make of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicprochat.core.address import check_server
from quicprochat.core.announcement import STRINGS_MAX, TXT_MAX_BYTES, Announcement, Role
from quicprochat.core.errors import LocalError
from quicprochat.core.ids import PeerKey

KEY = PeerKey(bytes(range(32)))
ID = b"id=" + KEY.hex().encode()


def txt(*pairs: bytes) -> bytes:
    return b"".join(bytes([len(pair)]) + pair for pair in pairs)


def test_a_node_says_its_role_and_key_and_nothing_a_person_chose() -> None:
    assert Announcement(Role.NODE, KEY).encode() == txt(b"ver=1", b"role=node", ID)


def test_a_server_says_where_it_is_and_what_its_certificate_is() -> None:
    server = Announcement(Role.SERVER, None, "mesh.example.org:7000", "example.org", bytes(32))
    assert server.encode() == txt(
        b"ver=1", b"role=server", b"server=mesh.example.org:7000", b"domain=example.org", b"fp=" + b"0" * 64
    )
    assert Announcement.parse(server.encode()) == server


@pytest.mark.parametrize(
    ("data", "means"),
    [
        (b"", Announcement()),
        (b"\0", Announcement()),
        (txt(ID), Announcement(Role.NODE, KEY)),
        (txt(b"ID=" + ID[3:].upper(), b"Role=node"), Announcement(Role.NODE, KEY)),
        (txt(ID, b"id=" + b"00" * 32), Announcement(Role.NODE, KEY)),
        (txt(b"colour=blue", b"nonsense", b"=", b"=x", ID, b"\xff\xfe=\x00"), Announcement(Role.NODE, KEY)),
        (txt(b"id=" + b"0" * 63), Announcement()),
        (txt(b"id=" + b"g" * 64), Announcement()),
        (txt(b"id=" + "\u0660".encode() * 64), Announcement()),
        (txt(b"id"), Announcement()),
        (txt(b"id=\xff"), Announcement()),
        (txt(b"server=h:1"), Announcement(Role.SERVER, None, "h:1")),
        (txt(b"server=h:1", b"relay=7002"), Announcement(Role.SERVER, None, "h:1", relay=7_002)),
        (txt(ID, b"relay=65536"), Announcement(Role.NODE, KEY)),
        (txt(ID, b"relay=-1"), Announcement(Role.NODE, KEY)),
        (txt(ID, "relay=\u0661".encode()), Announcement(Role.NODE, KEY)),
        (txt(b"server=h:1", b"role=node"), Announcement(Role.NODE, None, "h:1")),
        (txt(b"server=h", b"role=server"), Announcement(Role.SERVER)),
        (txt(b"domain=a\x1b[2J"), Announcement()),
        (txt(b"fp=12"), Announcement()),
        (txt(ID) + b"\xff", Announcement(Role.NODE, KEY)),
        (txt(ID) + b"\xffver=2", Announcement(Role.NODE, KEY)),
    ],
)
def test_missing_unknown_and_wrong_values_are_as_if_they_were_not_there(data: bytes, means: Announcement) -> None:
    assert Announcement.parse(data) == means


@pytest.mark.parametrize(
    "data", [txt(b"ver=2", ID), txt(b"ver="), txt(b"role=king"), txt(b"role=" + b"x" * 200), bytes(TXT_MAX_BYTES + 1)]
)
def test_another_version_or_role_and_what_is_far_too_large_are_not_read(data: bytes) -> None:
    assert Announcement.parse(data) is None


def test_only_so_many_strings_are_read() -> None:
    assert Announcement.parse(b"\0" * STRINGS_MAX + txt(ID)) == Announcement()
    assert Announcement.parse(b"\0" * (STRINGS_MAX - 1) + txt(ID)) == Announcement(Role.NODE, KEY)


def test_what_does_not_fit_is_not_announced() -> None:
    with pytest.raises(LocalError, match="too long"):
        Announcement(Role.SERVER, domain="x" * 250).encode()


@given(st.binary(max_size=TXT_MAX_BYTES + 10))
def test_any_bytes_are_an_announcement_or_none(data: bytes) -> None:
    found = Announcement.parse(data)
    if found is None:
        return
    assert found.key is None or len(found.key) == 32
    assert len(found.fp) in (0, 32)
    assert not found.server or check_server(found.server) == found.server
    assert found.domain.isprintable()


PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), max_size=40)


@given(
    st.builds(
        Announcement,
        st.sampled_from(Role),
        st.none() | st.binary(min_size=32, max_size=32).map(PeerKey),
        st.sampled_from(["", "h:1", "[fd00::1]:7000", "192.0.2.1:65535"]),
        PRINTABLE,
        st.sampled_from([b"", bytes(32)]),
    )
)
def test_what_is_written_is_read_back(announcement: Announcement) -> None:
    assert Announcement.parse(announcement.encode()) == announcement


@given(
    st.lists(st.tuples(st.sampled_from([b"ver", b"role", b"id", b"server", b"fp", b"", b"x"]), st.binary(max_size=80)))
)
def test_any_strings_under_our_keys_are_read_without_an_error(pairs: list[tuple[bytes, bytes]]) -> None:
    Announcement.parse(txt(*(key + b"=" + value for key, value in pairs)))


@pytest.mark.parametrize(
    ("text", "means"),
    [("Mesh.Example.org:7000", "mesh.example.org:7000"), ("192.0.2.1:1", "192.0.2.1:1"), ("h:007", "h:7"),
     ("[FD00:0::1]:65535", "[fd00::1]:65535"), ("a_b-c.d.:5", "a_b-c.d.:5")],
)  # fmt: skip
def test_a_server_is_a_host_and_a_port(text: str, means: str) -> None:
    assert check_server(text) == means
    assert check_server(means) == means


@pytest.mark.parametrize(
    "text",
    ["", ":", "h", "h:", ":7000", "h:0", "h:65536", "h:x", "h:\u0661", "fd00::1:7000", "[fd00::1:7000", "[h]:1", "-h:1",
     "h..x:1", "a b:1", "h:1 ", "http://h:1", "x" * 64 + ":1", "x." * 127 + ":1", "h\x1b[2J:1", "[fe80::1%eth0]:1"],
)  # fmt: skip
def test_what_is_no_server_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(LocalError, match="write host:port"):
        check_server(text)
