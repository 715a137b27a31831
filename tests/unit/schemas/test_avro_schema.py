"""Schemas are read as Avro says, every mistake is named with its place, and what would surprise is a doubt."""

from __future__ import annotations

import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.exceptions import InvalidContractError
from postroom.schemas.avro_codec import Codec
from postroom.schemas.avro_nodes import Record
from postroom.schemas.avro_schema import canonical_json, parse_schema, try_schema
from postroom.schemas.event_checker import find_violations
from tests.unit.schemas.avro_strategies import UNHURRIED, HostileKey, schemas
from tests.unit.schemas.test_json_reader import JSON_VALUES


def record(*fields: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **more}


def field(kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": "f", "type": kind, **more}


ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}

WRONG: tuple[tuple[str, Any, str], ...] = (
    ("map default as a list", record(field({"type": "map", "values": "int"}, default=[])), "expected map"),
    (
        "fixed decimal default of the wrong length",
        record(field({**DECIMAL, "type": "fixed", "name": "F", "size": 2}, default="x")),
        "expected 2 bytes",
    ),
    ("double default that no double holds", record(field("double", default=2**53 + 1)), "wrong_type"),
    ("double default of 400 digits", record(field("double", default=10**400)), "wrong_type"),
    ("a number", 5, "schema: is no schema"),
    ("nothing", None, "schema: is no schema"),
    ("unknown type", "strin", "schema: strin is no type"),
    ("a type that needs more", "record", "schema: record needs more than its name"),
    ("no type", {"name": "x"}, "schema: has no type"),
    ("type in type", {"type": {"type": "string"}}, "schema: has no type, or one that is not a name"),
    ("no fields", {"type": "record", "name": "R"}, "fields: is missing"),
    ("no name", {"type": "record", "fields": []}, "name: is missing or no Avro name"),
    ("bad name", record(name="9x"), "name: is missing or no Avro name"),
    ("name with code", record(name="x\n    import os"), "name: is missing or no Avro name"),
    ("name of a primitive", record(name="string"), "name: defines string, which exists already"),
    ("accented name", record(name="\u00e9"), "name: is missing or no Avro name"),
    ("bad namespace", record(namespace="a..b"), "namespace: is no Avro namespace"),
    ("bad field name", record({"name": "a-b", "type": "int"}), "fields[0]: is no field with an Avro name"),
    ("code as field name", record({"name": "a'] or print('", "type": "int"}), "fields[0]: is no field"),
    ("field twice", record(field("int"), field("int")), "fields[1].name: defines the field f a second time"),
    ("field without type", record({"name": "f"}), "fields[0]: field f has no type"),
    ("field that is a text", record("f"), "fields[0]: is no field"),
    ("name twice", record(field(ENUM), {"name": "g", "type": ENUM}), "defines E, which exists already"),
    ("reference before definition", record(field("E"), {"name": "g", "type": ENUM}), "fields[0].type: E is no type"),
    (
        "reference outside of its namespace",
        record(field({**ENUM, "namespace": "n"}), {"name": "g", "type": "E"}),
        "E is no type",
    ),
    ("aliases that are no list", record(field("int", aliases="g")), "aliases: is not a list of Avro names"),
    ("array without items", {"type": "array"}, "array has no items"),
    ("map without values", {"type": "map"}, "map has no values"),
    ("empty union", [], "is a union of nothing"),
    ("union in a union", ["null", ["int"]], "[1]: is a union inside a union"),
    ("type twice in a union", ["int", "int"], "[1]: has int a second time"),
    (
        "logical type beside its base in a union",
        ["long", {"type": "long", "logicalType": "timestamp-millis"}],
        "a second time",
    ),
    ("enum without symbols", {"type": "enum", "name": "E", "symbols": []}, "symbols: is missing"),
    ("symbol twice", {"type": "enum", "name": "E", "symbols": ["A", "A"]}, "symbols: has a symbol twice"),
    ("symbol that is no name", {"type": "enum", "name": "E", "symbols": ["a b"]}, "symbols: is missing or not"),
    ("enum default", {**ENUM, "default": "C"}, "default: is none of the symbols"),
    ("fixed without size", {"type": "fixed", "name": "F"}, "size: is missing or no length"),
    ("fixed of size true", {"type": "fixed", "name": "F", "size": True}, "size: is missing or no length"),
    ("fixed of size -1", {"type": "fixed", "name": "F", "size": -1}, "size: is missing or no length"),
    ("date on a long", {"type": "long", "logicalType": "date"}, "logicalType date stands on a long"),
    ("decimal on a string", {"type": "string", "logicalType": "decimal", "precision": 4}, "decimal stands on a string"),
    ("decimal without precision", {"type": "bytes", "logicalType": "decimal"}, "decimal has no precision above 0"),
    ("scale above precision", {**DECIMAL, "scale": 5}, "scale that is not between 0 and its precision"),
    (
        "decimal too large",
        {**DECIMAL, "type": "fixed", "name": "F", "size": 1},
        "precision 4 does not fit into 1 bytes",
    ),
    (
        "decimal of 5 digits in 2 bytes",
        {**DECIMAL, "type": "fixed", "name": "F", "size": 2, "precision": 5},
        "precision 5 does not fit into 2 bytes",
    ),
    ("decimal of a thousand million digits", {**DECIMAL, "precision": 10**9}, "precision above 10,000"),
    (
        "uuid of 15 bytes",
        {"type": "fixed", "name": "F", "size": 15, "logicalType": "uuid"},
        "needs a fixed of 16 bytes",
    ),
    (
        "duration of 11 bytes",
        {"type": "fixed", "name": "F", "size": 11, "logicalType": "duration"},
        "needs a fixed of 12",
    ),
    ("record without a way out", record(field("R")), "record R holds itself without a way out"),
    ("the same by two", record(field(record(field("R"), name="S"))), "holds itself without a way out"),
    (
        "default of another type",
        record(field("int", default="x")),
        "fields[0].default: is no default for f: wrong_type",
    ),
    ("default true for an int", record(field("int", default=True)), "is no default for f: wrong_type"),
    ("default out of range", record(field("int", default=2**31)), "is no default for f: out_of_range"),
    ("default of the second branch", record(field(["string", "null"], default=None)), "is no default for f"),
    ("default that is no symbol", record(field(ENUM, default="C")), "is no default for f: not_in_enum"),
    ("default above U+00FF for bytes", record(field("bytes", default="\u0100")), "is no default for f: text with"),
    (
        "default of the wrong length",
        record(field({"type": "fixed", "name": "F", "size": 2}, default="x")),
        "bad_length",
    ),
    ("decimal default as a number", record(field(DECIMAL, default=1.5)), "is no default for f: expected the bytes"),
    (
        "date default as text",
        record(field({"type": "int", "logicalType": "date"}, default="2024-01-01")),
        "expected the int",
    ),
    (
        "time default outside of a day",
        record(field({"type": "int", "logicalType": "time-millis"}, default=-1)),
        "time outside",
    ),
    ("array default as an object", record(field({"type": "array", "items": "int"}, default={})), "expected array"),
    ("array default with a text", record(field({"type": "array", "items": "int"}, default=["x"])), "wrong_type"),
    (
        "record default with a field missing",
        record(field(record(field("int"), name="S"), default={})),
        "field f of record S",
    ),
    ("record default with a field too many", record(field(record(name="S"), default={"x": 1})), "does not have"),
    ("a default that holds itself", record(field(["R", "null"], default={})), "is no default for f: it holds itself"),
)


