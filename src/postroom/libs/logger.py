"""Structured logs: an event name and fields, one line each, on stderr.

    from postroom.libs.logger import logger
    logger.info("Event published!")
    logger.error("publish_failed", event_id=event_id, operation="publish", error=exc)

A line is JSON (`timestamp` in RFC 3339 UTC, `level`, `logger`, `event`, then the fields) or, on a terminal, text in
colours. Logging never raises, not even on a closed stderr, and nobody can break out of a line: control characters
are escaped. Values under names that look secret or like a payload are masked, objects of unknown kinds are shown by
their class only, and of a foreign exception only the class and the place: its text may quote what it choked on.

An application's own logging is left alone. Until `configure_logging` is called (the commands of postroom call it, the
library does not), these rules hold: when the application gave Python's `logging` a handler, lines go there, to the
logger called `postroom...`, with the fields as `record.postroom`; otherwise they go to stderr from level info on.
An application that uses structlog hands structlog's lines to `logging` or adds a handler there.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Literal, TextIO, TypeAlias

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.log_fields import clean_fields, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
Format: TypeAlias = Literal["auto", "json", "console"]

_LEVELS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_MAX_REPEATS_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class _Output:
    """Where lines go. `configured` is False until `configure_logging` was called."""

    level: int = _LEVELS["info"]
    format: Format = "auto"
    stream: TextIO | None = None
    configured: bool = False


class _State:
    """The one output of this process; replaced as a whole, so that readers need no lock."""

    output = _Output()


def configure_logging(level: Level = "info", format: Format = "auto", stream: TextIO | None = None) -> None:  # noqa: A002 - the name of the setting
    """Send the lines of postroom from `level` on to `stream`, and no longer to Python's `logging`.

    `format` auto means console on a terminal and json elsewhere; `stream` None means whatever `sys.stderr` is at
    the time. For programs; a library that calls it takes the choice from the application.
    """
    _State.output = _Output(_LEVELS[level], format, stream, configured=True)


class Log:
    """What components log to: one method for each level, an event name and fields."""

    __slots__ = ()

    def debug(self, event: str, /, **fields: object) -> None:
        """Log what only helps to find a fault in postroom."""
        self._log("debug", event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Log a normal thing worth knowing."""
        self._log("info", event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Log what goes wrong and is handled."""
        self._log("warning", event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Log what went wrong and needs somebody."""
        self._log("error", event, fields)

    def critical(self, event: str, /, **fields: object) -> None:
        """Log that the process cannot go on."""
        self._log("critical", event, fields)

    def _log(self, level: str, event: str, fields: dict[str, object]) -> None:
        raise NotImplementedError


class Logger(Log):
    """A named logger; cheap to make, and nothing is loaded before the first line."""

    __slots__ = ("_bound", "name")

    def __init__(self, name: str, bound: dict[str, object] | None = None) -> None:
        self.name = name
        self._bound = bound or {}

    def bind(self, **fields: object) -> Logger:
        """A logger that adds `fields` to every line."""
        return Logger(self.name, {**self._bound, **fields})

    def is_enabled_for(self, level: Level) -> bool:
        """True when a line of this level would go anywhere."""
        return _receiver(self.name, _LEVELS[level]) is not None

    def _log(self, level: str, event: str, fields: dict[str, object]) -> None:
        try:
            receiver = _receiver(self.name, _LEVELS[level])
            if receiver is not None:
                receiver(level, one_line(str(event)), _shown({**self._bound, **fields}))
        except Exception:  # noqa: BLE001, S110 - a line that cannot be written must not stop an event
            pass


class LimitedLogger(Log):
    """Lets one line per event name (and value of the field `by`) through in an interval and counts the others.

    The next line that goes through carries `repeated`, the number of those left out since the last one.
    """

    __slots__ = ("_by", "_clock", "_interval_s", "_lock", "_logger", "_seen")

    def __init__(self, logger: Log, interval_s: float = 10.0, clock: Clock = SYSTEM_CLOCK, by: str = "") -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._by = by
        self._lock = Lock()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def _log(self, level: str, event: str, fields: dict[str, object]) -> None:
        repeated = self._left_out((event, str(fields.get(self._by, ""))))
        if repeated is None:
            return
        if repeated:
            fields["repeated"] = repeated
        getattr(self._logger, level)(event, **fields)

    def _left_out(self, key: tuple[str, str]) -> int | None:
        """How many lines were left out before this one, or None when this one is left out as well.

        The lock is never waited for long: a child forked while it was held, or a signal handler that
        interrupted its holder, logs without limit and goes on.
        """
        if not self._lock.acquire(timeout=0.1):
            return 0
        try:
            now = self._clock.monotonic()
            since, left_out = self._seen.get(key, (None, 0))
            if since is not None and now - since < self._interval_s:
                self._seen[key] = (since, left_out + 1)
                return None
            if since is None and len(self._seen) >= _MAX_REPEATS_KNOWN:
                self._seen.pop(min(self._seen, key=lambda known: self._seen[known][0]))
            self._seen[key] = (now, 0)
            return left_out
        finally:
            self._lock.release()


def get_logger(name: str = "postroom") -> Logger:
    """The logger called `name`, below `postroom`."""
    return Logger(name if name.partition(".")[0] == "postroom" else f"postroom.{name}")


def limited(logger: Log, interval_s: float = 10.0, clock: Clock = SYSTEM_CLOCK, *, by: str = "") -> LimitedLogger:
    """A logger that writes each event name at most once in `interval_s` seconds; the next line says `repeated=N`.

    `by` names a field whose values count apart, such as `topic`. Safe to use from several threads.
    """
    return LimitedLogger(logger, interval_s, clock, by)


def _shown(fields: dict[str, object]) -> dict[str, object]:
    try:
        return clean_fields(fields)
    except Exception:  # noqa: BLE001 - a field whose own methods raise must not cost the line
        return {"fields": "<unprintable>"}


def _receiver(name: str, level: int) -> Callable[[str, str, dict[str, object]], None] | None:
    """What takes a line of this logger and level, or None when nobody wants it."""
    output = _State.output
    if not output.configured:
        standard = logging.getLogger(name)
        if standard.hasHandlers():
            return _to_logging(standard) if standard.isEnabledFor(level) else None
    if level < output.level:
        return None
    stream = output.stream if output.stream is not None else sys.stderr
    return None if stream is None else _to_stream(name, stream, output.format)


def _to_logging(standard: logging.Logger) -> Callable[[str, str, dict[str, object]], None]:
    def receive(level: str, event: str, fields: dict[str, object]) -> None:
        text = " ".join([event, *(f"{key}={value}" for key, value in fields.items())])
        standard.log(_LEVELS[level], "%s", text, extra={"postroom": {"event": event, **fields}})

    return receive


def _to_stream(name: str, stream: TextIO, format: Format) -> Callable[[str, str, dict[str, object]], None]:  # noqa: A002 - the name of the setting
    from postroom.libs.log_lines import renderer  # structlog loads with the first line

    terminal = stream.isatty()
    render = renderer("console" if format == "auto" and terminal else format, colors=terminal)

    def receive(level: str, event: str, fields: dict[str, object]) -> None:
        # One write a line, so that lines of several threads do not mix; no lock that a fork could leave held.
        stream.write(render(name, level, event, fields) + "\n")
        stream.flush()

    return receive


logger = get_logger()
"""The logger of the guide's example; components have their own from `get_logger`."""
