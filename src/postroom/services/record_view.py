"""A record as people and scripts read it: decoded by its schema, or as a dead letter, or at least described."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from postroom.libs.clock import SYSTEM_CLOCK, Clock, rfc3339
from postroom.libs.exceptions import DecodeError, PostroomError
from postroom.schemas.avro_codec import Codec, unframe
from postroom.schemas.json_reader import read_json
from postroom.schemas.lexical_forms import to_json
from postroom.streaming import lossless_json
from postroom.streaming.dead_letter_format import MARKER_HEADER
from postroom.streaming.dead_letter_queue import rebuild

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.streaming.kafka_reader import ReadRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ASK_AGAIN_S = 10.0
_LETTER_MARKS = ("dlq.", "__connect.errors.")


class Schemas(Protocol):
    """What is needed of a registry client."""

    def by_id(self, schema_id: int) -> str:
        """Return the JSON text of a schema."""
        ...


class RecordView:
    """Makes JSON-ready descriptions of records; asks `schemas` once for each schema id.

    A registry that did not answer is asked again after ten seconds, not for every record.
    """

    def __init__(self, schemas: Schemas, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._schemas = schemas
        self._clock = clock
        self._codecs: dict[int, Codec] = {}
        self._problems: dict[int, tuple[float, str]] = {}

    def describe(self, record: ReadRecord) -> dict[str, Any]:
        """Return the record as a JSON object. Never raises for what a record holds.

        `kind` says what follows: `event` (`schema_id`, `event`), `json` (`event`), `dead_letter` (the reason and all
        that is known, `event` as lossless JSON), `marker` (`settles`: the event id whose dead letters were sent
        again), `tombstone` (a record without a value) or `bytes` (`bytes`: their number, `problem`: why no more is
        shown).
        Keys and header values that are no UTF-8 stand as `{"base64": ...}`.
        """
        told: dict[str, Any] = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": _rfc3339(record.timestamp_ms),
            "key": _text(record.key),
            "headers": [[name, _text(value)] for name, value in record.headers],
        }
        settled = dict(record.headers).get(MARKER_HEADER)
        if settled is not None:
            return told | {"kind": "marker", "settles": _text(settled)}
        if any(name.startswith(_LETTER_MARKS) for name, _ in record.headers):
            return told | _letter(record)
        return told | self._value(record.value)

    def _value(self, value: bytes | None) -> dict[str, Any]:
        if value is None:
            return {"kind": "tombstone"}
        try:
            if value.startswith(b"{"):
                return {"kind": "json", "event": read_json(value)}
            schema_id, body = unframe(value)
            codec = self._codec(schema_id)
            return {"kind": "event", "schema_id": schema_id, "event": to_json(codec.schema, codec.decode(body))}
        except PostroomError as exc:
            return {"kind": "bytes", "bytes": len(value), "problem": exc.message}

    def _codec(self, schema_id: int) -> Codec:
        codec = self._codecs.get(schema_id)
        if codec is not None:
            return codec
        asked_at, problem = self._problems.get(schema_id, (0.0, ""))
        if problem and self._clock.monotonic() - asked_at < _ASK_AGAIN_S:
            raise DecodeError(problem)
        try:
            codec = self._codecs[schema_id] = Codec(json.loads(self._schemas.by_id(schema_id)))
        except PostroomError as exc:
            self._problems[schema_id] = (self._clock.monotonic(), f"schema {schema_id}: {exc.message}")
            raise DecodeError(f"schema {schema_id}: {exc.message}") from exc
        return codec


def _letter(record: ReadRecord) -> dict[str, Any]:
    letter = rebuild(record)
    return {
        "kind": "dead_letter",
        "reason": letter.reason,
        "stage": letter.stage,
        "going_to": letter.topic,
        "event_id": letter.event_id,
        "event_type": letter.event_type,
        "contract": letter.contract,
        "attempts": letter.attempts,
        "first_seen": _rfc3339(letter.first_seen_ms),
        "failed_at": _rfc3339(letter.failed_at_ms),
        "violations": msgspec.to_builtins(list(letter.violations)),
        "violations_total": letter.violations_total,
        "content_type": letter.content_type,
        "event": _original(letter.event),
        "damage": letter.damage,
    } | ({"tombstone": True} if letter.is_tombstone else {})


def _original(event: Mapping[str, object] | bytes | None) -> Any:
    if event is None or isinstance(event, bytes):
        return _text(event)
    return json.loads(lossless_json.encode(event))


def _text(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _rfc3339(milliseconds: int | None) -> str | None:
    """The moment as text; None for none, and for one beyond the years that a calendar holds."""
    if milliseconds is None or milliseconds < 0:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
    return rfc3339(moment)
