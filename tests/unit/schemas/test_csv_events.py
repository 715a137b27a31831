"""Rows of CSV as events: header, empty cells, every type, and where exactly something is wrong."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import sys
import uuid
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from postroom.libs.exceptions import DecodeError
from postroom.schemas.avro_nodes import Leaf, Node, Record
from postroom.schemas.csv_events import CsvEvent, NoJson, _only_branch, csv_events
from postroom.schemas.data_contracts import Contract, contract_from_short_form
from postroom.schemas.event_checker import find_violations
from postroom.schemas.lexical_forms import _write
from tests.unit.schemas.avro_strategies import UNHURRIED, schemas, values

DEVICE = {
    "type": "record",
    "name": "Device",
    "fields": [{"name": "os", "type": "string"}, {"name": "ram", "type": ["null", "int"]}],
}


def contract(**fields: Any) -> Contract:
    return contract_from_short_form("clicks", fields)


def with_fields(*fields: dict[str, Any]) -> Any:
    from postroom.schemas.avro_schema import parse_schema

    return SimpleNamespace(avro=parse_schema({"type": "record", "name": "A", "fields": list(fields)}))


def events(text: str | bytes, of: Contract) -> list[CsvEvent]:
    content = text.encode() if isinstance(text, str) else text
    return list(csv_events(io.BytesIO(content), of))


def read(text: str, of: Contract) -> dict[str, object]:
    (event,) = events(text, of)
    return event.read(of)


class TestCells:
    @pytest.mark.parametrize(
        ("kind", "cell", "value"),
        [
            ("boolean", "true", True),
            ("boolean", "True", "True"),
            ("boolean", "1", "1"),
            ("int", "-5", -5),
            ("int", "+5", "+5"),
            ("int", "05", "05"),
            ("int", "5.0", "5.0"),
            ("int", " 5", " 5"),
            ("long", "9" * 4300, int("9" * 4300)),
            ("long", "9" * 4301, "9" * 4301),
            ("long", "٣", "٣"),
            ("double", "1e3", 1000.0),
            ("double", "5", 5.0),
            ("double", "1e400", "1e400"),
            ("double", "NaN", "NaN"),
            ("double", ".5", ".5"),
            ("float", "0.5", 0.5),
            ("string", "5", "5"),
            ("string", " a ", " a "),
            ("bytes", "AP8=", b"\x00\xff"),
            ("bytes", "AP8", "AP8"),
            ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "-12.50", Decimal("-12.50")),
            ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "12", Decimal(12)),
            ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, "1e3", "1e3"),
            ({"type": "string", "logicalType": "uuid"}, str(uuid.UUID(int=1)), uuid.UUID(int=1)),
            ({"type": "int", "logicalType": "date"}, "2026-11-23", dt.date(2026, 11, 23)),
            ({"type": "int", "logicalType": "date"}, "1", dt.date(1970, 1, 2)),
            (
                {"type": "long", "logicalType": "timestamp-millis"},
                "1795416182091",
                dt.datetime(2026, 11, 23, 6, 43, 2, 91_000, tzinfo=dt.UTC),
            ),
            (
                {"type": "long", "logicalType": "timestamp-millis"},
                "2026-11-23T06:43:02.091Z",
                dt.datetime(2026, 11, 23, 6, 43, 2, 91_000, tzinfo=dt.UTC),
            ),
            ({"type": "long", "logicalType": "timestamp-nanos"}, "5", 5),
            ({"type": "array", "items": "long"}, '"[1, 2]"', [1, 2]),
            ({"type": "map", "values": "double"}, '"{""a"": 1}"', {"a": 1.0}),
            (["null", "long", "string"], "5", 5),
            (["null", "long", "string"], '"""5"""', "5"),
            (["null", "long", "string"], "null", None),
            (["null", "long"], "5", 5),
        ],
        ids=str,
    )
    def test_each_type_is_read_by_its_row_and_what_does_not_fit_stays_text(
        self, kind: Any, cell: str, value: object
    ) -> None:
        found = read(f"x,y\n{cell},", contract(x=kind, y=["null", "int"]))["x"]
        assert found == value
        assert type(found) is type(value)

    def test_a_process_with_a_lower_limit_of_digits_reads_what_it_may(self) -> None:
        before = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(640)
        try:
            assert read(f"x\n{'9' * 641}", contract(x="long")) == {"x": "9" * 641}
        finally:
            sys.set_int_max_str_digits(before)

    def test_a_cell_that_should_be_json_and_is_not_fits_no_type_not_even_string(self) -> None:
        of = contract(x=["null", "long", "string"])
        event = read("x\nplain", of)
        assert type(event["x"]) is NoJson
        assert of.codec.encode(event) is None
        assert [violation.path for violation in find_violations(of.avro.root, event)] == ["x"]

    def test_empty_cells_are_absent_or_null_by_the_contract(self) -> None:
        of = with_fields(
            {"name": "given", "type": "string", "default": "x"},
            {"name": "maybe", "type": ["null", "string"], "default": None},
            {"name": "open", "type": ["null", "int"]},
            {"name": "must", "type": "string"},
            {"name": "list", "type": {"type": "array", "items": "int"}, "default": []},
        )
        (event,) = csv_events(io.BytesIO(b'given,maybe,open,must,list\n,"",,,\n'), of)
        assert event.read(of) == {"open": None}

    def test_fields_of_a_record_have_columns_of_their_own(self) -> None:
        of = contract(id="string", device=DEVICE)
        assert read("device.os,id,device.ram\nlinux,a,\n", of) == {"id": "a", "device": {"os": "linux", "ram": None}}
        assert read("id,device.os,device.ram\na,,\n", of) == {"id": "a", "device": {"ram": None}}
        assert read('id,device\na,"{""os"": ""x"", ""ram"": 5}"\n', of) == {"id": "a", "device": {"os": "x", "ram": 5}}

    def test_a_record_that_may_be_null_is_null_when_all_its_cells_are_empty(self) -> None:
        of = contract(id="string", device=["null", DEVICE])
        assert read("id,device.os,device.ram\na,,\n", of) == {"id": "a", "device": None}
        assert read("id,device.os,device.ram\na,,5\n", of) == {"id": "a", "device": {"ram": 5}}
        plain = with_fields({"name": "d", "type": ["null", DEVICE], "default": None}, {"name": "id", "type": "string"})
        (event,) = csv_events(io.BytesIO(b"id,d.os\na,\n"), plain)
        assert event.read(plain) == {"id": "a"}


class TestHeader:
    @pytest.mark.parametrize(
        ("content", "reason", "told"),
        [
            (b"", "no_header", "header"),
            (b"\n\n", "no_header", "header"),
            (b"id,n,x\n", "unknown_column", "column 3, x,"),
            (b"id,n,\n", "unknown_column", "column 3, <unprintable>,"),
            (b"id,n,two words\n", "unknown_column", "column 3, <unprintable>,"),
            (b"id,n,id.x\n", "unknown_column", "column 3, id.x,"),
            (b"id,n,ID\n", "unknown_column", "column 3, ID,"),
            (b" id,n\n", "unknown_column", "column 1"),
            (b"id,n,id\n", "duplicate_column", "column 3, id,"),
            (b"id\n", "missing_column", "n"),
            (b"id;n\n", "unknown_column", "commas"),
            (b'"id\n', "syntax", "quotes"),
            (b"id,\xff\n", "invalid_utf8", "UTF-8"),
            ("id,n\n".encode("utf-16"), "not_utf8", "UTF-16"),
            ("id,n\n".encode("utf-16-le"), "not_utf8", "UTF-16"),
        ],
    )
    def test_one_that_does_not_fit_stops_the_file(self, content: bytes, reason: str, told: str) -> None:
        with pytest.raises(DecodeError) as caught:
            events(content, contract(id="string", n="long"))
        assert caught.value.reason == reason
        assert told in str(caught.value)

    @pytest.mark.parametrize("header", ["id,device,device.os", "id,device.os,device"])
    def test_a_record_and_its_field_are_one_column_too_many(self, header: str) -> None:
        with pytest.raises(DecodeError) as caught:
            events(f"{header}\n", contract(id="string", device=DEVICE))
        assert caught.value.reason == "duplicate_column"

    def test_the_order_is_free_and_excel_s_mark_is_no_part_of_a_name(self) -> None:
        of = contract(id="string", n="long")
        assert read("\ufeffn,id\r\n5,a\r\n", of) == {"id": "a", "n": 5}


class TestWhereItIs:
    def found(self, text: str | bytes, of: Contract) -> list[str]:
        told = []
        for event in events(text, of):
            try:
                problems = event.located(find_violations(of.avro.root, event.read(of)))
            except DecodeError as error:
                told.append(error.message)
            else:
                told += [f"{problem.path}: {problem.found}" for problem in problems]
        return told

    def test_every_violation_says_its_line_and_column(self) -> None:
        of = contract(id="string", n="long", device=DEVICE, tags={"type": "array", "items": "int"})
        text = 'device.os,id,n,tags,device.ram\nlinux,"a\nb",x,"[1, ""y""]",z\n\n,a,5,[],\n'
        assert self.found(text, of) == [
            "n: str in line 2, column 3",
            "device.ram: str in line 2, column 5",
            "tags[1]: str in line 2, column 4",
            "device.os: absent in line 5, column 1",
        ]

    def test_what_is_wrong_inside_a_cell_of_json_or_has_no_column_is_located_as_far_as_it_goes(self) -> None:
        of = contract(id="string", device=DEVICE)
        assert self.found('id,device\na,"{""os"": 5, ""ram"": 5}"\n', of) == ["device.os: int in line 2, column 2"]
        assert self.found("id,device.os\na,linux\n", of) == ["device.ram: absent in line 2"]

    def test_a_row_without_the_right_cells_says_where_and_why(self) -> None:
        of = contract(id="string", n="long")
        text = b'id,n\na\na,1,2\n"open,1\na,\xff\na,\x00\na,1\n'
        assert self.found(text, of) == [
            "line 2: 1 cells, not 2",
            "line 3: 3 cells, not 2",
            "line 4: quotes that do not close, or text behind a closing quote",
            "line 5, column 2: bytes that are not UTF-8",
            "line 6, column 2: a zero byte",
        ]


class TestItsBytes:
    @pytest.mark.parametrize("row", ["a,5", '"a\r\nb",5', "a,x", "a", '"open,5', "a,\x00"])
    def test_an_event_is_its_header_and_its_row_and_can_be_read_again(self, row: str) -> None:
        of = contract(id="string", n="long")
        event = events(f"\ufeffid,n\n{row}\nb,1\n", of)[0]
        assert bytes(event) == f"id,n\r\n{row}".encode()
        again = CsvEvent.again(bytes(event))
        assert (again, again.names, again.row.cells) == (event, event.names, event.row.cells)
        assert again.row.problem == event.row.problem

    @pytest.mark.parametrize("data", [b"", b"id,n", b"id,n\r\na,1\r\nb,2", b'"id\r\n"', b"\xff\xfe", b"x,y\r\n1,2"])
    def test_what_was_never_one_is_a_decode_error(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            CsvEvent.again(data).read(contract(id="string", n="long"))


def cell(node: Node, value: object) -> str:
    """The cell of a value, as docs/specs/lexical-forms.md says it."""
    if value is None:
        return "" if _only_branch(node) is not None else "null"
    only, written = _only_branch(node), _write(node, value)
    if isinstance(only, Leaf) and isinstance(written, str):
        assume(written != "")
        return written
    if isinstance(only, Leaf) and isinstance(written, float):
        return repr(written)
    return json.dumps(written)


@UNHURRIED
@given(data=st.data())
def test_every_valid_event_that_csv_can_hold_comes_back(data: st.DataObject) -> None:
    _, schema = data.draw(schemas())
    assert isinstance(schema.root, Record)
    event = data.draw(values(schema.root))
    present = [item for item in schema.root.fields if item.name in event]
    assume(present)
    assume(not any(item.has_default and event[item.name] is None and _only_branch(item.type) for item in present))
    texts = [cell(item.type, event[item.name]) for item in present]
    assume(not any("\0" in text for text in texts))
    out = io.StringIO()
    csv.writer(out).writerows([[item.name for item in present], texts])
    of: Any = SimpleNamespace(avro=schema)
    (found,) = csv_events(io.BytesIO(out.getvalue().encode()), of)
    assert found.read(of) == event
    assert CsvEvent.again(bytes(found)).read(of) == event
