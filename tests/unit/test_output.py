"""What a peer wrote reaches a terminal only through ``display``."""

import logging
import random
import time
import unicodedata
from collections.abc import Iterator

import pytest

from quicprochat.client.catalogue import COMMANDS
from quicprochat.client.output import _HUMAN, SHOWN_MAX_CHARS, SafeFormatter, display, display_line, human, line, table
from quicprochat.client.stdio import terminal_columns

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ZERO_WIDTH = "\u00ad\u034f\u180e\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\U000e0001\U000e0041"
CONTROLS = "".join(chr(n) for n in (*range(0x20), *range(0x7F, 0xA0)) if chr(n) not in "\n")
SEPARATORS = "\u2028\u2029"

MESSAGE = {
    "event": "message", "cursor": 1, "id": "00" * 16, "from": "ab" * 32, "name": "", "to": "cd" * 32, "channel": None,
    "text": "hi", "hops": 0, "received_at": None, "protection": "forward-secret", "request": False,
}  # fmt: skip


@pytest.mark.parametrize("character", sorted(CONTROLS + BIDI + ZERO_WIDTH + SEPARATORS))
def test_what_steers_or_hides_is_taken_out(character: str) -> None:
    assert display(f"a{character}b").replace(" ", "") == "ab"


def test_newlines_stay_and_tabs_become_spaces() -> None:
    assert display("a\tb\r\nc") == "a b\nc"
    assert display_line("a\tb\r\nc") == "a b c"


def test_ordinary_text_of_the_world_stays() -> None:
    for text in (
        "Grüße, Jürgen",
        "שלום",
        "مرحبا",
        "नमस्ते",
        "日本語",
        "👍🏽",
        "₤ 5 · 3 ≈ 2",
        'it\'s "fine" \\o/',
        "\u06dd",
    ):
        assert display(text) == unicodedata.normalize("NFC", text)


def test_text_is_composed_even_across_what_was_taken_out() -> None:
    assert display("e\u0301") == "\u00e9"
    assert display("e\u200b\u0301") == "\u00e9"


def test_half_surrogates_are_taken_out() -> None:
    assert display("a\ud800b\udcff") == "ab"


def test_long_text_is_cut_and_says_so() -> None:
    shown = display("x" * (SHOWN_MAX_CHARS + 5))
    assert shown.startswith("x" * SHOWN_MAX_CHARS + "…")
    assert "5 more characters" in shown
    assert display("x" * SHOWN_MAX_CHARS) == "x" * SHOWN_MAX_CHARS


def test_nothing_random_steers_a_terminal() -> None:
    seeded = random.Random(1)
    for _ in range(2_000):
        text = "".join(chr(seeded.choice((seeded.randrange(0x300), seeded.randrange(0x110000)))) for _ in range(50))
        shown = display(text)
        assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown.replace("\n", ""))
        assert not set(shown) & set(BIDI)
        assert unicodedata.is_normalized("NFC", shown)


def test_a_message_cannot_pass_for_another_line() -> None:
    shown = line({**MESSAGE, "text": "hello\n2026-01-01 12:00  bob: I owe you"})
    first, second = shown.split("\n")
    assert first.endswith("abababababababab: hello")
    assert second.startswith("    | ")


def test_a_name_cannot_break_its_line() -> None:
    assert "\n" not in line({**MESSAGE, "name": "bob\nalice: hi"})
    stranger = {"public_key": "ab" * 32, "name": "bob", "addresses": [], "linked": False, "contact": False}
    stranger |= {"verified": False, "blocked": False, "last_seen": None}
    assert human("peers", stranger).startswith("(bob)")


def test_every_command_that_answers_has_words_for_a_person() -> None:
    shown = {command.name for command in COMMANDS.values()} - {"daemon", "completion", "man", "help", "version"}
    shown -= {"relay", "sim", "doctor"}  # they have words of their own, not through a session
    assert not shown - _HUMAN.keys() - {"repl"}


def test_a_name_that_was_registered_is_shown_as_others_write_it() -> None:
    taken = {"name": "bob", "domain": "node2.mesh.local", "public_key": "ab" * 32}
    assert human("register", taken).startswith("bob@node2.mesh.local is your name now")
    assert human("register", {**taken, "name": ""}) == "you are a user of node2.mesh.local now"


def test_who_is_blocked_and_who_is_no_longer() -> None:
    peer = {"public_key": "ab" * 32, "name": "bob", "contact": True}
    assert human("block", {**peer, "blocked": True}) == "bob is blocked"
    assert human("unblock", {**peer, "blocked": False}) == "bob is no longer blocked"


def test_a_request_and_a_weaker_protection_are_said() -> None:
    shown = line({**MESSAGE, "request": True, "protection": "identity-key"})
    assert "request from abababababababab" in shown
    assert "[identity-key]" in shown


