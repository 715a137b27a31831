"""The values of the lossless JSON form that are written as text under a tag, one writer and one strict reader each.

The table stands in docs/specs/lossless-json.md. A writer raises `UnfitError` for a value that cannot be made again; a
reader returns None for text that the writer would not have written.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from datetime import date, datetime, time, timedelta, timezone
from decimal import Context, Decimal, DecimalException
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable

SAFE_INT = 2**53 - 1
"""Beyond it, readers that keep numbers as doubles lose digits."""

_DECIMAL_DIGITS_UP_TO_BITS = 128  # longer ones in hexadecimal: linear time, no limit on digits
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")
_DECIMAL_TEXT = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:E[+-][0-9]+)?|Infinity|s?NaN[0-9]*)")
_DECIMAL_INT_TEXT = re.compile(r"-?[1-9][0-9]{0,39}")
_HEX_INT_TEXT = re.compile(r"-?0x[1-9a-f][0-9a-f]*")
_MOMENT = re.compile(r"([0-9T:.+-]+)(?:\[([^\[\]=]{1,64})\])?(\[_fold=1\])?")
_MICROSECOND = timedelta(microseconds=1)
_FOLD = "[_fold=1]"
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0.0": -0.0}
_DECIMALS = Context(capitals=1)  # the thread's own context may write a small e

# The descriptor, not the attribute: a hostile metaclass cannot answer in its place.
_name_of_type: Callable[[object], str] = type.__dict__["__name__"].__get__


class UnfitError(Exception):
    """A value or a text that the form does not hold. `kind` names the kind of thing, never the thing."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.steps: list[str | int] = []

    def path(self) -> str:
        """Where it stands: each container on the way up has added its step."""
        text = ""
        for step in reversed(self.steps):
            if isinstance(step, int):
                text += f"[{step}]"
            else:
                text += f".{step}" if text else step
        return text or "event"


def has_lone_surrogate(text: str) -> bool:
    """True for text that UTF-8 has no bytes for."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def kind_name(kind: type) -> str:
    """The name of a type, cut to 64 characters, whatever the type does to hide it."""
    name = _name_of_type(kind)
    return name[:64] if name.isprintable() and not has_lone_surrogate(name) else "object"


# Writers


def surrogates_text(value: str) -> str:
    """Base64 of a text that holds lone surrogates."""
    return base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()


def special_float_text(value: float) -> str:
    """The name of a float that JSON has no number for, and of -0.0; "" for every other one."""
    if math.isfinite(value):
        return "" if value or math.copysign(1.0, value) > 0 else "-0.0"
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def int_text(value: int) -> str:
    """Decimal digits up to 128 bits, hexadecimal ones above."""
    return str(value) if value.bit_length() <= _DECIMAL_DIGITS_UP_TO_BITS else hex(value)


def _uuid_text(value: UUID) -> str:
    try:
        return str(value)
    except (AttributeError, TypeError, ValueError):  # made by __new__ alone, or tampered with
        raise UnfitError("a UUID without a number") from None


def _moment_text(value: datetime | time) -> str:
    """ISO 8601 with what makes the object: an offset, or a zone name in brackets, and the fold."""
    zone = value.tzinfo
    fold = _FOLD if value.fold else ""
    if zone is None or type(zone) is timezone:
        return value.isoformat() + fold
    return f"{value.replace(tzinfo=None).isoformat()}[{_zone_name(zone)}]{fold}"


def _zone_name(zone: object) -> str:
    name = zone.key if type(zone) is ZoneInfo else None
    if name is None or _zone(name) is None:
        raise UnfitError(f"a time zone of type {kind_name(type(zone))} without a known name")
    return name


def _zone(name: str) -> ZoneInfo | None:
    if not _ZONE_NAME.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a folder, a file that is no zone, an unknown name
        return None


WRITERS: dict[type, tuple[str, Callable[..., str]]] = {
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode()),
    Decimal: ("$decimal", _DECIMALS.to_sci_string),
    UUID: ("$uuid", _uuid_text),
    datetime: ("$datetime", _moment_text),
    date: ("$date", date.isoformat),
    time: ("$time", _moment_text),
    timedelta: ("$timedelta_us", lambda value: str(value // _MICROSECOND)),
}
"""Exact type: its tag and its writer."""


# Readers


def _read_bytes(text: str) -> bytes | None:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        return None
    return value if base64.b64encode(value).decode() == text else None  # unused bits that are set


def _read_text(text: str) -> str | None:
    raw = _read_bytes(text)
    try:
        value = None if raw is None else raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    return value if value is not None and has_lone_surrogate(value) else None


def _read_int(text: str) -> int | None:
    if _DECIMAL_INT_TEXT.fullmatch(text):
        value = int(text)
    elif _HEX_INT_TEXT.fullmatch(text):
        value = int(text, 16)
    else:
        return None
    return value if abs(value) > SAFE_INT and int_text(value) == text else None


def _read_decimal(text: str) -> Decimal | None:
    if not _DECIMAL_TEXT.fullmatch(text):
        return None
    try:
        value = Decimal(text)
    except (DecimalException, ValueError):  # an exponent beyond what the machine can hold
        return None
    return value if _DECIMALS.to_sci_string(value) == text else None


def _read_uuid(text: str) -> UUID | None:
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text else None


def _read_date(text: str) -> date | None:
    try:
        value = date.fromisoformat(text)
    except ValueError:
        return None
    return value if value.isoformat() == text else None


def _read_timedelta(text: str) -> timedelta | None:
    if len(text) > 21:  # the longest is 23 days short of 10^9 days, in microseconds
        return None
    try:
        value = timedelta(microseconds=int(text))
    except (ValueError, OverflowError):
        return None
    return value if str(value // _MICROSECOND) == text else None


def _moment_parts(text: str) -> tuple[str, ZoneInfo | None, int] | None:
    """The ISO text, the zone and the fold; None where the text is something else."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    name = match[2]
    zone = None if name is None else _zone(name)
    if name is not None and zone is None:
        raise UnfitError("a time zone that this machine does not know")
    return match[1], zone, 1 if match[3] else 0


def _read_datetime(text: str) -> datetime | None:
    parts = _moment_parts(text)
    if parts is None:
        return None
    iso, zone, fold = parts
    try:
        value = datetime.fromisoformat(iso)
    except ValueError:
        return None
    value = value.replace(tzinfo=zone or value.tzinfo, fold=fold)
    return value if _moment_text(value) == text else None


def _read_time(text: str) -> time | None:
    parts = _moment_parts(text)
    if parts is None:
        return None
    iso, zone, fold = parts
    try:
        value = time.fromisoformat(iso)
    except ValueError:
        return None
    value = value.replace(tzinfo=zone or value.tzinfo, fold=fold)
    return value if _moment_text(value) == text else None


READERS: dict[str, Callable[[str], object]] = {
    "$bytes": _read_bytes,
    "$text": _read_text,
    "$int": _read_int,
    "$float": _SPECIAL_FLOATS.get,
    "$decimal": _read_decimal,
    "$uuid": _read_uuid,
    "$datetime": _read_datetime,
    "$date": _read_date,
    "$time": _read_time,
    "$timedelta_us": _read_timedelta,
}
"""Tag: its reader. What it returns is None for a text that is not written as specified."""
