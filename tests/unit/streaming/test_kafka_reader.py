"""The reader's answers when Kafka stays silent or says no; what it reads is tested on a real Kafka."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from postroom.libs.exceptions import AuthorizationError, KafkaConnectionError, PublishError, TopicNotFoundError
from postroom.streaming.kafka_reader import KafkaReader
from postroom.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable


class Silent:
    """A consumer of a topic with ten records that never come; an hour passes with each waiting."""

    def __init__(self, settings: dict[str, Any], clock: ManualClock) -> None:
        self.on_error: Callable[[KafkaError], None] = settings["error_cb"]
        self.clock = clock
        self.closed = False
        self.says: list[Any] = []
        self.troubles: list[int] = []
        self.metadata_fails = False

    def list_topics(self, *_: object, timeout: float) -> Any:
        """One partition."""
        for code in self.troubles:
            self.on_error(KafkaError(code))
        if self.metadata_fails:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={"t": SimpleNamespace(error=None, partitions={0: None})})

    def get_watermark_offsets(self, *_: object, timeout: float) -> tuple[int, int]:
        """Ten records."""
        return 0, 10

    def assign(self, partitions: object) -> None:
        """Remember nothing."""

    def consume(self, *_: object) -> list[Any]:
        """Nothing, or what it was told to say."""
        self.clock.advance(20)
        return [self.says.pop(0)] if self.says else []

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@pytest.fixture
def consumer() -> Silent:
    """The consumer that the reader will make."""
    return Silent({"error_cb": lambda _: None}, ManualClock())


@pytest.fixture
def reader(consumer: Silent) -> KafkaReader:
    """A reader with half a minute of patience."""

    def make(settings: dict[str, Any], **_: object) -> Silent:
        consumer.on_error = settings["error_cb"]
        return consumer

    return KafkaReader({}, timeout_s=30, clock=consumer.clock, make_consumer=make)


def message(code: int) -> Any:
    """An error in the place of a record."""
    return SimpleNamespace(error=lambda: KafkaError(code), topic=lambda: "t", partition=lambda: 0)


def test_nothing_coming_is_an_error_in_time_and_the_consumer_is_closed(reader: KafkaReader, consumer: Silent) -> None:
    """Ten records are due, none comes."""
    with pytest.raises(KafkaConnectionError, match="could not read topic t: nothing came for 30 s"):
        list(reader.read(["t"]))
    assert consumer.closed


def test_the_last_trouble_is_named_and_a_refused_login_before_all_others(reader: KafkaReader, consumer: Silent) -> None:
    """What follows a refused login, that all brokers are down, says less."""
    consumer.troubles = [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN]
    with pytest.raises(KafkaConnectionError, match="_ALL_BROKERS_DOWN"):
        list(reader.read(["t"]))
    consumer.troubles = [KafkaError._AUTHENTICATION, KafkaError._ALL_BROKERS_DOWN]
    with pytest.raises(AuthorizationError, match="_AUTHENTICATION"):
        list(reader.read(["t"]))
    consumer.metadata_fails = True
    with pytest.raises(AuthorizationError, match="_AUTHENTICATION"):
        list(reader.read(["t"]))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, AuthorizationError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicNotFoundError),
        (KafkaError._BAD_MSG, KafkaConnectionError),
    ],
)
def test_what_time_does_not_mend_is_raised_at_once(
    reader: KafkaReader, consumer: Silent, code: int, expected: type[PublishError]
) -> None:
    """The right was taken away, the topic deleted while it was read."""
    consumer.says = [message(code)]
    with pytest.raises(expected):
        list(reader.read(["t"]))


def test_what_time_may_mend_is_waited_for(reader: KafkaReader, consumer: Silent) -> None:
    """A leader that moves; the end of the partition then ends the reading."""
    consumer.says = [message(KafkaError.LEADER_NOT_AVAILABLE), message(KafkaError._PARTITION_EOF)]
    assert list(reader.read(["t"])) == []


def test_following_a_cluster_that_went_away_is_an_error(reader: KafkaReader, consumer: Silent) -> None:
    """Quiet for too long, then asked, and no answer."""

    def stop() -> bool:
        consumer.metadata_fails = True
        return False

    with pytest.raises(KafkaConnectionError, match="_TRANSPORT"):
        list(reader.follow(["t"], stop=stop))
    assert consumer.closed
