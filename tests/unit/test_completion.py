"""What Tab offers, in the shells themselves."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quicprochat.adapters.crypto import Ed25519Signer, SodiumCrypto
from quicprochat.adapters.home import Home
from quicprochat.adapters.system import entropy
from quicprochat.client.catalogue import COMMANDS, GLOBALS, Value
from quicprochat.client.completion import SHELLS, contacts, script, topics
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.socket import NAME as SOCKET
from quicprochat.p2p import Options, P2pNode
from quicprochat.p2p.book import AddressBook

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0

PLAIN = {name for name, command in COMMANDS.items() if command.plain}
MESH = {name for name, command in COMMANDS.items() if command.mesh}
GLOBAL_FLAGS = {flag for option in GLOBALS for flag in option.flags} | {"-h", "--help"}
SEND_FLAGS = {flag for option in COMMANDS["send"].options for flag in option.flags}

CASES = [
    ("qpc ", PLAIN | {"mesh", "help"}),
    ("qpc sen", {"send"}),
    ("qpc --json ver", {"verify"}),
    ("qpc --home /nowhere unb", {"unblock"}),
    ("qpc mesh ", MESH),
    ("qpc --quiet mesh requ", {"requests"}),
    ("qpc send -", SEND_FLAGS | GLOBAL_FLAGS),
    ("qpc send --wa", {"--wait"}),
    ("qpc mesh send --wait ", {"relayed", "delivered"}),
    ("qpc --network ", {"lan", "community", "internet"}),
    ("qpc store --network co", {"community"}),
    ("qpc identity ", {"export", "import"}),
    ("qpc identity --name export im", {"import"}),
    ("qpc help tra", {"trace"}),
    ("qpc completion z", {"zsh"}),
    ("qpc trace ", set()),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a program ``qpc``, a file, and a home whose contacts are known."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "qpc"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT / 'src')!r})\n"
        "from quicprochat.cli import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    (tmp_path / "a file").write_text("x")
    for shell in SHELLS:
        (tmp_path / f"script.{shell}").write_text(script(shell))
    book = AddressBook(Home(tmp_path / "home").identity, SodiumCrypto(entropy), entropy)
    for number, name in enumerate(("ada", "Anna Lena", "it's me; $(id)", "bob")):
        book.add(Ed25519Signer(bytes([number + 1]) * 32).key.hex(), name)
    asyncio.run(be_in(tmp_path / "home", "bakery", "Grüße&Küsse", "board", "left"))
    return tmp_path


async def be_in(home: Path, *names: str) -> None:
    """Join channels, and leave the last one again."""
    async with P2pNode(Options(home), network=False) as node:
        for topic in names:
            await node.subscribe(topic)
        await node.unsubscribe(names[-1])


def environment(place: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("QPC_")}
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    return {**clean, "PATH": path, "HOME": str(place), "TERM": "dumb", "QPC_NO_DISCOVERY": "1"}


def run(place: Path, shell: str, program: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, *(["--norc", "--noprofile"] if shell == "bash" else []), "-c", program],
        env=environment(place), cwd=place, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


def offered_by_bash(place: Path, line: str) -> set[str]:
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    listed = " ".join(map(shlex.quote, words))
    program = f"source script.bash; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _qpc qpc; "
    return set(run(place, "bash", program + 'printf "%s\\n" "${COMPREPLY[@]}"')) - {""}


def offered_by_fish(place: Path, line: str) -> set[str]:
    lines = run(place, "fish", f"source script.fish; complete -C {shlex.quote(line)}; true")
    return {line.split("\t")[0] for line in lines}


# --- bash


@pytest.mark.parametrize(("line", "offers"), CASES)
def test_bash_offers_what_can_be_typed(place: Path, line: str, offers: set[str]) -> None:
    assert offered_by_bash(place, line) == offers


def test_bash_offers_contacts_in_quotes_that_it_takes_back(place: Path) -> None:
    home = f"qpc --home {place / 'home'}"
    assert offered_by_bash(place, f"{home} send ") == {"ada", "Anna\\ Lena", "it\\'s\\ me\\;\\ \\$\\(id\\)", "bob"}
    assert offered_by_bash(place, f"{home} mesh verify A") == {"Anna\\ Lena"}
    assert offered_by_bash(place, f"{home} inbox --peer b") == {"bob"}
    assert offered_by_bash(place, f"{home} send ada ") == set()
    assert offered_by_bash(place, "qpc send ") == set()


def test_bash_offers_topics_wherever_one_is_asked_for(place: Path) -> None:
    home = f"qpc --home {place / 'home'} mesh"
    for command in ("broadcast", "history", "unsubscribe", "posters"):
        assert offered_by_bash(place, f"{home} {command} ") == {"bakery", "Grüße\\&Küsse", "board"}
    assert offered_by_bash(place, f"{home} members boa") == {"board"}
    assert offered_by_bash(place, f"{home} broadcast board bo") == set(), "that is a text"
    assert offered_by_bash(place, f"{home} posters board add b") == {"bob"}
    assert offered_by_bash(place, "qpc mesh broadcast ") == set()


def test_bash_offers_files_and_directories(place: Path) -> None:
    assert "bin" in offered_by_bash(place, "qpc --home b")
    assert offered_by_bash(place, "qpc identity import scr") == {f"script.{shell}" for shell in SHELLS}


def test_bash_is_content_with_the_script_alone(place: Path) -> None:
    assert run(place, "bash", "set -eu; source script.bash; complete -p qpc") == ["complete -F _qpc qpc"]


# --- fish


@pytest.mark.parametrize(("line", "offers"), CASES)
def test_fish_offers_what_can_be_typed(place: Path, line: str, offers: set[str]) -> None:
    found = offered_by_fish(place, line)
    if line.endswith("-"):  # one letter at a time, or the long ones
        found |= offered_by_fish(place, line + "-")
    assert found == offers


def test_fish_offers_contacts_and_files(place: Path) -> None:
    home = f"qpc --home {place / 'home'}"
    assert offered_by_fish(place, f"{home} send ") == {"ada", "Anna Lena", "it's me; $(id)", "bob"}
    assert offered_by_fish(place, f"{home} block b") == {"bob"}
    assert offered_by_fish(place, f"{home} mesh mute b") == {"bakery", "board"}
    assert offered_by_fish(place, f"{home} send ada ") == set()
    assert "script.fish" in offered_by_fish(place, "qpc identity import scr")


# --- zsh


class Zsh:
    """Somebody at a prompt of zsh."""

    def __init__(self, place: Path) -> None:
        self.terminal, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["zsh", "-f", "-i"], env={**environment(place), "PS1": "", "PROMPT_EOL_MARK": ""}, cwd=place,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""
        self.type("unsetopt zle_bracketed_paste 2>/dev/null; autoload -Uz compinit; compinit -D -u; PS1='> '\n")
        self.type("source script.zsh; LISTMAX=0; print rea''dy\n", "ready")

    def type(self, text: str, until: str = "") -> str:
        os.write(self.terminal, text.encode())
        start, deadline = len(self.seen), time.monotonic() + PATIENCE_S
        while until not in self.seen[start:]:
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{until!r} was not shown: {self.seen[start:]!r}"
            self.seen += os.read(self.terminal, 65_536).decode(errors="replace")
        return self.seen[start:]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


def test_zsh_completes_commands_options_and_contacts(place: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    zsh = Zsh(place)
    home = place / "home"
    try:
        for typed, shown in (
            ("qpc unbl\t", "unblock "),
            ("qpc mesh requ\t", "requests "),
            ("qpc send --requ\t", "--require-fs "),
            ("qpc send --wait d\t", "delivered "),
            ("qpc --network comm\t", "community "),
            ("qpc identity imp\t", "import "),
            ("qpc identity import a\t", "a\\ file "),
            (f"qpc --home {home} send b\t", "send bob "),
            (f"qpc --home {home} verify An\t", "verify Anna\\ Lena "),
            (f"qpc --home {home} mesh unsubscribe bak\t", "unsubscribe bakery "),
            ("qpc help tra\t", "trace "),
        ):
            zsh.type(typed, shown)
            zsh.type("\x15")
        listing = zsh.type("qpc send --\t", "rather not send")  # the help stands beside each option
        assert "--timeout" in listing
    finally:
        zsh.end()


# --- all of them


@pytest.mark.parametrize("shell", list(SHELLS))
def test_every_command_and_option_is_in_the_script(shell: str) -> None:
    text = script(shell)
    for command in COMMANDS.values():
        assert command.name in text
        for option in command.options:
            assert all(flag.removeprefix("--") in text for flag in option.flags)


def test_an_option_takes_a_value_everywhere_or_nowhere() -> None:
    """The scripts know an option by its name alone when they skip its value."""
    kinds: dict[str, set[bool]] = {}
    for option in (*GLOBALS, *(option for command in COMMANDS.values() for option in command.options)):
        for flag in option.flags:
            kinds.setdefault(flag, set()).add(option.value is Value.FLAG)
    assert [flag for flag, found in kinds.items() if len(found) > 1] == []


def test_a_home_that_cannot_be_read_has_no_contacts(tmp_path: Path) -> None:
    assert contacts(tmp_path / "nowhere") == []
    (tmp_path / "identity.json").write_text("{")
    assert contacts(tmp_path) == []


def test_a_home_that_cannot_be_read_has_no_topics(tmp_path: Path) -> None:
    assert topics(tmp_path / "nowhere") == []
    assert not (tmp_path / "nowhere").exists(), "Tab makes no home"
    tmp_path.chmod(0o700)
    (tmp_path / "mesh.db").write_bytes(b"no database at all" * 100)
    assert topics(tmp_path) == []
    assert (tmp_path / "mesh.db").read_bytes() == b"no database at all" * 100


def test_topics_are_read_beside_a_node_and_without_one(tmp_path: Path) -> None:
    home = tmp_path / "home"

    async def beside() -> None:
        async with Session(Settings(home), stays=True, network=False) as session:
            assert session.node is not None
            await session.node.subscribe("bakery")
            assert await asyncio.to_thread(topics, home) == ["bakery"]
            (home / SOCKET).unlink()  # somebody owns the home and does not answer
            assert await asyncio.to_thread(topics, home) == []

    asyncio.run(beside())
    before = {path.name for path in home.iterdir()}
    assert topics(home) == ["bakery"]
    assert {path.name for path in home.iterdir()} - before <= {"mesh.db-wal"}
    asyncio.run(be_in(home, "well", "gone"))
    assert topics(home) == ["bakery", "well"]


def test_what_a_killed_node_left_in_its_log_is_offered(tmp_path: Path) -> None:
    """A store whose last commits are in the log alone, as after kill -9."""
    home, copy = tmp_path / "home", tmp_path / "copy"

    async def work() -> None:
        async with P2pNode(Options(home), network=False) as node:
            await node.subscribe("bakery")
            shutil.copytree(home, copy)

    asyncio.run(work())
    wal = (copy / "mesh.db-wal").read_bytes()
    assert wal
    assert topics(copy) == ["bakery"]
    assert (copy / "mesh.db-wal").read_bytes() == wal, "the next node finds all of it"
