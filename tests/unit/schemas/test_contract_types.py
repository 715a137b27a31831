"""The types of a contract: every record a TypedDict with the Python types of the lexical table."""

from __future__ import annotations

import typing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, given, settings

from postroom.schemas.avro_nodes import PYTHON_TYPES
from postroom.schemas.avro_schema import AvroSchema, try_schema
from postroom.schemas.contract_types import _PYTHON, types_module
from postroom.schemas.data_contracts import Contract, load_contract, packaged_contracts
from tests.unit.schemas.avro_strategies import schemas

if TYPE_CHECKING:
    from pathlib import Path

ALL = """\
name: order.placed
version: 3
topic: orders
schema:
  type: record
  name: shop.Order
  fields:
    - {name: id, type: {type: string, logicalType: uuid}}
    - {name: total, type: {type: bytes, logicalType: decimal, precision: 12, scale: 2}}
    - {name: at, type: {type: long, logicalType: timestamp-millis}}
    - {name: day, type: {type: int, logicalType: date}}
    - {name: state, type: {type: enum, name: State, symbols: [NEW, PAID]}}
    - {name: note, type: ["null", string], default: null}
    - {name: lines, type: {type: array, items: {type: record, name: Line, fields: [{name: class, type: int}]}}}
    - {name: parent, type: ["null", Order], default: null}
    - {name: extra, type: {type: map, values: [long, string]}}
    - {name: raw, type: {type: fixed, name: F, size: 2}}
"""


def made(text: str) -> dict[str, Any]:
    """The module's names after it ran."""
    names: dict[str, Any] = {"__name__": "made"}
    exec(compile(text, "made.py", "exec"), names)
    return names


def contract(tmp_path: Path, text: str) -> Contract:
    path = tmp_path / "contract.yaml"
    path.write_text(text)
    return load_contract(path)


def test_every_type_has_its_python_type(tmp_path: Path) -> None:
    text = types_module([contract(tmp_path, ALL)])
    assert 'class OrderPlaced(TypedDict):\n    """An event of order.placed, version 3."""\n' in text
    for line in (
        "id: uuid.UUID",
        "total: decimal.Decimal",
        "at: dt.datetime",
        "day: dt.date",
        'state: Literal["NEW", "PAID"]',
        "note: NotRequired[str | None]",
        "lines: list[Line]",
        "parent: NotRequired[OrderPlaced | None]",
        "extra: dict[str, int | str]",
        "raw: bytes",
    ):
        assert f"\n    {line}\n" in f"{text}\n"
    names = made(text)
    hints = typing.get_type_hints(names["OrderPlaced"], names)
    assert (typing.get_args(hints["lines"]), hints["note"]) == ((names["Line"],), str | None)
    assert typing.get_type_hints(names["Line"], names) == {"class": int}


def test_rows_are_those_of_the_lexical_table() -> None:
    assert set(_PYTHON) | {"enum"} == set(PYTHON_TYPES)


def test_only_what_is_needed_is_imported() -> None:
    text = types_module(list(packaged_contracts().values()))
    assert "import datetime" not in text
    assert "from typing import Literal, NotRequired, TypedDict\n" in text


@pytest.mark.parametrize("name", ["int", "uuid", "__x", "None", "UserEvent", "Literal"])
def test_names_that_a_class_would_take_for_others_are_written_as_texts(tmp_path: Path, name: str) -> None:
    text = f"name: user_event\nversion: 1\ntopic: t\nschema: {{{name}: long, b: {{type: string, logicalType: uuid}}}}\n"
    names = made(types_module([contract(tmp_path, text)]))
    assert list(typing.get_type_hints(names["UserEvent"], names)) == [name, "b"]


def test_two_records_of_one_short_name_get_two_classes(tmp_path: Path) -> None:
    inner = "{{name: {0}, type: {{type: record, name: {0}.int, fields: [{{name: x, type: int}}]}}}}"
    fields = ", ".join(inner.format(space) for space in ("a", "b"))
    text = f"name: n\nversion: 1\ntopic: t\nschema: {{type: record, name: N, fields: [{fields}]}}\n"
    names = made(types_module([contract(tmp_path, text)]))
    assert names["__all__"] == ["N", "a_int", "b_int"]


@given(drawn=schemas())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_schema_is_the_module_is_python_and_every_name_is_known(drawn: tuple[Any, AvroSchema]) -> None:
    raw = {"type": "record", "name": "zz.Root", "fields": [{"name": "v", "type": drawn[0]}]}
    avro, problems = try_schema(raw)
    assert avro is not None, problems
    stand_in = cast("Contract", SimpleNamespace(name="event", version=1, avro=avro))
    names = made(types_module([stand_in]))
    for name in names["__all__"]:
        typing.get_type_hints(names[name], names)
