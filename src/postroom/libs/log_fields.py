"""What may stand in a log line: fields cleaned of secrets, payloads, control characters and excess."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice, pairwise
from pathlib import PurePath
from uuid import UUID

from postroom.libs.exceptions import PostroomError

MAX_TEXT = 2000
MAX_ITEMS = 50
MAX_LEVELS = 4

MASK = "***"

_MAX_INTEGER = 2**63
_SHOWN_AS_TEXT = (str, Decimal, UUID, PurePath, date, timedelta)

_RESERVED = {"timestamp", "level", "logger", "event"}
_SECRET_WORDS = {
    "apikey",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "pwd",
    "secret",
    "token",
}
_SECRET_PAIRS = {"access_key", "api_key", "jaas_config", "key_pem", "private_key", "secret_key", "ssl_key"}
_PAYLOAD_NAMES = {
    "body",
    "data",
    "document",
    "event",
    "event_data",
    "message_value",
    "original",
    "payload",
    "record",
    "user_event",
    "value",
    "values",
}
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def clean_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields as plain JSON values, safe to write down; names that a line needs itself get a `_` behind them."""
    cleaned: dict[str, object] = {}
    for name, value in fields.items():
        shown = _field(name, value, 0)
        cleaned[f"{name}_" if name in _RESERVED else one_line(name)] = shown
        if isinstance(value, BaseException) and shown != MASK:
            cleaned.update(_about_error(name, value))
    return cleaned


def one_line(text: str) -> str:
    """`text` without a character that could end the line, move a terminal's cursor or turn the reading direction."""
    shown = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text[:MAX_TEXT])
    if "://" in shown:
        shown = _USERINFO.sub(MASK, shown)
    return shown + ("..." if len(text) > MAX_TEXT else "")


def looks_secret(name: str) -> bool:
    """True for names such as `password`, `sasl.password`, `accessToken` or `api_key`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    pairs = {f"{one}_{two}" for one, two in pairwise(words)}
    return not _SECRET_WORDS.isdisjoint(words) or not _SECRET_PAIRS.isdisjoint(pairs)


def _field(name: str, value: object, level: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if looks_secret(name) or name.lower() in _PAYLOAD_NAMES:
        return MASK
    return _value(value, level)


def _value(value: object, level: int) -> object:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return "..." if level >= MAX_LEVELS else _container(value, level + 1)
    return _scalar(value)


def _container(value: Iterable[object], level: int) -> object:
    if isinstance(value, Mapping):
        pairs = islice(value.items(), MAX_ITEMS)
        return {one_line(str(key)): _field(str(key), item, level) for key, item in pairs}
    return [_value(item, level) for item in islice(value, MAX_ITEMS)]


def _scalar(value: object) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < _MAX_INTEGER else "<int>"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, _SHOWN_AS_TEXT):
        return one_line(str(value))
    if isinstance(value, BaseException):
        return value.code if isinstance(value, PostroomError) else type(value).__name__
    return f"<{type(value).__name__}>"


def _about_error(name: str, error: BaseException) -> dict[str, object]:
    """What may be told of an error: our own texts hold no values; of foreign ones the place, and the system's words."""
    if isinstance(error, PostroomError):
        return {f"{name}_message": one_line(str(error))}
    told: dict[str, object] = {}
    if isinstance(error, OSError) and error.strerror:
        told[f"{name}_message"] = one_line(error.strerror)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        told[f"{name}_at"] = f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return told
