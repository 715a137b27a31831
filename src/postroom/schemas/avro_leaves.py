"""Values without parts: from the Python type to the raw Avro value and back, exactly or not at all.

The raw value of a leaf is what Avro writes for its base type: None, bool, int, float, bytes or str. The fast road,
the slow road, defaults and JSON all use these functions, so that a logical type means one thing everywhere.
"""

from __future__ import annotations

import datetime as dt
import math
import struct
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from postroom.schemas.avro_nodes import INT_RANGES, Leaf

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LOCAL_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001  a local timestamp has no zone by definition
_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()
_DAY_MICROS = 24 * 3600 * 1_000_000
_MICROSECOND = dt.timedelta(microseconds=1)
_MIN_MICROS = (dt.datetime.min.replace(tzinfo=dt.UTC) - EPOCH) // _MICROSECOND
_MAX_MICROS = (dt.datetime.max.replace(tzinfo=dt.UTC) - EPOCH) // _MICROSECOND
_POWERS = {"int": "31", "long": "63"}


class LeafError(Exception):
    """The value does not fit the leaf: a stable rule, and the kind of thing that was found. Never leaves `schemas`."""

    def __init__(self, rule: str, found: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.found = found


_KNOWN_KINDS: Final[dict[type, str]] = {type(None): "null"}
_NAME_OF: Final = type.__dict__["__name__"].__get__


def kind_of(value: object) -> str:
    """A word for the type of a value, safe to print: never runs code of the value or of its class."""
    known = _KNOWN_KINDS.get(type(value))
    if known is not None:
        return known
    name = _NAME_OF(type(value))
    return name if is_plain_name(name) else "object"


def is_plain_name(text: object) -> bool:
    """True for a short ASCII identifier: what may be printed although it came with an event."""
    return type(text) is str and 0 < len(text) <= 40 and text.isascii() and text.isidentifier()


def _int(leaf: Leaf, value: object) -> int:
    if type(value) is not int:
        raise LeafError("wrong_type", kind_of(value))
    low, high = INT_RANGES[leaf.base]
    if value > high:
        raise LeafError("out_of_range", f"int above 2^{_POWERS[leaf.base]}-1")
    if value < low:
        raise LeafError("out_of_range", f"int below -2^{_POWERS[leaf.base]}")
    return value


def _float(leaf: Leaf, value: object) -> float:
    if type(value) is not float:
        raise LeafError("wrong_type", kind_of(value))
    if not math.isfinite(value):
        raise LeafError("not_finite", "float that is not finite")
    if leaf.base == "float":
        try:
            struct.pack("<f", value)
        except OverflowError:
            raise LeafError("out_of_range", "float beyond 32 bits") from None
    return value


def _string(_leaf: Leaf, value: object) -> str:
    if type(value) is not str:
        raise LeafError("wrong_type", kind_of(value))
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LeafError("not_text", "str with a lone surrogate") from None
    return value


def _enum(leaf: Leaf, value: object) -> str:
    if type(value) is not str:
        raise LeafError("wrong_type", kind_of(value))
    if value not in leaf.symbols:
        raise LeafError("not_in_enum", "another str")
    return value


def _fixed(leaf: Leaf, value: object) -> bytes:
    if type(value) is not bytes:
        raise LeafError("wrong_type", kind_of(value))
    if len(value) != leaf.size:
        raise LeafError("bad_length", f"bytes of length {len(value)}")
    return value


def _same(leaf: Leaf, value: object) -> object:
    if type(value) is not leaf.python_type:
        raise LeafError("wrong_type", kind_of(value))
    return value


def _decimal(leaf: Leaf, value: object) -> bytes:
    """Two's complement, big endian, of the unscaled number (Avro 1.12, Decimal).

    The length follows the magnitude, as fastavro and Java do for all but a few negative powers of two.
    """
    if type(value) is not Decimal:
        raise LeafError("wrong_type", kind_of(value))
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise LeafError("not_finite", "Decimal that is not finite")
    shift = exponent + leaf.scale
    if shift < 0:
        raise LeafError("too_precise", f"Decimal with more than {leaf.scale} digits after the point")
    if value.is_zero():
        magnitude = 0
    elif len(digits) + shift > leaf.precision:
        raise LeafError("out_of_range", f"Decimal of more than {leaf.precision} digits at this scale")
    else:
        magnitude = int(Decimal((0, digits, shift)))
    size = leaf.size or (magnitude.bit_length() + 8) // 8
    return (-magnitude if sign else magnitude).to_bytes(size, "big", signed=True)


def _uuid(leaf: Leaf, value: object) -> str | bytes:
    if type(value) is not uuid.UUID:
        raise LeafError("wrong_type", kind_of(value))
    try:
        return value.bytes if leaf.base == "fixed" else str(uuid.UUID(bytes=value.bytes))
    except Exception:  # noqa: BLE001  made past its constructor it can hold anything, and is no UUID
        raise LeafError("wrong_type", "UUID without a valid number") from None


def _date(_leaf: Leaf, value: object) -> int:
    if type(value) is not dt.date:
        raise LeafError("wrong_type", kind_of(value))
    return value.toordinal() - _EPOCH_DAY


def _time(leaf: Leaf, value: object) -> int:
    if type(value) is not dt.time:
        raise LeafError("wrong_type", kind_of(value))
    if value.tzinfo is not None:
        raise LeafError("aware_time", "time with a time zone")
    micros = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return _in_unit(leaf, micros, "time")


def _timestamp(leaf: Leaf, value: object) -> int:
    if type(value) is not dt.datetime:
        raise LeafError("wrong_type", kind_of(value))
    try:
        micros = (value - EPOCH) // _MICROSECOND
    except Exception:  # noqa: BLE001  naive, or with a tzinfo of somebody's own that fails: no instant is known
        raise LeafError("naive_datetime", "datetime without a time zone") from None
    if not _MIN_MICROS <= micros <= _MAX_MICROS:
        raise LeafError("out_of_range", "datetime outside the years 1 to 9999 in UTC")
    return _in_unit(leaf, micros, "datetime")


def _local_timestamp(leaf: Leaf, value: object) -> int:
    if type(value) is not dt.datetime:
        raise LeafError("wrong_type", kind_of(value))
    if value.tzinfo is not None:
        raise LeafError("aware_datetime", "datetime with a time zone")
    return _in_unit(leaf, (value - LOCAL_EPOCH) // _MICROSECOND, "datetime")


def _in_unit(leaf: Leaf, micros: int, kind: str) -> int:
    """Microseconds in the unit of the leaf; what does not fit exactly is refused, never cut off."""
    if leaf.row.endswith("micros"):
        return micros
    if micros % 1000:
        raise LeafError("too_precise", f"{kind} with microseconds")
    return micros // 1000


_TO_RAW: Final[dict[str, Callable[[Leaf, object], object]]] = {
    "null": _same,
    "boolean": _same,
    "int": _int,
    "long": _int,
    "float": _float,
    "double": _float,
    "bytes": _same,
    "string": _string,
    "fixed": _fixed,
    "enum": _enum,
    "decimal": _decimal,
    "uuid": _uuid,
    "date": _date,
    "time-millis": _time,
    "time-micros": _time,
    "timestamp-millis": _timestamp,
    "timestamp-micros": _timestamp,
    "local-timestamp-millis": _local_timestamp,
    "local-timestamp-micros": _local_timestamp,
}


def to_raw(leaf: Leaf, value: object) -> object:
    """What Avro writes for `value`; LeafError names the rule where the value does not fit exactly."""
    return _TO_RAW[leaf.row](leaf, value)


def from_raw(leaf: Leaf, raw: object) -> object:
    """The Python value of a raw one that has the right base type; LeafError where no Python value can hold it.

    Datetimes come back in UTC.
    """
    lift = _FROM_RAW.get(leaf.row)
    return raw if lift is None else lift(leaf, raw)


def _decimal_back(leaf: Leaf, raw: Any) -> Decimal:
    number = int.from_bytes(raw, "big", signed=True)
    if number.bit_length() > 4 * leaf.precision or abs(number) >= 10**leaf.precision:
        raise LeafError("out_of_range", "decimal of more digits than its precision")
    sign, digits, _ = Decimal(number).as_tuple()
    return Decimal((sign, digits, -leaf.scale))


def _uuid_back(_leaf: Leaf, raw: Any) -> uuid.UUID:
    if isinstance(raw, bytes):
        return uuid.UUID(bytes=raw)
    return parse_uuid(raw)


def parse_uuid(text: str) -> uuid.UUID:
    """A UUID from its 36 characters (RFC 9562, section 4); capitals are fine, braces and `urn:` are not."""
    if len(text) == 36 and text.isascii() and text[8] + text[13] + text[18] + text[23] == "----":
        digits = text.replace("-", "")
        if len(digits) == 32 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            return uuid.UUID(hex=digits)
    raise LeafError("wrong_type", "text that is no UUID")


def _date_back(_leaf: Leaf, raw: Any) -> dt.date:
    try:
        return dt.date.fromordinal(raw + _EPOCH_DAY)
    except (ValueError, OverflowError):
        raise LeafError("out_of_range", "date outside the years 1 to 9999") from None


def _time_back(leaf: Leaf, raw: Any) -> dt.time:
    micros = raw if leaf.row.endswith("micros") else raw * 1000
    if not 0 <= micros < _DAY_MICROS:
        raise LeafError("out_of_range", "time outside of a day")
    seconds, micros = divmod(micros, 1_000_000)
    return dt.time(seconds // 3600, seconds // 60 % 60, seconds % 60, micros)


def _timestamp_back(leaf: Leaf, raw: Any) -> dt.datetime:
    micros = raw if leaf.row.endswith("micros") else raw * 1000
    if not _MIN_MICROS <= micros <= _MAX_MICROS:
        raise LeafError("out_of_range", "timestamp outside the years 1 to 9999")
    return (LOCAL_EPOCH if leaf.row.startswith("local") else EPOCH) + dt.timedelta(microseconds=micros)


_FROM_RAW: Final[dict[str, Callable[[Leaf, Any], object]]] = {
    "decimal": _decimal_back,
    "uuid": _uuid_back,
    "date": _date_back,
    "time-millis": _time_back,
    "time-micros": _time_back,
    "timestamp-millis": _timestamp_back,
    "timestamp-micros": _timestamp_back,
    "local-timestamp-millis": _timestamp_back,
    "local-timestamp-micros": _timestamp_back,
}
