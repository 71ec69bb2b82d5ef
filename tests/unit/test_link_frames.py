"""Link frames: bytes, limits, heartbeat, and which of two links stays."""

from __future__ import annotations

import struct
from itertools import product

import pytest

from quicprochat.core.address import Address
from quicprochat.core.envelope import ENVELOPE_MAX_BYTES
from quicprochat.core.errors import WireError
from quicprochat.core.gate import Reason, Verdict
from quicprochat.core.ids import ChannelId, EnvelopeId
from quicprochat.core.link import (
    FRAME_MAX_BYTES,
    INTEREST_MAX,
    Beat,
    FrameParser,
    FrameType,
    Goodbye,
    Heartbeat,
    Hello,
    Result,
    decode_bye,
    decode_interest,
    decode_observed,
    decode_record,
    decode_results,
    encode_bye,
    encode_interest,
    encode_record,
    encode_results,
    frame,
    keep_new,
)
from quicprochat.core.record import RECORD_MAX_BYTES
from quicprochat.core.time import Instant

HELLO = Hello(b"s" * 16, b"e" * 16, b"record", 5, 6, FRAME_MAX_BYTES + 1, 7)
ID = EnvelopeId(bytes(range(32)))


def parsed(*pieces: bytes) -> list[tuple[int, bytes]]:
    parser = FrameParser()
    return [found for piece in pieces for found in parser.feed(piece)]


def test_an_observed_address_is_read_and_nothing_else() -> None:
    for text in ("192.0.2.1:7000", "[2001:db8::1]:1"):
        address = Address.parse(text)
        assert decode_observed(address.encode()) == address
        for wrong in (address.encode() + b"\0", address.encode()[:-1], b""):
            with pytest.raises(WireError):
                decode_observed(wrong)


# --- frames


def test_the_numbers_are_published() -> None:
    assert {kind.name: kind.value for kind in FrameType} == {
        "HELLO": 1, "PING": 2, "PONG": 3, "ENVELOPE": 4, "RESULTS": 5, "RECORD": 6, "BYE": 7, "BEAT": 8,
        "INTEREST": 0x80, "ROUTE": 0x81, "RANGES": 0x84, "OFFER": 0x85, "WANT": 0x86, "OBSERVED": 0x88,
        "CHANNEL": 0x8A,
    }  # fmt: skip
    assert {code.name: code.value for code in Goodbye} == {
        "LEAVING": 0, "PROTOCOL": 1, "VERSION": 2, "SILENT": 3, "DUPLICATE": 4, "BLOCKED": 5, "ABUSE": 6, "SLOW": 7,
        "BUSY": 8,
    }  # fmt: skip
    assert [verdict.name for verdict in Verdict] == ["STORED", "DUPLICATE", "REFUSED", "DEFERRED"]
    assert [reason.name for reason in Reason] == [
        "NONE", "EXPIRED", "HOPS", "CLOCK", "POLICY", "UNSUPPORTED", "FULL", "DISK",
        "UNOPENABLE", "UNKNOWN", "UNLISTED",
    ]  # fmt: skip


def test_a_frame_is_length_type_body() -> None:
    assert frame(FrameType.BYE, b"body") == b"\x00\x00\x00\x05\x07body"
    assert frame(FrameType.PING) == b"\x00\x00\x00\x01\x02"


def test_frames_come_out_as_they_went_in_however_they_arrive() -> None:
    stream = frame(FrameType.PING) + frame(FrameType.BYE, b"x") + frame(FrameType.ENVELOPE, bytes(300))
    expected = [(2, b""), (7, b"x"), (4, bytes(300))]
    assert parsed(stream) == expected
    assert parsed(*(bytes([byte]) for byte in stream)) == expected
    for at in range(len(stream)):
        assert parsed(stream[:at], stream[at:]) == expected


def test_an_unfinished_frame_waits() -> None:
    parser = FrameParser()
    assert list(parser.feed(frame(FrameType.PING) + frame(FrameType.BYE, b"xy")[:-1])) == [(2, b"")]
    assert parser.pending == 6
    assert list(parser.feed(b"y")) == [(7, b"xy")]
    assert parser.pending == 0