@pytest.mark.parametrize(("raw", "text"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_schema_is_refused_with_the_place_and_the_reason(raw: Any, text: str) -> None:
    with pytest.raises(InvalidContractError) as caught:
        parse_schema(raw)
    assert text in str(caught.value)


def test_all_problems_are_named_at_once() -> None:
    _, problems = try_schema(
        record(
            {"name": "a", "type": "strin"},
            {"name": "b-c", "type": "int"},
            {"name": "d", "type": "int", "logicalType": "date"},
        )
    )
    assert [problem.path for problem in problems] == [("fields", 0, "type"), ("fields", 1), ("fields", 2)]


LONG_TIME = {"type": "long", "logicalType": "timestamp-millis"}
DAY = {"type": "int", "logicalType": "date"}
ONE, TWO = record(field("int"), name="One"), record(field("int"), {"name": "g", "type": "int"}, name="Two")
DOUBTFUL: tuple[tuple[Any, str], ...] = (
    (["double", "long"], "other libraries take int values for double"),
    (["float", "int"], "other libraries take int values for float"),
    ([DAY, "string"], "take str values for date"),
    ([DAY, LONG_TIME], "take datetime values for date"),
    ([LONG_TIME, "int"], "take int values for timestamp-millis"),
    ([DECIMAL, {"type": "fixed", "name": "F", "size": 2}], "take bytes values for decimal"),
    ([{"type": "string", "logicalType": "uuid"}, ENUM], "take str values for uuid"),
    ([{"type": "array", "items": "int"}, "bytes"], "take bytes for an array"),
    ([DECIMAL, {**DECIMAL, "type": "fixed", "name": "F", "size": 4}], "two branches hold Decimal values"),
    (
        [{"type": "int", "logicalType": "time-millis"}, {"type": "long", "logicalType": "time-micros"}],
        "hold time values",
    ),
    ([{"type": "map", "values": "int"}, ONE], "a map and a record are both a dict"),
    ([ONE, record(field("string"), name="Three")], "can hold the same fields"),
    ([ONE, record(field("int"), {"name": "g", "type": ["null", "int"]}, name="Four")], "can hold the same fields"),
)


@pytest.mark.parametrize(("union", "text"), DOUBTFUL, ids=range(len(DOUBTFUL)))
def test_a_union_that_leaves_a_choice_open_is_a_doubt(union: Any, text: str) -> None:
    (doubt,) = parse_schema(record(field(union))).doubts
    assert text in doubt.text
    assert doubt.path == ("fields", 0, "type")


@pytest.mark.parametrize(
    "union",
    [
        ["long", "double"],
        ["int", "long", "float", "double"],
        [ENUM, "string"],
        ["string", DAY],
        [LONG_TIME, DAY],
        [ONE, TWO],
        ["bytes", {**DECIMAL, "type": "fixed", "name": "F", "size": 2}],
        ["null", {"type": "array", "items": "int"}, {"type": "map", "values": "int"}, "string"],
    ],
    ids=range(8),
)
def test_a_union_whose_values_find_their_branch_is_no_doubt(union: Any) -> None:
    assert parse_schema(record(field(union))).doubts == ()


def test_records_in_a_union_are_told_apart_by_the_names_of_their_fields() -> None:
    codec = Codec(record(field([ONE, TWO])))
    assert codec.encode({"f": {"f": 1}}) == b"\x00\x02"
    assert codec.encode({"f": {"f": 1, "g": 2}}) == b"\x02\x02\x04"
    for value in ({"g": 2}, {}, {"f": 1, "h": 2}, {HostileKey("f"): 1}, {HostileKey("x"): 1}):
        assert codec.encode({"f": value}) is None
        (violation,) = find_violations(codec.schema.root, {"f": value})
        assert (violation.rule, violation.found) == ("wrong_branch", "dict whose fields fit none of them")
    (violation,) = find_violations(codec.schema.root, {"f": {"f": 1, "g": "2"}})
    assert (violation.path, violation.rule) == ("f.g", "wrong_type")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (record(field("long", logicalType="timestamp-millis")), "Avro ignores a logicalType beside the type"),
        (record(field({"type": "array", "items": "null"})), "its items take no bytes"),
        (record(field("int", **{"half a sentence": None})), "has a key that is no name"),
    ],
)
def test_what_avro_allows_but_nobody_means_is_a_doubt(raw: Any, text: str) -> None:
    (doubt,) = parse_schema(raw).doubts
    assert text in doubt.text


