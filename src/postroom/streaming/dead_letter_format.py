"""An event that cannot be delivered, as the record that keeps it: docs/specs/dead-letter.md in code.

Pure: no client, no clock. The way back is `dead_letter_rebuild.rebuild`.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.clock import rfc3339
from postroom.libs.event import DeadLetterReason, Headers, Record, Violation, is_event_id
from postroom.libs.exceptions import (
    DeadLetteredError,
    DecodeError,
    InvalidMetadataError,
    PostroomError,
    RecordTooLargeError,
    ValidationError,
)
from postroom.streaming import lossless_json
from postroom.streaming.lossless_tags import has_lone_surrogate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postroom.libs.event import Event

MARKER_HEADER = "dlq.settles"
"""What makes a record of a dead letter topic a marker; its value is the event id that it settles."""

PRIVACY_HEADER = "dlq.privacy"
"""What a dead letter has whose private values were hidden: `redacted`, `hashed`, or `left_out` for all of its value."""
TOMBSTONE_HEADER = "dlq.tombstone"
"""What tells the dead letter of a record without a value from one whose value was lost."""

OWN_HEADER_BYTES = 4096
"""What the headers that are never dropped take at most; the rest of the budget is for the caller's headers."""

MAX_PACKED_FROM_BYTES = lossless_json.MAX_BYTES
"""The longest value that is compressed, and with that the longest that is unpacked."""

BYTES_TYPE = "application/octet-stream"
"""The content type of bytes about which nothing is said."""

_OWN_PREFIXES = ("dlq.", "__connect.errors.")
_OWN_NAMES = frozenset({"ce_id", "x-attempt"})
_REASON = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_CONTENT_TYPE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")
_NAME_BYTES = 256
_MESSAGE_BYTES = 512
_VIOLATION_TEXT = 200
_HEAD_BYTES = 65_536
# What Kafka adds to a record at most: lengths of each header, and lengths, deltas and batch of the record.
_HEADER_OVERHEAD = 10
_RECORD_OVERHEAD = 160


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GZIP = 31
"""zlib's window bits for a gzip stream."""


class Stage(StrEnum):
    """Where on its way an event broke."""

    DECODE = "decode"
    VALIDATE = "validate"
    ENCODE = "encode"
    PUBLISH = "publish"
    REPLAY = "replay"


_CONNECT_STAGES = {
    Stage.DECODE: "VALUE_CONVERTER",
    Stage.VALIDATE: "TRANSFORMATION",
    Stage.ENCODE: "VALUE_CONVERTER",
    Stage.PUBLISH: "KAFKA_PRODUCE",
    Stage.REPLAY: "KAFKA_PRODUCE",
}

_EXCEPTIONS: dict[str, type[PostroomError]] = {
    DeadLetterReason.DECODE_FAILED: DecodeError,
    DeadLetterReason.VALIDATION_FAILED: ValidationError,
    DeadLetterReason.RULE_FAILED: ValidationError,
    DeadLetterReason.MESSAGE_TOO_LARGE: RecordTooLargeError,
}


class ProducerIdentity(msgspec.Struct, frozen=True):
    """Who made a dead letter: the name of the service, its host, the version of postroom."""

    service: str
    host: str
    version: str


def marker_record(topic: str, key: bytes | None, event_id: str, attempts: int, now_ms: int) -> Record:
    """Return the record that says: the dead letters of `event_id` with up to `attempts` attempts were sent again."""
    headers = ((MARKER_HEADER, event_id.encode()), ("dlq.attempts", str(attempts).encode()))
    return Record(topic, key, b"", headers, event_id, now_ms)


def is_reserved_header(name: str) -> bool:
    """True for header names that only postroom may set."""
    return name in _OWN_NAMES or name.startswith(_OWN_PREFIXES)


def is_hidden(record: Record) -> bool:
    """True for a dead letter that cannot be sent again since private values were hidden in it."""
    return any(name == PRIVACY_HEADER for name, _ in record.headers)


def is_reason(text: object) -> bool:
    """True for a code that may stand as the reason of a dead letter."""
    return isinstance(text, str) and _REASON.fullmatch(text) is not None


