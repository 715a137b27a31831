"""Strict JSON: the table of bad texts, what is read, and that nothing of a text shows in an error."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.exceptions import DecodeError
from postroom.schemas.json_reader import MAX_DIGITS, read_json

BAD: tuple[tuple[str, bytes | str, str], ...] = (
    ("nothing", b"", "empty"),
    ("white space", b" \t\r\n", "empty"),
    ("truncated object", b'{"a": 1', "truncated"),
    ("truncated after a comma", b'{"a": 1,', "truncated"),
    ("truncated string", b'{"a": "secret', "truncated"),
    ("truncated escape", b'{"a": "secret\\', "truncated"),
    ("truncated array", b"[1,", "truncated"),
    ("trailing garbage", b'{"a": 1} x', "trailing_data"),
    ("two values", b'{"a": 1} {"a": 2}', "trailing_data"),
    ("two lines", b'{"a": 1}\n{"a": 2}', "trailing_data"),
    ("a closing bracket too many", b"{}}", "trailing_data"),
    ("a word", b"secret", "syntax"),
    ("single quotes", b"{'a': 1}", "syntax"),
    ("a comment", b'{"a": 1} // secret', "trailing_data"),
    ("trailing comma", b'{"a": 1,}', "syntax"),
    ("no key", b"{1: 2}", "syntax"),
    ("raw control character", b'{"a": "x\x01"}', "syntax"),
    ("raw newline in a text", b'{"a": "x\n"}', "syntax"),
    ("unknown escape", b'{"a": "\\x41"}', "syntax"),
    ("short unicode escape", b'{"a": "\\u12"}', "syntax"),
    ("leading zero", b'{"a": 012}', "syntax"),
    ("plus sign", b'{"a": +1}', "syntax"),
    ("hexadecimal", b'{"a": 0x1F}', "syntax"),
    ("underscore", b'{"a": 1_000}', "syntax"),
    ("form feed as white space", b'{"a":\x0c1}', "syntax"),
    ("no-break space", '{"a":\u00a01}', "syntax"),
    ("byte order mark", b'\xef\xbb\xbf{"a": 1}', "bom"),
    ("byte order mark in text", '\ufeff{"a": 1}', "bom"),
    ("UTF-16 with mark", '{"a": 1}'.encode("utf-16"), "not_utf8"),
    ("UTF-16 little endian", '{"a": 1}'.encode("utf-16-le"), "not_utf8"),
    ("UTF-16 big endian", '{"a": 1}'.encode("utf-16-be"), "not_utf8"),
    ("UTF-32", '{"a": 1}'.encode("utf-32-be"), "not_utf8"),
    ("invalid UTF-8", b'{"a": "\xff"}', "invalid_utf8"),
    ("overlong UTF-8", b'{"a": "\xc0\xaf"}', "invalid_utf8"),
    ("surrogate as UTF-8", b'{"a": "\xed\xa0\x80"}', "invalid_utf8"),
    ("cut UTF-8", b'{"a": "\xe2\x82', "invalid_utf8"),
    ("lone surrogate in text", '{"a": "\ud800"}', "lone_surrogate"),
    ("escaped lone surrogate", b'{"a": "\\ud800"}', "lone_surrogate"),
    ("escaped low surrogate first", b'{"a": "\\udc00\\ud800"}', "lone_surrogate"),
    ("escaped lone surrogate in a key", b'{"\\uDFFF": 1}', "lone_surrogate"),
    ("escaped lone surrogate deep", b'{"a": [[{"b": ["\\udabc"]}]]}', "lone_surrogate"),
    ("NUL outside of a text", b'{"a": 1\x00}', "syntax"),
    ("65 levels", b"[" * 65 + b"]" * 65, "too_deep"),
    ("65 objects", b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep"),
    ("1,000 levels", b"[" * 1_000 + b"]" * 1_000, "too_deep"),
    ("100,000 levels", b"[" * 100_000 + b"]" * 100_000, "too_deep"),
    ("100,000 objects, never closed", b'{"a":' * 100_000, "too_deep"),
    ("NaN", b'{"a": NaN}', "not_a_number"),
    ("infinity", b'{"a": Infinity}', "not_a_number"),
    ("minus infinity", b"[-Infinity]", "not_a_number"),
    ("1e400", b'{"a": 1e400}', "number_too_large"),
    ("-1e400", b'{"a": -1e400}', "number_too_large"),
    ("4,301 digits", b"1" * (MAX_DIGITS + 1), "number_too_large"),
    ("a million digits", b'{"a": ' + b"9" * 1_000_000 + b"}", "number_too_large"),
    ("duplicate key", b'{"secret": 1, "secret": 2}', "duplicate_key"),
    ("duplicate key, escaped", b'{"a": 1, "\\u0061": 1}', "duplicate_key"),
    ("duplicate key deep", b'{"x": [{"a": 1, "b": 2, "a": 1}]}', "duplicate_key"),
    ("many escaped quotes without end", b'"' + b'\\"' * 200_000, "truncated"),
    ("many brackets, then escaped quotes without end", b"[" + b"[1]," * 80 + b'"' + b'\\"' * 200_000, "truncated"),
)


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_text_is_a_decode_error_with_a_stable_reason_and_nothing_of_the_text(
    data: bytes | str, reason: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        read_json(data)
    error = caught.value
    assert error.code == "decode_failed"
    assert not error.retriable
    assert error.reason == reason
    assert "secret" not in str(error)
    assert len(str(error)) < 120
    assert error.__cause__ is None


def test_an_error_names_the_line_and_the_byte() -> None:
    with pytest.raises(DecodeError, match=r"line 2, byte 14: not JSON") as caught:
        read_json('{"\u00e9": 1,\n "x"; 1}')
    assert caught.value.position == 14


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b" {} ", {}),
        (b'{"a": [1, -2, true, false, null]}', {"a": [1, -2, True, False, None]}),
        ("[1.0, 1e3, -0.5, 0.1]", [1.0, 1000.0, -0.5, 0.1]),
        (b'"\\u0000 \\ud83d\\ude00 \\/"', "\x00 \U0001f600 /"),
        ('"\U0001f600"', "\U0001f600"),
        (b"[9007199254740993, 9223372036854775808]", [2**53 + 1, 2**63]),
        (b"5", 5),
        (b"null", None),
        (b'"text"', "text"),
        (b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
        (b'{"": 1, " ": 2, "\\n": 3, "__proto__": 4}', {"": 1, " ": 2, "\n": 3, "__proto__": 4}),
        (b'["' + b"[" * 200 + b'"]', ["[" * 200]),
        (b"-" + b"1" * (MAX_DIGITS - 1), -int("1" * (MAX_DIGITS - 1))),
    ],
)
def test_what_is_json_is_read_as_it_is_written(data: bytes | str, value: object) -> None:
    read = read_json(data)
    assert read == value
    assert type(read) is type(value)


def test_a_hundred_thousand_keys_are_read() -> None:
    value = {f"key {number}": number for number in range(100_000)}
    assert read_json(json.dumps(value)) == value


def test_a_limit_of_the_process_for_digits_ends_in_the_same_error() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(700)
    try:
        with pytest.raises(DecodeError) as caught:
            read_json("1" * 701)
    finally:
        sys.set_int_max_str_digits(before)
    assert caught.value.reason == "number_too_large"


def test_the_size_is_counted_in_bytes_of_utf8() -> None:
    text = '"\u00e9"'
    assert read_json(text, max_bytes=4) == "\u00e9"
    assert read_json(text.encode(), max_bytes=4) == "\u00e9"
    for data in (text, text.encode(), "x" * 100):
        with pytest.raises(DecodeError) as caught:
            read_json(data, max_bytes=3)
        assert caught.value.reason == "too_large"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES, st.booleans())
def test_every_json_value_comes_back_from_its_text(value: object, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    assert read_json(text) == value
    assert read_json(text.encode()) == value


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_refused_by_a_decode_error(data: bytes | str) -> None:
    try:
        read_json(data)
    except DecodeError as error:
        assert error.reason  # noqa: PT017  either way is fine; what is raised is what matters


@given(JSON_VALUES, st.data())
def test_a_text_with_one_byte_changed_or_cut_is_read_or_refused(value: object, data: st.DataObject) -> None:
    text = bytearray(json.dumps(value).encode())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255))
    for spoiled in (bytes(text), bytes(text[:at])):
        try:
            read_json(spoiled)
        except DecodeError as error:
            assert error.reason  # noqa: PT017  either way is fine; what is raised is what matters
