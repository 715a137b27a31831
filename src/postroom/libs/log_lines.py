"""Log lines by structlog's processors; structlog's own configuration belongs to the application and is untouched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import structlog

Render: TypeAlias = Callable[[str, str, str, dict[str, object]], str]


@cache
def renderer(format: str, *, colors: bool) -> Render:  # noqa: A002 - the name of the setting
    """The function that makes one line of logger name, level, event name and clean fields."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp")
    last: Any
    if format == "console":
        last = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False, pad_event_to=0
        )
    else:
        last = structlog.processors.JSONRenderer()

    def render(name: str, level: str, event: str, fields: dict[str, object]) -> str:
        line = stamp(None, level, {})
        line.update({"level": level, "logger": name, "event": event, **fields})
        return str(last(None, level, line))

    return render
