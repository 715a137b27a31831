"""The same rule, the same event, the same verdict as the official client's own executors: its form is its meaning."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from benchmarks.rules import StandIn, filled, official
from confluent_kafka.serialization import SerializationError

from postroom.schemas import rule_compiler
from tests.unit.schemas.rule_contracts import cel, cel_field, load

if TYPE_CHECKING:
    from pathlib import Path

# No boolean that is false, and no bad items in arrays and maps: there the two differ, as design note 0007 says.
SCHEMA = {"type": "record", "name": "shop.Thing", "fields": [
    {"name": "id", "type": "string", "confluent:tags": ["KEY"]},
    {"name": "count", "type": "int", "default": 7},
    {"name": "price", "type": "double", "default": 1.5},
    {"name": "email", "type": ["null", "string"], "default": None, "confluent:tags": ["PII"]},
    {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
    {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
    {"name": "uid", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": None},
    {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED"]}, "default": "RED",
     "confluent:tags": ["PII"]},
    {"name": "either", "type": ["null", "long", "string"], "default": None, "confluent:tags": ["EITHER"]},
    {"name": "names", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "scores", "type": {"type": "map", "values": "long"}, "default": {}},
    {"name": "home", "type": ["null", {"type": "record", "name": "Address", "fields": [
        {"name": "street", "type": "string", "confluent:tags": ["PII"]},
        {"name": "zip", "type": ["null", "string"], "default": None},
    ]}], "default": None},
]}  # fmt: skip

EVENTS: list[dict[str, Any]] = [
    {"id": "a"},
    {"id": "", "count": 0, "price": 0.0},
    {"id": "b", "email": "a@b.org", "either": 7},
    {"id": "c", "email": "nobody", "either": "seven"},
    {"id": "d", "at": dt.datetime(2026, 11, 25, tzinfo=dt.UTC), "day": dt.date(1970, 1, 3)},
    {"id": "e", "at": dt.datetime(1999, 1, 1, tzinfo=dt.UTC), "uid": uuid.UUID(int=7)},
    {"id": "f", "names": ["x", "yy"], "scores": {"x": 1}},
    {"id": "g", "home": {"street": "Main@Street", "zip": "1"}},
    {"id": "h", "home": {"street": "", "zip": None}},
]

RULES = [
    cel("message.id != '' && message.count > 0"),
    cel("message.price >= 0.5 || message.count == 0"),
    cel("message.email == null || message.email.endsWith('.org')"),
    cel("message.email != null ; message.email.matches('^[a-z]+@')"),
    cel("message.email.size() > 1"),  # of a null: an error, and so a failure
    cel("message.at == null || message.at > timestamp('2020-01-01T00:00:00Z')"),
    cel("message.day == null || message.day == 2"),
    cel("message.uid == null || message.uid.endsWith('0007')"),
    cel("message.colour in ['RED', 'BLUE']"),
    cel("message.names.all(n, n.size() > 1)"),
    cel("'x' in message.scores ; message.scores['x'] > 1"),
    cel("message.scores['x'] == 1"),
    cel("message.home == null || message.home.zip != null"),
    cel("message.count / (message.count - 7) > 0"),
    cel_field("typeName == 'STRING' ; value.contains('@')", "PII"),
    cel_field("typeName != 'NULL'", "EITHER"),
    cel_field("typeName == 'LONG' ; value > 7", "EITHER", "PII"),
    cel_field("name == 'id' ; fullName == 'shop.Thing.id'", "KEY"),
    cel_field("name == 'street' ; message.zip != null", "PII"),
    cel_field("'KEY' in tags ; dyn(value) != dyn('a')"),
    cel_field("typeName == 'ENUM' ; false", "PII"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["expr"])
def test_both_give_the_same_verdict_on_every_event(
    rule: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_compiler, "_try_known_bad", lambda *_: None)
    contract = load(tmp_path, [rule], {"rule": {}}, schema=SCHEMA)
    assert contract.conditions is not None
    registry = StandIn(contract, with_rules=True)
    try:
        serialize = official(registry.url)
        for event in EVENTS:
            whole = filled(contract, event)
            assert bool(contract.conditions.failures(event)) == _refuses(serialize, whole), event
    finally:
        registry.close()


def _refuses(serialize: Any, event: dict[str, Any]) -> bool:
    try:
        serialize(event)
    except SerializationError:
        return True
    return False