def dead_letter_record(
    event: Event | bytes | None,
    *,
    topic: str,
    reason: str,
    stage: Stage,
    event_id: str,
    producer: ProducerIdentity,
    now_ms: int,
    event_type: str | None = None,
    key: bytes | None = None,
    headers: Headers = (),
    violations: Sequence[Violation] = (),
    contract: str | None = None,
    schema_id: int | None = None,
    attempts: int = 1,
    first_seen_ms: int | None = None,
    content_type: str = BYTES_TYPE,
    dead_letter_topic: str | None = None,
    suffix: str = ".dlq",
    max_header_bytes: int = 16_384,
    max_message_bytes: int = 1_000_000,
    privacy: str = "",
) -> Record:
    """Return the record that keeps `event` for repair; it fits `max_message_bytes`. None for `event` is a tombstone.

    `topic` is where the event was going; the record goes to `dead_letter_topic`, by default `topic` and `suffix`.
    `content_type` describes an event that was handed in as bytes. `privacy` says how values were hidden in it: it
    cannot be rebuilt then. Reserved names in `headers` are left out. Raises
    `NotRepresentableError` for a mapping that lossless JSON cannot hold, `InvalidMetadataError` for a reason, id or
    name that breaks its rule, and `RecordTooLargeError` when key and headers alone do not fit.
    """
    beside = topic + suffix if dead_letter_topic is None else dead_letter_topic
    _check(reason, topic, beside, event_id, content_type)
    kept = _kept(headers)
    value: bytes | None
    about_value = {"dlq.content_type": content_type}
    if event is None:
        value, about_value = None, {TOMBSTONE_HEADER: "true"}
    elif isinstance(event, bytes):
        value = event
    else:
        value, about_value = lossless_json.encode(event), {"dlq.content_type": lossless_json.MEDIA_TYPE}
    own = (
        {"ce_id": event_id}
        | _failure(reason, stage, topic, producer)
        | {
            "dlq.event_id": event_id,
            "dlq.attempts": str(attempts),
            "dlq.first_seen": _rfc3339(now_ms if first_seen_ms is None else first_seen_ms),
            "dlq.failed_at": _rfc3339(now_ms),
        }
        | about_value
    )
    own |= _if_known(event_type=event_type, contract=contract, schema_id=schema_id)
    if privacy:
        own |= {"dlq.rebuildable": "false", PRIVACY_HEADER: privacy}
    own |= _explanation(reason, violations, max_header_bytes - _size(kept) - _size(_encoded(own)))
    room = max_message_bytes - _RECORD_OVERHEAD - len(key or b"")
    value, shrunk = _fitting(value, room - _wire_size(kept + _encoded(own)))
    return Record(beside, key, value, kept + _encoded(own | shrunk), event_id, now_ms)


def _failure(reason: str, stage: Stage, topic: str, producer: ProducerIdentity) -> dict[str, str]:
    error = _EXCEPTIONS.get(reason, DeadLetteredError)
    who = ProducerIdentity(
        _cut(producer.service, _NAME_BYTES), _cut(producer.host, _NAME_BYTES), _cut(producer.version, _NAME_BYTES)
    )
    return {
        "dlq.reason": reason,
        "dlq.stage": stage.value,
        "dlq.topic": topic,
        "dlq.producer": msgspec.json.encode(who).decode(),
        "__connect.errors.topic": topic,
        "__connect.errors.connector.name": who.service,
        "__connect.errors.stage": _CONNECT_STAGES[stage],
        "__connect.errors.exception.class.name": f"{error.__module__}.{error.__qualname__}",
    }


def _if_known(event_type: str | None, contract: str | None, schema_id: int | None) -> dict[str, str]:
    texts = {"event_type": event_type, "contract": contract, "schema_id": None if schema_id is None else str(schema_id)}
    known = {f"dlq.{what}": text for what, text in texts.items() if text is not None}
    for name, text in known.items():
        if len(_utf8(text)) > _NAME_BYTES:
            raise InvalidMetadataError(f"{name} of a dead letter is longer than {_NAME_BYTES} bytes")
    return known


def _kept(headers: Headers) -> Headers:
    """The caller's headers without postroom's own names."""
    if any(has_lone_surrogate(name) for name, _ in headers):
        raise InvalidMetadataError("the name of a header of a dead letter cannot be written in UTF-8")
    return tuple(pair for pair in headers if not is_reserved_header(pair[0]))


