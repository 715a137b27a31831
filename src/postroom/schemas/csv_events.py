"""Rows of CSV as events: the header is matched with a contract, the cells are read by its lexical table.

The rules are in docs/specs/lexical-forms.md.
"""

from __future__ import annotations

import functools
import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec

from postroom.libs.exceptions import DecodeError
from postroom.schemas.avro_leaves import is_plain_name
from postroom.schemas.avro_nodes import Field, Leaf, Node, Record, Union
from postroom.schemas.csv_reader import MAX_ROW_BYTES, Row, read_rows
from postroom.schemas.json_reader import MAX_DIGITS, read_json
from postroom.schemas.lexical_forms import reader_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO, Self

    from postroom.libs.event import Violation
    from postroom.schemas.avro_schema import AvroSchema
    from postroom.schemas.data_contracts import Contract

CSV_TYPE: Final = "text/csv; header=present"
"""What the bytes of a CSV event are (RFC 4180, section 3)."""

_WHOLE: Final = re.compile(rf"-?(?:0|[1-9][0-9]{{0,{MAX_DIGITS - 1}}})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_AS_TEXT: Final = frozenset({"string", "enum", "bytes", "fixed", "decimal", "uuid"})
_TRUTH: Final = {"true": True, "false": False}
_SHOWN_COLUMNS: Final = 5

Read: TypeAlias = "Callable[[str], object]"


class CsvEvent(bytes):
    """One row as an event: the bytes of the header row and of its own, which say all, and what was read of them."""

    names: tuple[str, ...]
    row: Row

    @classmethod
    def of(cls, header: Row, row: Row) -> Self:
        """The event of a row below that header."""
        event = cls(b"%s\r\n%s" % (header.raw, row.raw))
        event.names, event.row = header.cells, row
        return event

    @classmethod
    def again(cls, data: bytes) -> Self:
        """The event of bytes that were a CsvEvent, as a dead letter keeps them. Lines count from its header on."""
        rows = read_rows(io.BytesIO(data), max(len(data), 1))
        header = next(rows, Row(1, b"", ()))
        row = next(rows, Row(2, b"", (), "syntax"))
        if next(rows, None) is not None:  # a bad row of several lines is one event all the same
            row = Row(row.line, row.raw, (), "syntax")
        event = cls(data)
        event.names, event.row = header.cells, row
        return event

    def read(self, contract: Contract) -> dict[str, object]:
        """What is to be checked. Raises DecodeError for a row that has no cells, or not one for each column."""
        columns = columns_of(contract.avro, self.names)
        row = self.row
        if row.problem:
            raise DecodeError(f"{_place(row.line, row.column)}: {_PROBLEMS[row.problem]}", reason=row.problem)
        if len(row.cells) != len(self.names):
            what = f"{len(row.cells)} cells, not {len(self.names)}"
            raise DecodeError(f"{_place(row.line)}: {what}", reason="column_count")
        return columns.read(row.cells)

    def located(self, violations: Sequence[Violation]) -> list[Violation]:
        """The violations with line and column in what was found."""
        return [
            msgspec.structs.replace(one, found=f"{one.found} in {_place(self.row.line, self._column(one.path))}")
            for one in violations
        ]

    def _column(self, path: str) -> int:
        """The number of the column that holds what stands at the path, 0 for none or several."""
        field_path = path.partition("[")[0]
        while field_path:
            if field_path in self.names:
                return self.names.index(field_path) + 1
            field_path = field_path.rpartition(".")[0]
        return 0


class NoJson(str):
    """A cell that should be JSON and is not. A subclass of `str` fits no type of a contract, not even string."""

    __slots__ = ()


def csv_events(stream: BinaryIO, contract: Contract, max_bytes: int = MAX_ROW_BYTES) -> Iterator[CsvEvent]:
    """Yield the rows of a CSV file. Raises DecodeError, before the first row, for a header that does not fit."""
    rows = read_rows(stream, max_bytes)
    header = next(rows, None)
    if header is None:
        raise DecodeError(
            "no header row: the file is empty", reason="no_header", remedy="name the fields in the first row"
        )
    if header.raw.startswith((b"\xff\xfe", b"\xfe\xff")) or header.problem == "nul":
        raise DecodeError("the file is UTF-16 or no text at all", reason="not_utf8", remedy="save it as CSV UTF-8")
    if header.problem:
        raise DecodeError(f"the header row: {_PROBLEMS[header.problem]}", reason=header.problem)
    columns_of(contract.avro, header.cells)
    return (CsvEvent.of(header, row) for row in rows)


_PROBLEMS: Final = {
    "syntax": "quotes that do not close, or text behind a closing quote",
    "too_large": "more bytes or lines than an event can have",
    "invalid_utf8": "bytes that are not UTF-8",
    "nul": "a zero byte",
}


def _place(line: int, column: int = 0) -> str:
    return f"line {line}, column {column}" if column else f"line {line}"


# -- columns


class _Cell(NamedTuple):
    at: int
    read: Read


@dataclass(slots=True)
class Columns:
    """The columns of a record's fields: for each field a cell, or the columns of the record in it."""

    parts: dict[str, tuple[Field, _Cell | Columns]] = field(default_factory=dict)

    def read(self, cells: Sequence[str]) -> dict[str, object]:
        """The record of these cells; what does not fit stays text."""
        event: dict[str, object] = {}
        for name, (described, part) in self.parts.items():
            if isinstance(part, _Cell):
                text = cells[part.at]
                if text:
                    event[name] = part.read(text)
                    continue
            elif part.is_filled(cells):
                event[name] = part.read(cells)
                continue
            if described.has_default:
                continue
            if _may_be_null(described.type):
                event[name] = None
            elif not isinstance(part, _Cell):
                event[name] = part.read(cells)
        return event

    def is_filled(self, cells: Sequence[str]) -> bool:
        """Whether any cell holds something."""
        return any(
            cells[part.at] if isinstance(part, _Cell) else part.is_filled(cells) for _, part in self.parts.values()
        )


@functools.lru_cache(maxsize=64)
def columns_of(schema: AvroSchema, names: tuple[str, ...]) -> Columns:
    """The columns of these names. Raises DecodeError for names that do not fit the schema; `reason` says how."""
    assert isinstance(schema.root, Record)
    columns = Columns()
    if not any(_field(schema.root, name.partition(".")[0]) for name in names):  # a row of values, perhaps
        raise DecodeError(
            "none of the columns has the name of a field", reason="unknown_column", remedy=_remedy("".join(names))
        )
    for number, name in enumerate(names, 1):
        _put(columns, schema.root, name, number)
    missing = [item.name for item in schema.root.fields if not item.has_default and item.name not in columns.parts]
    if missing:
        shown = ", ".join(missing[:_SHOWN_COLUMNS]) + (", ..." if len(missing) > _SHOWN_COLUMNS else "")
        raise DecodeError(
            f"no column for {shown}",
            reason="missing_column",
            remedy=f"add it{_hint(names)}, or give the field a default",
        )
    return columns


def _put(columns: Columns, record: Record, name: str, number: int) -> None:
    *outer, last = name.split(".")
    for step in outer:
        described = _field(record, step)
        inner = None if described is None else _record_in(described.type)
        if described is None or inner is None:
            raise _unknown(name, number)
        _, part = columns.parts.setdefault(step, (described, Columns()))
        if isinstance(part, _Cell):
            raise _twice(name, number)
        columns, record = part, inner
    described = _field(record, last)
    if described is None:
        raise _unknown(name, number)
    if last in columns.parts:
        raise _twice(name, number)
    columns.parts[last] = (described, _Cell(number - 1, _cell_reader(described.type)))


def _field(record: Record, name: str) -> Field | None:
    return next((item for item in record.fields if item.name == name), None)


def _record_in(node: Node) -> Record | None:
    """The record that a field holds, if it holds nothing else but null."""
    only = _only_branch(node)
    return only if isinstance(only, Record) else None


def _only_branch(node: Node) -> Node | None:
    """The one branch beside null; None where there are several, or none."""
    if not isinstance(node, Union):
        return node
    others = [branch for branch in node.branches if not _is_null(branch)]
    return others[0] if len(others) == 1 else None


def _is_null(node: Node) -> bool:
    return isinstance(node, Leaf) and node.row == "null"


def _may_be_null(node: Node) -> bool:
    return any(map(_is_null, node.branches)) if isinstance(node, Union) else _is_null(node)


def _shown(name: str) -> str:
    return name if all(is_plain_name(part) for part in name.split(".")) and len(name) <= 80 else "<unprintable>"


def _unknown(name: str, number: int) -> DecodeError:
    text = f"column {number}, {_shown(name)}, is no field"
    return DecodeError(text, reason="unknown_column", remedy=_remedy(name))


def _remedy(name: str) -> str:
    return "separate columns with commas" if ";" in name or "\t" in name else "name the fields in the first row"


def _twice(name: str, number: int) -> DecodeError:
    return DecodeError(
        f"column {number}, {_shown(name)}, says again what another column says", reason="duplicate_column"
    )


def _hint(names: tuple[str, ...]) -> str:
    return " (columns are separated with commas)" if len(names) == 1 and (";" in names[0] or "\t" in names[0]) else ""


# -- cells


def _cell_reader(node: Node) -> Read:
    only = _only_branch(node)
    if not isinstance(only, Leaf):
        return _json_reader(reader_of(node))
    if only.row == "boolean":
        return lambda text: _TRUTH.get(text, text)
    read = reader_of(only)
    if only.row in _AS_TEXT:
        return read
    if only.row in {"float", "double"}:
        return lambda text: read(_number(text))
    return lambda text: read(_whole(text))


def _json_reader(read: Callable[[object], object]) -> Read:
    def read_cell(text: str) -> object:
        try:
            return read(read_json(text))
        except DecodeError:
            return NoJson(text)

    return read_cell


def _whole(text: str) -> object:
    """The whole number that JSON would say with this text; else the text."""
    try:
        return int(text) if _WHOLE.fullmatch(text) else text
    except ValueError:  # the process has set a lower limit of digits than CPython's own
        return text


def _number(text: str) -> object:
    """The number that JSON would say with this text; else the text."""
    if not _NUMBER.fullmatch(text):
        return text
    whole = _whole(text)
    if whole is not text:
        return whole
    number = float(text)
    return text if number in {float("inf"), float("-inf")} else number
