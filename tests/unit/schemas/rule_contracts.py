"""Contracts with rules for tests: a schema of every kind of value, and what is needed around one rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from postroom.schemas.data_contracts import load_contract

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.schemas.data_contracts import Contract

FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "string", "confluent:tags": ["KEY"]},
    {"name": "count", "type": "int", "default": 7},
    {"name": "price", "type": "double", "default": 1.5},
    {"name": "email", "type": ["null", "string"], "default": None, "confluent:tags": ["PII"]},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
    {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}, "default": 0},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}, "default": 3},
    {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}, "default": 1000},
    {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "default": "d"},
    {"name": "uid", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": None},
    {"name": "raw", "type": "bytes", "default": "ab"},
    {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}, "default": "ab"},
    {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}, "default": "RED"},
    {"name": "either", "type": ["null", "long", "string", "boolean"], "default": None, "confluent:tags": ["EITHER"]},
    {"name": "names", "type": {"type": "array", "items": "string"}, "default": [], "confluent:tags": ["PII"]},
    {"name": "scores", "type": {"type": "map", "values": "long"}, "default": {}, "confluent:tags": ["SCORE"]},
    {"name": "grid", "type": {"type": "array", "items": {"type": "array", "items": "long"}}, "default": []},
    {"name": "book", "type": {"type": "map", "values": {"type": "array", "items": "string"}}, "default": {}},
    {"name": "a_map", "type": {"type": "map", "values": "long"}, "default": {}},
    {"name": "aMap", "type": {"type": "map", "values": {"type": "map", "values": "long"}}, "default": {}},
    {
        "name": "home",
        "type": {"type": "record", "name": "Address", "fields": [
            {"name": "street", "type": "string", "confluent:tags": ["PII"]},
            {"name": "zip", "type": ["null", "string"], "default": None},
        ]},
        "default": {"street": "Main Street"},
    },
    {"name": "others", "type": {"type": "array", "items": "Address"}, "default": []},
    {"name": "work", "type": ["null", "Address"], "default": None},
]  # fmt: skip
EVENT = {"id": "i1"}


def contract_text(rules: list[dict[str, Any]], known_bad: dict[str, Any], **more: Any) -> str:
    """The text of a contract with these rules over the schema of every kind."""
    contract = {
        "name": "thing",
        "version": 1,
        "topic": "things",
        "schema": {"type": "record", "name": "shop.Thing", "fields": FIELDS},
        "ruleSet": {"domainRules": rules},
        "known_bad": known_bad,
        **more,
    }
    return yaml.safe_dump(contract, sort_keys=False)


def load(folder: Path, rules: list[dict[str, Any]], known_bad: dict[str, Any], **more: Any) -> Contract:
    """The contract that `contract_text` gives, loaded."""
    path = folder / "thing.yaml"
    path.write_text(contract_text(rules, known_bad, **more), encoding="utf-8")
    return load_contract(path)


def cel(expr: str, **more: Any) -> dict[str, Any]:
    """A rule of type CEL called `rule`."""
    return {"name": "rule", "type": "CEL", "expr": expr, **more}


def cel_field(expr: str, *tags: str, **more: Any) -> dict[str, Any]:
    """A rule of type CEL_FIELD called `rule`."""
    return {"name": "rule", "type": "CEL_FIELD", "tags": list(tags), "expr": expr, **more}
