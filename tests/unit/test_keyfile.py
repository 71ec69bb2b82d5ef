"""The identity file: what is refused, and that there is always a whole one."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import quicprochat
from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.keyfile import read_keyfile, write_keyfile
from quicprochat.adapters.system import entropy
from quicprochat.core.errors import QuicprochatError, UnavailableError
from quicprochat.core.identity import FILE_MAX_BYTES
from quicprochat.p2p.book import AddressBook

FRIEND = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def open_book(path: Path) -> AddressBook:
    return AddressBook(path, SodiumCrypto(entropy), entropy)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good identity file with a contact."""
    book = open_book(tmp_path / "identity.json")
    book.add(f"{FRIEND}@192.0.2.1:7000", "bob")
    return tmp_path / "identity.json"


def refusal(path: Path) -> str:
    """What is said of a file that is refused: one sentence that names it; the file is left as it was."""
    before = path.lstat()
    with pytest.raises(QuicprochatError) as caught:
        open_book(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    after = path.lstat()
    assert (before.st_ino, before.st_size, before.st_mode, before.st_mtime_ns) == (
        after.st_ino, after.st_size, after.st_mode, after.st_mtime_ns,
    )  # fmt: skip
    return text


# --- reading


def test_missing_file_is_none_and_opening_makes_one(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    assert read_keyfile(path) is None
    key = open_book(path).identity.key
    assert open_book(path).identity.key == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["identity.json"]


def test_new_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        open_book(tmp_path / "identity.json")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "identity.json").stat().st_mode) == 0o600


def test_link_is_refused_even_to_a_good_file(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert "is a link" in refusal(link)


def test_dangling_link_is_refused_and_nothing_is_made_where_it_points(tmp_path: Path) -> None:
    link, target = tmp_path / "identity.json", tmp_path / "target"
    link.symlink_to(target)
    assert "is a link" in refusal(link)
    assert not target.exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610, 0o601, 0o777])
def test_file_open_to_others_is_refused_and_the_remedy_works(path: Path, mode: int) -> None:
    path.chmod(mode)
    text = refusal(path)
    assert "open to other users" in text
    command = text.split("run: ")[1]
    subprocess.run(command, shell=True, check=True)
    assert open_book(path).contact(bytes.fromhex(FRIEND)) is not None  # type: ignore[arg-type]


@root
def test_file_of_another_user_is_refused(path: Path) -> None:
    os.chown(path, 65_534, -1)
    assert "belongs to another user" in refusal(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["directory", "pipe", "socket", "device"])
def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "identity.json"
    if kind == "directory":
        path.mkdir(0o700)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        path.chmod(0o600)
    else:
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root can make devices")
    assert refusal(path)


def test_gigabyte_is_refused_without_reading_it(path: Path) -> None:
    os.truncate(path, 1 << 30)
    text = refusal(path)
    assert str(1 << 30) in text


def test_largest_size_is_read_and_one_byte_more_is_not(path: Path) -> None:
    spaces = FILE_MAX_BYTES - path.stat().st_size
    with path.open("ab") as file:
        file.write(b" " * spaces)
    open_book(path)
    with path.open("ab") as file:
        file.write(b" ")
    assert str(FILE_MAX_BYTES + 1) in refusal(path)


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # the last byte is the end of the line
        path.write_bytes(whole[:length])
        assert "cannot be used: it is not whole" in refusal(path)


@pytest.mark.parametrize(
    "data",
    [b"\x00" * 500, b"not json", b"\xff\xfe{}", b"{" * 100_000, b"[" * 100_000, b"9" * 10_000, b"\x1f\x8b\x08"],
    ids=["zeros", "text", "no utf-8", "braces", "brackets", "digits", "gzip"],
)
def test_what_is_not_json_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert "cannot be used" in refusal(path)


