"""The lexical table: JSON to events and back, losslessly, and what is left for the validator to name."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.schemas.avro_codec import Codec
from postroom.schemas.avro_leaves import LOCAL_EPOCH
from postroom.schemas.event_checker import find_violations
from postroom.schemas.json_reader import from_json, read_json, to_json
from tests.unit.schemas.avro_strategies import UNHURRIED, filled, schemas, values
from tests.unit.schemas.test_json_reader import JSON_VALUES
from tests.unit.schemas.test_two_roads import same

UTC = dt.UTC
ID = uuid.UUID("018f0000-0000-7000-8000-00000000abcd")


def logical(base: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": base, "logicalType": name, **more}


MILLIS, MICROS = logical("long", "timestamp-millis"), logical("long", "timestamp-micros")
LOCAL, DATE = logical("long", "local-timestamp-millis"), logical("int", "date")
CLOCK, CLOCK_MICROS = logical("int", "time-millis"), logical("long", "time-micros")
UUID, MONEY = logical("string", "uuid"), logical("bytes", "decimal", precision=6, scale=2)
FIXED = {"type": "fixed", "name": "F", "size": 2}
LEFT = object()
"""In the table below: the value stays as it is."""

TABLE: tuple[tuple[Any, Any, Any], ...] = (
    ("double", 5, 5.0),
    ("double", -0, 0.0),
    ("float", 5, 5.0),
    ("double", 2**53 + 1, LEFT),
    ("double", 10**400, LEFT),
    ("double", 2**1024 - 1, LEFT),
    ("double", 2**60, 2.0**60),
    ("double", True, LEFT),
    ("double", "1.5", LEFT),
    ("int", 5.0, LEFT),
    ("int", "5", LEFT),
    ("boolean", 1, LEFT),
    ("string", 5, LEFT),
    ("string", "x", "x"),
    ("null", "null", LEFT),
    ("bytes", "", b""),
    ("bytes", "/+8=", b"\xff\xef"),
    ("bytes", "_-8=", LEFT),
    ("bytes", "/+8", LEFT),
    ("bytes", "/+9=", LEFT),
    ("bytes", "/+ 8=", LEFT),
    ("bytes", "\u00e9", LEFT),
    ("bytes", [1], LEFT),
    (FIXED, "YWI=", b"ab"),
    (FIXED, "YQ==", b"a"),
    (MONEY, "12.34", Decimal("12.34")),
    (MONEY, "-0.5", Decimal("-0.5")),
    (MONEY, 12, Decimal(12)),
    (MONEY, 12.34, LEFT),
    (MONEY, "1e2", LEFT),
    (MONEY, "NaN", LEFT),
    (MONEY, ".5", LEFT),
    (MONEY, "01", LEFT),
    (MONEY, "1_0", LEFT),
    (MONEY, "\u0661", LEFT),
    (MONEY, " 1", LEFT),
    (MONEY, "1\n", LEFT),
    (UUID, str(ID), ID),
    (UUID, str(ID).upper(), ID),
    (UUID, ID.hex, LEFT),
    (UUID, f"{{{ID}}}", LEFT),
    (UUID, f"urn:uuid:{ID}", LEFT),
    (UUID, "018f0000-0000-7000-8000-00000000abc\u0664", LEFT),
    (UUID, 5, LEFT),
    (DATE, "2024-02-29", dt.date(2024, 2, 29)),
    (DATE, "2023-02-29", LEFT),
    (DATE, "20240229", LEFT),
    (DATE, 0, dt.date(1970, 1, 1)),
    (DATE, "2024-02-29T00:00:00Z", LEFT),
    (DATE, 2**31 - 1, LEFT),
    (DATE, 2**31, LEFT),
    (DATE, "0000-01-01", LEFT),
    (CLOCK, "12:30:45", dt.time(12, 30, 45)),
    (CLOCK, "12:30:45.123", dt.time(12, 30, 45, 123000)),
    (CLOCK, "24:00:00", LEFT),
    (CLOCK, "12:30", LEFT),
    (CLOCK, "12:30:45Z", LEFT),
    (CLOCK, 1, dt.time(0, 0, 0, 1000)),
    (CLOCK, -1, LEFT),
    (CLOCK, 86_400_000, LEFT),
    (CLOCK_MICROS, "00:00:00.000001", dt.time(0, 0, 0, 1)),
    (CLOCK_MICROS, 1, dt.time(0, 0, 0, 1)),
    (MILLIS, "2026-11-23T14:43:02.091Z", dt.datetime(2026, 11, 23, 14, 43, 2, 91000, UTC)),
    (MILLIS, "2026-11-23t14:43:02z", dt.datetime(2026, 11, 23, 14, 43, 2, 0, UTC)),
    (MILLIS, "2026-11-23 14:43:02+02:00", dt.datetime(2026, 11, 23, 12, 43, 2, 0, UTC)),
    (MILLIS, "2026-11-23T14:43:02-00:00", dt.datetime(2026, 11, 23, 14, 43, 2, 0, UTC)),
    (MILLIS, 1795416182091, dt.datetime(2026, 11, 23, 6, 43, 2, 91000, UTC)),
    (MILLIS, "2026-11-23T14:43:02", LEFT),
    (MILLIS, "2026-11-23", LEFT),
    (MILLIS, "2026-11-23T14:43:60Z", LEFT),
    (MILLIS, "2026-11-23T14:43:02+24:00", LEFT),
    (MILLIS, "2026-11-23T14:43:02+02:60", LEFT),
    (MILLIS, "2026-11-23T14:43:02.Z", LEFT),
    (MILLIS, "2026-11-23T14:43:02.0000001Z", LEFT),
    (MILLIS, "1795416182091", LEFT),
    (MILLIS, 2**63 - 1, LEFT),
    (MILLIS, 2**64, LEFT),
    (MILLIS, 1.5, LEFT),
    (MILLIS, True, LEFT),
    (MICROS, "2026-11-23T14:43:02.0912340Z", dt.datetime(2026, 11, 23, 14, 43, 2, 91234, UTC)),
    (LOCAL, "2026-11-23T14:43:02.091", LOCAL_EPOCH.replace(2026, 11, 23, 14, 43, 2, 91000)),
    (LOCAL, "2026-11-23T14:43:02Z", LEFT),
    (LOCAL, 0, LOCAL_EPOCH),
    (logical("long", "timestamp-nanos"), 5, 5),
    (["null", "double"], 5, 5.0),
    (["null", "double"], None, None),
    (["long", "double"], 5, 5),
    (["long", "double"], 2**63, LEFT),
    (["long", "double"], 5.0, 5.0),
    (["null", MILLIS], 0, dt.datetime(1970, 1, 1, tzinfo=UTC)),
    (["null", "bytes"], "YQ==", b"a"),
    (["null", MONEY], 5, Decimal(5)),
    (["string", "bytes"], "YQ==", "YQ=="),
    (["string", "bytes"], {"bytes": "YQ=="}, b"a"),
    (["string", "bytes"], {"string": "YQ=="}, "YQ=="),
    (["string", "bytes"], {"int": 5}, LEFT),
    (["null", "string"], {"string": "x"}, LEFT),
    (["null", UUID, MILLIS], str(ID), LEFT),
    (["null", UUID, MILLIS], {"string": str(ID)}, ID),
    (["int", "string"], "5", "5"),
)


@pytest.mark.parametrize(("kind", "data", "value"), TABLE, ids=range(len(TABLE)))
def test_json_is_read_by_the_table_exactly_or_left_as_it_is(kind: Any, data: Any, value: Any) -> None:
    schema = Codec({"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}).schema
    expected = data if value is LEFT else value
    read = from_json(schema, {"f": data})["f"]
    assert read == expected
    assert type(read) is type(expected)
    if value is LEFT:
        assert find_violations(schema.root, {"f": read})


@settings(UNHURRIED, max_examples=300)
@given(st.data())
def test_a_valid_event_comes_back_from_its_json_text(data: st.DataObject) -> None:
    _, schema = data.draw(schemas())
    event = data.draw(values(schema.root))
    text = json.dumps(to_json(schema, event), allow_nan=False)
    again = from_json(schema, read_json(text))
    assert same(schema.root, filled(schema.root, event), filled(schema.root, again))


@UNHURRIED
@given(st.data(), JSON_VALUES)
def test_any_json_is_read_by_any_schema_without_an_error(data: st.DataObject, value: Any) -> None:
    _, schema = data.draw(schemas())
    before = json.dumps(value)
    read = from_json(schema, value)
    assert json.dumps(value) == before
    assert (Codec(schema).encode(read) is None) == bool(find_violations(schema.root, read))


def test_json_that_is_too_deep_for_any_event_is_left_alone() -> None:
    linked = {
        "type": "record",
        "name": "L",
        "fields": [{"name": "next", "type": ["null", "L"]}, {"name": "d", "type": "double"}],
    }
    data: dict[str, Any] = {"d": 1}
    for _ in range(100_000):
        data = {"next": data, "d": 1}
    schema = Codec(linked).schema
    read = from_json(schema, data)
    assert type(read["d"]) is float
    assert {violation.rule for violation in find_violations(schema.root, read)} == {"too_deep"}
    for chain in (read, data):
        while chain:
            chain = chain.pop("next", None)  # noqa: PLW2901  taken apart by hand, without recursion


def test_numbers_in_an_event_of_doubles_can_be_written_as_a_person_would() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "xs", "type": {"type": "array", "items": "double"}}]}
    assert from_json(schema, read_json('{"xs": [1, 2.5, 3e2]}')) == {"xs": [1.0, 2.5, 300.0]}
