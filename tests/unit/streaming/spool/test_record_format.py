"""The bytes of the spool: what goes in comes out, and nothing else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.event import Record
from postroom.libs.exceptions import NotRepresentableError
from postroom.streaming.spool import record_format as fmt
from postroom.streaming.spool.footer import Summary, footer_length, parse_footer
from tests.unit.streaming.spool.spools import record

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAIRS = st.lists(st.tuples(TEXTS, st.binary(max_size=20)), max_size=4).map(tuple)
RECORDS = st.builds(
    Record,
    topic=TEXTS,
    key=st.none() | st.binary(max_size=30),
    value=st.none() | st.binary(max_size=100),
    headers=PAIRS,
    event_id=TEXTS,
    timestamp_ms=st.integers(-(2**63), 2**63 - 1),
    attempt=st.integers(0, 2**32 - 1),
)
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(RECORDS, PAIRS, INT64)
def test_a_record_comes_back_exactly_as_it_was_stored(
    stored: Record, labels: tuple[tuple[str, bytes], ...], at: int
) -> None:
    assert fmt.parse_body(fmt.pack_body(stored, labels, at), stored.attempt) == fmt.StoredRecord(stored, labels, at)


@given(st.binary(max_size=200))
def test_a_body_of_any_bytes_is_read_or_refused_but_nothing_else(body: bytes) -> None:
    try:
        stored = fmt.parse_body(body, 1)
    except ValueError:
        return
    assert fmt.pack_body(stored.record, stored.labels, stored.appended_ms) == body


def test_the_bytes_of_version_1_never_change() -> None:
    header = fmt.pack_segment_header(1, 42, 7, 1_700_000_000_000, b"saltsalt")
    parsed = fmt.parse_segment_header(header)
    assert parsed is not None
    frame = fmt.pack_frames(parsed.seed, 1, [(1, 7, fmt.pack_body(record(1, size=1), (), 5))])
    assert header[:64].hex() == (
        "504f535453504f4c0100800001000000"
        "2a000000000000000700000000000000"
        "0068e5cf8b01000073616c7473616c74"
        "000000000000000000000000" + header[60:64].hex()
    )
    assert (
        frame[4:28].hex()
        == f"{len(frame) - 28:02x}000000" + frame[8:12].hex() + "0100000001000000" + "0700000000000000"
    )
    assert frame[28:].hex() == (
        "0168e5cf8b010000" "0500000000000000" "0400" "0500" "0200" "0000" "03000000" "03000000"
        + b"id-1topickey1 v".hex() + "0100" "02000000" + b"h\x00\xff".hex() + "0100" "00000000" + b"h".hex()
    )  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        Record("t" * 70_000, None, None, (), "id", 0),
        Record("t", None, None, (("n" * 70_000, b""),), "id", 0),
        Record("t", None, None, (), "\ud800", 0),
        Record("t", None, None, (), "id", 2**63),
        Record("t", None, None, (), "id", 0, 2**32),
    ],
)
def test_what_no_frame_can_hold_is_refused_as_not_representable(bad: Record) -> None:
    with pytest.raises(NotRepresentableError):
        fmt.pack_body(bad, (), 0)


def test_a_segment_header_survives_a_flip_of_any_bit_in_either_copy() -> None:
    good = fmt.pack_segment_header(2, 3, 4, 5, bytes(8))
    wanted = fmt.parse_segment_header(good)
    for bit in range(len(good) * 8):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        assert fmt.parse_segment_header(bytes(flipped)) == wanted
        assert not fmt.is_newer_segment(bytes(flipped))
    assert fmt.parse_segment_header(good[:127]) == wanted
    assert fmt.parse_segment_header(bytes(128)) is None
    assert fmt.parse_segment_header(b"") is None


def test_a_frame_of_another_segment_is_no_frame() -> None:
    headers = [fmt.parse_segment_header(fmt.pack_segment_header(1, number, 1, 0, bytes(8))) for number in (1, 2)]
    assert headers[0] is not None
    assert headers[1] is not None
    frame = fmt.pack_frames(headers[0].seed, 1, [(1, 1, b"body")])
    assert fmt.parse_frame_header(headers[0].seed, frame, 0) is not None
    assert fmt.parse_frame_header(headers[1].seed, frame, 0) is None


def test_a_footer_gives_its_sums_back() -> None:
    summary = Summary()
    summary.add("a", 5, 100, 77)
    summary.add("b", None, 50, 78)
    summary.add("a", 5, 10, 79)
    frame = summary.pack(1, 4)
    assert footer_length(frame[-8:]) == len(frame)
    back = parse_footer(frame[28:])
    assert (back.frames, back.oldest_ms, back.topics, back.keys) == (3, 77, {"a": [2, 110], "b": [1, 50]}, {5: 2})
    assert footer_length(b"12345678") is None
    for cut in range(len(frame) - 28):
        with pytest.raises(ValueError, match="footer"):
            parse_footer(frame[28 : 28 + cut])


def test_the_hash_of_a_key_tells_topics_apart() -> None:
    hashed = fmt.KeyHash()
    assert hashed("a", b"k") == hashed("a", b"k") != hashed("b", b"k")
