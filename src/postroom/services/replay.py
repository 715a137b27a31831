"""Sending dead letters again, after their cause was mended.

Kafka cannot take a record out of a topic. A dead letter that was sent again is therefore settled by a marker behind
it in the same topic (docs/specs/dead-letter.md, "Markers"); what has no marker is open. So a second replay sends
nothing twice, wherever it runs, and what still fails simply stays open.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.event import DeadLettered, Delivered, Failed, Outcome, Refused, Spooled
from postroom.libs.exceptions import QueueFullError
from postroom.schemas.csv_events import CSV_TYPE, CsvEvent
from postroom.services.item import TOMBSTONE
from postroom.streaming.dead_letter_format import MARKER_HEADER, marker_record
from postroom.streaming.dead_letter_queue import DeadLetter, rebuild
from postroom.streaming.delivery import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from postroom.libs.clock import Clock
    from postroom.libs.event import Record
    from postroom.services.lane import Lane
    from postroom.services.producer_service import ProducerService
    from postroom.services.receipt import Receipt
    from postroom.streaming.kafka_reader import ReadRecord
    from postroom.streaming.publisher import Report

_PATIENCE_S = 3600.0
_MARKER_PATIENCE_S, _MARKER_TRIES = 30.0, 10
_BATCH = 1_000
_LOOK_S = 0.02


class OpenLetter(msgspec.Struct, frozen=True):
    """A dead letter that no marker settles, and where it stands."""

    topic: str
    partition: int
    offset: int
    letter: DeadLetter


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant: all that agree with everything that is given."""

    reason: str | None = None
    event_ids: frozenset[str] = frozenset()
    limit: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Say whether `letter` is meant, the limit aside."""
        if self.reason is not None and letter.reason != self.reason:
            return False
        return not self.event_ids or letter.event_id in self.event_ids


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the dead letters that were meant.

    `delivered` were sent again, or lie in the spool, and are settled (in a dry run: would be sent). `still_failing`
    break today's contract and stay open; `still_failing_by_rule` counts the rules that they break. `not_rebuildable`
    cannot be given back, for the reasons that `not_rebuildable_by_reason` counts, such as values that were hidden.
    `dead_lettered` were refused by the broker again: newer dead letters took their places. `refused` and `failed`
    stay open.
    """

    dry_run: bool = False
    selected: int = 0
    delivered: int = 0
    still_failing: int = 0
    still_failing_by_rule: dict[str, int] = {}
    not_rebuildable: int = 0
    not_rebuildable_by_reason: dict[str, int] = {}
    dead_lettered: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def ok(self) -> bool:
        """True when every dead letter that was meant was delivered."""
        return self.delivered == self.selected


def open_letters(read: Callable[[], Iterable[ReadRecord]]) -> Iterator[OpenLetter]:
    """Yield the dead letters that no marker settles, in their order.

    `read` gives the records of a dead letter topic from its beginning; it is called twice, first for the markers (which
    stand behind what they settle), so that memory is taken by event ids only. A marker settles the dead letters of its
    event id up to its number of attempts.
    """
    settled: dict[str, int] = {}
    for record in read():
        headers = dict(record.headers)
        if MARKER_HEADER in headers:
            event_id = (headers[MARKER_HEADER] or b"").decode(errors="replace")
            settled[event_id] = max(settled.get(event_id, 0), _number(headers.get("dlq.attempts")))
    for record in read():
        if any(name == MARKER_HEADER for name, _ in record.headers):
            continue
        letter = rebuild(record)
        if letter.event_id is None or settled.get(letter.event_id, 0) < letter.attempts:
            yield OpenLetter(record.topic, record.partition, record.offset, letter)


def _number(value: bytes | None) -> int:
    text = (value or b"").decode(errors="replace")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


