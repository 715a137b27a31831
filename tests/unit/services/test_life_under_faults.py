"""A service with a spool lives through random trouble: nothing accepted is lost, repeats are marked, keys keep order.

Each life hands in events of a few keys while Kafka goes away and comes back, answers late, loses acknowledgements, has
no room and meets fatal errors, the disk fills up, and the service is closed and opened again. At the end all is well,
the spool drains, and what stands in Kafka is held against what the callers were told.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest

from postroom.libs.event import DeadLettered, Delivered, Failed, Refused, Spooled
from postroom.testing.fault_script import FaultScript
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.libs.event import Outcome, Record
    from postroom.services.receipt import Receipt

LIVES = int(os.environ.get("POSTROOM_LIVES", "6"))
STEPS = 120
KEYS = 7
PATIENCE_S = 60.0
TOPIC = "user_events"


class FastClock:
    """A clock that runs fifty times as fast: backoffs and patience take milliseconds."""

    times = 50

    def monotonic(self) -> float:
        return time.monotonic() * self.times

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self.times)


class Life:
    """One life from its seed."""

    def __init__(self, seed: int, folder: Path, write_ahead: str, on_exhausted: str = "spool") -> None:
        self.random = Random(seed)
        self.folder = folder
        self.write_ahead = write_ahead
        self.faults = FaultScript(seed=seed)
        self.receipts: list[tuple[str, int, Receipt]] = []
        self.numbers: Counter[str] = Counter()
        self.records: list[Record] = []
        self.service = self._open()

    def _open(self) -> RecordingService:
        return RecordingService(
            faults=self.faults,
            spool_dir=self.folder,
            write_ahead=self.write_ahead,  # type: ignore[arg-type]  # one of the two
            records=self.records,
            clock=FastClock(),
        ).start()

    def run(self) -> None:
        for _ in range(STEPS):
            steps = {
                self.publish: 50,
                self.go_away: 8,
                self.come_back: 10,
                self.be_slow: 4,
                self.lose_acks: 4,
                self.be_full: 3,
                self.break_down: 2,
                self.fill_disk: 3,
                self.reopen: 2,
                self.pause: 14,
            }
            self.random.choices(list(steps), weights=list(steps.values()))[0]()
        self.faults.all_well()
        self.drain()
        self.service.close(PATIENCE_S)
        self.records = self.service.publisher.records

    def drain(self) -> None:
        end = time.monotonic() + PATIENCE_S
        spooling = self.service.parts.spooling
        assert spooling is not None
        while (total := self.service.ledger.total()).pending + total.in_flight or not spooling.spool.is_empty:
            paths = {path.topic: (path.state, path.problem) for path in self.service.parts.dispatcher.paths()}
            assert time.monotonic() < end, (total, paths)
            time.sleep(0.002)

    # -- steps

    def publish(self) -> None:
        for _ in range(self.random.randint(1, 12)):
            key = f"k{self.random.randrange(KEYS)}"
            number = self.numbers[key] = self.numbers[key] + 1
            event: dict[str, object] = {"user_id": key, "timestamp": number}
            if self.random.random() < 0.03:
                event = {"user_id": key}
            receipt = self.service.publish_event(
                event, event_id=f"{key}-{number}", timeout=self.random.choice([0, 5.0])
            )
            self.receipts.append((key, number, receipt))

    def go_away(self) -> None:
        self.faults.away()

    def come_back(self) -> None:
        self.faults.back()

    def be_slow(self) -> None:
        self.faults.slow(self.random.choice([0.0, 0.5, 20.0]))

    def lose_acks(self) -> None:
        self.faults.lose_acks(self.random.choice([0.0, 0.3]), silently=True)

    def be_full(self) -> None:
        self.faults.queue_full()
        self.publish()
        self.faults.queue_has_room()

    def break_down(self) -> None:
        self.faults.fatal_error()

    def fill_disk(self) -> None:
        self.faults.disk_full(self.random.randrange(0, 3000))
        self.publish()
        self.faults.disk_freed()

    def reopen(self) -> None:
        self.service.close(self.random.choice([0.0, 50.0]))
        self.records = self.service.publisher.records
        self.service = self._open()

    def pause(self) -> None:
        time.sleep(self.random.choice([0.0, 0.002, 0.02, 0.12]))

    # -- what must hold

    def check(self) -> None:
        outcomes = {receipt.event_id: receipt.result(0) for _, _, receipt in self.receipts}
        told = Counter(type(outcome) for outcome in outcomes.values())
        ids = [record.event_id for record in self.records]
        there = set(ids)
        safe = {event_id for event_id, outcome in outcomes.items() if outcome.is_safe}
        lost = {event_id: outcomes[event_id] for event_id in safe - there}
        assert not lost, ("lost", lost, told)
        never = {event_id for event_id, outcome in outcomes.items() if nothing_is_in_kafka(outcome)}
        assert not never & there, ("said to be nowhere", sorted(never & there))
        self._check_marks()
        self._check_order()

    def _check_marks(self) -> None:
        seen: set[tuple[str, str]] = set()
        for record in self.records:
            place = (record.topic, record.event_id)
            if place in seen:
                assert "x-attempt" in dict(record.headers), ("unmarked repeat", place)
            seen.add(place)

    def _check_order(self) -> None:
        last: dict[str, int] = {}
        seen: set[str] = set()
        for record in self.records:
            if record.topic != TOPIC or record.event_id in seen:
                continue
            seen.add(record.event_id)
            key, _, number = record.event_id.partition("-")
            assert last.get(key, 0) < int(number), ("out of order", record.event_id, last[key])
            last[key] = int(number)


def nothing_is_in_kafka(outcome: Outcome) -> bool:
    match outcome:
        case Refused():
            return True
        case Failed(may_be_in_kafka=maybe):
            return not maybe
        case Delivered() | Spooled() | DeadLettered():
            return False


@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
@pytest.mark.parametrize("seed", range(LIVES))
def test_whatever_breaks_nothing_accepted_is_lost_unmarked_or_out_of_order(
    seed: int, write_ahead: str, tmp_path: Path
) -> None:
    life = Life(seed, tmp_path / "spool", write_ahead)
    life.run()
    life.check()
    assert life.service.ledger.total().unaccounted == 0
