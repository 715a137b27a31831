"""Reading topics back on a real Kafka: everything committed, each partition in order, up to where it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from postroom.libs.exceptions import KafkaConnectionError, TopicNotFoundError
from postroom.streaming.kafka_reader import KafkaReader, ReadRecord, Span
from postroom.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.testing.local_stack import LocalStack

NOW_MS = 1_795_416_182_091


@pytest.fixture
def reader(postroom_stack: LocalStack) -> KafkaReader:
    """A reader of the stack."""
    return KafkaReader({"bootstrap.servers": postroom_stack.bootstrap}, timeout_s=20)


@pytest.fixture
def fill(postroom_stack: LocalStack) -> Callable[..., None]:
    """A function that produces numbered records, spread over the partitions."""

    def produce(topic: str, numbers: range, partitions: int = 6) -> None:
        producer = Producer({"bootstrap.servers": postroom_stack.bootstrap})
        for number in numbers:
            producer.produce(topic, str(number), partition=number % partitions, timestamp=NOW_MS + number)
        assert producer.flush(20) == 0

    return produce


def numbers(records: list[ReadRecord]) -> list[int]:
    """The numbers that `fill` wrote."""
    return [int(record.value or b"") for record in records]


def test_every_record_is_read_once_and_each_partition_in_order(
    reader: KafkaReader, fill: Callable[..., None], postroom_new_topic: Callable[..., str]
) -> None:
    """Two topics at a time; empty partitions are no reason to wait."""
    one, two, empty = postroom_new_topic(), postroom_new_topic(), postroom_new_topic()
    fill(one, range(3000))
    fill(two, range(5), partitions=2)
    records = list(reader.read([one, two, empty]))
    assert sorted(numbers([record for record in records if record.topic == one])) == list(range(3000))
    for place in range(6):
        part = [record for record in records if (record.topic, record.partition) == (one, place)]
        assert [record.offset for record in part] == list(range(500))
        assert numbers(part) == list(range(place, 3000, 6))
    assert sorted(numbers([record for record in records if record.topic == two])) == list(range(5))
    assert reader.spans([two])[two, 0] == Span(0, 3)


def test_a_record_is_read_as_it_stands(reader: KafkaReader, postroom_stack: LocalStack, postroom_topic: str) -> None:
    """Null and empty keys and values, repeated headers, headers without a value, the timestamp."""
    producer = Producer({"bootstrap.servers": postroom_stack.bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [("a", b"1"), ("a", b"\xff"), ("null", None), ("empty", b"")]
    producer.produce(postroom_topic, None, None, partition=0, timestamp=NOW_MS)
    producer.produce(postroom_topic, b"", b"", partition=0, timestamp=NOW_MS, headers=headers)
    assert producer.flush(20) == 0
    assert list(reader.read([postroom_topic])) == [
        ReadRecord(postroom_topic, 0, 0, None, None, (), NOW_MS),
        ReadRecord(
            postroom_topic,
            0,
            1,
            b"",
            b"",
            (("a", b"1"), ("a", b"\xff"), ("null", None), ("empty", b"")),
            NOW_MS,
        ),
    ]


def test_what_comes_after_the_start_is_left_out(
    reader: KafkaReader, fill: Callable[..., None], postroom_topic: str
) -> None:
    """A topic that grows faster than it is read still has an end."""
    fill(postroom_topic, range(60))
    records: list[ReadRecord] = []
    for record in reader.read([postroom_topic]):
        if not records:
            fill(postroom_topic, range(60, 6000))
        records.append(record)
    assert sorted(numbers(records)) == list(range(60))


def test_only_the_last_records_of_each_partition_are_read_on_request(
    reader: KafkaReader, fill: Callable[..., None], postroom_topic: str
) -> None:
    """As many as asked for, or as there are."""
    fill(postroom_topic, range(32))
    assert sorted(numbers(list(reader.read([postroom_topic], last=1)))) == list(range(26, 32))
    assert sorted(numbers(list(reader.read([postroom_topic], last=99)))) == list(range(32))


def test_reading_begins_where_old_records_were_deleted(
    reader: KafkaReader, fill: Callable[..., None], postroom_stack: LocalStack, postroom_topic: str
) -> None:
    """Retention removed the front; one partition is empty with an end above 0."""
    fill(postroom_topic, range(60))
    admin = AdminClient({"bootstrap.servers": postroom_stack.bootstrap})
    futures = admin.delete_records([TopicPartition(postroom_topic, 0, 4), TopicPartition(postroom_topic, 1, 10)])
    for future in futures.values():
        future.result(timeout=20)
    gone = {0, 6, 12, 18} | set(range(1, 60, 6))
    assert sorted(numbers(list(reader.read([postroom_topic])))) == sorted(set(range(60)) - gone)


def test_only_committed_records_are_read_and_an_open_transaction_is_no_reason_to_hang(
    reader: KafkaReader, postroom_stack: LocalStack, postroom_topic: str
) -> None:
    """Aborted records are left out; the marks at the end of a transaction take offsets without a record."""
    producer = Producer({"bootstrap.servers": postroom_stack.bootstrap, "transactional.id": postroom_topic})
    producer.init_transactions(20)
    for number, end in ((1, producer.commit_transaction), (2, producer.abort_transaction), (3, None)):
        producer.begin_transaction()
        producer.produce(postroom_topic, str(number), partition=0)
        producer.flush(20)
        if end is not None:
            end(20)
    assert numbers(list(reader.read([postroom_topic]))) == [1]
    producer.abort_transaction(20)
    assert numbers(list(reader.read([postroom_topic]))) == [1]


def test_following_gives_what_comes_from_now_on(
    reader: KafkaReader, fill: Callable[..., None], postroom_topic: str
) -> None:
    """And ends when told to."""
    fill(postroom_topic, range(10))
    seen: list[int] = []
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == 1:
            fill(postroom_topic, range(10, 20))
        return len(seen) == 10

    for record in reader.follow([postroom_topic], stop=stop):
        seen.extend(numbers([record]))
    assert sorted(seen) == list(range(10, 20))


def test_following_from_the_beginning_gives_everything(
    reader: KafkaReader, fill: Callable[..., None], postroom_topic: str
) -> None:
    """Old and new alike."""
    fill(postroom_topic, range(10))
    seen: list[int] = []
    for record in reader.follow([postroom_topic], from_beginning=True, stop=lambda: len(seen) == 10):
        seen.extend(numbers([record]))
    assert sorted(seen) == list(range(10))


def test_a_quiet_topic_is_no_stall(postroom_stack: LocalStack, postroom_topic: str) -> None:
    """After the timeout the reader asks the broker, and goes on when it answers."""
    clock = ManualClock()
    reader = KafkaReader({"bootstrap.servers": postroom_stack.bootstrap}, timeout_s=20, clock=clock)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        clock.advance(21)
        return asked > 4

    assert list(reader.follow([postroom_topic], stop=stop)) == []


def test_a_reader_that_is_left_early_closes(
    reader: KafkaReader, fill: Callable[..., None], postroom_topic: str
) -> None:
    """The consumer goes with the iterator."""
    fill(postroom_topic, range(100))
    records = reader.read([postroom_topic])
    next(records)
    records.close()
    assert list(records) == []


def test_a_missing_topic_is_named(reader: KafkaReader) -> None:
    """With what to do; reading does not create it."""
    for _ in range(2):
        with pytest.raises(TopicNotFoundError, match="no-such-topic") as caught:
            list(reader.read(["no-such-topic"]))
        assert "topics create" in caught.value.remedy


def test_a_broker_that_is_away_is_a_typed_error_in_time() -> None:
    """Nobody listens there."""
    reader = KafkaReader({"bootstrap.servers": "127.0.0.1:1"}, timeout_s=0.5)
    with pytest.raises(KafkaConnectionError, match="could not read") as caught:
        list(reader.read(["t"]))
    assert caught.value.retriable
    assert "broker" in caught.value.remedy
