"""Disks that are full, nearly full or failing, and a home with two owners."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.durability.disks import loop_disk, small_disk
from tests.durability.harness import Worker, compare, compare_dead, pair, until

MIB = 1 << 20
MANY = 10**6
ALL_THE_TIME, NEVER = 0.02, 3_600.0
"""How often a node looks whether the disk is low, in seconds."""


def wait_until_waiting(worker: Worker, count: int) -> None:
    until(lambda: worker.ask("view")["messages"] >= count)


def one_sentence(said: dict[str, str], kind: str) -> str:
    """Check that what ended a node is told in one sentence; return it."""
    assert said["kind"] == kind, said
    assert "\n" not in said["text"]
    assert "Error:" not in said["text"].split("(SQLite:")[0]
    return said["text"]


# --- full


def test_sends_are_refused_before_the_disk_is_full_and_what_waits_moves_on(tmp_path: Path) -> None:
    with small_disk(tmp_path, 64 * MIB) as disk, pair(tmp_path, disk, "author") as both:
        author = both.start("author", disk_check_s=ALL_THE_TIME, waiting_max=MANY).ready()
        short = author.ask("send_one", ttl_s=2)["uid"]
        author.ask("send")
        wait_until_waiting(author, 100)
        disk.fill(leave=12 * MIB)
        refusal = author.expect("refused")
        assert refusal["code"] == "full"
        assert "disk is almost full" in refusal["text"]
        assert disk.free() > 8 * MIB
        until(lambda: author.ask("state", uid=short)["state"] == "expired")
        both.start("recipient").ready()
        author.ask("drained")  # delivered, written down and let go of, with the disk as full as it is
        assert author.ask("send_one")["code"] == "full"
        disk.make_room()
        until(lambda: "uid" in author.ask("send_one"))
        both.finish()
        assert compare(both, expired=[short])["acked"] > 100


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_recipient_with_a_full_disk_puts_mail_off_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, 64 * MIB) as disk, pair(tmp_path, disk, "recipient") as both:
        recipient = both.start("recipient", disk_check_s=ALL_THE_TIME).ready()
        author = both.start("author").ready()
        author.ask("send")
        until(lambda: recipient.ask("view")["delivered"] > 100)
        disk.fill(leave=12 * MIB)
        wait_until_waiting(author, 200)
        author.ask("stop")
        before = recipient.ask("view")["delivered"]
        disk.make_room()
        both.finish()
        assert compare(both)["inbox"] > before


def test_node_on_a_disk_that_filled_up_at_once_ends_loudly_and_restarts(tmp_path: Path) -> None:
    with small_disk(tmp_path, 64 * MIB) as disk, pair(tmp_path, disk, "author") as both:
        author = both.start("author", disk_check_s=NEVER, waiting_max=MANY).ready()
        author.ask("send")
        wait_until_waiting(author, 100)
        disk.fill()
        assert "full" in one_sentence(author.expect("failed"), "StoreFullError")
        assert both.ended("author") == 3
        compare_dead(both, "author")
        disk.make_room()
        author = both.start("author").ready()
        assert "uid" in author.ask("send_one")
        both.finish()
        assert compare(both)["acked"] > 100


def test_node_on_a_full_disk_still_delivers_expires_and_lets_go(tmp_path: Path) -> None:
    """The ballast is there for this: no new message is taken, but what is there goes its way."""
    with small_disk(tmp_path, 64 * MIB) as disk, pair(tmp_path, disk, "author") as both:
        author = both.start("author", disk_check_s=NEVER, waiting_max=MANY).ready()
        short = author.ask("send_one", ttl_s=3)["uid"]
        author.ask("send")
        wait_until_waiting(author, 100)
        disk.fill()
        author.expect("failed")
        both.ended("author")
        author = both.start("author", disk_check_s=ALL_THE_TIME).ready()
        assert author.ask("send_one")["code"] == "full"
        until(lambda: author.ask("state", uid=short)["state"] == "expired")
        both.start("recipient").ready()
        author.ask("drained")
        both.finish()
        assert compare(both, expired=[short])["delivered"] > 100


def test_node_that_cannot_start_on_a_full_disk_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path, 64 * MIB) as disk, pair(tmp_path, disk, "author") as both:
        author = both.start("author", network=False, waiting_max=MANY).ready()
        author.ask("send")
        wait_until_waiting(author, 200)  # so much stands in the log that copying it into the file takes room
        both.kill("author")
        (both.author.outside / "mesh.db.ballast").unlink()
        disk.fill()
        said = both.start("author", network=False).expect("failed")
        assert "full" in one_sentence(said, "StoreFullError")
        assert both.ended("author") == 4
        disk.make_room()
        both.finish()
        compare(both)


def test_looking_at_a_disk_that_is_low_does_not_disturb_a_commit(tmp_path: Path) -> None:
    with small_disk(tmp_path, 64 * MIB) as disk, pair(tmp_path, disk, "author") as both:
        author = both.start("author", network=False, waiting_max=MANY).ready()
        author.ask("send")
        wait_until_waiting(author, 700)
        both.kill("author")
        disk.fill(leave=12 * MIB)
        both.start("recipient").ready()
        author = both.start("author", disk_check_s=0.0002).ready()
        author.ask("drained")
        both.finish()
        compare(both)


# --- failing


@pytest.mark.parametrize("role", ["author", "recipient"])
def test_node_on_a_disk_that_turned_read_only_ends_and_promises_nothing_more(tmp_path: Path, role: str) -> None:
    with loop_disk(tmp_path, "ext4", "errors=remount-ro") as disk, pair(tmp_path, disk, role) as both:
        both.start("recipient").ready()
        both.start("author").ready().ask("send")
        until(lambda: both.workers["recipient"].ask("view")["delivered"] > 100)
        disk.break_down()
        one_sentence(both.workers[role].expect("failed"), "StoreError")
        assert both.ended(role) == 3
        # What was synced at the very moment of the error is not compared: ext4 reports a sync under way as done
        # and loses it (seen on Linux 6.18), which no program above it can notice.
        one_sentence(both.start(role).expect("failed"), "UnavailableError")
        both.ended(role)
        disk.power_up()
        both.start(role).ready()


# --- two owners


def test_second_owner_of_a_home_is_turned_away_and_the_first_goes_on(tmp_path: Path) -> None:
    with pair(tmp_path) as both:
        first = both.start("author").ready()
        text = one_sentence(both.start("author").expect("failed"), "LocalError")
        assert both.ended("author") == 4
        assert "another process owns the home" in text
        both.workers["author"] = first
        first.ask("send_one")
        both.kill("author")
        both.start("author").ready()  # the kernel let go of the home with the process
        both.finish()
        assert compare(both)["inbox"] == 1