def test_a_post_stands_under_its_channel_and_an_open_one_says_so() -> None:
    post = {**MESSAGE, "event": "post", "to": None, "channel": "ef" * 32, "topic": "family", "kind": "private",
            "text": "soup\nis ready \x1b[2J", "name": "bob"}  # fmt: skip
    assert line(post).endswith("#family bob: soup\n    | is ready [2J")
    assert "#family (open) bob: soup" in line({**post, "kind": "open"})
    assert "#efefefefefefefef bob" in line({**post, "topic": ""})
    assert "abababababababab: soup" in line({**post, "name": ""})
    assert "\x1b" not in line({**post, "topic": "a\x1b[1m"})


def test_a_channel_says_who_can_read_it() -> None:
    channel = {"channel": "ef" * 32, "topic": "family", "kind": "private", "posts": 2, "unread": 1}
    for command in ("channels", "subscribe"):
        assert "private: whoever has the key can read it" in human(command, channel)
        assert "open: anyone who knows the topic can read it" in human(command, {**channel, "kind": "open"})
    assert human("subscribe", {**channel, "key": "ab" * 32}).endswith("key: " + "ab" * 32)
    posted = {"id": "00" * 16, "channel": "ef" * 32, "topic": "village", "kind": "open", "subscribers": 1}
    assert human("broadcast", posted).endswith("posted to #village (open): 1 linked node takes it")
    assert human("broadcast", {**posted, "subscribers": 0}).endswith(": 0 linked nodes take it")


def test_a_receipt_is_one_line() -> None:
    receipt = {"event": "receipt", "cursor": 2, "id": "00" * 16, "to": "ab" * 32, "name": "bob", "state": "failed",
               "reason": "refused", "received_at": "2026-02-03T04:05:06.789Z"}  # fmt: skip
    assert line(receipt).endswith(f"{'00' * 16} to bob: failed (refused)")


def test_log_lines_are_safe_too() -> None:
    record = logging.LogRecord("quicprochat", logging.WARNING, "x.py", 1, "from %s", ("\x1b[31mred\u202e",), None)
    assert SafeFormatter("%(message)s").format(record) == "from [31mred"


PEERS: list[dict[str, object]] = [
    {"public_key": "ab" * 32, "name": "bob", "contact": True, "linked": True, "last_seen": None,
     "addresses": ["192.0.2.1:51911", "[2001:db8::1]:51911"]},
    {"public_key": "cd" * 32, "name": "bob", "contact": False, "last_seen": None, "addresses": [], "looks_like": "bob"},
    {"public_key": "", "role": "server", "domain": "mesh.example.org", "server": "mesh.example.org:7000",
     "certificate": "ab" * 32},
]  # fmt: skip
CHANNELS: list[dict[str, object]] = [
    {"topic": "bakery", "channel": "ab" * 32, "kind": "open", "posts": 12, "unread": 3},
    {"topic": "パン屋", "channel": "cd" * 32, "kind": "private", "posts": 1, "unread": 0},
]


def widest(text: str) -> int:
    return max(sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in row) for row in text.splitlines())


@pytest.mark.parametrize(("command", "items"), [("peers", PEERS), ("channels", CHANNELS)])
def test_a_list_is_as_full_as_the_terminal_is_wide(command: str, items: list[dict[str, object]]) -> None:
    full = table(command, items, None)
    assert full == "".join(f"{human(command, item)}\n" for item in items)
    assert table(command, items, widest(full) + 1) == full
    assert table(command, items, widest(full)) != full
    for width in (80, 90, 100):
        assert widest(table(command, items, width)) < width


def test_what_a_reader_needs_stays_in_the_narrowest_list() -> None:
    peers, channels = table("peers", PEERS, 1), table("channels", CHANNELS, 1)
    for word in ("abababababababab", "cdcdcdcdcdcdcdcd", "NOT your contact bob", "mesh.example.org:7000"):
        assert word in peers
    assert [row.split()[:2] for row in channels.splitlines()] == [["bakery", "open"], ["パン屋", "private"]]
    one = table("peers", PEERS[:1], 80)
    assert "192.0.2.1:51911" in one
    assert "2001:db8" not in one


def test_only_a_terminal_has_a_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "91")
    for terminal, width in ((True, 91), (False, None)):
        monkeypatch.setattr("os.isatty", lambda descriptor, terminal=terminal: terminal)
        assert terminal_columns() == width


@pytest.fixture
def in_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_utc")
@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2026-03-02T11:58:00.000Z", ""),
        ("2026-03-02T11:57:59.000Z", "[11:57, earlier]"),
        ("2026-03-01T11:26:00.000Z", "[2026-03-01 11:26, earlier]"),
        (None, ""),
    ],
)
def test_what_was_written_long_before_it_came_says_when(sent: str | None, shown: str) -> None:
    item = {**MESSAGE, "name": "bob", "received_at": "2026-03-02T12:00:00.000Z", "sent_at": sent}
    assert line(item) == f"2026-03-02 12:00  bob{' ' if shown else ''}{shown}: hi"