@pytest.mark.parametrize("document", [None, [], "text", 1, {}, {"version": 1}])
def test_json_that_is_no_identity_is_refused(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))
    assert "a field in it is missing or wrong" in refusal(path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_version_is_refused_and_named(path: Path, version: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))
    assert f"version {version!r}, this program reads 1" in refusal(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("secret_key", "00" * 31), ("secret_key", 1), ("secret_key", "zz" * 32), ("public_key", FRIEND[:-2]),
        ("public_key", None), ("contacts", None), ("contacts", [{}]), ("contacts", [None]), ("contacts", {"a": 1}),
    ],
)  # fmt: skip
def test_wrong_field_is_refused(path: Path, field: str, value: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    assert "a field in it is missing or wrong" in refusal(path)


@pytest.mark.parametrize("field", ["public_key", "name", "verified", "blocked", "addresses", "relay"])
def test_contact_without_a_field_is_refused(path: Path, field: str) -> None:
    document = json.loads(path.read_text())
    del document["contacts"][0][field]
    path.write_text(json.dumps(document))
    assert "a field in it is missing or wrong" in refusal(path)


@pytest.mark.parametrize("address", ["", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:99999", "example.org:1", 7])
def test_contact_with_a_wrong_address_is_refused(path: Path, address: Any) -> None:
    document = json.loads(path.read_text())
    document["contacts"][0]["addresses"] = [address]
    path.write_text(json.dumps(document))
    assert "cannot be used" in refusal(path)


def test_public_key_of_another_secret_is_refused(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "public_key": FRIEND}))
    assert "two keys do not belong together" in refusal(path)


def test_secret_is_in_no_refusal(path: Path) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "public_key": FRIEND}))
    assert document["secret_key"] not in refusal(path)
    path.write_text(json.dumps({**document, "version": 9}))
    assert document["secret_key"] not in refusal(path)


# --- writing


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    for data in (b"one", b"another, longer", b""):
        write_keyfile(path, data)
        assert read_keyfile(path) == data
    assert [p.name for p in tmp_path.iterdir()] == ["identity.json"]


def test_writing_makes_a_new_file_and_leaves_the_old_one_to_whoever_reads_it(path: Path) -> None:
    with path.open("rb") as reader:
        write_keyfile(path, b"new")
        assert json.loads(reader.read())["version"] == 1
    assert read_keyfile(path) == b"new"


@pytest.mark.parametrize("leftover", ["file", "link"])
def test_leftover_of_a_killed_save_is_replaced_and_not_followed(path: Path, leftover: str) -> None:
    half, victim = path.with_name(".identity.json.new"), path.with_name("victim")
    victim.write_text("precious")
    if leftover == "link":
        half.symlink_to(victim)
    else:
        half.write_text("half an ident")
        half.chmod(0o644)
    write_keyfile(path, b"whole")
    assert read_keyfile(path) == b"whole"
    assert victim.read_text() == "precious"
    assert not half.exists()


def test_link_in_the_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "identity.json", tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    write_keyfile(path, b"new")
    assert read_keyfile(path) == b"new"
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_failing_disk_leaves_the_old_identity(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    book = open_book(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(UnavailableError, match="cannot be written: No space left"):
            book.rename("somebody else")
    assert path.read_bytes() == before
    assert book.identity.name == ""
    book.rename("somebody else")
    assert open_book(path).identity.name == "somebody else"


def test_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file or directory"):
        write_keyfile(tmp_path / "gone" / "identity.json", b"x")


# --- killed while saving

KILLER = """
    import os, random, signal, sys, time
    from pathlib import Path
    from quicprochat.adapters.keyfile import read_keyfile, write_keyfile

    path, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dice = random.Random(seed)
    versions = [bytes([n]) * size for n, size in ((1, 300), (2, 70_000), (3, 2_000_000))]

    def die_before(nth):
        # Count the calls by which a save is made, and die before the n-th.
        left = [nth]
        def watched(call):
            def wrapper(*args, **kwargs):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)
            return wrapper
        calls = [(os, name) for name in ("open", "fdopen", "fsync", "close")]
        for where, name in [*calls, (Path, "rename"), (Path, "unlink")]:
            setattr(where, name, watched(getattr(where, name)))

    def child(work):
        pid = os.fork()
        if not pid:
            try:
                work()
            finally:
                os._exit(9)
        return pid

    def save_for_ever():
        while True:
            write_keyfile(path, dice.choice(versions))

    write_keyfile(path, versions[0])
    states = set()
    for n in range(kills):
        pid = child(save_for_ever)
        time.sleep(dice.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
        states.add(versions.index(read_keyfile(path)))
    for old in versions:
        for new in versions:
            for nth in range(1, 20):
                write_keyfile(path, old)
                def save():
                    die_before(nth)
                    write_keyfile(path, new)
                    os._exit(0)
                code = os.waitstatus_to_exitcode(os.waitpid(child(save), 0)[1])
                assert read_keyfile(path) in (old, new), (old[:1], new[:1], nth)
                if code == 0:
                    break
                assert code == -9, code
            assert 5 < nth < 19, nth
            assert read_keyfile(path) == new
    print(len(states))
"""


def test_killed_a_hundred_times_while_saving_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    seed = os.environ.get("QPC_SEED", "1")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), str(tmp_path / "identity.json"), "100", seed],
        env={**os.environ, "PYTHONPATH": str(Path(quicprochat.__file__).parent.parent)},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 1, "no save was ever finished: nothing was tested"
