"""The bytes of the spool: what goes in comes out, and nothing else passes."""

from __future__ import annotations

from typing import Any

import pytest
from google_crc32c import extend
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.event import Record
from postroom.libs.exceptions import NotRepresentableError
from postroom.streaming.spool import record_format as fmt
from postroom.streaming.spool.footer import Summary, footer_length, parse_footer
from postroom.streaming.spool.group_format import pack_group, parse_head
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
    attempt=st.integers(0, 2**63 - 1),
)
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(RECORDS, PAIRS, INT64)
def test_a_record_comes_back_exactly_as_it_was_stored(
    stored: Record, labels: tuple[tuple[str, bytes], ...], at: int
) -> None:
    assert fmt.parse_body(fmt.pack_body(stored, labels, at)) == fmt.StoredRecord(stored, labels, at)


@given(st.lists(RECORDS, max_size=5), PAIRS, INT64)
def test_records_packed_together_have_the_bytes_that_each_has_alone(
    some: list[Record], labels: tuple[tuple[str, bytes], ...], at: int
) -> None:
    assert fmt.pack_bodies(some, labels, at) == [fmt.pack_body(one, labels, at) for one in some]


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda data: bytes(12) + data))
def test_a_body_of_any_bytes_is_read_or_refused_but_nothing_else(body: bytes) -> None:
    try:
        stored = fmt.parse_body(body)
    except ValueError:
        return
    assert fmt.parse_body(fmt.pack_body(stored.record, stored.labels, stored.appended_ms)) == stored


def test_a_record_whose_types_are_wrong_comes_back_as_it_was_handed_in() -> None:
    odd: Any = Record("t", None, None, (("h", "text"),), "id", 0)  # type: ignore[arg-type]
    assert fmt.parse_body(fmt.pack_body(odd, (), 0)).record == odd
    with pytest.raises(ValueError, match="none of this version"):
        fmt.parse_body(bytes(12) + b"\x91\x01")


def test_the_bytes_of_version_1_never_change() -> None:
    header = fmt.pack_segment_header(1, 42, 7, 1_700_000_000_000, b"saltsalt")
    parsed = fmt.parse_segment_header(header)
    assert parsed is not None
    body = fmt.pack_body(record(1, size=1), (("l", b"\1"),), 5)
    both = pack_group(parsed.seed, 1, 7, [body, body])
    assert header[:64].hex() == (
        "504f535453504f4c0100800001000000"
        "2a000000000000000700000000000000"
        "0068e5cf8b01000073616c7473616c74"
        "000000000000000000000000" + header[60:64].hex()
    )
    length = f"{len(body):02x}000000"
    head = "070000000000000002000000" + f"{2 * len(body):02x}000000" + both[24:28].hex()
    assert both[4:28].hex() == "01000000" + head
    assert both[28:44].hex() == 2 * length + 2 * crc32c(body).to_bytes(4, "little").hex()
    assert both[44:-44] == 2 * body
    assert both[-40:].hex() == "01010000" + head + both[28:44].hex()
    assert [both[at : at + 4] for at in (0, len(both) - 44)] == [
        extend(parsed.seed, both[at + 4 : at + 28]).to_bytes(4, "little") for at in (0, len(both) - 44)
    ]
    assert len(pack_group(parsed.seed, 1, 7, [body])) == 28 + 8 + len(body)
    assert body.hex() == (
        "0500000000000000" "07000000" "9192a16cc40101" "97"
        + b"\xa5topic\xc4\x03key\xc4\x031 v\x92\x92\xa1h\xc4\x02\x00\xff\x92\xa1h\xc4\x00\xa4id-1".hex()
        + "cf0000018bcfe56801" "01"
    )  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        Record("t" * 70_000, None, None, (), "id", 0),
        Record("\ud800", None, None, (), "id", 0),
        Record("t", None, None, (("\ud800", b""),), "id", 0),
        Record("t", None, None, (), "\ud800", 0),
        Record("t", None, None, (), "id", 2**64),
        Record("t", None, None, (), "id", 0, 2**64),
    ],
)
def test_what_no_frame_can_hold_is_refused_as_not_representable(bad: Record) -> None:
    with pytest.raises(NotRepresentableError):
        fmt.pack_body(bad, (), 0)
    with pytest.raises(NotRepresentableError):
        fmt.pack_body(record(1), (), 2**63)


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


def test_a_group_of_another_segment_is_no_group() -> None:
    headers = [fmt.parse_segment_header(fmt.pack_segment_header(1, number, 1, 0, bytes(8))) for number in (1, 2)]
    assert headers[0] is not None
    assert headers[1] is not None
    group = pack_group(headers[0].seed, 1, 1, [b"body"])
    assert parse_head(headers[0].seed, group, 0) is not None
    assert parse_head(headers[1].seed, group, 0) is None


def test_a_footer_gives_its_sums_back() -> None:
    summary = Summary()
    summary.add("a", 5, 100, 77)
    summary.add("b", None, 50, 78)
    summary.add("a", 5, 10, 79)
    frame = summary.pack(1, 4)
    assert footer_length(frame[-8:]) == len(frame)
    back = parse_footer(frame[36:])
    assert (back.frames, back.oldest_ms, back.topics, back.keys) == (3, 77, {"a": [2, 110], "b": [1, 50]}, {5: 2})
    assert footer_length(b"12345678") is None
    for cut in range(len(frame) - 36):
        with pytest.raises(ValueError, match="footer"):
            parse_footer(frame[36 : 36 + cut])


def test_the_hash_of_a_key_tells_topics_apart() -> None:
    hashed = fmt.KeyHash()
    assert hashed("a", b"k") == hashed("a", b"k") != hashed("b", b"k")
