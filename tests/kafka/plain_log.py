"""What stands in a topic, read by an ordinary consumer that shares no code with postroom."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Entry(NamedTuple):
    """One record: its place, its key and its event id."""

    partition: int
    offset: int
    key: bytes | None
    event_id: str
    repeat: bool


def read_log(bootstrap: str, topic: str) -> list[Entry]:
    """Every record of a topic up to its present end, each partition in order."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "judge", "enable.auto.commit": False,
        "isolation.level": "read_committed", "log_level": 0,
    })  # fmt: skip
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        ends = {}
        for number in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)
            if low < high:
                ends[number] = high
        consumer.assign([TopicPartition(topic, number, 0) for number in ends])
        found: list[Entry] = []
        for _ in range(1_000):
            if not ends:
                return found
            for message in consumer.consume(10_000, timeout=0.5):
                if message.error() is not None:
                    continue
                partition, offset = message.partition() or 0, message.offset() or 0
                headers = dict(message.headers() or [])
                event_id = headers["ce_id"]
                assert isinstance(event_id, bytes)
                found.append(Entry(partition, offset, message.key(), event_id.decode(), "x-attempt" in headers))
                if offset + 1 >= ends.get(partition, 0):
                    ends.pop(partition, None)
        message_ = f"{topic} could not be read to its end: {ends}"
        raise AssertionError(message_)
    finally:
        consumer.close()


class Verdict(NamedTuple):
    """What is wrong with a log, measured by a journal of accepted events."""

    missing: int
    duplicated: int
    out_of_order: int
    foreign: int


def judge(journal: Path, log: Iterable[Entry], topic: str) -> Verdict:
    """Compare the log of `topic` with the journal: each accepted event once, each key in the order of its numbers."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    sequence = {line["event_id"]: line["sequence"] for line in lines if line["topic"] == topic}
    assert len(set(sequence.values())) == len(sequence), "a number was given twice"
    seen: Counter[str] = Counter()
    per_key: defaultdict[tuple[bytes | None, int], list[int]] = defaultdict(list)
    for entry in log:
        seen[entry.event_id] += 1
        if entry.event_id in sequence and seen[entry.event_id] == 1:
            per_key[entry.key, entry.partition].append(sequence[entry.event_id])
    partitions_of_key = Counter(key for key, _ in per_key)
    assert set(partitions_of_key.values()) <= {1}, "a key is spread over partitions"
    return Verdict(
        missing=sum(event_id not in seen for event_id in sequence),
        duplicated=sum(count - 1 for count in seen.values()),
        out_of_order=sum(a >= b for numbers in per_key.values() for a, b in pairwise(numbers)),
        foreign=sum(event_id not in sequence for event_id in seen),
    )