class Replay:
    """Hands dead letters in again at the top of the pipeline of `service`, which must run."""

    def __init__(self, service: ProducerService, selection: Selection, *, dry_run: bool = False) -> None:
        self._service = service
        self._selection = selection
        self._dry_run = dry_run
        self._counts: Counter[str] = Counter()
        self._rules: Counter[str] = Counter()
        self._damages: Counter[str] = Counter()
        self._markers_lost = 0
        self._is_late = False

    def run(self, read: Callable[[], Iterable[ReadRecord]], now_ms: Callable[[], int]) -> ReplayResult:
        """Send again what is meant of a dead letter topic, see `open_letters` for `read`; return the counts."""
        batch: list[tuple[OpenLetter, Receipt]] = []
        for letter in self._chosen(read):
            receipt = self._again(letter)
            if receipt is not None:
                batch.append((letter, receipt))
            if len(batch) >= _BATCH:
                self._settle(batch, now_ms)
        self._settle(batch, now_ms)
        return self._result()

    def _chosen(self, read: Callable[[], Iterable[ReadRecord]]) -> Iterator[OpenLetter]:
        for letter in open_letters(read):
            if self._counts["selected"] == self._selection.limit:
                return
            if self._selection.takes(letter.letter):
                self._counts["selected"] += 1
                yield letter

    def _again(self, letter: OpenLetter) -> Receipt | None:
        """Hand the event in again; None when that is no use, or only a trial."""
        told = letter.letter
        lane = self._lane(letter)
        event = TOMBSTONE if told.is_tombstone else told.event
        if isinstance(event, bytes) and told.content_type == CSV_TYPE:
            event = CsvEvent.again(event)
        if event is None or told.event_id is None or lane is None or (event is TOMBSTONE and told.key is None):
            self._counts["not_rebuildable"] += 1
            damage = told.damage.partition(": the first")[0]
            self._damages[damage or ("no event id" if lane is not None else "its contract is not known here")] += 1
            return None
        problems = lane.problems(event)
        if problems:
            self._counts["still_failing"] += 1
            self._rules.update({problem.rule for problem in problems})
            return None
        if self._dry_run:
            self._counts["delivered"] += 1
            return None
        item = self._service.admit(
            event, lane.name, told.key, told.event_id, None, told.headers or None, told.attempts + 1
        )
        self._service.hand_over(item, _PATIENCE_S)
        return item.receipt

    def _lane(self, letter: OpenLetter) -> Lane | None:
        lanes = self._service.parts.lanes
        event_type = letter.letter.event_type
        if event_type is None:  # somebody else's dead letter; its record may have been a CloudEvent
            event_type = dict(letter.letter.headers).get("ce_type", b"").decode(errors="replace") or None
        if event_type is not None:
            return lanes.get(event_type)
        # Foreign dead letters do not say their type: the topic knows it, if it holds only one.
        there = [lane for lane in lanes.values() if lane.dead_letter_topic == letter.topic]
        return there[0] if len(there) == 1 else None

    def _settle(self, batch: list[tuple[OpenLetter, Receipt]], now_ms: Callable[[], int]) -> None:
        """Wait for the outcomes and put markers behind what is done with."""
        names: dict[type[Outcome], str] = {
            Delivered: "delivered",
            Spooled: "delivered",
            DeadLettered: "dead_lettered",
            Refused: "refused",
            Failed: "failed",
        }
        for letter, receipt in batch:
            outcome = receipt.result()
            self._counts[names[type(outcome)]] += 1
            if outcome.is_safe:
                told = letter.letter
                self._mark(marker_record(letter.topic, told.key, receipt.event_id, told.attempts, now_ms()))
        batch.clear()
        self._service.parts.publisher.flush(30.0)

    def _mark(self, record: Record) -> None:
        """Put a marker into the dead letter topic; one for which there is no room in time is lost like any other."""
        publisher = self._service.parts.publisher
        for _ in range(_MARKER_TRIES):
            try:
                publisher.publish(record, self._on_marker)
            except QueueFullError:  # Kafka went away, for one, and what waits for it is handed over to the spool
                if self._is_late or not publisher.wait_for_room(_MARKER_PATIENCE_S):
                    break
            else:
                return
        self._is_late = True  # that was patience enough: the others would wait as long, one after the other
        self._markers_lost += 1

    def _on_marker(self, report: Report) -> None:
        if report.decision.action is not Action.DELIVERED:
            self._markers_lost += 1

    def wait_for_spool(self, timeout_s: float, clock: Clock) -> int:
        """Wait up to `timeout_s` seconds for the spool to empty; return how many events wait there still."""
        end = clock.monotonic() + timeout_s
        while (waiting := self._service.ledger.total().spooled) and clock.monotonic() < end:
            clock.sleep(_LOOK_S)
        return waiting

    @property
    def markers_lost(self) -> int:
        """How many markers Kafka did not take: those dead letters will be sent again, marked, by the next replay."""
        return self._markers_lost

    def _result(self) -> ReplayResult:
        return ReplayResult(
            dry_run=self._dry_run,
            selected=self._counts["selected"],
            delivered=self._counts["delivered"],
            still_failing=self._counts["still_failing"],
            still_failing_by_rule=dict(self._rules.most_common()),
            not_rebuildable=self._counts["not_rebuildable"],
            not_rebuildable_by_reason=dict(self._damages.most_common()),
            dead_lettered=self._counts["dead_lettered"],
            refused=self._counts["refused"],
            failed=self._counts["failed"],
        )
