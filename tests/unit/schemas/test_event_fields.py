"""Every Avro type against every kind of Python value, as a table: what is valid, and which rule the rest breaks."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections import OrderedDict
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from postroom.schemas.avro_codec import Codec
from postroom.schemas.event_checker import MAX_VIOLATIONS, find_violations
from tests.unit.schemas.avro_strategies import (
    BrokenZone,
    DictLike,
    Hostile,
    HostileKey,
    IntLike,
    ListLike,
    TextLike,
)

ZONE = dt.timezone(dt.timedelta(hours=2))
NAIVE = dt.datetime(2024, 2, 29, 12, 30, 45, 123000)  # noqa: DTZ001  naive on purpose
AWARE = NAIVE.replace(tzinfo=ZONE)
SAMPLES: dict[str, Any] = {
    "null": None,
    "boolean": True,
    "int": 5,
    "float": 1.5,
    "bytes": b"abcd",
    "string": "red",
    "decimal": Decimal("1.5"),
    "uuid": uuid.UUID(int=7),
    "date": dt.date(2024, 2, 29),
    "time": dt.time(12, 30),
    "timestamp": AWARE,
    "local-timestamp": NAIVE,
    "array": [],
    "map": {},
    "tuple": (),
    "set": set(),
    "bytearray": bytearray(b"abcd"),
    "complex": 1j,
    "IntEnum": IntLike.ONE,
    "str subclass": TextLike("red"),
    "dict subclass": DictLike(),
    "OrderedDict": OrderedDict(),
    "mapping": MappingProxyType({}),
    "list subclass": ListLike(),
    "timedelta": dt.timedelta(1),
    "object": object(),
    "class": int,
    "hostile": Hostile(),
}
TYPES: dict[str, tuple[Any, set[str]]] = {
    "null": ("null", {"null"}),
    "boolean": ("boolean", {"boolean"}),
    "int": ("int", {"int"}),
    "long": ("long", {"int"}),
    "float": ("float", {"float"}),
    "double": ("double", {"float"}),
    "bytes": ("bytes", {"bytes"}),
    "string": ("string", {"string"}),
    "fixed": ({"type": "fixed", "name": "F", "size": 4}, {"bytes"}),
    "enum": ({"type": "enum", "name": "E", "symbols": ["red", "blue"]}, {"string"}),
    "decimal": ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, {"decimal"}),
    "uuid": ({"type": "string", "logicalType": "uuid"}, {"uuid"}),
    "fixed uuid": ({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}, {"uuid"}),
    "date": ({"type": "int", "logicalType": "date"}, {"date"}),
    "time-millis": ({"type": "int", "logicalType": "time-millis"}, {"time"}),
    "time-micros": ({"type": "long", "logicalType": "time-micros"}, {"time"}),
    "timestamp-millis": ({"type": "long", "logicalType": "timestamp-millis"}, {"timestamp"}),
    "timestamp-micros": ({"type": "long", "logicalType": "timestamp-micros"}, {"timestamp"}),
    "timestamp-nanos": ({"type": "long", "logicalType": "timestamp-nanos"}, {"int"}),
    "local-timestamp-millis": ({"type": "long", "logicalType": "local-timestamp-millis"}, {"local-timestamp"}),
    "local-timestamp-micros": ({"type": "long", "logicalType": "local-timestamp-micros"}, {"local-timestamp"}),
    "array": ({"type": "array", "items": "int"}, {"array"}),
    "map": ({"type": "map", "values": "int"}, {"map"}),
    "record": ({"type": "record", "name": "R", "fields": []}, {"map"}),
    "union": (["null", "int", "string"], {"null", "int", "string"}),
}


def schema_of(kind: Any) -> Codec:
    return Codec({"type": "record", "name": "Event", "fields": [{"name": "field", "type": kind}]})


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("sample", SAMPLES)
def test_every_type_takes_exactly_the_python_types_of_its_row(type_name: str, sample: str) -> None:
    kind, taken = TYPES[type_name]
    codec = schema_of(kind)
    event = {"field": SAMPLES[sample]}
    violations = find_violations(codec.schema.root, event)
    if sample in taken:
        assert violations == []
        assert codec.decode(codec.encode(event) or b"") == event
        return
    assert codec.encode(event) is None
    assert [violation.path for violation in violations] == ["field"]
    naive = {"timestamp": "aware_datetime", "local-timestamp": "naive_datetime"}
    assert violations[0].rule == (naive.get(sample, "wrong_type") if "timestamp-m" in type_name else "wrong_type")


INT, LONG, FLOAT, DOUBLE, STRING = (TYPES[name][0] for name in ("int", "long", "float", "double", "string"))
FIXED, ENUM, DECIMAL, UUID = (TYPES[name][0] for name in ("fixed", "enum", "decimal", "uuid"))
MILLIS, LOCAL, CLOCK = (TYPES[name][0] for name in ("timestamp-millis", "local-timestamp-millis", "time-millis"))
FIXED_DECIMAL = {"type": "fixed", "name": "D", "size": 2, "logicalType": "decimal", "precision": 4, "scale": 2}
OUT_OF_RANGE: tuple[tuple[Any, Any, str, str], ...] = (
    (INT, 2**31, "out_of_range", "int above 2^31-1"),
    (INT, -(2**31) - 1, "out_of_range", "int below -2^31"),
    (INT, 2**40, "out_of_range", "int above 2^31-1"),
    (LONG, 2**63, "out_of_range", "int above 2^63-1"),
    (LONG, -(2**63) - 1, "out_of_range", "int below -2^63"),
    (LONG, 10**5000, "out_of_range", "int above 2^63-1"),
    (FLOAT, math.nan, "not_finite", "float that is not finite"),
    (DOUBLE, math.inf, "not_finite", "float that is not finite"),
    (DOUBLE, -math.inf, "not_finite", "float that is not finite"),
    (FLOAT, 3.5e38, "out_of_range", "float beyond 32 bits"),
    (STRING, "secret\ud800", "not_text", "str with a lone surrogate"),
    (FIXED, b"abc", "bad_length", "bytes of length 3"),
    (FIXED, b"", "bad_length", "bytes of length 0"),
    (ENUM, "secret", "not_in_enum", "another str"),
    (DECIMAL, Decimal("1.234"), "too_precise", "Decimal with more than 2 digits after the point"),
    (DECIMAL, Decimal("1.230"), "too_precise", "Decimal with more than 2 digits after the point"),
    (DECIMAL, Decimal(100), "out_of_range", "Decimal of more than 4 digits at this scale"),
    (DECIMAL, Decimal("1E+999999"), "out_of_range", "Decimal of more than 4 digits at this scale"),
    (DECIMAL, Decimal("1E-999999"), "too_precise", "Decimal with more than 2 digits after the point"),
    (DECIMAL, Decimal("NaN"), "not_finite", "Decimal that is not finite"),
    (DECIMAL, Decimal("sNaN"), "not_finite", "Decimal that is not finite"),
    (DECIMAL, Decimal("-Infinity"), "not_finite", "Decimal that is not finite"),
    (FIXED_DECIMAL, Decimal(100), "out_of_range", "Decimal of more than 4 digits at this scale"),
    (UUID, uuid.UUID.__new__(uuid.UUID), "wrong_type", "UUID without a valid number"),
    (CLOCK, dt.time(1, 2, 3, 1), "too_precise", "time with microseconds"),
    (CLOCK, dt.time(1, tzinfo=dt.UTC), "aware_time", "time with a time zone"),
    (MILLIS, AWARE.replace(microsecond=1), "too_precise", "datetime with microseconds"),
    (MILLIS, NAIVE, "naive_datetime", "datetime without a time zone"),
    (MILLIS, NAIVE.replace(tzinfo=BrokenZone()), "naive_datetime", "datetime without a time zone"),
    (MILLIS, dt.datetime(1, 1, 1, tzinfo=ZONE), "out_of_range", "datetime outside the years 1 to 9999 in UTC"),
    (LOCAL, NAIVE.replace(microsecond=1), "too_precise", "datetime with microseconds"),
    (["null", "int"], 2**31, "out_of_range", "int above 2^31-1"),
    (["int", "long"], 2**63, "wrong_branch", "int that fits none of them"),
    (["null", ENUM], "secret", "not_in_enum", "another str"),
    (["null", "string"], 5, "wrong_type", "int"),
)


@pytest.mark.parametrize(("kind", "value", "rule", "found"), OUT_OF_RANGE, ids=range(len(OUT_OF_RANGE)))
def test_a_value_beyond_the_limits_of_its_type_is_named_and_never_bent(
    kind: Any, value: Any, rule: str, found: str
) -> None:
    codec = schema_of(kind)
    assert codec.encode({"field": value}) is None
    (violation,) = find_violations(codec.schema.root, {"field": value})
    assert (violation.path, violation.rule, violation.found) == ("field", rule, found)
    assert "secret" not in str(violation)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (INT, 2**31 - 1),
        (INT, -(2**31)),
        (LONG, 2**63 - 1),
        (LONG, -(2**63)),
        (DOUBLE, 1.7976931348623157e308),
        (FLOAT, 3.4028234663852886e38),
        (DOUBLE, 5e-324),
        (STRING, "\x00"),
        (STRING, "\U0010ffff"),
        (DECIMAL, Decimal("99.99")),
        (DECIMAL, Decimal("-99.99")),
        (DECIMAL, Decimal("1E+1")),
        (DECIMAL, Decimal("0E+9")),
        (FIXED_DECIMAL, Decimal("-0.00")),
        (FIXED_DECIMAL, Decimal("-99.99")),
        (MILLIS, dt.datetime.max.replace(microsecond=0, tzinfo=dt.UTC)),
        (MILLIS, dt.datetime.min.replace(tzinfo=dt.UTC)),
        (CLOCK, dt.time.max.replace(microsecond=999000)),
        (TYPES["date"][0], dt.date.min),
        (TYPES["date"][0], dt.date.max),
    ],
)
def test_a_value_at_the_limit_of_its_type_is_written_and_comes_back(kind: Any, value: Any) -> None:
    codec = schema_of(kind)
    body = codec.encode({"field": value})
    assert body is not None
    assert codec.decode(body) == {"field": value}


EVENT = Codec(
    {
        "type": "record",
        "name": "Event",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {"name": "labels", "type": {"type": "map", "values": "int"}},
            {
                "name": "device",
                "type": {"type": "record", "name": "Device", "fields": [{"name": "os", "type": "string"}]},
            },
            {"name": "count", "type": "int", "default": 0},
        ],
    }
)
GOOD: dict[str, Any] = {"id": "x", "tags": ["a"], "labels": {"k": 1}, "device": {"os": "y"}}


def found(event: Any) -> list[tuple[str, str]]:
    violations = find_violations(EVENT.schema.root, event)
    assert (EVENT.encode(event) is None) == bool(violations)
    assert "secret" not in str([str(violation) for violation in violations])
    return [(violation.path, violation.rule) for violation in violations]


def test_every_violation_is_listed_at_once_in_the_order_of_the_schema() -> None:
    event = {
        "zebra": 1,
        "device": {"os": 5, "extra": 1},
        "labels": {"secret": "secret"},
        "tags": ["a", 5, b""],
        "count": None,
    }
    assert found(event) == [
        ("id", "missing_field"),
        ("tags[1]", "wrong_type"),
        ("tags[2]", "wrong_type"),
        ("labels[0]", "wrong_type"),
        ("device.os", "wrong_type"),
        ("device.extra", "unknown_field"),
        ("count", "wrong_type"),
        ("zebra", "unknown_field"),
    ]


NO_DICTS: tuple[Any, ...] = (None, 5, "secret", b"secret", [], (), Hostile(), MappingProxyType(GOOD), DictLike())


@pytest.mark.parametrize("event", NO_DICTS, ids=range(len(NO_DICTS)))
def test_an_event_that_is_no_dict_has_one_violation_at_its_root(event: Any) -> None:
    assert found(event) == [("", "wrong_type")]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("extra", "extra"),
        ("secret stuff", "<unprintable>"),
        ("x" * 41, "<unprintable>"),
        ("\u00e9", "<unprintable>"),
        ("a\nb", "<unprintable>"),
        ("\ud800", "<unprintable>"),
        ("", "<unprintable>"),
        (5, "<unprintable>"),
        (None, "<unprintable>"),
        (("secret",), "<unprintable>"),
        (TextLike("secret"), "<unprintable>"),
    ],
    ids=range(11),
)
def test_the_name_of_an_unknown_field_is_shown_only_when_it_is_a_short_plain_one(key: Any, shown: str) -> None:
    assert found({**GOOD, key: "secret"}) == [(shown, "unknown_field")]


def test_keys_of_a_map_are_text_and_are_never_shown() -> None:
    labels = {"secret": 1, 5: 1, "secret\ud800": 1, TextLike("secret"): 1}
    rules = [("labels[1]", "wrong_type"), ("labels[2]", "not_text")]
    assert found({**GOOD, "labels": labels}) == rules


def test_a_hostile_key_is_a_violation_and_not_an_exception() -> None:
    assert found({"id": "x", "tags": [], "labels": {}, "device": {}, HostileKey("os"): 1})
    assert found({**GOOD, "device": {HostileKey("os"): "y"}}) == [("device", "unreadable")]


def test_no_more_than_a_hundred_violations_are_listed_and_the_last_says_so() -> None:
    violations = find_violations(EVENT.schema.root, {**GOOD, "tags": [5] * 1_000_000})
    assert len(violations) == MAX_VIOLATIONS + 1
    assert {violation.rule for violation in violations[:-1]} == {"wrong_type"}
    assert violations[-1].rule == "more"
    exactly = find_violations(EVENT.schema.root, {**GOOD, "tags": [5] * MAX_VIOLATIONS})
    assert [violation.rule for violation in exactly] == ["wrong_type"] * MAX_VIOLATIONS


TREE = Codec(
    {
        "type": "record",
        "name": "Tree",
        "fields": [
            {"name": "next", "type": ["null", "Tree"], "default": None},
            {"name": "leaves", "type": {"type": "array", "items": "int"}, "default": []},
        ],
    }
)


def tree(levels: int, **fields: Any) -> dict[str, Any]:
    event: dict[str, Any] = {"leaves": [], **fields}
    for _ in range(levels - 1):
        event = {"next": event, "leaves": []}
    return event


def test_sixty_four_levels_are_taken_and_the_sixty_fifth_is_too_deep() -> None:
    # The array inside the innermost record is a level too.
    assert TREE.decode(TREE.encode(tree(63)) or b"") == {**tree(63), "next": TREE.decode(TREE.encode(tree(62)) or b"")}
    assert TREE.encode(tree(64)) is None
    (violation,) = find_violations(TREE.schema.root, tree(64))
    assert violation.path == "next." * 63 + "leaves"
    assert violation.rule == "too_deep"


def test_a_default_has_to_find_room_within_the_levels_too() -> None:
    event: dict[str, Any] = {}
    for _ in range(63):
        event = {"next": event}
    assert TREE.encode(event) is None
    assert {violation.rule for violation in find_violations(TREE.schema.root, event)} == {"too_deep"}


@pytest.mark.parametrize("levels", [65, 1_000, 100_000])
def test_no_depth_of_data_can_crash_either_road(levels: int) -> None:
    event = tree(levels)
    assert TREE.encode(event) is None
    assert {violation.rule for violation in find_violations(TREE.schema.root, event)} == {"too_deep"}
    while event.get("next"):  # taken apart by hand: Python's own deallocation is not what is tested here
        event = event.pop("next")


def test_an_event_that_holds_itself_is_too_deep() -> None:
    event: dict[str, Any] = {"leaves": []}
    event["next"] = event
    assert TREE.encode(event) is None
    assert {violation.rule for violation in find_violations(TREE.schema.root, event)} == {"too_deep"}


def test_encoding_does_not_change_the_event() -> None:
    event = {"next": {"leaves": [1]}}
    assert TREE.encode(event) is not None
    assert event == {"next": {"leaves": [1]}}
    assert TREE.decode(TREE.encode({}) or b"") == {"next": None, "leaves": []}


def test_a_class_with_a_name_that_is_a_value_does_not_show_it() -> None:
    strange = type("secret value 4711!", (), {})()
    assert find_violations(EVENT.schema.root, strange)[0].found == "object"

    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]  # hostile on purpose
            raise RuntimeError

    assert find_violations(EVENT.schema.root, Meta("Fine", (), {})())[0].found == "Fine"
