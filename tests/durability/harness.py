"""Two people in two processes, what each was told, and the comparison of that with what is on their disks."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

import quicprochat
from quicprochat.adapters.crypto import SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.sqlite.store import SqliteStore
from quicprochat.adapters.system import entropy
from quicprochat.core.ids import PeerKey
from quicprochat.core.receipt import State
from quicprochat.core.store import Line, Sent
from quicprochat.p2p.book import AddressBook

pytest.importorskip("iroh", reason="needs the extra [mesh]")

WORKER = Path(__file__).with_name("worker.py")
SOON_S = 30.0
"""Far more than anything but a drain takes on a loaded machine; what hangs fails by this."""
DRAIN_S = 120.0


def seeded(name: str) -> random.Random:
    """The dice of a test; QPC_SEED repeats a run. Pytest shows the seed of a test that failed."""
    seed = os.environ.get("QPC_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"repeat with QPC_SEED={seed}")
    return random.Random(f"{seed} {name}")


def until(condition: Callable[[], bool], seconds: float = SOON_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.02)


def free_port() -> int:
    """Find a UDP port outside the range from which the kernel gives ports away, so that a restart finds it free."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 200):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


@dataclass(frozen=True)
class Owner:
    """A person: where the home lies, also as seen from here, and the log of what was acknowledged."""

    name: str
    home: Path
    port: int
    key: PeerKey
    log: Path
    outside: Path
    """The home as this process sees it, when the worker lives in another mount namespace."""


def befriend(one: Owner, other: Owner) -> None:
    book = AddressBook(Home(one.outside).identity, SodiumCrypto(entropy), entropy)
    book.add(f"{other.key.hex()}@127.0.0.1:{other.port}", other.name)


def settle_in(name: str, log: Path, home: Path, outside: Path) -> Owner:
    """Make a home with an identity."""
    key = AddressBook(Home(outside).identity, SodiumCrypto(entropy), entropy).identity.key
    return Owner(name, home, free_port(), key, log, outside)


def worker_env() -> dict[str, str]:
    """The environment in which a worker finds the package that is under test."""
    places = [Path(quicprochat.__file__).parent.parent, Path(__file__).parents[2]]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}