def _check(reason: str, topic: str, dead_letter_topic: str, event_id: str, content_type: str) -> None:
    if not is_reason(reason):
        raise InvalidMetadataError(
            "the reason of a dead letter is a code", remedy="use small letters, digits and _, at most 64"
        )
    if not _TOPIC.fullmatch(topic) or not _TOPIC.fullmatch(dead_letter_topic):
        raise InvalidMetadataError(
            "the topic of a dead letter has no valid name", remedy="use at most 249 letters, digits, . _ and -"
        )
    if not is_event_id(event_id):
        raise InvalidMetadataError(
            "the event id of a dead letter is not valid", remedy="use 1 to 256 visible ASCII characters"
        )
    if not _CONTENT_TYPE.fullmatch(content_type) or content_type == lossless_json.MEDIA_TYPE:
        raise InvalidMetadataError(
            "the content type of the bytes in a dead letter is not valid", remedy="use a media type such as text/csv"
        )


def _rfc3339(milliseconds: int) -> str:
    return rfc3339(EPOCH + timedelta(milliseconds=milliseconds))


def _utf8(text: str) -> bytes:
    """UTF-8, with lone surrogates written out as escapes: a header must be readable by anyone."""
    return text.encode("utf-8", "backslashreplace")


def _cut(text: str, size: int) -> str:
    """The longest beginning of `text` that takes at most `size` bytes."""
    return _utf8(text)[:size].decode("utf-8", "ignore")


def _encoded(headers: Mapping[str, str]) -> Headers:
    return tuple((name, _utf8(text)) for name, text in headers.items())


def _size(headers: Headers) -> int:
    return sum(len(name.encode()) + len(value) for name, value in headers)


def _wire_size(headers: Headers) -> int:
    return _size(headers) + _HEADER_OVERHEAD * len(headers)


# Why: within the budget


def _explanation(reason: str, violations: Sequence[Violation], room: int) -> dict[str, str]:
    """The message and the violations, as far as `room` bytes allow."""
    shortened = [_shortened(violation) for violation in violations]
    said: dict[str, str] = {}
    if shortened:
        # Taken off first, so that saying how many there were always fits.
        room -= len("dlq.violations_total") + 10
    name = "__connect.errors.exception.message"
    message = _cut("; ".join([reason, *map(str, shortened[:5])]), _MESSAGE_BYTES)
    if len(name) + len(_utf8(message)) <= room:
        said[name] = message
        room -= len(name) + len(_utf8(message))
    texts = _fitting_texts(shortened, room - len("dlq.violations[]"))
    if texts:
        said["dlq.violations"] = f"[{','.join(texts)}]"
    if len(texts) < len(shortened):
        said["dlq.violations_total"] = str(len(shortened))
    return said


def _fitting_texts(violations: Sequence[Violation], room: int) -> list[str]:
    texts = []
    for violation in violations:
        text = msgspec.json.encode(violation)
        room -= len(text) + 1
        if room < 0:
            break
        texts.append(text.decode())
    return texts


def _shortened(violation: Violation) -> Violation:
    fields = (violation.path, violation.rule, violation.expected, violation.found)
    return Violation(*(_utf8(field[:_VIOLATION_TEXT]).decode() for field in fields))


# The value: as it is, compressed, or its head


def _fitting(value: bytes | None, room: int) -> tuple[bytes | None, dict[str, str]]:
    """Return what fits into `room` bytes, and the headers that say what was done to it."""
    if value is None and room < 0:
        raise _too_large()
    if value is None or len(value) <= room:
        return value, {}
    said = {"dlq.value_bytes": str(len(value)), "dlq.value_sha256": hashlib.sha256(value).hexdigest()}
    if len(value) <= MAX_PACKED_FROM_BYTES:
        packer = zlib.compressobj(6, zlib.DEFLATED, GZIP)
        packed = packer.compress(value) + packer.flush()
        packed_said = said | {"dlq.content_encoding": "gzip"}
        if len(packed) + _wire_size(_encoded(packed_said)) <= room:
            return packed, packed_said
    said["dlq.rebuildable"] = "false"
    room -= _wire_size(_encoded(said))
    if room < 0:
        raise _too_large()
    return value[: min(room, _HEAD_BYTES)], said


def _too_large() -> RecordTooLargeError:
    return RecordTooLargeError(
        "key and headers alone are too large for a dead letter", remedy="send a shorter key or fewer headers"
    )
