"""Where the events of a run come from: the generator, a file of NDJSON or CSV, or standard input."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

from postroom.generators.dummy_data_generator import DummyDataGenerator
from postroom.libs.exceptions import ConfigurationError, DecodeError
from postroom.schemas.csv_events import csv_events
from postroom.services.stoppable_input import open_stoppable, stoppable_stdin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.libs.event import Event
    from postroom.schemas.csv_events import CsvEvent
    from postroom.schemas.data_contracts import Contract


Format: TypeAlias = Literal["ndjson", "csv", "cloudevents"]
"""What a file of events holds: a JSON object a line, rows of CSV, or a CloudEvent in JSON a line."""

LINE_CAP_BYTES = 32 * 1024 * 1024
"""A longer line is cut here: it cannot be an event, and its beginning is kept as a dead letter."""

_BLANK = b" \t\r\n"


def _never() -> bool:
    return False


def generated(seed: int | None, invalid_ratio: float, count: int | None) -> Iterator[Event]:
    """Yield `count` made-up video-play events (None: without end), a share of them broken."""
    return DummyDataGenerator(seed, invalid_ratio=invalid_ratio).events(count)


def lines_of(source: str, is_stopped: Callable[[], bool] = _never) -> Iterator[bytes]:
    """Yield the lines of an NDJSON file, or of standard input for `-`, without line ends; blank ones are left out.

    Raises ConfigurationError for a file that cannot be opened, and InputStoppedError instead of waiting for more once
    `is_stopped` says True, which is asked ten times a second.
    """
    if source == "-":
        return _lines(stoppable_stdin(is_stopped))
    return _lines(_opened(Path(source), is_stopped), close=True)


def format_of(source: str, said: Format | None = None) -> Format:
    """Return the format that was said, else the one that the ending of the file's name says."""
    return said or ("csv" if source.lower().endswith(".csv") else "ndjson")


def csv_rows_of(source: str, contract: Contract, is_stopped: Callable[[], bool] = _never) -> Iterator[CsvEvent]:
    """Yield the rows of a CSV file, or of standard input for `-`; for `is_stopped` see `lines_of`.

    Raises ConfigurationError for a file that cannot be opened, or whose header does not fit the contract.
    """
    file = stoppable_stdin(is_stopped) if source == "-" else _opened(Path(source), is_stopped)
    try:
        try:
            rows = csv_events(file, contract)
        except DecodeError as exc:
            what = f"{source}, for the contract {contract.name}: {exc.message}"
            raise ConfigurationError(what, remedy=exc.remedy) from exc
        yield from rows
    finally:
        if source != "-":
            file.close()


def _opened(path: Path, is_stopped: Callable[[], bool]) -> BinaryIO:
    try:
        return open_stoppable(path, is_stopped)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot read events from {path}: {exc.strerror or type(exc).__name__}",
            remedy="name a file of events, or - for standard input",
        ) from exc


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
