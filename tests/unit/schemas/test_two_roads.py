"""The fast road and the slow one agree on every event, and both agree with fastavro on every byte."""

from __future__ import annotations

import io
import struct
from typing import Any

import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.schemas.avro_codec import Codec
from postroom.schemas.avro_nodes import Array, Map, Node, Record, Union
from postroom.schemas.avro_unions import choose_branch
from postroom.schemas.event_checker import find_violations
from tests.unit.schemas.avro_strategies import JUNK, UNHURRIED, filled, schemas, spoiled, values

MANY = settings(UNHURRIED, max_examples=300)


def fastavro_bytes(raw: Any, event: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(raw), event)
    return out.getvalue()


def same(node: Node, one: Any, other: Any) -> bool:  # noqa: PLR0911  one line a node
    """Equal, of the same types all the way down, and floats of 32 bits equal after rounding."""
    if isinstance(node, Record):
        return list(other) == [item.name for item in node.fields] and all(
            same(item.type, one[item.name], other[item.name]) for item in node.fields
        )
    if isinstance(node, Array):
        return len(one) == len(other) and all(same(node.items, *pair) for pair in zip(one, other, strict=True))
    if isinstance(node, Map):
        return list(one) == list(other) and all(same(node.values, one[key], other[key]) for key in one)
    if isinstance(node, Union):
        at = choose_branch(node, one)
        return at is not None and at == choose_branch(node, other) and same(node.branches[at], one, other)
    if node.row == "float":
        return struct.pack("<f", one) == struct.pack("<f", other)
    if node.row == "double":
        return struct.pack("<d", one) == struct.pack("<d", other)
    return type(one) is type(other) and one == other


@MANY
@given(st.data())
def test_a_valid_event_has_no_violations_is_written_as_fastavro_writes_it_and_comes_back(data: st.DataObject) -> None:
    raw, schema = data.draw(schemas())
    codec = Codec(schema)
    event = data.draw(values(schema.root))
    assert find_violations(schema.root, event) == []
    body = codec.encode(event)
    assert body is not None
    whole = filled(schema.root, event)
    assert body == fastavro_bytes(raw, whole)
    assert codec.encode(event, b"\x00\x00\x00\x00\x07") == b"\x00\x00\x00\x00\x07" + body
    assert same(schema.root, whole, codec.decode(body))


@MANY
@given(st.data())
def test_the_fast_road_says_no_exactly_when_the_slow_road_finds_a_violation(data: st.DataObject) -> None:
    _, schema = data.draw(schemas(doubtful=data.draw(st.booleans())))
    codec = Codec(schema)
    event = data.draw(values(schema.root).flatmap(spoiled))
    body = codec.encode(event)
    violations = find_violations(schema.root, event)
    assert (body is not None) == (violations == [])
    if body is not None:
        assert same(schema.root, filled(schema.root, event), codec.decode(body))


@MANY
@given(st.data())
def test_every_kind_of_object_is_judged_the_same_by_both_roads_in_every_place(data: st.DataObject) -> None:
    _, schema = data.draw(schemas())
    codec = Codec(schema)
    assert isinstance(schema.root, Record)
    base = data.draw(values(schema.root))
    for item in schema.root.fields:
        for junk in JUNK:
            event = {**base, item.name: junk}
            body = codec.encode(event)
            assert (body is not None) == (find_violations(schema.root, event) == []), (item.name, type(junk))
