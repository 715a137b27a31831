r"""Strict JSON at the border: what is read is exactly what was written, or the text is refused (RFC 8259).

Refused, although Python's own reader takes them: duplicate keys, NaN and Infinity, numbers that a float or 4,300
digits cannot hold, lone surrogates, a byte order mark, anything but UTF-8, and more than 64 levels.
`\u0000` in a text is fine.
"""

from __future__ import annotations

import json
import re
from typing import Final

from postroom.libs.exceptions import DecodeError
from postroom.schemas.avro_nodes import MAX_DEPTH
from postroom.schemas.lexical_forms import from_json, to_json

__all__ = ["MAX_DIGITS", "from_json", "read_json", "to_json"]

MAX_DIGITS: Final = 4300
"""Digits of a whole number; CPython's own limit, kept here whatever the process has set."""

_STRUCTURE: Final = re.compile(r'["\[\]{}]')
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_WHITESPACE: Final = " \t\n\r"


class _RefusedError(ValueError):
    """A hook of the reader says no; `reason` is the stable code."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.text = text


def read_json(data: bytes | str, *, max_bytes: int | None = None) -> object:
    """The one JSON value in `data`: dict, list, str, int, float, bool or None.

    Whole numbers become int, numbers with a point or an exponent the nearest float. DecodeError for all else; its
    `reason` is one of `too_large`, `empty`, `bom`, `not_utf8`, `invalid_utf8`, `lone_surrogate`, `too_deep`,
    `duplicate_key`, `not_a_number`, `number_too_large`, `truncated`, `trailing_data`, `syntax`, and no message holds
    anything of the text. `max_bytes` is the largest text taken, in bytes of UTF-8. Time is linear in the length.
    """
    _check_size(data, max_bytes)
    text = _text(data) if isinstance(data, bytes) else data
    if not text.strip(_WHITESPACE):
        raise DecodeError("no JSON: nothing but white space", reason="empty", position=0)
    if isinstance(data, str):
        _check_surrogates(text)
    _check_depth(text)
    value = _parse(text)
    if _ESCAPED_SURROGATE.search(text):
        _check_escapes(value)
    return value


def _check_size(data: bytes | str, max_bytes: int | None) -> None:
    # A str has at least as many bytes as characters; the encoding is only paid for when that does not decide.
    if max_bytes is None or (isinstance(data, str) and 4 * len(data) <= max_bytes):
        return
    size = len(data) if isinstance(data, bytes) or len(data) > max_bytes else len(data.encode(errors="surrogatepass"))
    if size > max_bytes:
        raise DecodeError(f"JSON of more than {max_bytes} bytes", reason="too_large", position=max_bytes)


def _text(data: bytes) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        raise DecodeError("JSON with a byte order mark", reason="bom", position=0, remedy="write UTF-8 without one")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in data[:4]:
        raise DecodeError("JSON that is UTF-16 or UTF-32", reason="not_utf8", position=0, remedy="write UTF-8")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"byte {error.start} is not UTF-8", reason="invalid_utf8", position=error.start, remedy="write UTF-8"
        ) from None


def _check_surrogates(text: str) -> None:
    if text.startswith("\ufeff"):
        raise DecodeError("JSON with a byte order mark", reason="bom", position=0, remedy="write UTF-8 without one")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DecodeError(
            f"character {error.start} is half of a surrogate pair",
            reason="lone_surrogate",
            position=_byte_position(text, error.start),
        ) from None


def _check_depth(text: str) -> None:
    """Count levels before a recursive reader sees the text."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth, at = 0, 0
    while match := _STRUCTURE.search(text, at):
        at = match.end()
        mark = match[0]
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise _at(text, match.start(), "too_deep", f"more than {MAX_DEPTH} levels")
        elif mark == '"':
            string = _STRING.match(text, match.start())
            if string is None:
                return  # a string without end: nothing opens after it, and the reader says so
            at = string.end()
        else:
            depth -= 1


def _parse(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except _RefusedError as error:
        raise DecodeError(f"JSON with {error.text}", reason=error.reason) from None
    except json.JSONDecodeError as error:
        raise _syntax_error(text, error) from None


def _syntax_error(text: str, error: json.JSONDecodeError) -> DecodeError:
    if error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip(_WHITESPACE)):
        return _at(text, error.pos, "truncated", "the text ends too early")
    if error.msg.startswith("Extra data"):
        return _at(text, error.pos, "trailing_data", "text after the end of the value")
    return _at(text, error.pos, "syntax", "not JSON")


def _at(text: str, position: int, reason: str, what: str) -> DecodeError:
    line = text.count("\n", 0, position) + 1
    byte = _byte_position(text, position)
    return DecodeError(f"line {line}, byte {byte}: {what}", reason=reason, position=byte)


def _byte_position(text: str, position: int) -> int:
    return len(text[:position].encode(errors="surrogatepass"))


def _check_escapes(value: object) -> None:
    """Lone surrogates that came as escapes. The depth is bounded by then."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DecodeError("JSON with half of a surrogate pair", reason="lone_surrogate") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_escapes(key)
            _check_escapes(item)
    elif isinstance(value, list):
        for item in value:
            _check_escapes(item)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RefusedError("duplicate_key", "a key twice in one object")
    return value


def _int(text: str) -> int:
    if len(text) <= MAX_DIGITS:
        try:
            return int(text)
        except ValueError:  # the process has set a lower limit than CPython's own
            pass
    raise _RefusedError("number_too_large", f"a whole number of more than {MAX_DIGITS} digits")


def _float(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise _RefusedError("number_too_large", "a number beyond the largest float")
    return number


def _constant(_text: str) -> float:
    raise _RefusedError("not_a_number", "NaN or Infinity")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant
)
