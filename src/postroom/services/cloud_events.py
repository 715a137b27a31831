"""What callers hand in, taken apart by its headers: a plain event, or a CloudEvent in binary or structured mode.

CloudEvents 1.0 are recognised by headers only, as their Kafka protocol binding says (1.0.2, section 3): `content-type:
application/cloudevents+json` is structured mode, `ce_specversion` binary mode. Fields of an event are never looked at.
docs/design/0010-what-may-be-handed-in.md has the table of what becomes of each attribute.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from postroom.libs.event import Event, is_event_id
from postroom.libs.exceptions import DecodeError
from postroom.schemas.json_reader import read_json
from postroom.services.item import TOMBSTONE, Tombstone
from postroom.services.lane import HeadersInput, MetadataError, checked_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from postroom.libs.event import Headers

STRUCTURED_TYPE: Final = "application/cloudevents+json"

_CONTENT_TYPE: Final = "content-type"
_SPECVERSION: Final = "ce_specversion"
_JSON: Final = re.compile(r"(?:application|text)/(?:[a-z0-9.+_-]+\+)?json")
_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_SHOWN: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?(?:[Zz]|([+-][0-9]{2}:[0-5][0-9]))"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
LAST_TIMESTAMP_MS: Final = 253_402_300_799_999
"""The end of the year 9999: later times are mistaken units, and tools around Kafka cannot show them."""

_DATA: Final = ("data", "data_base64")
_NEVER_EMPTY: Final = frozenset({"id", "source", "type", "subject", "dataschema", "datacontenttype", "partitionkey"})

# Attributes that are said anew for the record, which is Avro and not the JSON that was handed in.
_SAID_ANEW: Final = frozenset({"ce_id", "ce_type", "ce_dataschema", _CONTENT_TYPE})


class HandedIn(NamedTuple):
    """The arguments of `publish_event`, and then what they and the headers say together."""

    event: Event | bytes | str | Tombstone
    event_type: str | None
    key: str | bytes | None
    event_id: str | None
    timestamp: int | None
    headers: Headers = ()


def taken_apart(given: HandedIn, headers: HeadersInput, max_header_bytes: int) -> HandedIn:
    """Return what `given` and the headers say together; where both say something, `given` counts.

    Its headers are the caller's own, and before them the attributes of a CloudEvent. Raises TypeError for headers of a
    wrong kind, MetadataError for headers and attributes that no record can carry; it never shows a value.
    """
    pairs = _pairs(headers)
    if not _says_more(pairs):  # the usual case, and 3 us cheaper than what follows
        event, event_type, key, event_id, timestamp, _ = given
        return HandedIn(event, event_type, key, event_id, timestamp, checked_headers(pairs, max_header_bytes))
    media_type = _media_type(pairs)
    if media_type == STRUCTURED_TYPE:
        return _structured(given, [pair for pair in pairs if not pair[0].startswith("ce_")], max_header_bytes)
    if media_type is not None and media_type.startswith("application/cloudevents"):
        raise MetadataError(f"content-type names a form of CloudEvents that is not read here; {STRUCTURED_TYPE} is")
    if any(name == _SPECVERSION for name, _ in pairs):
        if media_type is not None and not _JSON.fullmatch(media_type):
            raise MetadataError("content-type is none of JSON: the data of a CloudEvent is read as JSON")
        attributes = {name[3:]: text for name, text in _texts(pairs, lambda name: name.startswith("ce_")).items()}
        rest = [pair for pair in pairs if not pair[0].startswith("ce_") and pair[0] != _CONTENT_TYPE]
        return _with_attributes(given, attributes, rest, max_header_bytes)
    own = _texts(pairs, lambda name: name in {"ce_type", "ce_id"})
    rest = [pair for pair in pairs if pair[0] not in own]
    return given._replace(
        event_type=given.event_type or own.get("ce_type"),
        event_id=given.event_id or own.get("ce_id"),
        headers=checked_headers(rest, max_header_bytes),
    )


def record_headers(own: Headers, handed_in: Headers, *, whole_binding: bool) -> Headers:
    """Return the headers of a record: postroom's own and those that were handed in.

    Attributes of a CloudEvent go along where the contract asks for the whole binding: they take the place of what
    postroom would say itself. Elsewhere they are left out.
    """
    for name, _ in handed_in:
        if name.startswith("ce_"):
            break
    else:
        return (*own, *handed_in)
    said = {name: value for name, value in handed_in if name.startswith("ce_") and name not in _SAID_ANEW}
    rest = tuple(pair for pair in handed_in if not pair[0].startswith("ce_"))
    if not whole_binding:
        return (*own, *rest)
    return (*((name, said.pop(name, value)) for name, value in own), *said.items(), *rest)


def without_what_is_said_anew(headers: Headers) -> Headers:
    """Return the headers of a record as they can be handed in again: without those that describe its Avro bytes."""
    return tuple(pair for pair in headers if pair[0] not in _SAID_ANEW)


# -- headers


def _pairs(headers: HeadersInput) -> list[tuple[str, str | bytes]]:
    try:
        return [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except ValueError:
        raise TypeError("headers must be a mapping, or pairs of a name and a value") from None


def _says_more(pairs: list[tuple[str, str | bytes]]) -> bool:
    """Return whether any header is one of CloudEvents."""
    found = False
    for name, _ in pairs:
        if not isinstance(name, str):
            raise TypeError("headers must be names (str) with values (str or bytes)")
        found = found or name.startswith("ce_") or name == _CONTENT_TYPE
    return found


def _texts(pairs: Iterable[tuple[str, str | bytes]], is_meant: Callable[[str], bool]) -> dict[str, str]:
    """Return the headers whose names are meant, as text; each may stand there once."""
    texts: dict[str, str] = {}
    for name, value in pairs:
        if not is_meant(name):
            continue
        shown = _shown(name)
        if name in texts:
            raise MetadataError(f"the header {shown} stands there several times")
        if not isinstance(value, str | bytes):
            raise TypeError(f"the header {shown} must be str or bytes, not {type(value).__name__}")
        try:
            texts[name] = value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError:
            raise MetadataError(f"the header {shown} is not valid text") from None
    return texts


def _media_type(pairs: list[tuple[str, str | bytes]]) -> str | None:
    text = _texts(pairs, lambda name: name == _CONTENT_TYPE).get(_CONTENT_TYPE)
    return None if text is None else text.partition(";")[0].strip().lower()


# -- envelopes


def _structured(given: HandedIn, rest: list[tuple[str, str | bytes]], max_header_bytes: int) -> HandedIn:
    if given.event is TOMBSTONE:
        raise MetadataError("a tombstone has no envelope: hand its attributes in as ce_ headers")
    is_text = isinstance(given.event, bytes | str)
    others = [pair for pair in rest if pair[0] != _CONTENT_TYPE]
    try:
        envelope = _envelope(given.event)
    except DecodeError:  # kept as it is, with its type: a dead letter that can be read as what it was meant to be
        kept = ((_CONTENT_TYPE, STRUCTURED_TYPE.encode()),)
        return given._replace(headers=(*kept, *checked_headers(others, max_header_bytes, beside=kept)))
    attributes: dict[str, str] = {}
    for name, value in envelope.items():
        if value is not None and name not in _DATA:  # JSON format 1.0.2, section 2: null is as good as not there
            attributes[name] = _attribute_text(name, value)
    content_type = attributes.pop("datacontenttype", None)
    if content_type is not None and not _JSON.fullmatch(content_type.partition(";")[0].strip().lower()):
        raise MetadataError("the attribute datacontenttype is none of JSON: the data is read as JSON")
    data = _data(envelope, is_text=is_text)
    return _with_attributes(given._replace(event=data), attributes, others, max_header_bytes)


def _envelope(event: object) -> dict[str, object]:
    if isinstance(event, bytes | str):
        envelope = read_json(event)
    else:
        try:
            envelope = dict(event)  # type: ignore[call-overload]  # a Mapping: what else could be handed in is no event
        except Exception as exc:
            raise MetadataError(f"the envelope raised {type(exc).__name__} when it was read") from exc
    if type(envelope) is not dict or not all(type(name) is str for name in envelope):
        raise MetadataError("the envelope of a CloudEvent is an object of attributes")
    return envelope


def _data(envelope: dict[str, object], *, is_text: bool) -> Event | bytes | str:
    data, encoded = (envelope.get(name) for name in _DATA)
    if data is not None and encoded is not None:
        raise MetadataError("the attributes data and data_base64 stand side by side")
    if encoded is not None:
        try:
            return base64.b64decode(encoded if type(encoded) is str else "-", validate=True)
        except (binascii.Error, ValueError):
            raise MetadataError("the attribute data_base64 is not base64") from None
    if data is None:
        raise MetadataError("the attribute data is missing")
    if is_text:  # as JSON again: it is read by the contract, and kept as text where it breaks it
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    if not isinstance(data, Mapping | bytes | str):
        raise MetadataError("the attribute data is no mapping, nor JSON in bytes or text")
    return data


# -- attributes


def _shown(name: str) -> str:
    return name if _SHOWN.fullmatch(name) else "<unprintable>"


def _attribute_text(name: str, value: object) -> str:
    """Return the value in its text form (CloudEvents 1.0.2, type system)."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int and -(2**31) <= value < 2**31:
        return str(value)
    raise MetadataError(f"the attribute {_shown(name)} must be text, a truth value or a whole number of 32 bits")