class Worker:
    """A running worker. ``settings`` are fields of its specification (see worker.py)."""

    def __init__(self, owner: Owner, friend: Owner, prefix: Sequence[str] = (), **settings: Any) -> None:
        self.owner = owner
        spec = {
            "home": str(owner.home), "port": owner.port, "log": str(owner.log), "friend": friend.key.hex(), **settings,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [*prefix, sys.executable, str(WORKER), json.dumps(spec)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=worker_env(), bufsize=0,
        )  # fmt: skip
        self._numbers = 0
        self._heard: list[dict[str, Any]] = []
        self._half = b""

    def _listen(self, deadline: float) -> bool:
        """Take in what the worker says until the deadline; False when it has ended."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise AssertionError(f"{self.owner.name} said nothing in time; before: {self._heard}")
        data = os.read(self._process.stdout.fileno(), 65_536)
        *lines, self._half = (self._half + data).split(b"\n")
        self._heard += [json.loads(line) for line in lines]
        for event in self._heard:
            assert event["event"] != "crashed", event["text"]
        return bool(data)

    def expect(self, event: str, *, seconds: float = SOON_S, **fields: Any) -> dict[str, Any]:
        """Wait until the worker says this."""
        deadline = time.monotonic() + seconds
        wanted = {"event": event, **fields}
        while True:
            for said in self._heard:
                if wanted.items() <= said.items():
                    self._heard.remove(said)
                    return said
            if not self._listen(deadline):
                raise AssertionError(f"{self.owner.name} ended before {wanted}: {self._heard}")

    def tell(self, do: str, **arguments: Any) -> int:
        assert self._process.stdin is not None
        self._numbers += 1
        with contextlib.suppress(BrokenPipeError):  # it may be dead already; whoever waits for the answer sees that
            self._process.stdin.write(json.dumps({"do": do, "number": self._numbers, **arguments}).encode() + b"\n")
        return self._numbers

    def ask(self, do: str, *, seconds: float = SOON_S, **arguments: Any) -> dict[str, Any]:
        """Tell, and wait for the answer."""
        return self.expect("answer", number=self.tell(do, **arguments), seconds=seconds)

    def ready(self) -> Worker:
        self.expect("ready")
        return self

    def killed(self) -> None:
        """Wait until the worker has killed itself."""
        deadline = time.monotonic() + SOON_S
        while self._listen(deadline):
            pass
        code = self.ended()
        assert code == -signal.SIGKILL, f"{self.owner.name} ended by itself ({code}): {self._heard}"

    def freeze(self) -> None:
        """Let it do nothing more; system calls under way go on to their end."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self.ended()

    def ended(self) -> int:
        """Wait for the end; return the exit code."""
        code = self._process.wait(SOON_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        return code


class Pair:
    """An author and a recipient who know each other; their workers, when they run."""

    def __init__(self, author: Owner, recipient: Owner) -> None:
        befriend(author, recipient)
        befriend(recipient, author)
        self.author, self.recipient = author, recipient
        self.workers: dict[str, Worker] = {}
        self.prefixes: dict[str, list[str]] = {}
        """Commands that bring a role's worker to where its home is."""

    def owner(self, role: str) -> Owner:
        return self.author if role == "author" else self.recipient

    def start(self, role: str, **settings: Any) -> Worker:
        """Begin a run of one of them, without waiting for it."""
        friend = self.owner("recipient" if role == "author" else "author")
        worker = self.workers[role] = Worker(self.owner(role), friend, self.prefixes.get(role, ()), **settings)
        return worker

    def kill(self, role: str) -> None:
        self.workers.pop(role).kill()

    def end(self, role: str) -> None:
        """Ask for an orderly end."""
        self.workers[role].tell("end")
        assert self.ended(role) == 0, f"the {role} did not end in order"

    def ended(self, role: str) -> int:
        """Wait until one of them has ended by itself; return its exit code."""
        code = self.workers[role].ended()
        del self.workers[role]
        return code

    def finish(self) -> None:
        """Let both run until nothing waits anywhere, then end both in order."""
        for role in ("recipient", "author"):
            if role not in self.workers:
                self.start(role).ready()
        self.workers["author"].ask("stop")
        self.workers["author"].ask("drained", seconds=DRAIN_S)
        self.workers["recipient"].ask("drained", seconds=DRAIN_S)
        for worker in self.workers.values():
            worker.tell("end")
        for role in tuple(self.workers):
            assert self.ended(role) == 0, f"the {role} did not end in order"

    def close(self) -> None:
        """Kill whatever still runs."""
        while self.workers:
            self.workers.popitem()[1].kill()


class Place(Protocol):
    """Another place than the ordinary disk for a home; see disks.py."""

    place: Path
    outside: Path
    prefix: list[str]


@contextlib.contextmanager
def pair(base: Path, elsewhere: Place | None = None, role: str = "") -> Iterator[Pair]:
    """Two people on the ordinary disk; the home of one of them, ``role``, may be elsewhere."""
    owners = {}
    for name in ("author", "recipient"):
        at = elsewhere if name == role else None
        home, outside = (at.place / name, at.outside / name) if at else (base / name, base / name)
        owners[name] = settle_in(name, base / f"{name}.log", home, outside)
    both = Pair(owners["author"], owners["recipient"])
    if elsewhere is not None:
        both.prefixes[role] = elsewhere.prefix
    try:
        yield both
    finally:
        both.close()


# --- what was acknowledged, and what is there


@dataclass
class Facts:
    """What a worker noted: uid to detail, for each kind of fact."""

    of: dict[str, dict[str, str]] = field(default_factory=dict)
    after_end: int = 0
    """Facts noted after the node had ended."""

    def __getitem__(self, kind: str) -> Mapping[str, str]:
        return self.of.get(kind, {})


def facts(owner: Owner) -> Facts:
    """Read a log. What is shown twice must be the same line."""
    found = Facts()
    ended = False
    for line in owner.log.read_text().splitlines() if owner.log.exists() else ():
        words = line.split(" ")
        if len(words) != 3 or not words[2]:
            continue  # empty, or cut short by a kill: then nobody was told
        kind, uid, detail = words
        ended = kind == "ended" or (ended and kind != "started")
        found.after_end += ended and kind == "acked"
        known = found.of.setdefault(kind, {}).setdefault(uid, detail)
        assert kind != "shown" or known == detail, f"{uid} was shown as two different lines"
    return found


def read_store(owner: Owner) -> tuple[dict[str, Sent], list[Line]]:
    """Return what was sent, and the inbox, from a copy of the home; no row may have been left out as damaged."""
    scratch = owner.log.with_suffix(".copy")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(owner.outside, scratch)
    store = SqliteStore.open(scratch / "mesh.db", ballast_bytes=0)
    try:
        assert store._one("PRAGMA integrity_check") == "ok"
        uids = [row[0] for row in store._rows("SELECT uid FROM sent")]
        sent = {uid.hex(): one for uid in uids if (one := store.sent(uid)) is not None}
        inbox = list(store.journal(after=0, limit=10_000_000, messages=True))
        assert len(sent) == len(uids)
        assert len(inbox) == store._one("SELECT count(*) FROM line WHERE kind = 1")
    finally:
        store.close()
    shutil.rmtree(scratch)
    return sent, inbox


def compare(both: Pair, *, expired: Collection[str] = ()) -> Counter[str]:
    """Hold what was acknowledged against what is there, after everything had time to arrive; return counts.

    ``expired`` are the messages that were meant to expire before they could arrive.
    """
    sent, _ = read_store(both.author)
    _, inbox = read_store(both.recipient)
    told, shown = facts(both.author), facts(both.recipient)
    labels = {line.uid.hex(): line.text.split(" ", 1)[0] for line in inbox}
    assert told.after_end == 0, "a send returned after the node had ended"
    assert len(labels) == len(inbox), "a message is in the inbox twice"
    lost = told["acked"].keys() - sent.keys()
    assert not lost, f"{len(lost)} of {len(told['acked'])} acknowledged messages are not in the outbox: {sorted(lost)}"
    wrong = {uid for uid, label in told["acked"].items() if sent[uid].text.split(" ", 1)[0] != label}
    assert not wrong, f"acknowledged, and changed since: {sorted(wrong)}"
    lies = (told["delivered"].keys() | {u for u, s in sent.items() if s.state is State.DELIVERED}) - labels.keys()
    assert not lies, f"{len(lies)} messages are said to be delivered and are not in the inbox: {sorted(lies)}"
    gone = {
        uid for uid, detail in shown["shown"].items() if detail.split(":", 1)[1] != labels.get(uid)
    }  # fmt: skip
    assert not gone, f"shown, and not in the inbox since: {sorted(gone)}"
    invented = labels.keys() - sent.keys()
    assert not invented, f"in the inbox, and never written: {sorted(invented)}"
    assert all(sent[uid].text == line.text for line in inbox if (uid := line.uid.hex()))
    states = Counter(one.state.value for uid, one in sent.items() if uid not in expired)
    assert set(states) <= {"delivered"}, f"not everything was delivered in the end: {states}"
    assert labels.keys() == sent.keys() - set(expired)
    assert {sent[uid].state for uid in expired} <= {State.EXPIRED}
    counts = {"acked": told["acked"], "delivered": told["delivered"], "shown": shown["shown"], "inbox": inbox}
    return Counter({name: len(found) for name, found in counts.items()})


def compare_dead(both: Pair, role: str) -> None:
    """Hold what was acknowledged against the home of one who has just died, as it lies there."""
    told, shown = facts(both.author), facts(both.recipient)  # first: the other one goes on being told
    sent, inbox = read_store(both.owner(role))
    there = Counter(line.uid.hex() for line in inbox)
    if role == "author":
        assert told.after_end == 0, "a send returned after the node had ended"
        lost = told["acked"].keys() - sent.keys()
        assert not lost, f"{len(lost)} of {len(told['acked'])} acknowledged messages are not in the outbox"
        assert all(sent[uid].state is State.DELIVERED for uid in told["delivered"]), "a delivery was forgotten"
    else:
        assert set(there.values()) <= {1}, "a message is in the inbox twice"
        lost = (told["delivered"].keys() | shown["shown"].keys()) - there.keys()
        assert not lost, f"{len(lost)} messages that are said to be delivered are not in the inbox"
