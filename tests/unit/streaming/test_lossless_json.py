"""The lossless JSON form: what goes in comes out, equal and of equal types, or is refused with a path and a kind."""

from __future__ import annotations

import enum
import json
import math
import types
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postroom.libs.exceptions import DecodeError, NotRepresentableError
from postroom.streaming import lossless_json
from postroom.streaming.lossless_json import MAX_BYTES, MAX_DEPTH, decode, encode

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Etc/GMT+5"]


def same(left: object, right: object) -> bool:  # noqa: PLR0911  one line for each type
    """Equal in value and in every type, NaN equal to NaN, 0.0 different from -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left):
            return math.isnan(right)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, datetime | time) and isinstance(right, datetime | time):
        return (
            left.replace(tzinfo=None) == right.replace(tzinfo=None)
            and left.fold == right.fold
            and type(left.tzinfo) is type(right.tzinfo)
            and left.tzinfo == right.tzinfo
        )
    return left == right


offsets = st.timedeltas(min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23, minutes=59)).map(
    timezone
)
zones = st.one_of(st.none(), st.just(UTC), offsets, st.sampled_from(ZONES).map(ZoneInfo))
any_text = st.text(st.characters(exclude_categories=()), max_size=20)
names = st.one_of(st.text(max_size=10), st.sampled_from(["$bytes", "$object", "$", "$tuple", "a"]))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(2**200), max_value=2**200),
    st.sampled_from([2**53 - 1, 2**53, -(2**53), 1 - 2**53, 2**128 - 1, 2**128, -(2**128)]),
    st.floats(),
    any_text,
    st.binary(max_size=40),
    st.decimals(),
    st.sampled_from(["-0", "1E+30", "1.500", "sNaN12", "-Infinity", "0E-20", "1E+999999"]).map(Decimal),
    st.uuids(),
    st.dates(),
    st.timedeltas(),
    st.builds(lambda moment, fold: moment.replace(fold=fold), st.datetimes(timezones=zones), st.sampled_from([0, 1])),
    st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
        st.times(),
        zones,
        st.sampled_from([0, 1]),
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(names, inner, max_size=4),
    ),
    max_leaves=12,
)
events = st.dictionaries(names, values, max_size=6)


def assert_readable_by_anyone(text: bytes) -> None:
    """Fail unless any JSON reader would make the same of the text."""
    tree = json.loads(
        text.decode(),
        parse_constant=pytest.fail,
        parse_int=lambda digits: abs(int(digits)) < 2**53 or pytest.fail("an integer beyond 2^53 - 1"),
    )
    json.dumps(tree, ensure_ascii=False, allow_nan=False).encode()  # raises on a lone surrogate


@given(events)
@example({"$bytes": "aGk="})
@example({"$object": {"$object": {"$object": 1}}})
@example({"a": {"$bytes": b""}, "$": [{"$": ()}]})
@settings(max_examples=400, deadline=None)
def test_an_event_comes_back_equal_and_of_equal_types(event: dict[str, object]) -> None:
    """decode(encode(event)) is the event, and any JSON reader can read the text."""
    text = encode(event)
    assert same(decode(text), event)
    assert_readable_by_anyone(text)
    assert encode(decode(text)) == text


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"hi", '{"$bytes":"aGk="}'),
        (Decimal("1.50"), '{"$decimal":"1.50"}'),
        (2**53, '{"$int":"9007199254740992"}'),
        (-(2**128), '{"$int":"-0x100000000000000000000000000000000"}'),
        (-0.0, '{"$float":"-0.0"}'),
        (5.0, "5.0"),
        (1e22, "1e22"),
        ("\ud800", '{"$text":"7aCA"}'),
        ("grüß\x00", '"grüß\\u0000"'),
        ((1,), '{"$tuple":[1]}'),
        (date(2026, 10, 25), '{"$date":"2026-10-25"}'),
        (timedelta(days=-1), '{"$timedelta_us":"-86400000000"}'),
        (time(2, 30, 0, 1, timezone(timedelta(hours=1))), '{"$time":"02:30:00.000001+01:00"}'),
        (datetime(2026, 10, 25, 2, 30, tzinfo=UTC), '{"$datetime":"2026-10-25T02:30:00+00:00"}'),
        (datetime(2026, 10, 25, 2, 30), '{"$datetime":"2026-10-25T02:30:00"}'),  # noqa: DTZ001  naive on purpose
        (
            datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
            '{"$datetime":"2026-10-25T02:30:00[Europe/Berlin][_fold=1]"}',
        ),
        (uuid.UUID(int=1), '{"$uuid":"00000000-0000-0000-0000-000000000001"}'),
        ({"$bytes": "aGk="}, '{"$object":{"$bytes":"aGk="}}'),
        ({"$a": 1, "$b": 2}, '{"$a":1,"$b":2}'),
    ],
)
def test_values_are_written_as_specified(value: object, written: str) -> None:
    """The table of the specification, line by line."""
    text = encode({"v": value})
    assert text.decode() == f'{{"v":{written}}}'
    assert same(decode(text), {"v": value})


def test_the_event_may_be_any_mapping_and_comes_back_as_a_dict() -> None:
    """Mappings other than dict are read once, at the top only."""
    event = types.MappingProxyType({"a": 1})
    assert decode(encode(event)) == {"a": 1}
    assert decode(encode(OrderedDict(a=1))) == {"a": 1}


def test_an_aware_datetime_is_the_same_moment_after_the_way_there_and_back() -> None:
    """Python calls datetimes of different zones unequal in a repeated hour: the zone itself must come back."""
    for fold in (0, 1):
        moment = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
        back = decode(encode({"t": moment}))["t"]
        assert isinstance(back, datetime)
        assert back == moment
        assert back.utcoffset() == moment.utcoffset()


class _Colour(enum.IntEnum):
    RED = 1


class _Name(str):
    __slots__ = ()


class _Point(NamedTuple):
    x: int


class _OtherZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    dst = utcoffset

    def tzname(self, _: datetime | None) -> str:
        return "secret"


class _Moment(datetime):
    pass


class _Liar(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # hostile on purpose
        raise RuntimeError("secret")


class _Hostile(metaclass=_Liar):
    @property  # type: ignore[misc]  # hostile on purpose
    def __class__(self) -> type:
        return dict

    def __repr__(self) -> str:
        raise RuntimeError("secret")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("secret")

    __hash__ = None  # type: ignore[assignment]  # hostile on purpose


def _itself() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


def _shared(depth: int) -> list[object]:
    shared: list[object] = ["x"]
    for _ in range(depth):
        shared = [shared] * 10
    return shared


def _nested(depth: int) -> list[object]:
    nested: list[object] = []
    for _ in range(depth - 1):
        nested = [nested]
    return nested


_REFUSED: list[tuple[object, str]] = [
    (_Colour.RED, "_Colour"),
    (_Name("secret"), "_Name"),
    (_Point(1), "_Point"),
    (OrderedDict(secret=1), "OrderedDict"),
    ({"secret"}, "set"),
    (frozenset(["secret"]), "frozenset"),
    (bytearray(b"secret"), "bytearray"),
    (memoryview(b"secret"), "memoryview"),
    (1j, "complex"),
    (object(), "object"),
    (int, "type"),
    (_Hostile(), "_Hostile"),
    (_Moment(2026, 1, 1, tzinfo=UTC), "_Moment"),
    (datetime(2026, 1, 1, tzinfo=_OtherZone()), "_OtherZone"),
    (uuid.UUID.__new__(uuid.UUID), "UUID without a number"),
    (_itself(), "64 containers"),
    (_nested(MAX_DEPTH), "64 containers"),
    (_shared(9), "1000000 values"),
    (["s" * (1 << 20)] * 100, "bytes"),
    (b"s" * (MAX_BYTES * 3 // 4), "bytes"),
    (1 << (8 * MAX_BYTES), "bytes"),
    ("\x01" * (MAX_BYTES // 2), "bytes"),
    ({1: "secret"}, "a key of type int"),
    ({_Name("secret"): 1}, "a key of type _Name"),
    ({"secret\ud800": 1}, "a key with a lone surrogate"),
]


@pytest.mark.parametrize(("value", "kind"), _REFUSED, ids=[kind for _, kind in _REFUSED])
def test_what_cannot_be_kept_is_refused_with_path_and_kind_and_no_value(value: object, kind: str) -> None:
    """Nothing is coerced, nothing crashes, and the error gives no value away."""
    with pytest.raises(NotRepresentableError) as caught:
        encode({"list": [0, {"field": value}]})
    assert kind in str(caught.value)
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith(("list[1].field", "event"))
    assert caught.value.__cause__ is None


def test_the_path_names_fields_but_no_data() -> None:
    """A key that does not look like a field name is shown by its place."""
    with pytest.raises(NotRepresentableError, match=r"^people\.\{1\}\.tags\[2\]: a set cannot be kept"):
        encode({"people": {"ann": 1, "bob@example.com": {"tags": [1, 2, set()]}}})


def test_a_mapping_that_raises_is_refused() -> None:
    """A caller's own Mapping may do anything; the answer is typed all the same."""

    class Broken(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            raise RuntimeError("secret")

        def __iter__(self) -> Iterator[str]:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    with pytest.raises(NotRepresentableError, match="cannot be read") as caught:
        encode(Broken())
    assert "secret" not in str(caught.value)


def test_an_integer_of_any_length_comes_back() -> None:
    """Python refuses to write more than 4,300 decimal digits: long ones are hexadecimal."""
    assert decode(encode({"v": -(7**20_000)})) == {"v": -(7**20_000)}


def test_sixty_four_containers_fit() -> None:
    """The deepest structure that is allowed comes back, also when every level is a tag."""
    plain = {"v": _nested(MAX_DEPTH - 1)}
    assert decode(encode(plain)) == plain
    tagged: object = ()
    for _ in range(MAX_DEPTH - 2):
        tagged = (tagged,)
    assert decode(encode({"v": tagged})) == {"v": tagged}


def test_the_decimal_context_of_the_thread_changes_nothing() -> None:
    """A program may set small letters, little precision and no traps for its own decimals."""
    with localcontext() as context:
        context.capitals = 0
        context.prec = 2
        context.clear_traps()
        text = encode({"v": Decimal("1.23456E+40")})
        assert text == b'{"v":{"$decimal":"1.23456E+40"}}'
        assert same(decode(text), {"v": Decimal("1.23456E+40")})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\xff"}',
        b'{"a":',
        b"{} {}",
        b"[]",
        b'"x"',
        b"1",
        b"null",
        b'{"$tuple":[]}',
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e400}',
        b'{"a":9007199254740992}',
        b'{"a":-0}',
        b'{"a":-0.0}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":{"$set":[]}}',
        b'{"a":{"$bytes":1}}',
        b'{"a":{"$bytes":"aGk"}}',
        b'{"a":{"$bytes":"aGl="}}',
        b'{"a":{"$bytes":"a Gk="}}',
        '{"a":{"$bytes":"äGk="}}'.encode(),
        b'{"a":{"$text":"aGk="}}',
        b'{"a":{"$text":"/w=="}}',
        b'{"a":{"$tuple":"x"}}',
        b'{"a":{"$object":{"b":1}}}',
        b'{"a":{"$object":{}}}',
        b'{"a":{"$object":[]}}',
        b'{"a":{"$decimal":"1_0"}}',
        b'{"a":{"$decimal":" 1"}}',
        b'{"a":{"$decimal":"1e5"}}',
        b'{"a":{"$decimal":"1E+99999999999999999999"}}',
        '{"a":{"$decimal":"\u0661"}}'.encode(),
        b'{"a":{"$int":"5"}}',
        b'{"a":{"$int":"0x10"}}',
        b'{"a":{"$int":"-0x1"}}',
        b'{"a":{"$int":"09007199254740992"}}',
        b'{"a":{"$int":"9007199254740992.0"}}',
        b'{"a":{"$int":"' + b"9" * 5000 + b'"}}',
        b'{"a":{"$float":"1.0"}}',
        b'{"a":{"$float":"nan"}}',
        b'{"a":{"$uuid":"00000000000000000000000000000001"}}',
        b'{"a":{"$uuid":"{00000000-0000-0000-0000-00000000000A}"}}',
        b'{"a":{"$date":"20261025"}}',
        b'{"a":{"$date":"2026-13-01"}}',
        b'{"a":{"$time":"25:00:00"}}',
        b'{"a":{"$time":"T02:30:00"}}',
        b'{"a":{"$datetime":"2026-10-25"}}',
        b'{"a":{"$datetime":"2026-10-25T02:30:00Z"}}',
        b'{"a":{"$datetime":"2026-10-25T02:30:00+01:00[Europe/Berlin]"}}',
        b'{"a":{"$datetime":"2026-10-25T02:30:00[No/Such]"}}',
        b'{"a":{"$datetime":"2026-10-25T02:30:00[../../etc/passwd]"}}',
        b'{"a":{"$datetime":"2026-10-25T02:30:00[Europe]"}}',
        b'{"a":{"$datetime":"2026-10-25T02:30:00[_fold=0]"}}',
        b'{"a":{"$datetime":"x"}}',
        b'{"a":{"$timedelta_us":"1.5"}}',
        b'{"a":{"$timedelta_us":"+1"}}',
        b'{"a":{"$timedelta_us":"' + b"9" * 21 + b'"}}',
        b'{"a":{"$timedelta_us":"' + b"9" * 5000 + b'"}}',
        b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        b" " * (MAX_BYTES + 1),
    ],
    ids=lambda text: repr(text[:60]),
)
def test_what_was_never_written_is_not_read(text: bytes) -> None:
    """Reading is strict: whatever encode would not have written is a DecodeError."""
    with pytest.raises(DecodeError) as caught:
        decode(text)
    assert caught.value.__cause__ is None


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_a_decode_error(text: bytes) -> None:
    """No third thing happens."""
    try:
        decode(text)
    except DecodeError:
        return


@given(events, st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_text_never_crashes_and_what_is_read_writes_itself_again(
    event: dict[str, object], data: st.DataObject
) -> None:
    """One byte changed: an error, or an event whose own text reads the same."""
    text = bytearray(encode(event))
    text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode(bytes(text))
    except DecodeError:
        return
    assert same(decode(encode(read)), read)


def test_decode_errors_give_no_value_away() -> None:
    """The path is there, the content is not."""
    with pytest.raises(DecodeError, match=r"people\[0\]\.born") as caught:
        decode(b'{"people":[{"born":{"$date":"secret"}}]}')
    assert "secret" not in str(caught.value)


def test_the_media_type_is_the_documented_one() -> None:
    """Consumers compare it."""
    assert lossless_json.MEDIA_TYPE == "application/vnd.postroom.event+json"