def test_names_are_resolved_in_their_namespace() -> None:
    raw = record(
        field({"type": "enum", "name": "E", "symbols": ["A"], "aliases": ["Old"]}),
        {"name": "g", "type": "E"},
        {"name": "h", "type": "a.b.E"},
        {"name": "i", "type": {"type": "enum", "name": "c.E", "symbols": ["B"]}},
        {"name": "j", "type": "c.E"},
        {"name": "k", "type": {"type": "record", "name": "In", "namespace": "d", "fields": [field(["null", "In"])]}},
        namespace="a.b",
    )
    codec = Codec(raw)
    event = {"f": "A", "g": "A", "h": "A", "i": "B", "j": "B", "k": {"f": {"f": None}}}
    assert codec.decode(codec.encode(event) or b"") == event
    assert isinstance(codec.schema.root, Record)
    assert codec.schema.root.name == "a.b.R"


def test_an_unknown_logical_type_is_ignored_as_avro_asks() -> None:
    assert Codec({"type": "string", "logicalType": "colour"}).encode("red") == b"\x06red"


def test_defaults_are_read_in_avros_json_form_and_written_for_missing_fields() -> None:
    raw = record(
        field("bytes", default="\u00ff\u0000"),
        {"name": "d", "type": DECIMAL, "default": "\u0001\u0000"},
        {"name": "t", "type": LONG_TIME, "default": 0},
        {"name": "x", "type": "double", "default": 1},
        {"name": "m", "type": {"type": "map", "values": DAY}, "default": {"k": 1}},
        {
            "name": "s",
            "type": record({"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": 5}, name="S"),
            "default": {"a": 1},
        },
        {"name": "u", "type": ["string", "null"], "default": "x"},
    )
    body = Codec(raw).encode({})
    assert body == bytes.fromhex("04ff00 040100 00 000000000000f03f 02026b0200 020a 000278")


