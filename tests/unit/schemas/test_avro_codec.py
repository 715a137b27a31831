"""Bytes to events: every malformed body ends in a typed error, and no claim costs more than the bytes that make it."""

from __future__ import annotations

import io
import struct
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.exceptions import DecodeError
from postroom.schemas.avro_codec import Codec, frame, unframe
from postroom.schemas.avro_encoder import long_bytes, varint
from tests.unit.schemas.avro_strategies import UNHURRIED, filled, schemas, values

EVERYTHING: dict[str, Any] = {
    "type": "record",
    "name": "All",
    "fields": [
        {"name": "n", "type": "null"},
        {"name": "b", "type": "boolean"},
        {"name": "i", "type": "int"},
        {"name": "l", "type": "long"},
        {"name": "f", "type": "float"},
        {"name": "d", "type": "double"},
        {"name": "y", "type": "bytes"},
        {"name": "s", "type": "string"},
        {"name": "x", "type": {"type": "fixed", "name": "X", "size": 3}},
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}},
        {"name": "a", "type": {"type": "array", "items": "string"}},
        {"name": "m", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "u", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "c", "type": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}},
    ],
}
CODEC = Codec(EVERYTHING)


def sample_body() -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out,
        EVERYTHING,
        {
            "n": None,
            "b": True,
            "i": -70,
            "l": 2**50,
            "f": 1.5,
            "d": 0.1,
            "y": b"\xff\x00",
            "s": "gr\u00fc\u00df",
            "x": b"abc",
            "e": "C",
            "a": ["x", ""],
            "m": {"k": None, "j": 5},
            "t": 1795416182091,
            "u": "018f0000-0000-7000-8000-000000000001",
            "c": b"\x01\x00",
        },
    )
    return out.getvalue()


def of(kind: Any, body: bytes) -> Any:
    return Codec(kind).decode(body)


def test_a_body_cut_at_any_byte_is_truncated() -> None:
    body = sample_body()
    assert CODEC.encode(CODEC.decode(body)) == body
    for size in range(len(body)):
        with pytest.raises(DecodeError) as caught:
            CODEC.decode(body[:size])
        assert caught.value.reason == "truncated"
        assert caught.value.position is not None


def test_a_body_with_any_bit_flipped_is_refused_or_is_another_valid_event() -> None:
    body = sample_body()
    for at in range(len(body)):
        for bit in range(8):
            flipped = bytearray(body)
            flipped[at] ^= 1 << bit
            try:
                event = CODEC.decode(bytes(flipped))
            except DecodeError as error:
                assert error.reason  # noqa: PT017  either way is fine
                continue
            # A float may have become one that is not finite: Avro can hold it, a contract does not take it.
            assert CODEC.encode(event) is not None or event["f"] - event["f"] != 0 or event["d"] - event["d"] != 0


@UNHURRIED
@given(st.data(), st.binary(max_size=80))
def test_any_bytes_are_decoded_or_refused_whatever_the_schema(data: st.DataObject, body: bytes) -> None:
    _, schema = data.draw(schemas())
    try:
        Codec(schema).decode(body)
    except DecodeError as error:
        assert error.reason  # noqa: PT017  either way is fine


