"""The Kafka producer: one connection to the cluster, one report for every record, whatever happens to it.

Retries live in librdkafka (idempotent, `acks=all`, backoff of 1, 2, 4, 8 s); waiting has an end here: when the
oldest unacknowledged record is older than `delivery.hand_over_after_s`, everything unacknowledged is purged and
reported, and the caller decides what becomes of it.

Facts this file is built on (measured with librdkafka 2.16.0, kept by tests):
- A purge goes on for a moment after it has returned and may take records that were produced after it: the gate
  stays closed until that moment has passed.
- A record that waits for a retry is purged with the code of the queue, though its first try may be in the log.
- A success without an offset is a conclusion of the client library's, and can be wrong (docs/design/0006).
- A broker refuses batches, not records; which record it is, is known of a record that was sent alone.
- `flush` goes on calling report callbacks after it has met a fatal error, with an exception pending that their first
  call into the library raises; and then it may raise a `KafkaError`, which is no exception to `except Exception`. It is
  called only where records linger for long. `poll` does neither.
- A forked child must not touch the parent's producer, not even to free it: its threads do not exist there.
- Who may poll, and why the main thread never does: `poll_thread`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self, TypeAlias, overload

from confluent_kafka import KafkaError, KafkaException, Producer

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import Delivered, FailedReason, Record
from postroom.libs.exceptions import LifecycleError, QueueFullError
from postroom.libs.logger import get_logger, limited
from postroom.observability.metric_table import CLIENT_QUEUE_BYTES, CLIENT_QUEUE_MESSAGES
from postroom.observability.metrics import METRICS, Metrics, Reading
from postroom.streaming.connection_watch import ConnectionWatch
from postroom.streaming.delivery import (
    BLAMES_THE_BATCH,
    DELIVERED,
    FATAL,
    INCONSISTENT,
    INVALID_DIFFERENT_RECORD,
    PURGE_INFLIGHT,
    PURGE_QUEUE,
    RECALLED,
    REFUSED_TOGETHER,
    UNPROVEN,
    decide,
    lets_others_pass,
    was_never_sent,
)
from postroom.streaming.json_publish import publish_as_json
from postroom.streaming.librdkafka_object import never_free, new_producer
from postroom.streaming.poll_thread import PollThread
from postroom.streaming.publisher import Condition, OnDone, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from confluent_kafka import Message

# How long a purge may still take records after it returned: under 1 ms in 200 tries, so this is ample.
_PURGE_SETTLES_S = 0.05
# After this long without any report, what a purge has not reported will not be reported.
_NO_MORE_REPORTS_S = 1.0
# How long what is on the wire may still be answered, when the rest is called back; and after a fatal error.
_ANSWERS_S = 1.0
_ANSWERS_AFTER_FATAL_S = 0.5
# How long after its waiting time a broker that throttles may take to answer.
_AFTER_THROTTLE_S = 5.0
# How long a broker may take for one record that is sent alone.
_ALONE_S = 5.0
# Fatal errors one after the other: the first producer is made at once, the next ones after 0.5, 1, 2, 4 and 8 s.
_REBUILD_FIRST_S = 0.5
_REBUILD_LONGEST_S = 8.0
_REBUILD_STREAK_S = 30.0
_THREAD_ENDS_S = 5.0
# A flush whose time is over waits so long for a handler that is at work.
_HANDLERS_RETURN_S = 1.0
# A flush does not wait for records that linger for longer.
_LONG_LINGER_MS = 100
# After a turn of the poll thread that failed (a producer that could not be made anew): before the next one.
_TRY_AGAIN_S = 1.0
_CHECK_S = 0.002
_EMPTYING_POLL_S = 0.01
_INVALID_ARG = -186

_clients: weakref.WeakSet[KafkaClient] = weakref.WeakSet()


class _Taken:
    """One record on its way, and the callback that librdkafka calls with its report."""

    __slots__ = ("client", "never_connected", "number", "on_done", "record", "taken_at")

    def __init__(self, client: KafkaClient, number: int, record: Record, on_done: OnDone, taken_at: float) -> None:
        self.client = client
        self.number = number
        self.record = record
        self.on_done = on_done
        self.taken_at = taken_at
        self.never_connected = False

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        try:
            offset = message.offset()
        except SystemError:  # a fatal error that this very poll has met comes out here; it is the producer's, not ours
            self.client.fatal_error_met("SystemError")
            offset = message.offset()
        if error is not None:
            self.client.not_delivered(self, error, offset)
        elif offset is None and self.client.expects_offsets:
            self.client.unproven(self)
        else:
            self.client.settle(self, Report(DELIVERED, message.partition() or 0, offset or 0))


_Refused: TypeAlias = tuple[_Taken, int, str]
"""A record of a refused batch, with the code and its name."""

_NO_REPORT = Report(decide(PURGE_QUEUE), code=PURGE_QUEUE, detail="_PURGE_QUEUE without a report")


def _not_sent_alone(refused: _Refused) -> Report:
    """Return the report of a record of a refused batch that is given up before it was sent again."""
    _, code, name = refused
    return Report(REFUSED_TOGETHER, code=code, detail=f"{name} for a batch")


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

        Locks are taken in this order: closing, purge, poll, gate.
        """
        self._close_lock = threading.Lock()
        self._purge_lock = threading.RLock()
        self._poll_lock = threading.Lock()  # one poller at a time, so that reports are handled one by one
        self._gate = threading.Lock()  # held while a record is taken
        self._producer: Any = None
        self._other: Any = None  # a second producer for a while: the one that sends alone, or the one that is let go
        self._thread: PollThread | None = None
        self._poller = 0  # the thread that is handling reports now
        self._closed = False
        self._emptying = False
        self._recalling = False
        self._fatal = False
        self._rebuilt_at = -_REBUILD_STREAK_S
        self._rebuild_wait_s = 0.0
        self._batch: list[_Refused] = []
        self._suspects: list[_Refused] = []
        self._alone: frozenset[int] = frozenset()  # the numbers of records that were sent alone
        self._purge_is_asked_for = False
        self._open: dict[int, _Taken] = {}
        self._taken = 0
        self._left = 0
        self._flushing = 0
        self._lingers = False
        self._watch = self._new_watch()

    def _new_watch(self) -> ConnectionWatch:
        return ConnectionWatch(self._clock, self._metrics, self._log, self._sent_something_maybe)

    # -- life

    def start(self) -> None:
        """Create the producer and its poll thread. Does not wait for a broker; calling it again does nothing.

        Raises ConfigurationError when the client library refuses a setting, LifecycleError when closed.
        """
        with self._gate:
            self._start_locked()

    def _start_locked(self) -> None:
        if self._closed:
            raise LifecycleError("this Kafka client is closed", remedy="make a new one")
        if self._producer is not None:
            return
        if self._config is None:
            self._config = load_config()
        self._hand_over_after_s = self._config.hand_over_after_s
        self._hands_over = self._config.spool.dir is not None
        self._lingers = self._config.producer.linger_ms > _LONG_LINGER_MS
        self.expects_offsets = self._config.producer.acks != "0"
        # What writes the lines is loaded before there is a thread that writes some: a fork in the middle of an import
        # leaves that import's lock held in the child.
        get_logger("postroom.kafka_client").is_enabled_for("warning")
        self._producer = self._new_producer()
        thread = PollThread(self._turn_safely, lambda: bool(self._open) or self._is_shut(), lambda: self._taken)
        try:
            thread.start()
        except BaseException:
            self._producer = None  # without somebody who polls it would take records and never report them
            raise
        self._thread = thread
        if self._end_readings is None:
            self._end_readings = self._metrics.add_source(self._readings)

    def _new_producer(self) -> Any:
        assert self._config is not None
        watch = self._watch = self._new_watch()
        callbacks = {
            "error_cb": self._on_error,
            "stats_cb": watch.on_statistics,
            "throttle_cb": watch.on_throttle,
        }
        return new_producer(self._make_producer, self._config, callbacks, self._log)

    def close(self, timeout_s: float = 20.0) -> None:
        """Wait up to `timeout_s` seconds for what is on its way, report the rest as not delivered, let go.

        Not for use in a report handler (LifecycleError).
        """
        self._refuse_in_handlers()
        with self._close_lock:
            with self._gate:
                self._closed = True
            if self._producer is None:
                return
            try:
                if self.flush(timeout_s):
                    self.purge()
            finally:
                if self._thread is not None:
                    self._thread.stop(_THREAD_ENDS_S)
            if self._end_readings is not None:
                self._end_readings()
            with self._gate:
                self._producer = None

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
        with self._gate:
            if self._producer is None or self._closed:
                self._start_locked()
            if self._emptying or self._fatal or self._recalling or self._suspects:  # _is_shut(), 0.1 us faster
                raise QueueFullError("the queue of unacknowledged records is being emptied")
            number = self._taken = self._taken + 1
            taken = _Taken(self, number, record, on_done, self._clock.monotonic())
            taken.never_connected = self._watch.connected is False
            self._open[number] = taken
            try:
                refused = self._produce(self._producer, taken)
                if self._thread is not None and self._thread.idle:
                    self._thread.wake()
            except BaseException:  # not taken; or a signal handler's: the caller tells that the record may be sent
                self._open.pop(number, None)
                raise
        if refused is not None:
            self.settle(taken, refused)
        return None

    def _is_shut(self) -> bool:
        """Return whether nothing is taken at the moment."""
        return self._emptying or self._fatal or self._recalling or bool(self._suspects)

    def _produce(self, producer: Any, taken: _Taken) -> Report | None:
        """Hand the record to the client library; return the report of one that it refuses on the spot."""
        record = taken.record
        try:
            producer.produce(
                record.topic,
                record.value,
                record.key,
                headers=list(record.headers),
                timestamp=record.timestamp_ms,
                on_delivery=taken,
            )
        except KafkaException as exc:
            return self._explain_on_the_spot(exc.args[0])
        except BufferError:
            raise QueueFullError("the queue of unacknowledged records is full") from None
        except Exception as exc:  # noqa: BLE001 - the call itself was refused; whatever the reason, it is told
            return Report(decide(_INVALID_ARG), code=_INVALID_ARG, detail=type(exc).__name__)
        return None

    # -- waiting

    def in_flight(self) -> int:
        """Return how many records are taken and not yet reported."""
        return len(self._open)

    def serve(self) -> None:
        """Handle the reports that have arrived, unless another thread is at it."""
        if threading.current_thread() is threading.main_thread():
            if self._thread is not None:
                self._thread.stand_aside()
        elif self._poll_lock.acquire(blocking=False):
            try:
                self._poll(0)
            finally:
                self._poll_lock.release()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until at least one in a hundred places of the queue is free."""
        assert self._config is not None
        enough = self._config.producer.queue_max_messages * 99 // 100
        end = self._clock.monotonic() + timeout_s
        before = self._left
        was_shut = self._is_shut()
        while True:
            self.serve()
            # The queue is bounded in bytes too: any record that left may have made the room.
            changed = was_shut or self._left != before or not self._open
            if changed and len(self._open) <= enough and not self._is_shut():
                return True
            if not self._clock.monotonic() < end:
                return False
            self._clock.sleep(_CHECK_S)

    def flush(self, deadline_s: float) -> int:
        """Wait up to `deadline_s` seconds until every record is reported; return how many are not.

        Not for use in a report handler (LifecycleError).
        """
        self._refuse_in_handlers()
        end = self._clock.monotonic() + deadline_s
        self._flushing += self._lingers
        try:
            while self._open and self._producer is not None and self._clock.monotonic() < end:
                self._clock.sleep(_CHECK_S)
                if not self._open:
                    self._let_handlers_return(end)
        finally:
            self._flushing -= self._lingers
        if self._let_handlers_return(end):
            return len(self._open)
        return max(1, len(self._open))

    def _let_handlers_return(self, end: float) -> bool:
        """Wait until whoever has taken a report out has handled it: a record may come of that. False: it has not."""
        has_returned = self._poll_lock.acquire(timeout=max(_HANDLERS_RETURN_S, end - self._clock.monotonic()))
        if has_returned:
            self._poll_lock.release()
        return has_returned

    def purge(self) -> None:
        """Give up on everything unacknowledged; each such record is reported before this returns.

        Meanwhile nothing is taken. Not for use in a report handler (LifecycleError).
        """
        self._refuse_in_handlers()
        self._purge_is_asked_for = True
        try:
            with self._emptied_queue() as producer:
                if producer is not None:
                    self._purge(producer, 0.0)
        finally:
            self._purge_is_asked_for = False

    @contextlib.contextmanager
    def _emptied_queue(self) -> Iterator[Any]:
        """Hold the gate shut: inside, nobody is in the middle of producing. Yields the producer, if there is one."""
        with self._purge_lock:
            with self._gate:
                self._emptying = True
                producer = self._producer
            try:
                yield producer
            finally:
                self._emptying = False

    def _purge(self, producer: Any, answers_s: float) -> None:
        """Have everything reported; for so long what is on the wire may still be answered."""
        if self._open:
            self._log.warning(
                "records_given_up", operation="purge", count=len(self._open), last_problem=self._watch.last_problem
            )
        suspects, self._suspects = self._suspects, []
        self._settle_all((refused[0], _not_sent_alone(refused)) for refused in suspects)
        self._empty(producer, answers_s)
        self._settle_all((taken, _NO_REPORT) for taken in list(self._open.values()))
        self._clock.sleep(_PURGE_SETTLES_S)

    def _settle_all(self, reports: Iterable[tuple[_Taken, Report]]) -> None:
        """Report these records, as if from inside poll."""
        with self._poll_lock:
            self._poller = threading.get_ident()
            try:
                for taken, report in reports:
                    self.settle(taken, report)
            finally:
                self._poller = 0

    def _empty(self, producer: Any, answers_s: float) -> None:
        """Purge until all but the suspects is reported, or nothing more comes; what is on the wire after `answers_s`.

        The library's threads are not waited for: one may be busy for long with the name of its broker.
        """
        now = progress_at = self._clock.monotonic()
        answers_until, before = now + answers_s, -1
        while (left := len(self._open) - len(self._suspects)) > 0:
            now = self._clock.monotonic()
            if left != before:
                before, progress_at = left, now
            elif now - max(progress_at, answers_until) > _NO_MORE_REPORTS_S:
                return
            self._begin_purge(producer, in_flight=now >= answers_until)
            if self._thread is not None and self._thread.is_current():
                with self._poll_lock:
                    self._poll(_EMPTYING_POLL_S)
            else:
                self._clock.sleep(_CHECK_S)

    def _begin_purge(self, producer: Any, *, in_flight: bool) -> None:
        self._call(lambda: producer.purge(in_queue=True, in_flight=in_flight, blocking=False))

    def _refuse_in_handlers(self) -> None:
        if self._poller == threading.get_ident():
            raise LifecycleError("a report handler waits for reports", remedy="wait in another thread")

    # -- the poll thread

    def _turn_safely(self, timeout_s: float) -> None:
        try:
            self._turn(timeout_s)
        except Exception as exc:  # noqa: BLE001 - without the thread no record would ever be reported
            self._metrics.record_error("poll_thread")
            self._log.error("poll_thread_failed", operation="poll", error=type(exc).__name__)
            self._clock.sleep(_TRY_AGAIN_S)

    def _turn(self, timeout_s: float) -> None:
        with self._poll_lock:
            self._poll(timeout_s)
        is_late = self._is_late()
        # Whoever purges now waits for reports, and only this thread is sure to bring them.
        if (is_late or self._is_shut()) and self._purge_lock.acquire(blocking=False):
            try:
                if self._fatal:
                    self._rebuild()
                elif is_late:
                    self.purge()
                elif self._recalling or self._suspects:
                    self._mend()
            finally:
                self._purge_lock.release()

    def _is_late(self) -> bool:
        """Return whether the oldest record is too old; not while a broker makes us wait, which is there and answers."""
        oldest, now = self._oldest(), self._clock.monotonic()
        if oldest is None or now - oldest.taken_at <= self._hand_over_after_s:
            return False
        return now > self._watch.throttled_until + _AFTER_THROTTLE_S

    def _poll(self, timeout_s: float) -> None:
        producer = self._producer
        if producer is not None:
            self._poll_by(producer.flush if self._flushing else producer.poll, timeout_s)

    def _poll_by(self, call: Callable[[float], object], timeout_s: float) -> None:
        """Call poll or flush, and handle the reports that it brings. The poll lock is held."""
        self._poller = threading.get_ident()
        try:
            self._call(lambda: call(timeout_s))
            if self._batch:
                self._end_batch()
        finally:
            self._poller = 0

    def _call(self, call: Callable[[], object]) -> None:
        """Call the library, and take what poll and flush raise on a fatal error: it is the only word of it."""
        try:
            call()
        except KafkaException as exc:
            self.fatal_error_met(exc.args[0].name() or "unknown")
        except SystemError as exc:
            self.fatal_error_met(type(exc).__name__)
        except BaseException:
            raise
        except:  # noqa: E722 - what flush raises before Python 3.12: a KafkaError, which is not even a BaseException
            self.fatal_error_met("KafkaError")

    def _oldest(self) -> _Taken | None:
        while True:
            try:
                return next(iter(self._open.values()), None)
            except RuntimeError:  # a record came or went in this very moment
                continue

    def _rebuild(self) -> None:
        """Put a new producer in the place of one that met a fatal error; what it had taken is reported first.

        One that meets the next fatal error at once (a missing right, say) is replaced after a pause, which grows.
        """
        now = self._clock.monotonic()
        if now - self._rebuilt_at >= _REBUILD_STREAK_S:
            self._rebuild_wait_s = 0.0
        is_due = now - self._rebuilt_at >= self._rebuild_wait_s
        if not is_due and not self._open:
            return
        problem = self._watch.last_problem
        if is_due:
            self._log.error("producer_fatal", operation="rebuild", open=len(self._open), error=problem)
            self._metrics.record_error("producer_fatal")
        with self._emptied_queue() as producer:
            self._purge(producer, _ANSWERS_AFTER_FATAL_S)
            if not is_due:
                return
            with self._poll_lock, self._gate:
                self._other, self._producer = self._producer, self._new_producer()
                self._fatal = self._recalling = False
                self._watch.last_problem = problem
        self._rebuilt_at = now
        self._rebuild_wait_s = min(max(2 * self._rebuild_wait_s, _REBUILD_FIRST_S), _REBUILD_LONGEST_S)
        self._other = None  # freed here, where nobody waits for it

    # -- records that a broker did not take, and those behind them

    def _mend(self) -> None:
        """Let nothing overtake a record that was not taken: call back what is behind, find who is at fault."""
        with self._emptied_queue() as producer:
            try:
                if self._hands_over:
                    self._recalling = True
                    self._empty(producer, _ANSWERS_S)
                if self._suspects and not self._fatal:
                    self._send_alone()
                self._clock.sleep(_PURGE_SETTLES_S)
            finally:
                self._recalling = False

    def _send_alone(self) -> None:
        """Send the records of refused batches again, each in a batch of its own: the answer is about this record."""
        assert self._config is not None
        producer = self._other = new_producer(self._make_producer, self._config, {}, self._log, alone=True)
        suspects, self._suspects = sorted(self._suspects, key=lambda refused: refused[0].number), []
        self._log.warning("batch_refused", operation="publish", count=len(suspects), error=suspects[0][2])
        self._alone = frozenset(refused[0].number for refused in suspects)
        told: list[tuple[_Taken, Report]] = []
        for refused in suspects:
            try:
                report = self._produce(producer, refused[0])
            except QueueFullError:
                report = _not_sent_alone(refused)
            if report is not None:
                told.append((refused[0], report))
        self._settle_all(told)
        self._wait_for_answers(producer, sorted(self._alone))
        self._other = None

    def _wait_for_answers(self, producer: Any, numbers: list[int]) -> None:
        """Poll until each of these records is reported; give up those for which no answer comes, or none is wanted."""
        left, since = numbers, self._clock.monotonic()
        given_up = False
        while left := [number for number in left if number in self._open]:
            before = self._left
            with self._poll_lock:
                self._poll_by(producer.poll, _EMPTYING_POLL_S)
                self._poll(0.0)
            now = self._clock.monotonic()
            if self._left != before:
                since = now
            if not given_up and (self._fatal or self._purge_is_asked_for or now - since > _ALONE_S):
                given_up, since = True, now
                self._begin_purge(producer, in_flight=True)
            elif given_up and now - since > _NO_MORE_REPORTS_S:
                self._settle_all([(taken, _NO_REPORT) for number in left if (taken := self._open.get(number))])

    def _recall(self) -> None:
        """Call back at once what waits behind a record that was not taken; the poll thread sees to the rest."""
        if self._hands_over and not self._recalling:
            self._recalling = True
            self._begin_purge(self._producer, in_flight=False)

    # -- what librdkafka says (called from inside poll; nothing here may raise)

    def fatal_error_met(self, problem: str) -> None:
        """Note that this producer is of no more use."""
        self._fatal = True
        self._watch.last_problem = problem

    def unproven(self, taken: _Taken) -> None:
        """Take a success without an offset: the library's own conclusion, for which it has no broker's word."""
        self._recall()
        self.settle(taken, Report(UNPROVEN, code=INCONSISTENT, detail="acknowledged_without_offset"))

    def not_delivered(self, taken: _Taken, error: KafkaError, offset: int | None) -> None:
        """Take a negative report. The records of a batch come in a row, numbered by their offsets: None, 0, 1."""
        code = error.code()
        if code not in BLAMES_THE_BATCH or taken.number in self._alone:
            self.settle(taken, self._explain(taken, error))
            return
        if offset is None:
            self._end_batch()
        elif len(self._batch) == 1:  # some of them are innocent: at once, this may be the first of ten thousand
            self._recall()
        self._batch.append((taken, code, error.name() or "unknown"))

    def _end_batch(self) -> None:
        """Judge a refused batch: a single record is at fault itself, among several each is sent again alone."""
        batch, self._batch = self._batch, []
        told_apart = any(code == INVALID_DIFFERENT_RECORD for _, code, _ in batch)
        suspects = []
        for taken, code, name in batch:
            if len(batch) == 1 or (told_apart and code != INVALID_DIFFERENT_RECORD):
                self.settle(taken, Report(decide(code), code=code, detail=name))
            else:
                suspects.append((taken, code, name))
        if suspects:
            self._suspects += suspects
            self._recall()

    def _explain(self, taken: _Taken, error: KafkaError) -> Report:
        """Turn a negative delivery report into ours, with what is known about the connections."""
        code = error.code()
        is_purged = code in {PURGE_QUEUE, PURGE_INFLIGHT}
        decision = decide(code, fatal=error.fatal() or (is_purged and self._fatal))
        if code == PURGE_QUEUE and self._recalling and not self._fatal:
            decision = RECALLED
        if code == PURGE_QUEUE and taken.never_connected and self._watch.connected is False:
            decision = was_never_sent(decision)
        if decision.rebuild:
            self._fatal = True
        if decision.rebuild or lets_others_pass(code):
            self._recall()
        detail = error.name() or "unknown"
        if self._watch.last_problem and decision.reason is FailedReason.KAFKA_UNAVAILABLE:
            detail = f"{detail} after {self._watch.last_problem}"
        return Report(decision, code=code, detail=detail)

    def _explain_on_the_spot(self, error: KafkaError) -> Report:
        """Explain what `produce` itself refused: whatever it says, this record was never sent.

        After a fatal error the next producer can take it: then it counts as not taken (QueueFullError).
        """
        decision = decide(error.code(), fatal=error.fatal() or error.code() == FATAL)
        if decision.rebuild:
            self._fatal = True
            raise QueueFullError("the producer is being made anew") from None
        return Report(was_never_sent(decision), code=error.code(), detail=error.name() or "unknown")

    def settle(self, taken: _Taken, report: Report) -> None:
        """Hand the record's one report to its owner. A second report for the same record is counted, not passed on."""
        if self._open.pop(taken.number, None) is None:
            self._metrics.record_error("second_report")
            return
        self._left += 1
        if report.code:
            self._metrics.record_error(report.detail.split(" ", 1)[0].lower())
        try:
            taken.on_done(report)
        except Exception as exc:  # noqa: BLE001 - an error here would surface from another caller's poll: log and count it
            self._metrics.record_error("report_handler")
            self._log.error("report_handler_failed", operation="report", error=type(exc).__name__)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = True
        self._watch.on_error(error)

    def _sent_something_maybe(self) -> None:
        """Note that a connection is, or was for a moment, up: from now on no open record is known to be unsent."""
        for taken in list(self._open.values()):
            taken.never_connected = False

    # -- for health and metrics

    def condition(self) -> Condition:
        """Return whether a broker connection is up and for how long, how old the oldest record is, what went wrong."""
        connected, since_s, problem = self._watch.state()
        oldest = self._oldest()
        age_s = None if oldest is None else max(0.0, self._clock.monotonic() - oldest.taken_at)
        return Condition(connected, since_s, age_s, problem)

    def alive(self) -> bool:
        """Return whether the poll thread lives, or has not been needed yet."""
        return self._thread is None or self._thread.is_alive()

    def _readings(self) -> Iterator[Reading]:
        yield Reading(CLIENT_QUEUE_MESSAGES, len(self._open))
        yield Reading(CLIENT_QUEUE_BYTES, self._watch.queue_bytes)

    # -- fork

    def _after_fork_in_child(self) -> None:
        for inherited in (self._producer, self._other):
            if inherited is not None:
                never_free(inherited)
        closed = self._closed
        self._reset()
        self._closed = closed


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork_in_child()  # noqa: SLF001 - the module's own class


os.register_at_fork(after_in_child=_after_fork_in_child)
