"""A home: one directory, private, with one owner at a time."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import quicprochat
from quicprochat.adapters.home import Home
from quicprochat.core.errors import LocalError, UnavailableError


def test_home_is_made_private_with_its_parents_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        home = Home(tmp_path / "deep" / "home")
    finally:
        os.umask(old)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700


def test_home_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home(Path("~/quicprochat")).path == tmp_path / "quicprochat"
    monkeypatch.chdir(tmp_path)
    home = Home(Path("here"))
    monkeypatch.chdir("/")
    assert home.path == tmp_path / "here"
    assert home.identity.parent == home.database.parent == home.path


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o710, 0o770, 0o777])
def test_home_open_to_others_is_refused_and_the_remedy_works(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "home"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(LocalError, match="open to other users") as caught:
        Home(path)
    subprocess.run(str(caught.value).split("run: ")[1], shell=True, check=True)
    Home(path).own()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_home_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir(0o700)
    os.chown(path, 65_534, -1)
    with pytest.raises(LocalError, match="belongs to another user"):
        Home(path)


def test_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(LocalError, match="is not a directory; choose one with --home"):
        Home(tmp_path / "home")
    with pytest.raises((LocalError, UnavailableError), match="home"):
        Home(tmp_path / "home" / "below")


def test_place_where_nothing_can_be_made_is_said() -> None:
    with pytest.raises(UnavailableError, match="the home /proc/quicprochat cannot be used"):
        Home(Path("/proc/quicprochat"))


# --- one owner


def test_second_owner_is_turned_away_until_the_first_lets_go(tmp_path: Path) -> None:
    first, second = Home(tmp_path / "home"), Home(tmp_path / "home")
    first.own()
    with pytest.raises(LocalError, match="another process owns the home") as caught:
        second.own()
    assert caught.value.code == "owned"
    assert str(first.path) in str(caught.value)
    first.disown()
    first.disown()
    second.own()
    second.disown()


def test_home_reached_by_another_name_is_the_same_home(tmp_path: Path) -> None:
    Home(tmp_path / "home")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    first, second = Home(tmp_path / "home"), Home(tmp_path / "link")
    first.own()
    with pytest.raises(LocalError):
        second.own()


def test_lock_that_is_a_link_is_refused_and_not_followed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    (home.path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UnavailableError, match="cannot be locked"):
        home.own()
    assert not (tmp_path / "victim").exists()


OWNER = """
import subprocess, sys
from pathlib import Path
from quicprochat.adapters.home import Home
Home(Path(sys.argv[1])).own()
child = subprocess.Popen(["sleep", "30"], close_fds=False)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_killed_owner_leaves_no_lock_behind_even_if_a_child_lives_on(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "home")],
        env={**os.environ, "PYTHONPATH": str(Path(quicprochat.__file__).parent.parent)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        home = Home(tmp_path / "home")
        with pytest.raises(LocalError):
            home.own()
        owner.kill()
        owner.wait()
        try:
            os.kill(child, 0)  # it lives
            home.own()
        finally:
            os.kill(child, signal.SIGKILL)
