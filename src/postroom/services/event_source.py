"""Where the events of a run come from: the generator, a file of NDJSON, or standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from postroom.generators.dummy_data_generator import DummyDataGenerator
from postroom.libs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.libs.event import Event

LINE_CAP_BYTES = 32 * 1024 * 1024
"""A longer line is cut here: it cannot be an event, and its beginning is kept as a dead letter."""

_BLANK = b" \t\r\n"


def generated(seed: int | None, invalid_ratio: float, count: int | None) -> Iterator[Event]:
    """Yield `count` made-up video-play events (None: without end), a share of them broken."""
    return DummyDataGenerator(seed, invalid_ratio=invalid_ratio).events(count)


def lines_of(source: str) -> Iterator[bytes]:
    """Yield the lines of an NDJSON file, or of standard input for `-`, without line ends; blank ones are left out.

    Raises ConfigurationError for a file that cannot be opened.
    """
    if source == "-":
        return _lines(sys.stdin.buffer)
    return _file_lines(Path(source))


def _file_lines(path: Path) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except OSError as exc:
        raise ConfigurationError(
            f"cannot read events from {path}: {exc.strerror or type(exc).__name__}",
            remedy="name a file of one JSON object a line, or - for standard input",
        ) from exc
    return _lines(file, close=True)


def _lines(file: BinaryIO, *, close: bool = False) -> Iterator[bytes]:
    try:
        first = True
        while line := file.readline(LINE_CAP_BYTES):
            if not line.endswith(b"\n") and len(line) >= LINE_CAP_BYTES:
                _skip_rest_of_line(file)
            if first:
                line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark belongs to the file, not to the event
                first = False
            if line.strip(_BLANK):
                yield line.rstrip(b"\r\n")
    finally:
        if close:
            file.close()


def _skip_rest_of_line(file: BinaryIO) -> None:
    while (rest := file.readline(LINE_CAP_BYTES)) and not rest.endswith(b"\n"):
        pass
