"""The Kafka producer: one connection to the cluster, one report for every record, whatever happens to it.

Retries live in librdkafka (idempotent, `acks=all`, backoff of 1, 2, 4, 8 s); waiting has an end here: when the
oldest unacknowledged record is older than `delivery.hand_over_after_s`, everything unacknowledged is purged and
reported, and the caller decides what becomes of it.

This is what others see of it, and its start, its end and its fork. What it does inside, one file for each idea:
`open_records` (each is reported once), `delivery_reports` (what the library's word about a record means),
`report_polling` and `poll_thread` (who hears it), `producer_life` (the producer and the next one), `queue_emptying`
(giving up what waits), `refused_batches` (who of a batch is at fault), `producer_repair`, and `shutter`.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self, overload

from confluent_kafka import Producer

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import Delivered, Record
from postroom.libs.exceptions import LifecycleError, QueueFullError
from postroom.libs.logger import get_logger, limited
from postroom.observability.metric_table import CLIENT_QUEUE_BYTES, CLIENT_QUEUE_MESSAGES
from postroom.observability.metrics import METRICS, Metrics, Reading
from postroom.streaming.client_parts import ClientParts
from postroom.streaming.json_publish import publish_as_json
from postroom.streaming.lookup_after_fork import watch_lookups
from postroom.streaming.open_records import Taken
from postroom.streaming.poll_thread import PollThread
from postroom.streaming.producer_repair import ProducerRepair
from postroom.streaming.publisher import Condition, OnDone
from postroom.streaming.queue_emptying import QueueEmptying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# How long after its waiting time a broker that throttles may take to answer.
_AFTER_THROTTLE_S = 5.0
_THREAD_ENDS_S = 5.0
# A flush whose time is over waits so long for a handler that is at work.
_HANDLERS_RETURN_S = 1.0
# A flush does not wait for records that linger for longer.
_LONG_LINGER_MS = 100
# After a turn of the poll thread that failed (a producer that could not be made anew): before the next one.
_TRY_AGAIN_S = 1.0
_CHECK_S = 0.002

_clients: weakref.WeakSet[KafkaClient] = weakref.WeakSet()


class KafkaClient:
    """Publishes records to Kafka and reports each of them exactly once.

    `config` is the whole configuration (found by `load_config()` when not given). Nothing is opened before
    `start()`, which the first `publish` calls by itself. Safe to use from several threads; in a forked child a
    new connection is made at first use, and what was on its way in the parent stays the parent's. Close it: what is
    unsent when the interpreter ends is lost (a `ProducerService` closes its own).
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        metrics: Metrics = METRICS,
        clock: Clock = SYSTEM_CLOCK,
        make_producer: Callable[..., Any] = Producer,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._make_producer = make_producer
        self._log = limited(get_logger("postroom.kafka_client"))
        self._end_readings: Callable[[], None] | None = None
        self._reset()
        _clients.add(self)

    def _reset(self) -> None:
        """Set the state of a client that owns no producer and no thread: new, or on the far side of a fork.

        Locks are taken in this order: closing, then those of the parts.
        """
        parts = self._parts = ClientParts(self._clock, self._metrics, self._log, self._make_producer)
        self._shutter = parts.shutter
        self._records = parts.records
        self._life = parts.life
        self._reports = parts.reports
        self._polling = parts.polling
        self._emptying = QueueEmptying(parts, self._is_poll_thread)
        self._repair = ProducerRepair(parts, self._emptying)
        self._close_lock = threading.Lock()
        self._thread: PollThread | None = None
        self._closed = False
        self._lingers = False

    def _is_poll_thread(self) -> bool:
        return self._thread is not None and self._thread.is_current()

    # -- life

    def start(self) -> None:
        """Create the producer and its poll thread. Does not wait for a broker; calling it again does nothing.

        Raises ConfigurationError when the client library refuses a setting, LifecycleError when closed.
        """
        with self._shutter.gate:
            self._start_locked()

    def _start_locked(self) -> None:
        if self._closed:
            raise LifecycleError("this Kafka client is closed", remedy="make a new one")
        if self._life.producer is not None:
            return
        if self._config is None:
            self._config = load_config()
        self._hand_over_after_s = self._config.hand_over_after_s
        self._reports.hands_over = self._config.spool.dir is not None
        self._lingers = self._config.producer.linger_ms > _LONG_LINGER_MS
        self._reports.expects_offsets = self._config.producer.acks != "0"
        # What writes the lines is loaded before there is a thread that writes some: a fork in the middle of an import
        # leaves that import's lock held in the child.
        get_logger("postroom.kafka_client").is_enabled_for("warning")
        self._life.begin(self._config)
        records = self._records
        thread = PollThread(
            self._turn_safely,
            has_work=lambda: bool(records.by_number) or self._shutter.is_shut(),
            taken=lambda: records.taken,
        )
        try:
            thread.start()
        except BaseException:
            self._life.end()  # without somebody who polls it would take records and never report them
            raise
        self._thread = thread
        watch_lookups(self._lookups_are_stuck)
        if self._end_readings is None:
            self._end_readings = self._metrics.add_source(self._readings)

    def close(self, timeout_s: float = 20.0) -> None:
        """Wait up to `timeout_s` seconds for what is on its way, report the rest as not delivered, let go.

        Not for use in a report handler (LifecycleError).
        """
        self._polling.refuse_in_handlers()
        with self._close_lock:
            with self._shutter.gate:
                self._closed = True
            if self._life.producer is None:
                return
            try:
                if self.flush(timeout_s):
                    self.purge()
            finally:
                if self._thread is not None:
                    self._thread.stop(_THREAD_ENDS_S)
            if self._end_readings is not None:
                self._end_readings()
            with self._shutter.gate:
                self._life.end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- publishing

    @overload
    def publish(self, record: Record, on_done: OnDone) -> None: ...
    @overload
    def publish(self, record: Mapping[str, object], on_done: None = None) -> Delivered: ...

    def publish(self, record: Record | Mapping[str, object], on_done: OnDone | None = None) -> Delivered | None:
        """Publish a record, or a plain mapping.

        A `Record` is taken at once, and `on_done` gets its report later. A mapping goes out as JSON to the first
        of the configured topics, **without any contract**, and the call waits until Kafka has acknowledged it;
        for events that matter use `ProducerService.publish_event`, which checks them first.

        Raises QueueFullError when there is no room (nothing was taken then), LifecycleError when closed; for a
        mapping also NotRepresentableError and the PublishError that fits the failure.
        """
        if not isinstance(record, Record):
            self.start()
            assert self._config is not None
            return publish_as_json(self, record, self._config, self._clock)
        if on_done is None:
            raise TypeError("publish(record, on_done): a record needs somebody who hears its report")
        shutter, records = self._shutter, self._records
        with shutter.gate:
            if self._life.producer is None or self._closed:
                self._start_locked()
            if shutter.emptying or shutter.fatal or shutter.recalling or shutter.suspects:  # is_shut(), 0.1 us faster
                raise QueueFullError("the queue of unacknowledged records is being emptied")
            number = records.taken = records.taken + 1
            taken = Taken(self._reports, number, record, on_done, self._clock.monotonic())
            taken.never_connected = self._life.watch.connected is False
            records.by_number[number] = taken
            try:
                refused = self._reports.produce(self._life.producer, taken)
                if self._thread is not None and self._thread.idle:
                    self._thread.wake()
            except BaseException:  # not taken; or a signal handler's: the caller tells that the record may be sent
                records.by_number.pop(number, None)
                raise
        if refused is not None:
            records.settle(taken, refused)
        return None

    # -- waiting

    def in_flight(self) -> int:
        """Return how many records are taken and not yet reported."""
        return len(self._records)

    def serve(self) -> None:
        """Handle the reports that have arrived, unless another thread is at it."""
        if threading.current_thread() is threading.main_thread():
            if self._thread is not None:
                self._thread.stand_aside()
        elif self._polling.lock.acquire(blocking=False):
            try:
                self._polling.poll(0)
            finally:
                self._polling.lock.release()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until at least one in a hundred places of the queue is free."""
        assert self._config is not None
        enough = self._config.producer.queue_max_messages * 99 // 100
        end = self._clock.monotonic() + timeout_s
        records, shutter = self._records, self._shutter
        before = records.left
        was_shut = shutter.is_shut()
        while True:
            self.serve()
            # The queue is bounded in bytes too: any record that left may have made the room.
            changed = was_shut or records.left != before or not records
            if changed and len(records) <= enough and not shutter.is_shut():
                return True
            if not self._clock.monotonic() < end:
                return False
            self._clock.sleep(_CHECK_S)

    def flush(self, deadline_s: float) -> int:
        """Wait up to `deadline_s` seconds until every record is reported; return how many are not.

        Not for use in a report handler (LifecycleError).
        """
        self._polling.refuse_in_handlers()
        end = self._clock.monotonic() + deadline_s
        self._polling.flushing += self._lingers
        try:
            while self._records and self._life.producer is not None and self._clock.monotonic() < end:
                self._clock.sleep(_CHECK_S)
                if not self._records:
                    self._let_handlers_return(end)
        finally:
            self._polling.flushing -= self._lingers
        if self._let_handlers_return(end):
            return len(self._records)
        return max(1, len(self._records))

    def _let_handlers_return(self, end: float) -> bool:
        """Wait until whoever has taken a report out has handled it: a record may come of that. False: it has not."""
        return self._polling.let_handlers_return(self._clock, max(_HANDLERS_RETURN_S, end - self._clock.monotonic()))

    def purge(self) -> None:
        """Give up on everything unacknowledged; each such record is reported before this returns.

        Meanwhile nothing is taken. Not for use in a report handler (LifecycleError).
        """
        self._polling.refuse_in_handlers()
        self._emptying.purge_now()

    # -- the poll thread

    def _turn_safely(self, timeout_s: float) -> None:
        try:
            self._turn(timeout_s)
        except Exception as exc:  # noqa: BLE001 - without the thread no record would ever be reported
            self._metrics.record_error("poll_thread")
            self._log.error("poll_thread_failed", operation="poll", error=type(exc).__name__)
            self._clock.sleep(_TRY_AGAIN_S)

    def _turn(self, timeout_s: float) -> None:
        with self._polling.lock:
            self._polling.poll(timeout_s)
        is_late, shutter = self._is_late(), self._shutter
        # Whoever purges now waits for reports, and only this thread is sure to bring them.
        if (is_late or shutter.is_shut()) and self._emptying.lock.acquire(blocking=False):
            try:
                if shutter.fatal:
                    self._repair.rebuild()
                elif is_late:
                    self.purge()
                elif shutter.recalling or shutter.suspects:
                    self._repair.mend()
            finally:
                self._emptying.lock.release()

    def _is_late(self) -> bool:
        """Return whether the oldest record is too old; not while a broker makes us wait, which is there and answers."""
        oldest, now = self._records.oldest(), self._clock.monotonic()
        if oldest is None or now - oldest.taken_at <= self._hand_over_after_s:
            return False
        return now > self._life.watch.throttled_until + _AFTER_THROTTLE_S

    # -- for health and metrics

    def condition(self) -> Condition:
        """Return whether a broker connection is up and for how long, how old the oldest record is, what went wrong."""
        connected, since_s, problem = self._life.watch.state()
        oldest = self._records.oldest()
        age_s = None if oldest is None else max(0.0, self._clock.monotonic() - oldest.taken_at)
        return Condition(connected, since_s, age_s, problem)

    def alive(self) -> bool:
        """Return whether the poll thread lives, or has not been needed yet."""
        return self._thread is None or self._thread.is_alive()

    def _readings(self) -> Iterator[Reading]:
        yield Reading(CLIENT_QUEUE_MESSAGES, len(self._records))
        yield Reading(CLIENT_QUEUE_BYTES, self._life.watch.queue_bytes)

    # -- fork

    def _lookups_are_stuck(self) -> None:
        self._life.watch.last_problem = "no address can be looked up since the fork"
        self._log.error(
            "lookups_stuck",
            operation="connect",
            detail="it was forked while a thread of its parent looked up an address: it can connect to nobody",
            remedy="restart this process; fork before the first event, or start workers by spawn",
        )

    def _after_fork_in_child(self) -> None:
        self._life.leave_to_parent()
        closed = self._closed
        self._reset()
        self._closed = closed


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork_in_child()  # noqa: SLF001 - the module's own class


os.register_at_fork(after_in_child=_after_fork_in_child)
