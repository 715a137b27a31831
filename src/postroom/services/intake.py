"""Steps 1 and 2 of the pipeline: from what a caller hands in to a record that may be sent."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from postroom.libs.event import (
    DeadLetterReason,
    Event,
    EventIds,
    Record,
    RefusedReason,
    is_event_id,
)
from postroom.libs.exceptions import DecodeError, NotRepresentableError
from postroom.schemas.csv_events import CsvEvent
from postroom.schemas.rule_set import RuleAction
from postroom.schemas.rules import strictest
from postroom.services.addressing import by_all_names, unknown_type
from postroom.services.cloud_events import LAST_TIMESTAMP_MS, HandedIn, record_headers, taken_apart
from postroom.services.item import TOMBSTONE, Item, Tombstone
from postroom.services.lane import HeadersInput, Lane, MetadataError, key_bytes
from postroom.services.receipt import Receipt
from postroom.streaming.dead_letter_format import OWN_HEADER_BYTES, Stage

if TYPE_CHECKING:
    from postroom.libs.clock import Clock
    from postroom.libs.event import Headers
    from postroom.services.components import Components
    from postroom.services.ledger import Ledger
    from postroom.services.settlement import Settlement

_EVENT_KINDS = (Mapping, bytes, str, Tombstone)
_KEY_KINDS = (str, bytes)
_TOLD_VIOLATIONS = 5


class Intake:
    """Counts every event that is handed in, finds its contract, checks it, and encodes it."""

    def __init__(self, parts: Components, ledger: Ledger, settlement: Settlement, clock: Clock) -> None:
        self._parts = parts
        self._lanes = by_all_names(parts.lanes)
        self._on_report = parts.dispatcher.on_report
        self._default = parts.config.contracts.default
        self._max_header_bytes = parts.config.dead_letters.max_header_bytes - OWN_HEADER_BYTES
        self._ledger = ledger
        self._settlement = settlement
        self._clock = clock
        self._ids = EventIds()
        self._id_lock = threading.Lock()

    def admit(
        self,
        event: Event | bytes | str | Tombstone,
        event_type: str | None,
        key: str | bytes | None,
        event_id: str | None,
        timestamp: int | None,
        headers: HeadersInput | None,
        attempt: int = 1,
    ) -> Item:
        """Return the event's item: it holds a record to send (the event, or its dead letter), or an outcome.

        Arguments as of `ProducerService.publish_event`. Raises TypeError for an argument of a wrong kind; nothing
        was counted then.
        """
        _check_kinds(event, event_type, key, event_id, timestamp)
        problem = ""
        user_headers: Headers = ()
        key_sent: bytes | None = None
        if headers or key is not None or event_id is not None or timestamp is not None:
            try:
                if headers:
                    given = HandedIn(event, event_type, key, event_id, timestamp)
                    given = taken_apart(given, headers, self._max_header_bytes)
                    event, event_type, key, event_id, timestamp, user_headers = given
                key_sent = _checked_metadata(key, event_id, timestamp)
            except MetadataError as exc:
                problem, event_id = str(exc), None
        lane = self._lanes.get(event_type or self._default)
        if event_id is None:
            with self._id_lock:
                event_id = self._ids.next(self._clock.time_ms())
        book = lane.book if lane is not None else self._ledger.book("")
        item = Item(Receipt(event_id), book, self._clock.monotonic(), self._on_report)
        item.user_headers = user_headers
        item.attempt = attempt
        try:
            book.receive(item.receipt)
            if not problem and lane is not None and lane.schema_id is not None:
                item.lane = lane
                self._make_record(item, lane, event, key_sent, timestamp)
            else:
                self._refuse(item, lane, problem, event_type)
        except Exception as exc:  # noqa: BLE001 - a defect of ours must not lose the event: it fails, and says so
            self._settlement.fail_for_defect(item, "admit", exc)
        except BaseException as exc:  # a signal handler's, Ctrl-C for one: it goes on up, the books stay right
            if book.is_open(item.receipt):
                self._settlement.fail_for_defect(item, "admit", exc)
            raise
        return item

    def _refuse(self, item: Item, lane: Lane | None, problem: str, event_type: str | None) -> None:
        if problem:
            self._settlement.refuse(item, RefusedReason.INVALID_METADATA, detail=problem)
        elif lane is None:
            detail = unknown_type(self._parts.lanes, event_type)
            self._settlement.refuse(item, RefusedReason.UNKNOWN_EVENT_TYPE, detail=detail)
        else:
            self._settlement.refuse(item, RefusedReason.CONTRACT_UNAVAILABLE, 1.0, lane.closed_because)

    def _make_record(
        self, item: Item, lane: Lane, event: Event | bytes | str | Tombstone, key: bytes | None, timestamp: int | None
    ) -> None:
        original: Event | bytes
        if type(event) is dict:  # asked first: the usual case
            original = event
        elif event is TOMBSTONE:
            self._make_tombstone(item, lane, key, timestamp)
            return
        else:
            original = event.encode("utf-8", "surrogatepass") if isinstance(event, str) else event
            item.raw = original if isinstance(original, bytes) else None
        try:
            read = lane.read(original)
        except NotRepresentableError as exc:
            self._settlement.refuse(item, RefusedReason.NOT_REPRESENTABLE, detail=exc.message)
            return
        except DecodeError:
            reason, found = DeadLetterReason.DECODE_FAILED, tuple(lane.problems(original))
            self._settlement.make_dead_letter(item, original, reason, Stage.DECODE, key=key, violations=found)
            return
        if key is None:
            key = lane.key_of(read)
        value = lane.encode(read)
        if value is None:
            reason, found = DeadLetterReason.VALIDATION_FAILED, tuple(lane.violations(read, original))
            self._settlement.make_dead_letter(item, original, reason, Stage.VALIDATE, key=key, violations=found)
            return
        if lane.conditions is not None and self._breaks_rules(item, lane, original, read, key):
            return
        now_ms = self._clock.time_ms() if timestamp is None else timestamp
        event_id = item.receipt.event_id
        headers = lane.headers(event_id, now_ms, item.attempt)
        if item.user_headers:
            headers = record_headers(headers, item.user_headers, whole_binding=lane.is_cloudevent)
        item.record = Record(lane.topic, key, value, headers, event_id, now_ms, item.attempt)

    def _breaks_rules(self, item: Item, lane: Lane, original: Event | bytes, read: object, key: bytes | None) -> bool:
        """End the way of a valid event that breaks a rule; False for one that is published all the same."""
        assert lane.conditions is not None
        failures = lane.conditions.failures(read)
        if not failures:
            return False
        self._settlement.tell_rule_failures(lane, failures)
        action = strictest(failures)
        if action is RuleAction.NONE:
            return False
        found = tuple(failure.violation for failure in failures if failure.rule.action is not RuleAction.NONE)
        if type(original) is CsvEvent:
            found = tuple(original.located(found))
        if action is RuleAction.ERROR:
            detail = "; ".join(map(str, found[:_TOLD_VIOLATIONS]))
            self._settlement.refuse(item, RefusedReason.RULE_FAILED, detail=detail)
        else:
            reason = DeadLetterReason.RULE_FAILED
            self._settlement.make_dead_letter(item, original, reason, Stage.VALIDATE, key=key, violations=found)
        return True

    def _make_tombstone(self, item: Item, lane: Lane, key: bytes | None, timestamp: int | None) -> None:
        if not lane.contract.tombstones:
            detail = f"the contract {lane.name} takes no tombstones: its file would have to say tombstones: true"
            self._settlement.refuse(item, RefusedReason.TOMBSTONE_NOT_ALLOWED, detail=detail)
            return
        now_ms = self._clock.time_ms() if timestamp is None else timestamp
        event_id = item.receipt.event_id
        headers = lane.tombstone_headers(event_id, now_ms, item.attempt)
        headers = record_headers(headers, item.user_headers, whole_binding=lane.is_cloudevent)
        item.record = Record(lane.topic, key, None, headers, event_id, now_ms, item.attempt)


def _check_kinds(event: object, event_type: object, key: object, event_id: object, timestamp: object) -> None:
    # Asked for every event: exact types first, and tuples, since `A | B` makes a new object at each call.
    if type(event) is not dict and not isinstance(event, _EVENT_KINDS):
        raise TypeError(f"an event is a mapping, or JSON in bytes or text, not {type(event).__name__}")
    if event is TOMBSTONE and key is None:
        raise TypeError("a tombstone needs a key (str or bytes)")
    if event_type is not None and not isinstance(event_type, str):
        raise TypeError(f"event_type must be str, not {type(event_type).__name__}")
    if event_id is not None and not isinstance(event_id, str):
        raise TypeError(f"event_id must be str, not {type(event_id).__name__}")
    if key is not None and not isinstance(key, _KEY_KINDS):
        raise TypeError(f"key must be str or bytes, not {type(key).__name__}")
    if timestamp is not None and type(timestamp) is not int:
        raise TypeError(f"timestamp must be int (milliseconds since 1970), not {type(timestamp).__name__}")


def _checked_metadata(key: str | bytes | None, event_id: str | None, timestamp: int | None) -> bytes | None:
    """Return the key as bytes; MetadataError for a key, id or time that no record can carry."""
    if event_id is not None and not is_event_id(event_id):
        raise MetadataError("event_id must be 1 to 256 visible ASCII characters without spaces")
    if timestamp is not None and not 0 <= timestamp <= LAST_TIMESTAMP_MS:
        raise MetadataError("timestamp must be milliseconds since 1970, up to the year 9999")
    return None if key is None else key_bytes(key)
