"""The Kafka producer: one connection to the cluster, one report for every record, whatever happens to it.

Retries live in librdkafka (idempotent, `acks=all`, backoff of 1, 2, 4, 8 s); waiting has an end here: when the
oldest unacknowledged record is older than `delivery.hand_over_after_s`, everything unacknowledged is purged and
reported, and the caller decides what becomes of it.

Facts this file is built on (measured with librdkafka 2.16.0, kept by tests):
- A blocking poll in a thread beside a busy producing thread starves: producing callers poll inline every so many
  records, the thread waits while they do.
- A purge goes on for a moment after it has returned and may take records that were produced after it: the gate
  stays closed until that moment has passed.
- A record that waits for a retry is purged with the code of the queue, though its first try may be in the log.
- A forked child must not touch the parent's producer, not even to free it: its threads do not exist there.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self, overload

from confluent_kafka import KafkaError, KafkaException, Producer

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import Delivered, EventIds, FailedReason, Record
from postroom.libs.exceptions import (
    LifecycleError,
    NotRepresentableError,
    QueueFullError,
)
from postroom.libs.logger import get_logger, limited
from postroom.observability.metrics import METRICS, Metrics
from postroom.streaming.delivery import (
    ALL_BROKERS_DOWN,
    DELIVERED,
    FATAL,
    PURGE_QUEUE,
    Action,
    decide,
    was_never_sent,
)
from postroom.streaming.librdkafka_settings import producer_settings
from postroom.streaming.publisher import OnDone, Report, publish_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Message

# A busy producer's thread is left to poll for itself; it is busy when it produced this many records
# since the poll thread last looked (every 5 ms).
_BUSY_RECORDS = 32
_BUSY_PAUSE_S = 0.005
_IDLE_WAIT_S = 0.5
_POLL_S = 0.02
# How long a purge may still take records after it returned: under 1 ms in 200 tries, so this is ample.
_PURGE_SETTLES_S = 0.05
_PURGE_REPORTS_S = 5.0

_clients: weakref.WeakSet[KafkaClient] = weakref.WeakSet()


class _Taken:
    """One record on its way, and the callback that librdkafka calls with its report."""

    __slots__ = ("client", "never_connected", "number", "on_done", "taken_at", "topic")

    def __init__(self, client: KafkaClient, number: int, topic: str, on_done: OnDone, taken_at: float) -> None:
        self.client = client
        self.number = number
        self.topic = topic
        self.on_done = on_done
        self.taken_at = taken_at
        self.never_connected = False

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            report = Report(DELIVERED, message.partition() or 0, message.offset() or 0)
        else:
            report = self.client.explain(self, error)
        self.client.settle(self, report)


class KafkaClient:
    """Publishes records to Kafka and reports each of them exactly once.

    `config` is the whole configuration (found by `load_config()` when not given). Nothing is opened before
    `start()`, which the first `publish` calls by itself. Safe to use from several threads; in a forked child a
    new connection is made at first use, and what was on its way in the parent stays the parent's.
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
        self._reset()
        _clients.add(self)

    def _reset(self) -> None:
        """Set the state of a client that owns no producer and no thread: new, or on the far side of a fork."""
        self._gate = threading.Lock()  # held while records are taken; closed during a purge
        self._poll_lock = threading.Lock()  # one poller at a time, so that reports are handled one by one
        self._wake = threading.Event()
        self._producer: Any = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._closed = False
        self._open: dict[int, _Taken] = {}
        self._taken = 0
        self._idle = False
        self._connected: bool | None = None
        self._connected_since = self._clock.monotonic()
        self._last_problem = ""
        self._fatal = False
        self._retries = 0

    # -- life

    def start(self) -> None:
        """Create the producer and its poll thread. Does not wait for a broker; calling it again does nothing."""
        with self._gate:
            self._start_locked()

    def _start_locked(self) -> None:
        if self._closed:
            raise LifecycleError("this Kafka client is closed", remedy="make a new one")
        if self._producer is not None:
            return
        if self._config is None:
            self._config = load_config()
        self._hand_over_after_s = self._config.delivery.hand_over_after_s
        self._producer = self._new_producer()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="postroom-poll", daemon=True)
        self._thread.start()

    def _new_producer(self) -> Any:
        assert self._config is not None
        if self._config.broker == "embedded":
            raise LifecycleError(
                "the embedded broker is not running",
                remedy="start postroom.streaming.embedded_broker.EmbeddedBroker and use its address",
            )
        settings = producer_settings(self._config) | {"error_cb": self._on_error, "stats_cb": self._on_statistics}
        return self._make_producer(settings, logger=_LibraryLog(self._log))

    def close(self, timeout_s: float = 20.0) -> None:
        """Wait up to `timeout_s` seconds for what is on its way, report the rest as not delivered, let go."""
        if self._closed:
            return
        if self._producer is not None:
            if self.flush(timeout_s):
                self.purge()
            self._stopping = True
            self._wake.set()
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join(5.0)
        with self._gate:
            self._closed = True
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
            return self._publish_mapping(record)
        if on_done is None:
            raise TypeError("publish(record, on_done): a record needs somebody who hears its report")
        refused: Report | None = None
        with self._gate:
            if self._producer is None:
                self._start_locked()
            self._taken += 1
            taken = _Taken(self, self._taken, record.topic, on_done, self._clock.monotonic())
            taken.never_connected = self._connected is False
            self._open[taken.number] = taken
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    headers=list(record.headers),
                    timestamp=record.timestamp_ms,
                    on_delivery=taken,
                )
            except BufferError:
                del self._open[taken.number]
                raise QueueFullError("the queue of unacknowledged records is full") from None
            except KafkaException as exc:
                refused = self._explain_on_the_spot(exc.args[0])
            except (TypeError, ValueError, RuntimeError) as exc:
                refused = Report(decide(-186), code=-186, detail=type(exc).__name__)
        if self._idle:
            self._wake.set()
        if refused is not None:
            self.settle(taken, refused)
        return None

    def _publish_mapping(self, event: Mapping[str, object]) -> Delivered:
        self.start()
        assert self._config is not None
        try:
            value = json.dumps(dict(event), allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise NotRepresentableError("the event cannot be written as JSON", remedy="use plain JSON types") from exc
        now_ms = self._clock.time_ms()
        event_id = EventIds().next(now_ms)
        topic = next(iter(self._config["topics"].values()))
        record = Record(topic, None, value, (("ce_id", event_id.encode()),), event_id, now_ms)
        answered = threading.Event()
        reports: list[Report] = []

        def on_done(report: Report) -> None:
            reports.append(report)
            answered.set()

        self.publish(record, on_done)
        answered.wait()  # bounded: every record gets its report within hand_over_after_s and a little
        report = reports[0]
        if report.decision.action is Action.DELIVERED:
            return Delivered(topic, report.partition, report.offset)
        raise publish_error(topic, report)

    # -- waiting

    def in_flight(self) -> int:
        """Return how many records are taken and not yet reported."""
        return len(self._open)

    def serve(self) -> None:
        """Handle the reports that have arrived, unless another thread is at it."""
        if self._poll_lock.acquire(blocking=False):
            try:
                self._poll(0)
            finally:
                self._poll_lock.release()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until at least one in a hundred places of the queue is free."""
        assert self._config is not None
        enough = self._config.producer.queue_max_messages * 99 // 100
        end = self._clock.monotonic() + timeout_s
        before = len(self._open)
        while True:
            self.serve()
            # The queue is bounded in bytes too: any record that left may have made the room.
            if len(self._open) <= enough and (len(self._open) < before or not self._open):
                return True
            if self._clock.monotonic() >= end:
                return False
            self._clock.sleep(0.002)

    def flush(self, deadline_s: float) -> int:
        """Wait up to `deadline_s` seconds until every record is reported; return how many are not."""
        end = self._clock.monotonic() + deadline_s
        while self._open and self._producer is not None:
            left = end - self._clock.monotonic()
            if left <= 0:
                break
            with self._poll_lock:
                self._guarded(self._producer.flush, min(0.1, left))
        return len(self._open)

    def purge(self) -> None:
        """Give up on everything unacknowledged; each such record is reported before this returns."""
        with self._gate:
            if self._producer is None:
                return
            given_up = list(self._open.values())
            if given_up:
                self._log.warning(
                    "records_given_up", operation="purge", count=len(given_up), last_problem=self._last_problem
                )
            self._producer.purge(in_queue=True, in_flight=True)
            end = self._clock.monotonic() + _PURGE_REPORTS_S
            while self._open and self._clock.monotonic() < end:
                with self._poll_lock:
                    self._poll(0.05)
            for taken in list(self._open.values()):
                self.settle(taken, Report(decide(PURGE_QUEUE), code=PURGE_QUEUE, detail="no report after a purge"))
            self._clock.sleep(_PURGE_SETTLES_S)

    # -- the poll thread

    def _run(self) -> None:
        seen = 0
        while not self._stopping:
            if not self._open:
                self._idle = True
                if not self._open:  # taken between the two lines above: then nobody saw `_idle`
                    self._wake.wait(_IDLE_WAIT_S)
                self._idle = False
                self._wake.clear()
            busy, seen = self._taken - seen >= _BUSY_RECORDS, self._taken
            if busy:
                self._clock.sleep(_BUSY_PAUSE_S)
            with self._poll_lock:
                self._poll(0 if busy else _POLL_S)
            if self._fatal:
                self._rebuild()
            self._give_up_on_the_old()

    def _poll(self, timeout_s: float) -> None:
        if self._producer is not None:
            self._guarded(self._producer.poll, timeout_s)

    def _guarded(self, call: Callable[[float], object], timeout_s: float) -> None:
        """Call poll or flush; on a fatal error these two raise, and that is the only word of it."""
        try:
            call(timeout_s)
        except (KafkaException, SystemError) as exc:
            self._fatal = True
            self._last_problem = type(exc).__name__

    def _give_up_on_the_old(self) -> None:
        try:
            oldest = next(iter(self._open.values()), None)
        except RuntimeError:  # a caller took a record in this very moment: look again next time
            return
        if oldest is not None and self._clock.monotonic() - oldest.taken_at > self._hand_over_after_s:
            self.purge()

    def _rebuild(self) -> None:
        """Put a new producer in the place of one that met a fatal error; what it had taken is reported."""
        self._log.error("producer_fatal", operation="rebuild", open=len(self._open), error=self._last_problem)
        self._metrics.record_error("producer_fatal")
        self.purge()
        with self._gate, self._poll_lock:
            self._producer = self._new_producer()
            self._fatal = False

    # -- what librdkafka says (called from inside poll; nothing here may raise)

    def explain(self, taken: _Taken, error: KafkaError) -> Report:
        """Turn a negative delivery report into ours, with what is known about the connections."""
        code = error.code()
        decision = decide(code, fatal=error.fatal())
        if code == PURGE_QUEUE and taken.never_connected and self._connected is False:
            decision = was_never_sent(decision)
        if decision.rebuild:
            self._fatal = True
        detail = error.name() or "unknown"
        if self._last_problem and decision.reason is FailedReason.KAFKA_UNAVAILABLE:
            detail = f"{detail} after {self._last_problem}"
        return Report(decision, code=code, detail=detail)

    def _explain_on_the_spot(self, error: KafkaError) -> Report:
        """Explain what `produce` itself refused: whatever it says, this record was never sent."""
        decision = decide(error.code(), fatal=error.fatal() or error.code() == FATAL)
        if decision.rebuild:
            self._fatal = True
        return Report(was_never_sent(decision), code=error.code(), detail=error.name() or "unknown")

    def settle(self, taken: _Taken, report: Report) -> None:
        """Hand the record's one report to its owner. A second report for the same record is counted, not passed on."""
        if self._open.pop(taken.number, None) is None:
            self._metrics.record_error("second_report")
            return
        if report.code:
            self._metrics.record_error(report.detail.split(" ", 1)[0].lower())
        try:
            taken.on_done(report)
        except Exception as exc:  # noqa: BLE001 - an error here would surface from another caller's poll: log and count it
            self._metrics.record_error("report_handler")
            self._log.error("report_handler_failed", operation="report", error=type(exc).__name__)

    def _on_error(self, error: KafkaError) -> None:
        name = error.name() or "unknown"
        self._last_problem = name
        if error.fatal():
            self._fatal = True
        if error.code() == ALL_BROKERS_DOWN:
            self._set_connected(connected=False)
        if "in state UP" in error.str():
            self._sent_something_maybe()
        self._metrics.record_connection_failure()
        self._log.warning("broker_unavailable", operation="connect", error=name)

    def _on_statistics(self, text: str) -> None:
        with contextlib.suppress(
            ValueError, KeyError, TypeError, AttributeError
        ):  # a statistic is never worth an error
            brokers = json.loads(text)["brokers"].values()
            states = [broker["state"] for broker in brokers if broker["nodeid"] >= 0 or broker["source"] != "logical"]
            if "UP" in states:
                self._set_connected(connected=True)
                self._last_problem = ""
            elif self._connected:
                self._set_connected(connected=False)
            retries = sum(broker["txretries"] for broker in brokers)
            if retries > self._retries:
                self._metrics.record_retry(retries - self._retries)
            self._retries = retries

    def _set_connected(self, *, connected: bool) -> None:
        if connected is not self._connected:
            self._connected = connected
            self._connected_since = self._clock.monotonic()
            if connected:
                self._sent_something_maybe()

    def _sent_something_maybe(self) -> None:
        """Note that a connection is, or was for a moment, up: from now on no open record is known to be unsent."""
        for taken in list(self._open.values()):
            taken.never_connected = False

    # -- for health

    def connection(self) -> tuple[bool | None, float, str]:
        """Return whether a broker connection is up (None: not known yet), for how many seconds, the last problem."""
        return self._connected, self._clock.monotonic() - self._connected_since, self._last_problem

    def alive(self) -> bool:
        """Return whether the poll thread lives, or has not been needed yet."""
        return self._thread is None or self._thread.is_alive()

    # -- fork

    def _after_fork_in_child(self) -> None:
        if self._producer is not None:
            # Freeing it would wait for threads that this process does not have: it is never freed here.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
        closed = self._closed
        self._reset()
        self._closed = closed


class _LibraryLog:
    """Takes librdkafka's own log lines: they go to our log, each kind at most once in ten seconds."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def log(self, _level: int, template: str, *parts: object) -> None:
        """Log one line of the library; called from inside poll."""
        self._log.debug("librdkafka", operation="client", detail=template % parts if parts else template)


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork_in_child()  # noqa: SLF001 - the module's own class


os.register_at_fork(after_in_child=_after_fork_in_child)