def test_unknown_types_come_out_too() -> None:
    assert parsed(b"\x00\x00\x00\x02\xffx") == [(255, b"x")]


@pytest.mark.parametrize("length", [0, FRAME_MAX_BYTES + 1, 2**32 - 1])
def test_an_impossible_length_ends_the_link_before_the_body_comes(length: int) -> None:
    with pytest.raises(WireError, match=f"a frame of {length} bytes"):
        parsed(struct.pack(">IB", length, 4))


def test_frames_before_a_wrong_one_still_count() -> None:
    frames = FrameParser().feed(frame(FrameType.PING) + bytes(5))
    assert next(frames) == (2, b"")
    with pytest.raises(WireError):
        next(frames)


def test_the_largest_envelope_fits_a_frame() -> None:
    assert parsed(frame(FrameType.ENVELOPE, bytes(ENVELOPE_MAX_BYTES))) == [(4, bytes(ENVELOPE_MAX_BYTES))]
    with pytest.raises(WireError):
        parsed(frame(FrameType.ENVELOPE, bytes(ENVELOPE_MAX_BYTES + 1)))


# --- hello


def test_a_hello_is_as_specified() -> None:
    expected = b"".join((
        b"qpc1\x01\x01", struct.pack(">IIH", 6, FRAME_MAX_BYTES + 1, 7), b"s" * 16, b"e" * 16, struct.pack(">Q", 5),
        b"\x00\x06record",
    ))  # fmt: skip
    assert HELLO.encode() == expected
    assert Hello.decode(expected) == HELLO


def test_a_later_version_may_add_to_a_hello() -> None:
    assert Hello.decode(HELLO.encode() + b"something new") == HELLO


def test_every_truncation_of_a_hello_is_refused() -> None:
    for size in range(len(HELLO.encode())):
        with pytest.raises(WireError):
            Hello.decode(HELLO.encode()[:size])


def test_a_hello_begins_with_the_magic() -> None:
    with pytest.raises(WireError, match="qpc1"):
        Hello.decode(b"qpc0" + HELLO.encode()[4:])


@pytest.mark.parametrize(
    ("low", "high", "fine"), [(1, 1, 1), (0, 1, 1), (1, 255, 1), (0, 0, 0), (2, 255, 0), (2, 1, 0)]
)
def test_versions_must_overlap(low: int, high: int, fine: int) -> None:
    body = b"qpc1" + bytes([low, high]) + HELLO.encode()[6:]
    if fine:
        assert (Hello.decode(body).version_min, Hello.decode(body).version_max) == (low, high)
    else:
        with pytest.raises(WireError, match="link versions") as caught:
            Hello.decode(body)
        assert caught.value.code == Goodbye.VERSION


@pytest.mark.parametrize("limits", [struct.pack(">IH", FRAME_MAX_BYTES - 1, 1), struct.pack(">IH", FRAME_MAX_BYTES, 0)])
def test_a_neighbour_takes_whole_envelopes_and_at_least_one(limits: bytes) -> None:
    with pytest.raises(WireError, match="under the least"):
        Hello.decode(HELLO.encode()[:10] + limits + HELLO.encode()[16:])
    least = HELLO.encode()[:10] + struct.pack(">IH", FRAME_MAX_BYTES, 1) + HELLO.encode()[16:]
    assert Hello.decode(least).window == 1


def test_a_record_too_long_for_a_hello_is_refused_unread() -> None:
    with pytest.raises(WireError, match="2048 are allowed"):
        Hello.decode(HELLO.encode()[:-8] + struct.pack(">H", RECORD_MAX_BYTES + 1))


# --- results, records, goodbyes


def test_results_are_as_specified() -> None:
    results = (Result(ID, Verdict.STORED), Result(EnvelopeId(bytes(32)), Verdict.REFUSED, Reason.CLOCK))
    body = b"\x02" + ID + b"\x00\x00" + bytes(32) + b"\x02\x03"
    assert encode_results(results) == body
    assert decode_results(body) == results


