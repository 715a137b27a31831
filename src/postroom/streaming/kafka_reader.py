"""Reads topics back by a plain consumer: no group, no commits, only committed records.

Two ways: up to where the topics ended when reading began, or on and on until somebody says stop.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import KafkaConnectionError
from postroom.streaming.kafka_errors import AUTHENTICATION, SSL, client_error, passes_by_itself

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

_BATCH = 1000
_POLL_S = 0.1
_UNKNOWN_TOPIC = 3


class ReadRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as it stands in Kafka. `timestamp_ms` is milliseconds since 1970, -1 where there is none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


class Span(NamedTuple):
    """The offsets of a partition: the first record's, and the one that the next record will get."""

    first: int
    end: int


class KafkaReader:
    """Reads the records of topics, each partition in its order.

    `settings` are the client library's (`client_settings(config)`); `timeout_s` is the longest wait for an answer,
    or for a record that is due. Nothing is opened before the first record is asked for, and everything is closed
    when the iterator ends or is closed.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        *,
        timeout_s: float = 30.0,
        clock: Clock = SYSTEM_CLOCK,
        make_consumer: Callable[..., Any] = Consumer,
    ) -> None:
        self._settings = dict(settings)
        self._timeout_s = timeout_s
        self._clock = clock
        self._make_consumer = make_consumer
        self._last_error: KafkaError | None = None

    def spans(self, topics: Sequence[str]) -> dict[tuple[str, int], Span]:
        """Return first and end offset of every partition of `topics`; raises like `read`."""
        with self._consumer() as consumer:
            return self._spans(consumer, topics)

    def read(self, topics: Sequence[str], *, last: int | None = None) -> Generator[ReadRecord]:
        """Yield the records of `topics` up to where each partition ends when the first one is asked for.

        Starts at the beginning, or so that each partition gives at most its `last` records. Raises
        `TopicNotFoundError`, `AuthorizationError`, or `KafkaConnectionError` when nothing came for `timeout_s`
        seconds although something was due.
        """
        with self._consumer() as consumer:
            spans = {place: span for place, span in self._spans(consumer, topics).items() if span.first < span.end}
            consumer.assign(
                [
                    TopicPartition(*place, OFFSET_BEGINNING if last is None else max(span.first, span.end - last))
                    for place, span in spans.items()
                ]
            )
            yield from self._until(consumer, {place: span.end for place, span in spans.items()})

    def follow(
        self, topics: Sequence[str], *, from_beginning: bool = False, stop: Callable[[], bool]
    ) -> Generator[ReadRecord]:
        """Yield the records of `topics` from the beginning or from now on, until `stop()` is true.

        `stop` is asked at least every 0.1 seconds. Raises like `read`; a topic that is merely quiet is no stall.
        """
        with self._consumer() as consumer:
            consumer.assign(
                [
                    TopicPartition(*place, OFFSET_BEGINNING if from_beginning else span.end)
                    for place, span in self._spans(consumer, topics).items()
                ]
            )
            heard_at = self._clock.monotonic()
            while not stop():
                batch = self._batch(consumer)
                for message in batch:
                    if message.error() is None:
                        yield _record(message)
                        if stop():
                            return
                if batch:
                    heard_at = self._clock.monotonic()
                elif self._clock.monotonic() - heard_at > self._timeout_s:
                    # Quiet, or cut off? Asking tells, and raises if nobody answers.
                    self._metadata(consumer, None)
                    heard_at = self._clock.monotonic()

    def _until(self, consumer: Any, ends: dict[tuple[str, int], int]) -> Iterator[ReadRecord]:
        heard_at = self._clock.monotonic()
        while ends:
            batch = self._batch(consumer)
            if batch:
                heard_at = self._clock.monotonic()
            elif self._clock.monotonic() - heard_at > self._timeout_s:
                raise self._stalled(ends)
            for message in batch:
                place = (message.topic(), message.partition())
                end = ends.get(place)
                if end is None:
                    continue
                # The end of the log is never before the one that was noted; in between there may be offsets
                # without a record (removed by compaction, or a transaction's marks).
                if message.error() is not None:
                    del ends[place]
                    continue
                if message.offset() < end:
                    yield _record(message)
                if message.offset() >= end - 1:
                    del ends[place]
                    consumer.pause([TopicPartition(*place)])

    @contextlib.contextmanager
    def _consumer(self) -> Iterator[Any]:
        settings = self._settings | {
            "group.id": "postroom-reader",  # asked for by the library; partitions are assigned, no group is joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            "error_cb": self._on_error,
        }
        self._last_error = None
        consumer = self._make_consumer(settings, logger=_silent())
        try:
            yield consumer
        finally:
            consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        # A refused login is followed by "all brokers down": the first says what to do.
        if self._last_error is None or self._last_error.code() not in {AUTHENTICATION, SSL}:
            self._last_error = error

    def _spans(self, consumer: Any, topics: Sequence[str]) -> dict[tuple[str, int], Span]:
        spans: dict[tuple[str, int], Span] = {}
        for topic in topics:
            found = self._metadata(consumer, topic).topics.get(topic)
            if found is None or found.error is not None or not found.partitions:
                code = _UNKNOWN_TOPIC if found is None or found.error is None else found.error.code()
                raise client_error(f"read topic {topic}", code, KafkaError(code).name())
            for partition in sorted(found.partitions):
                try:
                    first, end = consumer.get_watermark_offsets(
                        TopicPartition(topic, partition), timeout=self._timeout_s
                    )
                except KafkaException as exc:
                    raise self._failed(f"read topic {topic}", exc) from exc
                spans[topic, partition] = Span(first, end)
        return spans

    def _metadata(self, consumer: Any, topic: str | None) -> Any:
        try:
            if topic is None:
                return consumer.list_topics(timeout=self._timeout_s)
            return consumer.list_topics(topic, timeout=self._timeout_s)
        except KafkaException as exc:
            raise self._failed("read from Kafka", exc) from exc

    def _batch(self, consumer: Any) -> list[Any]:
        """The next records and ends of partitions; an error that time may mend is left out."""
        batch = []
        for message in consumer.consume(_BATCH, _POLL_S):
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's public name
                batch.append(message)
            elif passes_by_itself(error.code()):
                self._on_error(error)
            else:
                raise client_error(f"read topic {message.topic()}", error.code(), error.name())
        return batch

    def _failed(self, doing: str, exc: KafkaException) -> Exception:
        error = self._last_error or exc.args[0]
        return client_error(doing, error.code(), error.name())

    def _stalled(self, ends: Mapping[tuple[str, int], int]) -> Exception:
        topics = ", ".join(sorted({topic for topic, _ in ends}))
        if self._last_error is not None:
            return client_error(f"read topic {topics}", self._last_error.code(), self._last_error.name())
        return KafkaConnectionError(
            f"could not read topic {topics}: nothing came for {self._timeout_s:g} s",
            remedy="check that all brokers run",
        )


def _record(message: Any) -> ReadRecord:
    _, timestamp_ms = message.timestamp()
    return ReadRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
        timestamp_ms,
    )


def _silent() -> logging.Logger:
    """A logger that nobody hears: what the library has to say comes back as errors."""
    return logging.Logger("postroom.kafka_reader", level=logging.CRITICAL + 1)  # noqa: LOG001 - not registered