MALFORMED: tuple[tuple[str, Any, bytes, str], ...] = (
    ("varint without end", "long", b"\xff" * 9, "truncated"),
    ("varint of eleven bytes", "long", b"\x80" * 10 + b"\x00", "bad_varint"),
    ("varint of 70 bits", "long", b"\xff" * 9 + b"\x7f", "bad_varint"),
    ("int of 33 bits", "int", varint(2**31), "out_of_range"),
    ("int of 64 bits", "int", varint(-(2**63)), "out_of_range"),
    ("negative length of a text", "string", varint(-1), "negative_length"),
    ("negative length of bytes", "bytes", varint(-(2**63)), "negative_length"),
    ("huge length", "bytes", varint(2**62), "truncated"),
    ("text that is not UTF-8", "string", b"\x04\xff\xfe", "invalid_utf8"),
    ("surrogate as UTF-8", "string", b"\x06\xed\xa0\x80", "invalid_utf8"),
    ("boolean of 2", "boolean", b"\x02", "bad_boolean"),
    ("enum above", {"type": "enum", "name": "E", "symbols": ["A"]}, b"\x02", "bad_index"),
    ("enum below", {"type": "enum", "name": "E", "symbols": ["A"]}, b"\x01", "bad_index"),
    ("union above", ["null", "int"], b"\x04", "bad_index"),
    ("union below", ["null", "int"], b"\x01", "bad_index"),
    ("50 million elements", {"type": "array", "items": "int"}, varint(50_000_000), "truncated"),
    ("50 million nulls", {"type": "array", "items": "null"}, varint(50_000_000), "too_many_items"),
    (
        "50 million empty records",
        {"type": "array", "items": {"type": "record", "name": "R", "fields": []}},
        varint(50_000_000),
        "too_many_items",
    ),
    ("the fewest", {"type": "array", "items": "null"}, varint(-(2**63)) + varint(0), "too_many_items"),
    ("block of negative size", {"type": "array", "items": "int"}, varint(-1) + varint(-1), "bad_block"),
    (
        "block larger than the body",
        {"type": "array", "items": "int"},
        varint(-1) + varint(9) + b"\x02\x00",
        "bad_block",
    ),
    ("block of another size", {"type": "array", "items": "int"}, varint(-1) + varint(2) + b"\x02\x00", "bad_block"),
    ("map with a key twice", {"type": "map", "values": "null"}, b"\x04\x02a\x02a\x00", "duplicate_key"),
    ("trailing byte", "int", b"\x02\x00", "trailing_bytes"),
    ("no byte", "int", b"", "truncated"),
    ("date beyond the year 9999", {"type": "int", "logicalType": "date"}, varint(2**31 - 1), "out_of_range"),
    ("date before the year 1", {"type": "int", "logicalType": "date"}, varint(-(2**31)), "out_of_range"),
    ("time of a second day", {"type": "int", "logicalType": "time-millis"}, varint(86_400_000), "out_of_range"),
    ("time below zero", {"type": "long", "logicalType": "time-micros"}, varint(-1), "out_of_range"),
    ("timestamp beyond", {"type": "long", "logicalType": "timestamp-millis"}, varint(2**63 - 1), "out_of_range"),
    ("timestamp before", {"type": "long", "logicalType": "local-timestamp-micros"}, varint(-(2**63)), "out_of_range"),
    ("no uuid", {"type": "string", "logicalType": "uuid"}, b"\x02x", "out_of_range"),
    (
        "a uuid in braces",
        {"type": "string", "logicalType": "uuid"},
        varint(38) + b"{018f0000-0000-7000-8000-000000000001}",
        "out_of_range",
    ),
    (
        "decimal of too many digits",
        {"type": "bytes", "logicalType": "decimal", "precision": 2},
        b"\x02\x7f",
        "out_of_range",
    ),
)