def test_255_results_fit_and_neither_0_nor_256() -> None:
    many = (Result(ID, Verdict.DUPLICATE),) * 255
    assert decode_results(encode_results(many)) == many
    for wrong in ((), many + many[:1]):
        with pytest.raises(AssertionError):
            encode_results(wrong)


def test_an_unknown_reason_is_no_reason_and_an_unknown_verdict_an_error() -> None:
    assert decode_results(b"\x01" + ID + b"\x03\x63") == (Result(ID, Verdict.DEFERRED, Reason.NONE),)
    with pytest.raises(WireError, match="unknown verdict 4"):
        decode_results(b"\x01" + ID + b"\x04\x00")


def test_results_cut_short_or_followed_by_more_are_refused() -> None:
    body = encode_results((Result(ID, Verdict.STORED),) * 2)
    for wrong in (*(body[:size] for size in range(len(body))), body + b"\x00"):
        with pytest.raises(WireError):
            decode_results(wrong)


def test_a_list_of_channels_is_read_as_it_was_written() -> None:
    ids = tuple(ChannelId(bytes([n]) * 32) for n in range(3))
    for some in ((), ids[:1], ids):
        assert decode_interest(encode_interest(some)) == some
    most = tuple(ChannelId(n.to_bytes(32, "big")) for n in range(INTEREST_MAX))
    assert decode_interest(encode_interest(most)) == most


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\0",
        b"\0\1" + bytes(31),
        b"\0\1" + bytes(33),
        b"\0\2" + bytes(64),
        b"\0\2" + b"\1" * 32 + bytes(32),
        (INTEREST_MAX + 1).to_bytes(2, "big") + b"".join(n.to_bytes(32, "big") for n in range(INTEREST_MAX + 1)),
    ],
    ids=["empty", "half a count", "cut short", "followed by more", "one twice", "descending", "too many"],
)
def test_a_list_of_channels_that_is_not_one_is_refused(wrong: bytes) -> None:
    with pytest.raises(WireError):
        decode_interest(wrong)


def test_a_record_travels_behind_its_age() -> None:
    assert encode_record(b"record", 259) == b"\x00\x00\x00\x00\x00\x00\x01\x03record"
    assert decode_record(encode_record(b"r" * RECORD_MAX_BYTES, 2**64 - 1)) == (2**64 - 1, b"r" * RECORD_MAX_BYTES)
    for wrong in (b"", bytes(7), bytes(8 + RECORD_MAX_BYTES + 1)):
        with pytest.raises(WireError):
            decode_record(wrong)


def test_a_goodbye_has_a_code_and_perhaps_words() -> None:
    assert encode_bye(Goodbye.BUSY, "voll") == b"\x08voll"
    assert decode_bye(b"\x08voll") == (8, "voll")
    assert decode_bye(b"\xff") == (255, "")
    with pytest.raises(WireError):
        decode_bye(b"")


def test_words_of_a_goodbye_are_short_and_never_an_error() -> None:
    assert len(encode_bye(Goodbye.ABUSE, "x" * 500)) == 201
    assert decode_bye(b"\x00" + b"x" * 500) == (0, "x" * 200)
    assert decode_bye(b"\x00\xff\xfe") == (0, "\ufffd\ufffd")
    assert decode_bye(encode_bye(Goodbye.ABUSE, "€" * 100))[1] == "€" * 66 + "\ufffd"


def test_no_results_are_no_frame() -> None:
    with pytest.raises(WireError):
        decode_results(b"\x00")


# --- heartbeat


def beats(heart: Heartbeat, until: int, *, path: bool = False) -> list[tuple[int, Beat]]:
    """Sleep from deadline to deadline, as a link does, and hear no frame; with ``path``, packets are acknowledged."""
    said = []
    packets = 0
    while (now := heart.deadline()) <= until:
        if beat := heart.beat(now, packets):
            said.append((int(now), beat))
            packets += path
        if beat is Beat.DEAD:
            break
    return said


