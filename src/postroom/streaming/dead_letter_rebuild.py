"""A dead letter read back: the original event and all that is known about its failure.

Reads what `dead_letter_format` writes, and makes the best of everything else: dead letters of Kafka Connect,
records without any such headers, damaged ones. Never raises for what a record holds.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import msgspec

from postroom.libs.event import Event, Headers, Violation, is_event_id
from postroom.libs.exceptions import DecodeError
from postroom.streaming import lossless_json
from postroom.streaming.dead_letter_format import (
    BYTES_TYPE,
    EPOCH,
    GZIP,
    MAX_PACKED_FROM_BYTES,
    PRIVACY_HEADER,
    TOMBSTONE_HEADER,
    ProducerIdentity,
    is_reason,
    is_reserved_header,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN_REASON = "unknown"
"""The reason of a dead letter that names none."""

_HIDDEN = {
    "redacted": "private values were redacted, by dead_letters.privacy",
    "hashed": "private values were hashed, by dead_letters.privacy",
    "left_out": "it could not be read and may hold private values: left out, by dead_letters.privacy",
}
_NUMBER = re.compile(r"[0-9]{1,9}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
_MILLISECOND = timedelta(milliseconds=1)


class RecordLike(Protocol):
    """What is needed of a record that was read back."""

    @property
    def key(self) -> bytes | None:
        """The key bytes."""
        ...

    @property
    def value(self) -> bytes | None:
        """The value bytes."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """The headers in their order."""
        ...


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as read back: the original and all that is known about its failure.

    `event` is the mapping or the bytes that were handed in; it is None for a tombstone (`is_tombstone`), and where
    `damage` says why it cannot be given back. Times are milliseconds since 1970 in UTC. None means that the record does
    not say.
    """

    event: Event | bytes | None
    key: bytes | None
    headers: Headers
    reason: str
    damage: str = ""
    event_id: str | None = None
    event_type: str | None = None
    topic: str | None = None
    stage: str | None = None
    contract: str | None = None
    schema_id: int | None = None
    violations: tuple[Violation, ...] = ()
    violations_total: int = 0
    attempts: int = 1
    first_seen_ms: int | None = None
    failed_at_ms: int | None = None
    producer: ProducerIdentity | None = None
    content_type: str = BYTES_TYPE
    is_tombstone: bool = False

    @property
    def rebuildable(self) -> bool:
        """True when `event` is the original."""
        return not self.damage


def rebuild(record: RecordLike) -> DeadLetter:
    """Return the original event with all that the record says about its failure. Never raises for what it holds.

    `headers` are the original ones: postroom's own names are left out, a header without a value has an empty one.
    """
    said = _texts(record.headers)
    event, damage = _event(record.value, said)
    violations = _violations(said.get("dlq.violations"))
    reason = said.get("dlq.reason")
    event_id = said.get("dlq.event_id", said.get("ce_id"))
    return DeadLetter(
        event=event,
        damage=damage,
        key=record.key,
        headers=tuple((name, value or b"") for name, value in record.headers if not is_reserved_header(name)),
        reason=reason if reason is not None and is_reason(reason) else UNKNOWN_REASON,
        event_id=event_id if is_event_id(event_id) else None,
        event_type=said.get("dlq.event_type"),
        topic=said.get("dlq.topic", said.get("__connect.errors.topic")),
        stage=said.get("dlq.stage", said.get("__connect.errors.stage")),
        contract=said.get("dlq.contract"),
        schema_id=_number(said.get("dlq.schema_id")),
        violations=violations,
        violations_total=max(len(violations), _number(said.get("dlq.violations_total")) or 0),
        attempts=_number(said.get("dlq.attempts")) or 1,
        first_seen_ms=_milliseconds(said.get("dlq.first_seen")),
        failed_at_ms=_milliseconds(said.get("dlq.failed_at")),
        producer=_producer(said.get("dlq.producer")),
        content_type=said.get("dlq.content_type", BYTES_TYPE),
        is_tombstone=event is None and not damage,
    )


def _texts(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, str]:
    """The headers with postroom's names as text; the last one of a name counts, what is no UTF-8 does not."""
    texts = {}
    for name, value in headers:
        if value is not None and is_reserved_header(name):
            try:
                texts[name] = value.decode()
            except UnicodeDecodeError:
                texts.pop(name, None)
    return texts


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _milliseconds(text: str | None) -> int | None:
    if text is None or not _MOMENT.fullmatch(text):
        return None
    try:
        return (datetime.fromisoformat(text) - EPOCH) // _MILLISECOND
    except ValueError:
        return None


def _violations(text: str | None) -> tuple[Violation, ...]:
    if text is None:
        return ()
    try:
        return msgspec.json.decode(text, type=tuple[Violation, ...])
    except (msgspec.MsgspecError, RecursionError):
        return ()


def _producer(text: str | None) -> ProducerIdentity | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=ProducerIdentity)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _event(value: bytes | None, said: dict[str, str]) -> tuple[Event | bytes | None, str]:
    """The original, or None and why it cannot be given back."""
    if value is None:
        return None, "" if said.get(TOMBSTONE_HEADER) == "true" else "the record has no value"
    if said.get("dlq.rebuildable") == "false":
        cut = f"cut to fit: the first {len(value)} of {said.get('dlq.value_bytes', 'more')} bytes are left"
        return None, _HIDDEN.get(said.get(PRIVACY_HEADER, ""), cut)
    try:
        original = _unpacked(value, said.get("dlq.content_encoding"))
        digest = said.get("dlq.value_sha256")
        if digest is not None and hashlib.sha256(original).hexdigest() != digest:
            return None, "the value does not have the checksum that its header names"
        if said.get("dlq.content_type") == lossless_json.MEDIA_TYPE:
            return lossless_json.decode(original), ""
    except DecodeError as exc:
        return None, exc.message
    return original, ""


def _unpacked(value: bytes, encoding: str | None) -> bytes:
    if encoding is None:
        return value
    if encoding != "gzip":
        raise DecodeError("the value has an unknown content encoding")
    unpacker = zlib.decompressobj(GZIP)
    try:
        original = unpacker.decompress(value, MAX_PACKED_FROM_BYTES)
    except zlib.error:
        raise DecodeError("the compressed value is damaged") from None
    if not unpacker.eof or unpacker.unused_data:
        raise DecodeError("the compressed value is cut, goes on after its end, or unpacks to too much")
    return original