@pytest.mark.parametrize(("kind", "body", "reason"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_a_malformed_body_is_a_decode_error_with_its_reason(kind: Any, body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        of(kind, body)
    assert caught.value.reason == reason
    assert caught.value.code == "decode_failed"


def test_a_body_that_is_deeper_than_64_levels_is_refused_and_not_followed() -> None:
    linked = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}
    with pytest.raises(DecodeError) as caught:
        of(linked, b"\x02" * 100_000 + b"\x00")
    assert caught.value.reason == "too_deep"
    assert of(linked, b"\x02" * 63 + b"\x00")
    nested: Any = "int"
    for _ in range(64):
        nested = {"type": "array", "items": nested}
    assert of(nested, b"\x02" * 64 + b"\x02" + b"\x00" * 64)


def test_blocks_with_sizes_and_several_blocks_are_read_as_avro_allows() -> None:
    array = {"type": "array", "items": "int"}
    assert of(array, varint(-2) + varint(2) + b"\x02\x04" + varint(1) + b"\x06" + b"\x00") == [1, 2, 3]
    mapping = {"type": "map", "values": "int"}
    assert of(mapping, b"\x02\x02a\x02\x02\x02b\x04\x00") == {"a": 1, "b": 2}
    assert of("long", b"\x82\x80\x00") == 1  # padded, which Avro does not forbid


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_are_written_from_tables_as_the_loop_writes_them(number: int) -> None:
    assert long_bytes(number) == varint(number)
    assert of("long", varint(number)) == number


@pytest.mark.parametrize("bits", range(64))
def test_numbers_around_every_power_of_two_are_written_right(bits: int) -> None:
    for number in {sign * 2**bits + step for sign in (1, -1) for step in (-1, 0, 1)}:
        if -(2**63) <= number < 2**63:
            assert long_bytes(number) == varint(number)
            assert Codec("long").encode(number) == varint(number)


@pytest.mark.parametrize("number", [True, False, 1.0, "1", None, -(2**63) - 1, 2**63])
def test_what_is_no_long_never_indexes_the_tables(number: object) -> None:
    assert Codec("long").encode(number) is None


@pytest.mark.parametrize("schema_id", [0, 1, 2**31, 2**32 - 1])
def test_a_frame_is_a_zero_and_the_schema_id_big_endian(schema_id: int) -> None:
    assert frame(schema_id) == b"\x00" + struct.pack(">I", schema_id)
    assert unframe(frame(schema_id) + b"body") == (schema_id, b"body")
    assert unframe(frame(schema_id)) == (schema_id, b"")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "truncated"),
        (b"\x00\x00\x00\x00", "truncated"),
        (b"\x01\x00\x00\x00\x01", "bad_magic"),
        (b'{"a":1}', "bad_magic"),
    ],
)
def test_a_value_without_the_five_bytes_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        unframe(value)
    assert caught.value.reason == reason


def test_names_in_a_schema_cannot_become_code() -> None:
    names = (
        "class",
        "def_",
        "None_",
        "__class__",
        "event",
        "prefix",
        "encode",
        "No",
        "Z",
        "join",
        "v1",
        "depth",
        "value",
    )
    kind = {"type": "record", "name": "R", "fields": [{"name": name, "type": "int"} for name in names]}
    event = dict.fromkeys(names, 7)
    assert Codec(kind).decode(Codec(kind).encode(event) or b"") == event


def test_wide_and_deep_schemas_can_be_compiled() -> None:
    wide = {"type": "record", "name": "W", "fields": [{"name": f"f{n}", "type": "int"} for n in range(3000)]}
    event = {f"f{n}": n for n in range(3000)}
    assert Codec(wide).decode(Codec(wide).encode(event) or b"") == event
    enums = [{"type": "enum", "name": f"E{n}", "symbols": [f"S{n}"]} for n in range(300)]
    assert Codec(enums).encode("S299") == varint(299) + b"\x00"
    shared: Any = {"type": "record", "name": "R0", "fields": [{"name": "a", "type": "int"}]}
    for level in range(1, 40):  # each is used twice: written in place it would be 2**40 lines
        fields = [{"name": "x", "type": ["null", shared]}, {"name": "y", "type": ["null", f"R{level - 1}"]}]
        shared = {"type": "record", "name": f"R{level}", "fields": fields}
    assert Codec(shared).encode({"x": None, "y": None}) == b"\x00\x00"


@UNHURRIED
@given(st.data())
def test_what_fastavro_writes_is_read_as_it_was(data: st.DataObject) -> None:
    raw, schema = data.draw(schemas())
    event = filled(schema.root, data.draw(values(schema.root)))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(raw), event)
    codec = Codec(schema)
    assert codec.encode(codec.decode(out.getvalue())) == out.getvalue()
