"""CSV files as rows of cells: one bad row never hurts the next, whatever the file holds, in bounded memory and time.

The rules are in docs/specs/lexical-forms.md. Cells are split by the standard library's reader, strictly.
"""

from __future__ import annotations

import csv
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MAX_ROW_BYTES: Final = 16 * 1024 * 1024
MAX_ROW_LINES: Final = 65_536

# How much of what was read may be read again because a row turned out bad: keeps the time linear.
_READ_AGAIN: Final = 8
_BOM: Final = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One row: the number of its first line, its bytes without the line end, its cells, and what is wrong with it.

    `problem` is a code (`syntax`, `too_large`, `invalid_utf8`, `nul`) or empty; `column` counts from 1, 0 is unknown.
    """

    line: int
    raw: bytes
    cells: tuple[str, ...]
    problem: str = ""
    column: int = 0


class _TooLargeError(Exception):
    """The row has more bytes or lines than any event."""


def read_rows(stream: BinaryIO, max_bytes: int = MAX_ROW_BYTES) -> Iterator[Row]:
    """Yield the rows of a CSV file; lines without anything are left out. Never raises for what the file holds."""
    # The standard library has one limit for the whole process, 128 KiB at first; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    lines = _Lines(stream, max_bytes)
    while True:
        lines.begin_row()
        problem = ""
        cells: list[str] = []
        try:
            # A reader for each row: none begins in the middle of what another left behind.
            cells = next(csv.reader(lines, strict=True))
        except StopIteration:
            return
        except csv.Error:
            problem = "syntax"
        except _TooLargeError:
            problem = "too_large"
        first = lines.number
        if problem:
            yield Row(first, _without_end(lines.give_back_all_but_the_first(), max_bytes), (), problem)
        elif cells:
            yield _checked(first, lines.raw(), cells)


class _Lines:
    """The lines of a file as text, for one row at a time; those that a row should not have taken can be put back."""

    def __init__(self, stream: BinaryIO, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._again: deque[bytes] = deque()
        self._taken: list[bytes] = []
        self._size = 0
        self._credit = _READ_AGAIN * max_bytes
        self._is_first = True
        self.number = 1

    def begin_row(self) -> None:
        self.number += len(self._taken)
        self._taken.clear()
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if not line:
            raise StopIteration
        self._taken.append(line)
        self._size += len(line)
        if self._size > self._max_bytes or len(self._taken) > MAX_ROW_LINES:
            raise _TooLargeError
        return line.decode("utf-8", "surrogateescape")

    def raw(self) -> bytes:
        return _without_end(b"".join(self._taken), self._max_bytes)

    def give_back_all_but_the_first(self) -> bytes:
        """Return the bytes of the bad row: its first line, or all of it when too much was read twice already."""
        rest = self._size - len(self._taken[0])
        if rest > self._credit:
            return b"".join(self._taken)
        self._credit -= rest
        self._again.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]
        return self._taken[0]

    def _read(self) -> bytes:
        line = self._stream.readline(self._max_bytes + 1)
        self._credit += _READ_AGAIN * len(line)
        if len(line) > self._max_bytes and not line.endswith(b"\n"):
            while (rest := self._stream.readline(self._max_bytes)) and not rest.endswith(b"\n"):
                pass
        if self._is_first:  # the mark belongs to the file, not to its first column
            self._is_first = False
            return line.removeprefix(_BOM)
        return line


def _without_end(raw: bytes, max_bytes: int) -> bytes:
    return raw.removesuffix(b"\n").removesuffix(b"\r")[:max_bytes]


def _checked(line: int, raw: bytes, cells: list[str]) -> Row:
    if b"\0" in raw:
        return Row(line, raw, (), "nul", next(at for at, cell in enumerate(cells, 1) if "\0" in cell))
    if not raw.isascii():
        for at, cell in enumerate(cells, 1):
            if not _is_utf8(cell):
                return Row(line, raw, (), "invalid_utf8", at)
    return Row(line, raw, tuple(cells))


def _is_utf8(cell: str) -> bool:
    """Bytes that are no UTF-8 came as halves of surrogate pairs, which real UTF-8 never gives."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