def _with_attributes(
    given: HandedIn, attributes: dict[str, str], rest: list[tuple[str, str | bytes]], max_header_bytes: int
) -> HandedIn:
    for name, text in attributes.items():
        _check(name, text)
    if attributes.get("specversion") != "1.0":
        raise MetadataError("the attribute specversion must be 1.0")
    wanted = {"id": given.event_id, "type": given.event_type, "source": None}
    for name, said in wanted.items():
        if not said and name not in attributes:
            raise MetadataError(f"the attribute {name} is missing")
    if not given.event_id and not is_event_id(attributes["id"]):
        raise MetadataError("the attribute id must be 1 to 256 visible ASCII characters without spaces")
    time_ms = _milliseconds(attributes["time"]) if "time" in attributes else None
    kept = tuple((f"ce_{name}", text.encode()) for name, text in attributes.items() if name not in {"id", "type"})
    return HandedIn(
        given.event,
        given.event_type or attributes["type"],
        attributes.get("partitionkey") if given.key is None else given.key,
        given.event_id or attributes["id"],
        time_ms if given.timestamp is None else given.timestamp,
        (*kept, *checked_headers(rest, max_header_bytes, beside=kept)),
    )


def _check(name: str, text: str) -> None:
    if not _NAME.fullmatch(name) or name in _DATA:
        raise MetadataError(f"the attribute {_shown(name)} has a name of other characters than a-z and 0-9")
    if not text and name in _NEVER_EMPTY:
        raise MetadataError(f"the attribute {name} is empty")
    if _NO_TEXT.search(text):
        raise MetadataError(f"the attribute {name} holds control characters or is not valid text")


def _milliseconds(text: str) -> int:
    """Return the moment (RFC 3339) in whole milliseconds since 1970; what is finer is cut off."""
    match = _TIME.fullmatch(text)
    day, clock, fraction, offset = match.groups() if match else ("", "", "", "")
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{offset or '+00:00'}")
    except ValueError:
        raise MetadataError("the attribute time is no moment of RFC 3339, such as 2026-11-23T06:43:02.091Z") from None
    milliseconds = (moment - _EPOCH) // _MILLISECOND + int((fraction or "")[:3].ljust(3, "0"))
    if not 0 <= milliseconds <= LAST_TIMESTAMP_MS:
        raise MetadataError("the attribute time is not within the years 1970 to 9999")
    return milliseconds
