"""Rows of CSV as they really come: every quote and line end, rubbish between good rows, in bounded memory and time."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.schemas import csv_reader
from postroom.schemas.csv_reader import read_rows

if TYPE_CHECKING:
    from postroom.schemas.csv_reader import Row


def rows(content: bytes, max_bytes: int = 1_000) -> list[Row]:
    return list(read_rows(io.BytesIO(content), max_bytes))


def cells(content: bytes) -> list[tuple[str, ...]]:
    return [row.cells for row in rows(content)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n\r\n\n", []),
        (b"\xef\xbb\xbf", []),
        (b"a,b", [("a", "b")]),
        (b"a,b\n1,2\n", [("a", "b"), ("1", "2")]),
        (b"a,b\r\n1,2\r\n", [("a", "b"), ("1", "2")]),
        (b"\xef\xbb\xbfa\n1", [("a",), ("1",)]),
        (b'\xef\xbb\xbf"a"\n1', [("a",), ("1",)]),
        (b"a\n\xef\xbb\xbf1", [("a",), ("\ufeff1",)]),
        (b'"a,b","c""d","e\nf","g\r\nh"\n', [("a,b", 'c"d', "e\nf", "g\r\nh")]),
        (b'5" pipe,x\n', [('5" pipe', "x")]),
        (b" a , b \n", [(" a ", " b ")]),
        (b",\n", [("", "")]),
        ("é,😀\n".encode(), [("é", "😀")]),
    ],
)
def test_rows_come_as_they_were_written(content: bytes, expected: list[tuple[str, ...]]) -> None:
    assert cells(content) == expected


@pytest.mark.parametrize(
    ("bad", "problem", "column"),
    [
        (b'x,"open', "syntax", 0),
        (b'"a"b,c', "syntax", 0),
        (b"a\rb", "syntax", 0),
        (b"a,\xff", "invalid_utf8", 2),
        (b"\xed\xa0\x80,b", "invalid_utf8", 1),
        (b"a,\x00b", "nul", 2),
        (b"x" * 1_001, "too_large", 0),
        (b'"' + b"x" * 1_001 + b'"', "too_large", 0),
    ],
)
def test_a_bad_row_is_told_and_those_around_it_are_whole(bad: bytes, problem: str, column: int) -> None:
    first, middle, *last = rows(b"a,b\n" + bad + b"\nc,d\n\ne,f\n")
    assert (first.line, first.cells) == (1, ("a", "b"))
    assert (middle.line, middle.problem, middle.column, middle.raw) == (2, problem, column, bad[:1_000])
    assert [(row.line, row.cells) for row in last] == [(3, ("c", "d")), (5, ("e", "f"))]


def test_the_line_of_a_row_is_the_one_in_which_it_begins() -> None:
    found = rows(b'a\n"1\n2\n3"\n\n4\n')
    assert [(row.line, row.raw) for row in found] == [(1, b"a"), (2, b'"1\n2\n3"'), (6, b"4")]


def test_quotes_that_never_close_cost_one_row_and_no_more() -> None:
    found = rows(b'a\n"open\n' + b"x\n" * 20)
    assert [row.problem for row in found] == ["", "syntax", *[""] * 20]
    assert [row.line for row in found] == list(range(1, 23))
    found = rows(b'"open\n' + b"x\n" * 2_000)
    assert [row.problem for row in found] == ["too_large", *[""] * 2_000]


def test_a_row_of_too_many_lines_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "MAX_ROW_LINES", 3)
    found = rows(b'"1\n2\n3"\n"1\n2\n3\n4"\nx\n')
    assert [(row.line, row.problem) for row in found][:2] == [(1, ""), (4, "too_large")]
    assert (found[-1].line, found[-1].cells) == (8, ("x",))


def test_a_file_made_to_be_read_again_and_again_takes_linear_time() -> None:
    """Every line closes the quotes of the one before and opens new ones: each row is the rest of the file."""
    content = b'a","b\n' * 50_000
    began = time.perf_counter()
    found = rows(content, 20_000)
    assert time.perf_counter() - began < 20.0
    assert len(found) > 1
    assert sum(max(1, row.raw.count(b"\n") + 1) for row in found if row.problem) >= 50_000 - 2
    assert all(row.problem for row in found)


def test_a_cell_may_be_as_long_as_a_row() -> None:
    long = "x" * 500_000
    assert rows(f"{long},y\n".encode(), 1_000_000)[0].cells == (long, "y")


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(
    table=st.lists(st.lists(CELL, min_size=2, max_size=3), min_size=1, max_size=5), end=st.sampled_from(["\n", "\r\n"])
)
def test_what_the_standard_library_writes_comes_back(table: list[list[str]], end: str) -> None:
    out = io.StringIO()
    # With line ends of its own the writer leaves a bare CR in a cell unquoted, which then is part of a line end.
    writer = csv.writer(out, lineterminator=end) if end == "\r\n" else csv.writer(out, "unix")
    writer.writerows(table)
    if out.getvalue().startswith("\ufeff"):
        return
    assert cells(out.getvalue().encode()) == [tuple(row) for row in table]


@given(content=st.binary(max_size=200) | st.text('a,"\n\r', max_size=60).map(str.encode))
def test_no_file_is_more_than_rows(content: bytes) -> None:
    found = rows(content, 40)
    lines = [row.line for row in found]
    assert lines == sorted(set(lines))
    assert all(bool(row.problem) != bool(row.cells) for row in found)
    assert all(row.raw in content for row in found)


@given(bad=st.text('a,"', min_size=1, max_size=20))
def test_whatever_stands_in_a_line_the_good_rows_after_it_are_read_if_none_of_them_holds_quotes(bad: str) -> None:
    found = rows(f"{bad}\nx,y\n1,2\n".encode())
    assert [row.cells for row in found][-2:] == [("x", "y"), ("1", "2")]
