"""Dead letters on a real Kafka: when `send_to_dlq` returns, they are there, and the original comes back."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from postroom.libs.config_loader import load_config
from postroom.libs.event import Violation
from postroom.libs.exceptions import KafkaConnectionError, TopicNotFoundError
from postroom.streaming.dead_letter_queue import DeadLetterQueue, rebuild
from postroom.streaming.kafka_reader import KafkaReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.libs.config_loader import Config
    from postroom.streaming.kafka_reader import ReadRecord
    from postroom.testing.local_stack import LocalStack


def config(stack: LocalStack, topic: str) -> Config:
    """Packaged settings with the stack as broker and `topic` as the only topic."""
    return load_config(overrides={"broker": stack.bootstrap, "topics.user_events": topic}, environ={})


@pytest.fixture
def dlq(postroom_stack: LocalStack, postroom_topic: str) -> Iterator[DeadLetterQueue]:
    """A queue whose dead letter topic exists."""
    postroom_stack.create_topic(f"{postroom_topic}.dlq", partitions=3)
    with DeadLetterQueue(config=config(postroom_stack, postroom_topic)) as queue:
        yield queue


def read(stack: LocalStack, topic: str) -> list[ReadRecord]:
    """All dead letters of a topic."""
    return list(KafkaReader({"bootstrap.servers": stack.bootstrap}).read([f"{topic}.dlq"]))


def test_the_dead_letter_is_there_when_the_call_returns(
    dlq: DeadLetterQueue, postroom_stack: LocalStack, postroom_topic: str
) -> None:
    """The guide's call; the outcome names the place, and the original comes back with all that was said."""
    event = {"user_id": 7, "price": Decimal("1.50"), "at": datetime(2026, 11, 23, tzinfo=UTC), "raw": b"\x00\xff"}
    violation = Violation("user_id", "wrong_type", "string", "int")
    outcome = dlq.send_to_dlq(
        event, reason="validation_failed", key=b"k", headers=(("tenant", b"a"),), violations=[violation]
    )
    (record,) = read(postroom_stack, postroom_topic)
    assert (record.topic, record.partition, record.offset) == (outcome.topic, outcome.partition, outcome.offset)
    letter = rebuild(record)
    assert letter.event == event
    assert (letter.key, letter.headers, letter.violations) == (b"k", (("tenant", b"a"),), (violation,))
    assert (letter.topic, letter.reason, letter.attempts) == (postroom_topic, "validation_failed", 1)


def test_an_event_above_the_limit_still_fits(
    dlq: DeadLetterQueue, postroom_stack: LocalStack, postroom_topic: str
) -> None:
    """Compressed if that is enough, its head if not; Kafka takes both."""
    text = {"text": "again and " * 500_000}
    noise = random.Random(1).randbytes(3_000_000)
    first = dlq.send_to_dlq(text, reason="message_too_large", key=b"k")
    second = dlq.send_to_dlq(noise, reason="message_too_large", key=b"k")
    letters = {(record.partition, record.offset): rebuild(record) for record in read(postroom_stack, postroom_topic)}
    assert letters[first.partition, first.offset].event == text
    assert letters[second.partition, second.offset].damage == "cut to fit: the first 65536 of 3000000 bytes are left"


@pytest.mark.parametrize("size", range(998_600, 1_000_400, 150))
def test_every_size_around_the_limit_is_taken(
    dlq: DeadLetterQueue, postroom_stack: LocalStack, postroom_topic: str, size: int
) -> None:
    """What the format calls fitting, the client library and the broker call fitting too."""
    value = random.Random(size).randbytes(size)
    dlq.send_to_dlq(value, key=b"k" * 100, headers=tuple((f"h{n}", b"x") for n in range(30)))
    (record,) = read(postroom_stack, postroom_topic)
    letter = rebuild(record)
    assert letter.event == (value if letter.rebuildable else None)


def test_a_missing_dead_letter_topic_is_named(postroom_stack: LocalStack, postroom_topic: str) -> None:
    """Nobody creates it by the way."""
    with (
        DeadLetterQueue(config=config(postroom_stack, postroom_topic)) as queue,
        pytest.raises(TopicNotFoundError, match=rf"{postroom_topic}\.dlq"),
    ):
        queue.send_to_dlq({"a": 1}, reason="validation_failed")


def test_without_a_broker_it_raises_in_time(postroom_topic: str) -> None:
    """Nobody listens there; the error says that a copy may still arrive."""
    away = load_config(overrides={"broker": "127.0.0.1:1"}, environ={})
    with DeadLetterQueue(config=away) as queue, pytest.raises(KafkaConnectionError, match="may still arrive"):
        queue.send_to_dlq({"a": 1}, timeout=0.2)


def test_a_record_of_somebody_else_is_read_as_bytes(postroom_stack: LocalStack, postroom_topic: str) -> None:
    """As Kafka Connect would leave it."""
    postroom_stack.create_topic(f"{postroom_topic}.dlq", partitions=1)
    producer = Producer({"bootstrap.servers": postroom_stack.bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [
        ("__connect.errors.topic", b"orders"),
        ("__connect.errors.exception.message", None),
        ("mine", b"1"),
    ]
    producer.produce(f"{postroom_topic}.dlq", b"{broken", headers=headers)
    assert producer.flush(20) == 0
    (record,) = read(postroom_stack, postroom_topic)
    letter = rebuild(record)
    assert (letter.event, letter.topic, letter.reason) == (b"{broken", "orders", "unknown")
    assert letter.headers == (("mine", b"1"),)
