"""What stands in topics, read by an ordinary consumer. It shares no line with the product."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASK_S = 20.0
_IN_SYNC_S = 90.0
_READ_S = 600.0


class Entry(NamedTuple):
    """One record: its place, and what of it the judgement needs. `event_id` is "" where there is none.

    `attempt` is what `x-attempt` says, 1 without it. `is_marker` is true for a marker that settles dead letters.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    event_id: str
    attempt: int = 1
    is_marker: bool = False
    is_packed: bool = False  # a dead letter whose value is compressed or cut


@dataclass(frozen=True, slots=True)
class Log:
    """All records of a topic, each partition in the order of its offsets.

    A topic that was deleted and made again has a log for each life, `generation` 0, 1, ...: whoever deletes it reads
    it before. `problems` says what keeps a log from being a whole one.
    """

    topic: str
    entries: Sequence[Entry]
    generation: int = 0
    is_dead_letters: bool = False
    problems: tuple[str, ...] = ()


def read_topic(bootstrap: str, topic: str, *, generation: int = 0, is_dead_letters: bool = False) -> Log:
    """Read every partition of a topic to its present end, once its replicas are in sync.

    A topic that does not exist has an empty log and says so in its `problems`. Raises TimeoutError when the end cannot
    be reached, KafkaException for what a consumer can do nothing about.
    """
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": "chaos-checker", "enable.auto.commit": False,
        "isolation.level": "read_committed", "auto.offset.reset": "error", "log_level": 0,
    })  # fmt: skip
    try:
        partitions, problems = _partitions_in_sync(consumer, topic)
        ends: dict[int, int] = {}
        for number in partitions:
            low, high = _settled_ends(consumer, TopicPartition(topic, number))
            if low > 0:
                problems.append(f"{topic}[{number}] begins at offset {low}: older records were removed")
            if high > low:
                ends[number] = high
        entries = _read_to(consumer, topic, ends)
    finally:
        consumer.close()
    return Log(topic, entries, generation, is_dead_letters, tuple(problems))


def _partitions_in_sync(consumer: Consumer, topic: str) -> tuple[Sequence[int], list[str]]:
    """The partitions of a topic. Waits until all replicas are in sync: before that, an end may still move."""
    deadline = time.monotonic() + _IN_SYNC_S
    while True:
        with contextlib.suppress(KafkaException):  # no broker answers yet
            found = consumer.list_topics(topic, timeout=_ASK_S).topics[topic]
            if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return (), [f"{topic} does not exist"]
            known = found.partitions
            if known and all(part.leader >= 0 and len(part.isrs) == len(part.replicas) for part in known.values()):
                return sorted(known), []
        if time.monotonic() > deadline:
            raise TimeoutError(f"the replicas of {topic} are not in sync")
        time.sleep(0.2)  # brokers catch up in real time


def _settled_ends(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset and the one after the last, asked until two answers in a row agree."""
    deadline = time.monotonic() + _IN_SYNC_S
    before: tuple[int, int] | None = None
    while time.monotonic() < deadline:
        try:
            answer = consumer.get_watermark_offsets(partition, timeout=_ASK_S)
        except KafkaException:
            answer = None
        if answer is not None and answer == before:
            return answer
        before = answer
        time.sleep(0.1)
    raise TimeoutError(f"the end of {partition.topic}[{partition.partition}] cannot be learned")


def _read_to(consumer: Consumer, topic: str, ends: Mapping[int, int]) -> list[Entry]:
    left = dict(ends)
    consumer.assign([TopicPartition(topic, number, 0) for number in left])
    entries: list[Entry] = []
    deadline = time.monotonic() + _READ_S
    while left:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic} could not be read to its end: {left}")
        for message in consumer.consume(10_000, timeout=0.5):
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._AUTO_OFFSET_RESET:
                    raise KafkaException(error)
                continue
            entry = _entry(message)
            entries.append(entry)
            if entry.offset + 1 >= left.get(entry.partition, 0):
                left.pop(entry.partition, None)
    # What came in after the end was noted belongs to nobody's judgement.
    entries = [entry for entry in entries if entry.offset < ends.get(entry.partition, 0)]
    entries.sort(key=lambda entry: (entry.partition, entry.offset))
    return entries


def _entry(message: Any) -> Entry:
    headers = {name: value for name, value in message.headers() or () if isinstance(value, bytes)}
    event_id = headers.get("ce_id", headers.get("dlq.event_id", b""))
    return Entry(
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        event_id.decode(errors="replace"),
        int(headers.get("x-attempt", b"1")),
        is_marker="dlq.settles" in headers,
        is_packed="dlq.value_bytes" in headers,
    )
