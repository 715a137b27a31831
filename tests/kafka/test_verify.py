"""`verify` on a real Kafka: faults are planted in the log, and each is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from postroom.services.journal import AcceptedJournal
from postroom.services.verify import TopicReport, verify
from postroom.streaming.kafka_reader import KafkaReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

KEYS = 100
EVENTS = 1000


class Run:
    """A journal of a thousand events of a hundred keys, and a log to plant faults in."""

    def __init__(self, stack: LocalStack, topic: str, path: Path) -> None:
        self.stack = stack
        self.topic = topic
        self.path = path
        with AcceptedJournal(path) as journal:
            for number in range(EVENTS):
                journal.accepted(f"id-{number}", self.key(number), topic, number)

    def key(self, number: int) -> bytes:
        """The key of an event; every tenth event of a key belongs together."""
        return f"key-{number % KEYS}".encode()

    def produce(self, numbers: Sequence[int], attempt: int | None = None, topic: str | None = None) -> None:
        """Write these events into the log, in this order for each key."""
        producer = Producer({"bootstrap.servers": self.stack.bootstrap, "enable.idempotence": True})
        mark = [] if attempt is None else [("x-attempt", str(attempt).encode())]
        for number in numbers:
            headers: list[tuple[str, str | bytes | None]] = [("ce_id", f"id-{number}".encode()), *mark]
            producer.produce(topic or self.topic, b"value", self.key(number), headers=headers)
        assert producer.flush(20) == 0

    def verdict(self) -> TopicReport:
        """What verify says about the topic."""
        report = verify(self.path, KafkaReader({"bootstrap.servers": self.stack.bootstrap}))
        return next(topic for topic in report.topics if topic.topic == self.topic)


@pytest.fixture
def run(postroom_stack: LocalStack, postroom_topic: str, tmp_path: Path) -> Run:
    """A journal and an empty topic with six partitions."""
    return Run(postroom_stack, postroom_topic, tmp_path / "a.ndjson")


def test_a_flawless_run_is_good(run: Run) -> None:
    """Nothing is found that is not there."""
    run.produce(range(EVENTS))
    assert run.verdict() == TopicReport(run.topic, EVENTS, EVENTS, 0, 0, 0, 0, 0, 0, 0)


def test_missing_records_are_found(run: Run) -> None:
    """Three events never arrived."""
    run.produce([number for number in range(EVENTS) if number not in (0, 500, 999)])
    verdict = run.verdict()
    assert (verdict.found, verdict.missing, verdict.missing_ids) == (EVENTS - 3, 3, ("id-0", "id-500", "id-999"))
    assert (verdict.duplicated, verdict.out_of_order, verdict.is_good) == (0, 0, False)


def test_duplicates_are_found_and_marked_ones_forgiven(run: Run) -> None:
    """Two repeats without a mark, five with one."""
    run.produce(range(EVENTS))
    run.produce([7, 8])
    run.produce(range(20, 25), attempt=2)
    verdict = run.verdict()
    assert (verdict.duplicated, verdict.marked, verdict.unmarked) == (7, 5, 2)
    assert sorted(verdict.unmarked_ids) == ["id-7", "id-8"]
    assert (verdict.missing, verdict.out_of_order, verdict.is_good) == (0, 0, False)


def test_swapped_records_are_found(run: Run) -> None:
    """Two events of one key changed places; those of other keys may stand as they like."""
    order = list(range(EVENTS))
    order[142], order[342] = order[342], order[142]
    order[10], order[11] = order[11], order[10]
    run.produce(order)
    verdict = run.verdict()
    # 342 stands before 242 and 142: both are late.
    assert verdict.out_of_order == 2
    assert [place.split(" ")[0] for place in verdict.out_of_order_at] == ["id-242", "id-142"]
    assert (verdict.missing, verdict.duplicated, verdict.is_good) == (0, 0, False)


def test_dead_letters_are_looked_for_in_their_topic(run: Run, postroom_stack: LocalStack, tmp_path: Path) -> None:
    """By the id that every dead letter carries; records of others are counted apart."""
    letters = f"{run.topic}.dlq"
    postroom_stack.create_topic(letters, partitions=1)
    run.path = tmp_path / "b.ndjson"
    with AcceptedJournal(run.path) as journal:
        journal.accepted("id-1", run.key(1), run.topic, 1)
        journal.accepted("id-2", run.key(2), letters, 2, dead_letter=True)
    run.produce([1, 5])
    run.produce([2], topic=letters)
    report = verify(run.path, KafkaReader({"bootstrap.servers": postroom_stack.bootstrap}))
    assert report.topics == (
        TopicReport(run.topic, 1, 1, 0, 0, 0, 0, 0, 0, foreign=1),
        TopicReport(letters, 1, 1, 1, 0, 0, 0, 0, 0, 0),
    )
    assert report.is_good