def test_a_dead_path_is_noticed_within_ten_seconds() -> None:
    assert beats(Heartbeat(Instant(0), first=True), 60_000) == [
        (4_000, Beat.BEAT),
        (6_500, Beat.PING),
        (8_000, Beat.DEAD),
    ]


def test_the_higher_key_waits_a_little_so_that_one_side_asks_for_both() -> None:
    assert beats(Heartbeat(Instant(0), first=False), 60_000)[0] == (4_500, Beat.BEAT)


def test_acknowledged_packets_show_that_the_path_lives_and_every_fifth_beat_asks_the_program() -> None:
    heart = Heartbeat(Instant(0), first=True)
    assert beats(heart, 20_000, path=True) == [
        *((at, Beat.BEAT) for at in range(4_000, 20_000, 4_000)),
        (20_000, Beat.PING),
    ]
    heart.heard(Instant(20_010))
    assert beats(heart, 30_000, path=True)[0] == (24_010, Beat.BEAT)


def test_a_hung_program_is_given_up_although_its_transport_answers() -> None:
    said = beats(Heartbeat(Instant(0), first=True), 10**6, path=True)
    assert said[-1] == (60_000, Beat.DEAD)
    assert {beat for at, beat in said if 20_000 <= at < 60_000} == {Beat.PING}


def test_a_path_that_dies_after_many_beats_is_noticed_as_fast() -> None:
    heart = Heartbeat(Instant(0), first=True)
    assert beats(heart, 12_000, path=True)[-1] == (12_000, Beat.BEAT)
    heart.beat(heart.deadline(), 99)
    said: list[tuple[int, Beat]] = []
    while not said or said[-1][1] is not Beat.DEAD:
        now = heart.deadline()
        if beat := heart.beat(now, 99):
            said.append((int(now), beat))
    assert said == [(16_000, Beat.BEAT), (18_500, Beat.PING), (20_000, Beat.DEAD)]


def test_any_frame_counts_as_a_sign_of_life() -> None:
    heart = Heartbeat(Instant(0), first=True)
    for now in range(3_000, 60_000, 3_000):
        assert heart.beat(Instant(now)) is None
        heart.heard(Instant(now))
    assert heart.deadline() == 57_000 + 4_000
    assert beats(heart, 10**6)[-1] == (65_000, Beat.DEAD)


def test_nothing_is_said_before_it_is_time() -> None:
    heart = Heartbeat(Instant(100), first=True)
    assert heart.beat(Instant(4_099)) is None
    assert heart.beat(Instant(4_100)) is Beat.BEAT
    assert heart.beat(Instant(4_101)) is None


def test_without_a_count_of_packets_every_beat_asks_for_an_answer() -> None:
    heart = Heartbeat(Instant(0), first=True, counts=False)
    assert heart.beat(Instant(4_000)) is Beat.PING


# --- two links to one peer


def test_both_sides_keep_the_same_link() -> None:
    """Each side may see the two links come up in either order."""
    for one_by_lower, other_by_lower in product((True, False), repeat=2):
        if one_by_lower == other_by_lower:
            continue
        kept = set()
        for new_by_lower, old_by_lower in ((one_by_lower, other_by_lower), (other_by_lower, one_by_lower)):
            new = keep_new(same_session=True, new_by_lower=new_by_lower, old_by_lower=old_by_lower)
            kept.add(new_by_lower if new else old_by_lower)
        assert kept == {True}


@pytest.mark.parametrize("by_lower", [True, False])
def test_of_two_dials_by_one_side_the_newer_stays(by_lower: bool) -> None:
    assert keep_new(same_session=True, new_by_lower=by_lower, old_by_lower=by_lower)


@pytest.mark.parametrize(("new_by_lower", "old_by_lower"), list(product((True, False), repeat=2)))
def test_a_restarted_peers_new_link_always_stays(new_by_lower: bool, old_by_lower: bool) -> None:
    assert keep_new(same_session=False, new_by_lower=new_by_lower, old_by_lower=old_by_lower)
