"""The home server as a process: what it says, how it ends, what its operator sees and does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any

import pytest
from tests.integration.home_server import PROGRAM, Server, Visitor
from tests.integration.qpc import PATIENCE_S, finish, run, start

from quicprochat.adapters import rpc
from quicprochat.adapters.rpc import Problem
from quicprochat.core.envelope import MeshEnvelope
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.record import PeerRecord, sign_record

ADA, BOB, EVE = Visitor("ada"), Visitor("bob"), Visitor("eve")
STORED, DUPLICATE, REFUSED, DEFERRED = range(4)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "home")
    yield made
    made.end()


def play(scenario: Callable[[], Any]) -> Any:
    async def within() -> Any:
        async with rpc.running():
            return await scenario()

    return asyncio.run(within())


def eventually(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return found


# --- starting and stopping


def test_the_version_is_there_at_once() -> None:
    took = []
    for _ in range(3):
        began = time.monotonic()
        assert run("--version", program=PROGRAM).out.startswith("qpc-server ")
        took.append(time.monotonic() - began)
    assert min(took) < 0.3


@pytest.mark.parametrize("how", [SIGTERM, SIGINT])
def test_it_says_ready_once_it_answers_and_stops_when_told(server: Server, how: Any) -> None:
    server.up()

    async def scenario() -> str:
        async with ADA.session(server) as call:
            return str(call.info.version)

    assert play(scenario)
    done = server.down(how)
    assert (done.code, done.out) == (0, "")
    assert not (server.home / "qpc-server.sock").exists()
    assert not (server.home / "server.db-wal").exists()


def test_key_and_epoch_outlive_a_restart_and_a_kill(server: Server) -> None:
    seen = set()
    for how in (SIGTERM, SIGKILL, SIGTERM):
        server.up()
        seen.add((server.fingerprint, server.ask("status")["epoch"]))
        server.down(how)
    assert len(seen) == 1


def test_a_second_server_on_the_home_is_refused(server: Server) -> None:
    server.up()
    done = server.run("--listen", "127.0.0.1:0")
    assert (done.code, done.out) == (3, "")
    assert "another process owns the home" in done.talk
    assert server.ask("status")["users"] == 0


def test_a_port_that_is_taken_is_a_sentence(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        done = server.run("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.code, done.out) == (3, "")
    assert "cannot listen on UDP 127.0.0.1" in done.talk
    server.up()


def test_a_wrong_configuration_is_a_sentence_and_exit_code_2(server: Server) -> None:
    server.home.mkdir(mode=0o700)
    (server.home / "qpc-server.toml").write_text("conections = 5")
    for arguments in ((), ("config", "check")):
        error = server.ask(*arguments, code=2)
        assert error["code"] == "usage"
        assert "did you mean connections?" in error["message"]
    (server.home / "qpc-server.toml").write_text("connections = 5")
    checked = server.ask("config", "check")
    assert checked["options"]["connections"] == {"value": 5, "source": "file"}
    assert "connections             5 " in server.run("config", "check").out


def test_federation_without_a_domain_says_what_is_missing(server: Server) -> None:
    done = server.run(env={"QPC_FEDERATION_LISTEN": "127.0.0.1:7001"})
    assert done.code == 2
    assert "federation needs the domain that this server speaks for" in done.talk


def test_without_a_server_a_command_says_what_to_do(server: Server) -> None:
    for command in (("status",), ("users",), ("invite",), ("backup", "x")):
        error = server.ask(*command, code=3)
        assert "no server runs on the home" in error["message"]


# --- the service manager


def test_the_service_manager_hears_how_it_is(server: Server, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)

        def until(word: str) -> str:
            while word not in (lines := manager.recv(4096).decode().splitlines()):
                pass
            return "\n".join(lines)

        server.up(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})
        assert "STATUS=serving 0 users" in until("READY=1")
        for _ in range(3):
            until("WATCHDOG=1")
        server.signal(SIGHUP)
        assert "MONOTONIC_USEC=" in until("RELOADING=1")
        until("READY=1")
        server.signal(SIGTERM)
        until("STOPPING=1")
        assert server.down().code == 0


def test_it_is_announced_on_the_local_network(server: Server) -> None:
    server.up("--discovery", "--announce-as", "Box.example.net:7000")
    eventually(lambda: "announced on the local network as box.example.net:7000" in server.said())
    assert server.down().code == 0


# --- reloading


def test_a_hangup_reloads_rules_and_lists_and_says_what_needs_a_restart(server: Server) -> None:
    server.home.mkdir(mode=0o700)
    file, listed = server.home / "qpc-server.toml", server.home / "people"
    server.up()

    def reload(text: str, until: str) -> None:
        file.write_text(text)
        server.signal(SIGHUP)
        eventually(lambda: until in server.said())

    async def scenario() -> None:
        async with ADA.session(server) as ada, BOB.session(server) as bob:
            assert await bob.put(BOB.envelope(ADA, 1)) == [(STORED, 0)]
            listed.write_text(f"{ADA.key.hex()}  ada\n")
            reload('registration = "list"\nregistration_list = "people"', "registration = list")
            with pytest.raises(QuicprochatError, match="gone"):
                await bob("info")  # hung up on: anybody connected could ask this
            assert (await ada("info")).info.registration == "list"
            with pytest.raises(Problem, match="operator's list") as refusal:
                async with BOB.session(server):
                    pass
            assert refusal.value.code == "policy"
            listed.write_text(f"{ADA.key.hex()}\n{BOB.key.hex()}\n")
            server.signal(SIGHUP)
            eventually(lambda: "the lists were read again" in server.said())
            async with BOB.session(server) as again:
                assert await again.put(BOB.envelope(ADA, 3)) == [(STORED, 0)]
                reload("messages_per_pair = 2", "messages_per_pair = 2")
                assert await again.put(BOB.envelope(ADA, 4)) == [(DEFERRED, 6)]
                reload("messages_per_pair = oops", "not reloaded, everything stays as it was")
                assert await again.put(BOB.envelope(ADA, 5)) == [(DEFERRED, 6)]
                reload('connections = 7\nfederation_domain = "x.net"', "a restart is needed for: federation_domain")

    play(scenario)
    assert server.down().code == 0


# --- users, invites, names


def test_an_invite_makes_a_user_whose_name_is_its_own(server: Server) -> None:
    server.up("--registration", "invite", "--domain", "example.net")
    code = server.run("invite").out.strip()
    made = server.ask("invite", "--days", "2")
    assert made["days"] == 2
    assert made["expires_at"].endswith("Z")
    assert server.ask("status")["invites"] == 2
    assert server.ask("invite", "--days", "1000", code=2)["code"] == "usage"

    async def scenario() -> None:
        async with ADA.session(server) as ada, BOB.session(server) as bob:
            assert (ada.info.registration, ada.info.admitted, ada.info.name) == ("invite", False, "")
            for method, *arguments in (
                ("enqueue", b"x"), ("batchEnqueue", [b"x"]), ("fetch", 0, 1), ("acknowledge", []),
                ("publish", b"x", 0), ("findRecord", ADA.key), ("findName", "ada"), ("register", "ada", ""),
                ("register", "ada", "ABCD"), ("follow", [bytes(32)]), ("listPosts", bytes(32), 0, 1),
                ("fetchPosts", [bytes(32)]), ("lackingPosts", [bytes(32)]),
            ):  # fmt: skip
                with pytest.raises(Problem) as refusal:
                    await ada(method, *arguments)
                assert refusal.value.code == "policy", method
            answer = await ada("register", "Ada", code.lower())
            assert (answer.name, answer.domain) == ("ada", "example.net")
            info = (await ada("info")).info
            assert (info.admitted, info.name, info.domain) == (True, "ada", "example.net")
            with pytest.raises(Problem, match="used already"):
                await bob("register", "bob", code)
            await bob("register", "", made["invite"])
            with pytest.raises(Problem, match="belongs to another key"):
                await bob("register", "ADA", "")
            assert (await bob("findName", "Ada")).key == ADA.key
            with pytest.raises(Problem) as unknown:
                await bob("findName", "eve")
            assert unknown.value.code == "not_found"
            assert await bob.put(BOB.envelope(ADA, 1), BOB.envelope(EVE, 2)) == [(STORED, 0), (DEFERRED, 9)]

    play(scenario)
    users = {user["public_key"]: user for user in server.ask("users")}
    assert set(users) == {ADA.key.hex(), BOB.key.hex()}
    ada = users[ADA.key.hex()]
    assert (ada["name"], ada["messages"]) == ("ada", 1)
    assert ada["bytes"] > 300
    assert ada["first_seen"].endswith("Z")
    assert "ada" in server.run("users").out
    server.down()
    server.up()
    assert {user["name"] for user in server.ask("users")} == {"ada", ""}


def test_what_is_no_name_no_key_and_no_record_is_a_problem_and_no_fault(server: Server) -> None:
    server.up()

    async def scenario() -> None:
        async with ADA.session(server) as ada:
            for method, arguments, code in (
                ("register", (b"\xff\xfe", ""), "usage"),
                ("register", ("ada", b"\xff\xfe"), "usage"),
                ("register", ("x" * 1_000_000, ""), "too_long"),
                ("register", ("a\x00b", ""), "usage"),
                ("register", ("", ""), "usage"),
                ("findName", (b"\xc3",), "usage"),
                ("findName", ("x" * 1_000_000,), "too_long"),
                ("findRecord", (b"",), "usage"),
                ("findRecord", (bytes(31),), "usage"),
                ("publish", (b"", 0), "usage"),
                ("publish", (bytes(1_000_000), 0), "too_long"),
                ("publish", (bytes(500), (1 << 64) - 1), "usage"),
            ):
                with pytest.raises(Problem) as refusal:
                    await ada(method, *arguments)
                assert refusal.value.code == code, (method, refusal.value)
            record = sign_record(PeerRecord(ADA.key, 1, 1), ADA.signer)
            await ada("publish", record, (1 << 64) - 1)
            assert len((await ada("findRecord", ADA.key)).record) == 0
            await ada("publish", record, 5)
            found = await ada("findRecord", ADA.key)
            assert bytes(found.record) == record
            assert found.ageMs >= 5
            with pytest.raises(Problem, match="by its owner only") as refusal:
                await ada("publish", sign_record(PeerRecord(BOB.key, 1, 1), BOB.signer), 0)
            assert refusal.value.code == "policy"

    play(scenario)
    assert server.down().code == 0
    assert "fault" not in server.said()


def test_a_removed_user_is_hung_up_on_and_leaves_nothing(server: Server) -> None:
    server.up()

    async def scenario() -> None:
        async with ADA.session(server) as ada, BOB.session(server) as bob:
            await ada("register", "ada", "")
            await bob.put(BOB.envelope(ADA, 1))
            assert {user["connected"] for user in server.ask("users")} == {True}
            removed = await asyncio.to_thread(server.ask, "users", "remove", ADA.key.hex())
            assert removed == {"public_key": ADA.key.hex(), "messages": 1}
            with pytest.raises(QuicprochatError):
                await ada("info")
            assert await bob.put(BOB.envelope(ADA, 2)) == [(DEFERRED, 9)]
            await bob("register", "ada", "")

    play(scenario)
    assert [user["name"] for user in server.ask("users")] == ["ada"]
    assert server.ask("users", "remove", ADA.key.hex(), code=5)["code"] == "not_found"
    assert server.ask("users", "remove", "zz", code=2)["code"] == "usage"


def test_a_stranger_is_not_connected_for_long(server: Server) -> None:
    """Else whoever makes keys could take up all connections of a server that lets them do nothing."""
    program = "import quicprochat.server.home_server as h; h.STRANGER_S = 0.5; " + PROGRAM
    server.up("--registration", "invite", program=program)
    code = server.run("invite").out.strip()

    async def scenario() -> None:
        async with ADA.session(server) as ada, BOB.session(server) as bob:
            await ada("register", "", code)

            async def until_hung_up() -> None:
                while True:
                    await bob("info")

            with pytest.raises(QuicprochatError, match="gone"):
                await asyncio.wait_for(until_hung_up(), PATIENCE_S)
            assert (await ada("info")).info.admitted

    play(scenario)


def test_a_key_that_connects_too_often_loses_its_oldest_connection(server: Server) -> None:
    server.up()

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            calls = [await stack.enter_async_context(ADA.session(server)) for _ in range(17)]
            with pytest.raises(QuicprochatError):
                await calls[0]("info")
            await calls[1]("info")
            await calls[16]("info")

    play(scenario)


# --- what the operator sees


def test_status_and_metrics_tell_what_was_done(server: Server) -> None:
    server.up("--metrics-listen", "127.0.0.1:0")
    url = eventually(lambda: [word for word in server.said().split() if word.startswith("http://")])[0]

    async def scenario() -> None:
        async with ADA.session(server) as ada, BOB.session(server) as bob:
            fresh = [BOB.envelope(ADA, n) for n in range(5)]
            await bob.put(*fresh)
            await bob.put(fresh[0], BOB.envelope(EVE, 1), fresh[1][:-1] + b"x", b"nonsense")
            taken = (await ada("fetch", 0, 2)).deliveries
            await ada("acknowledge", [MeshEnvelope.decode(bytes(one.envelope)).id for one in taken])
            status = await asyncio.to_thread(server.ask, "status")
            assert (status["messages"], status["recipients"], status["users"]) == (3, 1, 2)
            assert (status["sessions"], status["connections"]) == (2, 2)
            assert status["last_minute"] == {"duplicate": 1, "handed_over": 2, "stored": 5}
            assert status["totals"] == status["last_minute"]
            assert status["refused"] == {"malformed": 2, "handshake": 0}
            assert status["deferred"] == {"unknown": 1}
            assert status["oldest_s"] is not None
            assert status["bytes"] > 3 * 300
            assert status["fingerprint"] == server.fingerprint.hex()
            assert status["address"] == str(server.address)

    play(scenario)
    words = server.run("status").out
    assert "3 messages for 1 recipient" in words
    assert "2 malformed" in words
    assert "1 unknown" in words
    with urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()
    assert "qpc_server_waiting_messages 3" in lines
    assert 'qpc_server_events_total{event="stored"} 5' in lines
    assert 'qpc_server_deferred_total{reason="unknown"} 1' in lines
    assert all(line.startswith("#") or len(line.split(" ")) == 2 for line in lines)
    for path, code in (("/", 404), ("/metrics/x", 404)):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(url.removesuffix("/metrics") + path)
        assert refusal.value.code == code
        refusal.value.close()


def test_metrics_survive_callers_of_every_kind(server: Server) -> None:
    server.up("--metrics-listen", "127.0.0.1:0")
    url = eventually(lambda: [word for word in server.said().split() if word.startswith("http://")])[0]
    host, _, port = url.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(40)]
    for caller in silent:
        caller.close()

    def exchange(request: bytes) -> bytes:
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as caller:
            try:
                caller.sendall(request)
                return caller.recv(100)
            except OSError:
                return b""

    eventually(lambda: b" 200 " in exchange(b"GET /metrics HTTP/1.1\r\n\r\n"))
    assert b" 405 " in exchange(b"POST /metrics HTTP/1.1\r\n\r\n")
    assert b" 405 " in exchange(b"\x00\xff\r\n\r\n")
    assert exchange(b"GET " + b"x" * 100_000) == b""
    eventually(lambda: b" 200 " in exchange(b"HEAD /metrics?x=y HTTP/1.0\r\n\r\n"))


def test_who_talks_to_whom_is_not_logged(server: Server) -> None:
    def scenario(verbose: bool) -> str:
        server.up(*(["--verbose"] if verbose else []))

        async def talk() -> None:
            async with ADA.session(server) as ada, BOB.session(server) as bob:
                await ada("register", "ada", "")
                await bob.put(BOB.envelope(ADA, 1), BOB.envelope(EVE, 2), b"nonsense")
                await bob("findName", "ada")

        play(talk)
        server.ask("invite")
        # Noise on the port, about which aioquic has a word to say.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
            for data in (b"\xc0" + bytes(1200), bytes(20), b"\xff" * 1200):
                noise.sendto(data, (server.address.ip, server.address.port))
        assert server.down().code == 0
        return server.said()

    said = scenario(verbose=False)
    assert all(line.startswith("qpc-server: ") for line in said.splitlines()), said
    for secret in (ADA.key.hex()[:8], BOB.key.hex()[:8], EVE.key.hex()[:8], "ada", "127.0.0.1:"):
        assert secret not in said, said
    assert len(said.splitlines()) == 2
    said = scenario(verbose=True)
    assert f"{BOB.key.hex()[:16]} brings an envelope to {ADA.key.hex()[:16]}" in said


@pytest.mark.parametrize("verbose", [False, True])
def test_libraries_that_would_log_addresses_are_silent_unless_asked(verbose: bool) -> None:
    program = (
        "import logging; from quicprochat.server.run import configure_log;"
        f"configure_log(verbose={verbose});"
        "[logging.getLogger(name).error('from 192.0.2.1') for name in ('quic', 'zeroconf')];"
        "logging.getLogger('quicprochat.server').info('ours')"
    )
    done = run(program=program)
    assert done.talk.count("192.0.2.1") == (2 if verbose else 0)
    assert done.talk.count("ours") == 1


def test_the_control_socket_is_private_and_reached_however_long_the_path(tmp_path: Path) -> None:
    server = Server(tmp_path / ("x" * 120) / ("y" * 120))
    server.home.parent.mkdir()
    server.home.mkdir(mode=0o700)
    try:
        server.up()
        assert oct((server.home / "qpc-server.sock").stat().st_mode & 0o777) == "0o600"
        assert server.ask("status")["users"] == 0
        for line in (b"nonsense\n", b"{}\n", b'{"command": "status", "args": 5}\n', b'{"command": "frobnicate"}\n',
                     b"x" * 100_000 + b"\n"):  # fmt: skip
            descriptor = os.open(server.home, os.O_RDONLY)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.settimeout(PATIENCE_S)
                caller.connect(f"/proc/self/fd/{descriptor}/qpc-server.sock")
                caller.sendall(line)
                with caller.makefile("rb") as answer:
                    assert "error" in json.loads(answer.readline()), line[:40]
            os.close(descriptor)
        assert server.ask("status")["users"] == 0
    finally:
        server.end()


# --- backup


def test_a_backup_under_load_is_whole_and_comes_back_with_another_epoch(server: Server, tmp_path: Path) -> None:
    """What was acknowledged before the backup began is in it, and the restored server says that it forgot."""
    server.up()
    file = tmp_path / "backup.db"
    before = 0

    async def scenario() -> None:
        nonlocal before
        visitors = [Visitor(str(n)) for n in range(30)]
        for visitor in visitors:
            async with visitor.session(server):
                pass
        async with ADA.session(server) as ada:
            acknowledged = 0
            backup: asyncio.Future[Any] | None = None
            number = 0
            while backup is None or not backup.done():
                batch = [ADA.envelope(visitors[number % 30], number * 64 + n, 2_000) for n in range(64)]
                outcomes = await ada.put(*batch)
                acknowledged += sum(verdict == STORED for verdict, _ in outcomes)
                number += 1
                if number == 20:
                    before = acknowledged
                    backup = asyncio.ensure_future(asyncio.to_thread(server.ask, "backup", str(file)))
            assert backup.result() == {"file": str(file), "bytes": file.stat().st_size}
            assert acknowledged > before, "there was no load"

    play(scenario)
    assert before == 20 * 64
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert sorted(found.name for found in tmp_path.glob("backup*")) == ["backup.db"]
    error = server.ask("backup", str(file), code=2)
    assert error["code"] == "exists"
    running = server.ask("restore", str(file), code=3)
    assert running["code"] == "owned"
    status = server.ask("status")
    assert server.down(SIGKILL).code == -SIGKILL
    fingerprint = server.fingerprint

    assert server.ask("restore", str(file))["bytes"] > 0
    assert (server.home / "server.db.replaced").exists()
    server.up()
    restored = server.ask("status")
    assert server.fingerprint == fingerprint
    assert restored["epoch"] != status["epoch"]
    assert restored["users"] == 31
    assert before <= restored["messages"] <= status["messages"]
    epochs = {restored["epoch"]}
    server.down()
    server.up()
    epochs.add(server.ask("status")["epoch"])
    assert epochs == {restored["epoch"]}, "made anew once, and kept from then on"
    server.down()
    assert server.ask("restore", str(file), code=2)["code"] == "exists"


def test_a_backup_put_back_by_hand_has_another_epoch_too(server: Server, tmp_path: Path) -> None:
    server.up()
    epoch = server.ask("status")["epoch"]
    server.ask("backup", str(tmp_path / "b"))
    server.down()
    (tmp_path / "b").replace(server.home / "server.db")
    server.up()
    assert server.ask("status")["epoch"] != epoch


def test_restoring_a_plain_copy_makes_another_epoch_too(server: Server, tmp_path: Path) -> None:
    server.up()
    epoch = server.ask("status")["epoch"]
    server.down()
    (tmp_path / "copy").write_bytes((server.home / "server.db").read_bytes())
    assert server.ask("restore", str(tmp_path / "copy"))["bytes"] > 0
    server.up()
    assert server.ask("status")["epoch"] != epoch


def test_what_is_no_backup_is_not_restored(server: Server, tmp_path: Path) -> None:
    server.up()
    epoch = server.ask("status")["epoch"]
    server.ask("backup", str(tmp_path / "b"))
    server.down()
    good = (tmp_path / "b").read_bytes()
    (tmp_path / "text").write_text("hello " * 1_000)
    (tmp_path / "cut").write_bytes(good[: len(good) // 2])
    for name, code in (("missing", 3), ("text", 2), ("cut", 2), (".", 3)):
        done = server.run("restore", str(tmp_path / name))
        assert done.code in (code, 3), (name, done.talk)
        assert sorted(file.name for file in server.home.iterdir()) == ["lock", "server.db", "server.db.ballast"], name
    server.up()
    assert server.ask("status")["epoch"] == epoch


def test_a_backup_that_cannot_be_written_harms_nobody(server: Server, tmp_path: Path) -> None:
    server.up()
    error = server.ask("backup", str(tmp_path / "missing" / "b"), code=3)
    assert "nothing can be written beside" in error["message"]
    assert server.ask("status")["users"] == 0


def test_a_caller_who_leaves_ends_the_backup(server: Server, tmp_path: Path) -> None:
    server.up()
    caller = start("--home", str(server.home), "backup", str(tmp_path / "b"), program=PROGRAM)
    caller.kill()
    caller.communicate()
    eventually(lambda: not list(tmp_path.glob("b.*.new")))
    assert server.ask("status")["users"] == 0


def test_a_command_for_a_server_that_hangs_does_not_hang_for_ever(server: Server, tmp_path: Path) -> None:
    program = PROGRAM.replace("from", "import quicprochat.server.control as c; c.SILENCE_S = 0.2; from", 1)
    server.up()
    server.signal(SIGSTOP)
    try:
        done = finish(start("--home", str(server.home), "status", program=program))
        assert done.code == 3
        assert "does not answer within" in done.talk
    finally:
        server.signal(SIGCONT)