def test_levels_of_a_schema_are_bounded_before_anything_follows_them() -> None:
    deep: Any = "int"
    for _ in range(64):
        deep = {"type": "array", "items": deep}
    assert parse_schema(deep).recursive is False
    with pytest.raises(InvalidContractError, match="has more than 64 levels"):
        parse_schema({"type": "array", "items": deep})
    for _ in range(100_000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(InvalidContractError, match="nested too deeply"):
        parse_schema(deep)
    while isinstance(deep, dict):
        deep = deep.pop("items")


def test_the_canonical_text_is_one_for_all_ways_to_order_attributes_and_keeps_what_means_something() -> None:
    one = {
        "type": "record",
        "name": "R",
        "doc": "d",
        "fields": [{"default": {"b": 1, "a": 2}, "type": {"values": "int", "type": "map"}, "name": "f"}],
    }
    other = {
        "fields": [{"name": "f", "type": {"type": "map", "values": "int"}, "default": {"b": 1, "a": 2}}],
        "doc": "d",
        "name": "R",
        "type": "record",
    }
    text = canonical_json(one)
    assert text == canonical_json(other)
    assert text == (
        '{"type":"record","name":"R","doc":"d",'
        '"fields":[{"type":{"type":"map","values":"int"},"name":"f","default":{"b":1,"a":2}}]}'
    )


@UNHURRIED
@given(schemas())
def test_the_canonical_text_means_the_same_schema_to_fastavro(both: Any) -> None:
    raw, _ = both
    text = canonical_json(raw)
    assert canonical_json(json.loads(text)) == text
    forms = [fastavro.schema.to_parsing_canonical_form(fastavro.parse_schema(item)) for item in (raw, json.loads(text))]
    assert forms[0] == forms[1]


@UNHURRIED
@given(
    JSON_VALUES
    | st.dictionaries(
        st.sampled_from(["type", "name", "fields", "items", "symbols", "size", "logicalType"]), JSON_VALUES
    )
)
def test_any_json_is_a_schema_or_refused(raw: Any) -> None:
    schema, problems = try_schema(raw)
    assert (schema is None) == bool(problems)


def test_a_decimal_in_a_fixed_of_two_gigabytes_is_read_at_once() -> None:
    schema = {**DECIMAL, "type": "fixed", "name": "F", "size": 2**31 - 1, "precision": 4}
    assert not try_schema(schema)[1]
