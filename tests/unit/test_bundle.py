"""Bundles as bytes: what is written is read, and whatever else is refused with one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.people import at, by_clock, people

from quicprochat.adapters import bundlefile
from quicprochat.adapters.bundlefile import BundleFile, read_pieces
from quicprochat.core import bundle
from quicprochat.core.bundle import BundleReader, BundleWriter
from quicprochat.core.errors import LocalError, UnavailableError, WireError

ALICE, BOB = people("alice", "bob")
WIRES = [ALICE.envelope(BOB.key, "x" * 300 * n).wire() for n in range(4)]


def written(wires: list[bytes] = WIRES) -> bytes:
    writer = BundleWriter()
    return b"".join([writer.begin(by_clock(5)), *(writer.add(wire) for wire in wires), writer.end()])


def read(*pieces: bytes) -> list[bytes]:
    reader = BundleReader()
    found = [wire for piece in pieces for wire in reader.feed(piece)]
    reader.finish()
    return found


def wrong(data: bytes) -> str:
    with pytest.raises(WireError) as error:
        read(data)
    return str(error.value)


@pytest.mark.parametrize("size", [1, 7, 300, 100_000])
def test_what_is_written_is_read_however_it_is_cut(size: int) -> None:
    data = written()
    assert read(*(data[at : at + size] for at in range(0, len(data), size))) == WIRES
    assert read(written([])) == []


def test_the_moment_of_writing_is_told_only_by_a_trusted_clock() -> None:
    for now, expected in ((by_clock(5), by_clock(5).wall), (at(5, 99), 0)):
        reader = BundleReader()
        list(reader.feed(BundleWriter().begin(now)))
        assert reader.written_ms == expected


def test_every_cut_and_every_changed_byte_is_noticed() -> None:
    data = written(WIRES[:2])
    for end in range(len(data)):
        assert wrong(data[:end]), end
    for place in (0, 18, 19, *range(28, len(data), 97), len(data) - 1):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        assert wrong(changed), place
    assert "after its end" in wrong(data + b"!")


def test_other_files_are_told_apart() -> None:
    assert wrong(b"PK\x03\x04 something else") == "this is not a bundle of quicprochat"
    assert "newer quicprochat" in wrong(b"quicprochat bundle\n\x02" + bytes(60))
    assert wrong(b"") == "the bundle is cut short: the end is missing"


def test_an_announced_length_makes_nobody_gather_more_than_an_envelope() -> None:
    reader = BundleReader()
    head = BundleWriter().begin(at(0))
    for length in (1, 206, 131_364, 0xFFFF_FFFF):
        with pytest.raises(WireError, match="impossible length"):
            list(BundleReader().feed(head + length.to_bytes(4, "big")))
    list(reader.feed(head + (131_363).to_bytes(4, "big") + bytes(131_362)))
    assert len(reader._buffer) < 131_400


def test_a_bundle_of_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written()
    monkeypatch.setattr(bundle, "COUNT_MAX", 3)
    assert "more than 3" in wrong(data)


# --- files


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    file = BundleFile(tmp_path / "b")
    file.write([b"one", b"two"])
    assert not (tmp_path / "b").exists()
    assert file.finish() == 6
    assert (tmp_path / "b").read_bytes() == b"onetwo"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    half = BundleFile(tmp_path / "c")
    half.write([b"x"])
    half.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"dear")
    with pytest.raises(LocalError, match="left as it is"):
        BundleFile(tmp_path / "b")
    late = BundleFile(tmp_path / "c")
    (tmp_path / "c").write_bytes(b"dear too")
    with pytest.raises(LocalError, match="left as it is"):
        late.finish()
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == [("b", b"dear"), ("c", b"dear too")]


def test_what_is_no_plain_file_or_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, error in ((tmp_path, LocalError), (tmp_path / "no", LocalError), (Path("/dev/zero"), LocalError)):
        with pytest.raises(error):
            list(read_pieces(path))
    with pytest.raises(UnavailableError):
        BundleFile(tmp_path / "no" / "b")
    (tmp_path / "b").write_bytes(bytes(100))
    monkeypatch.setattr(bundlefile, "BUNDLE_MAX_BYTES", 99)
    with pytest.raises(LocalError, match="at most 99"):
        list(read_pieces(tmp_path / "b"))
