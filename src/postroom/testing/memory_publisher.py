"""A publisher that keeps its records in memory: for tests of code that publishes, and of the pipeline itself."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import LifecycleError, QueueFullError
from postroom.libs.logger import get_logger, limited
from postroom.streaming.delivery import DELIVERED, FATAL, PURGE_QUEUE, Action, decide, was_never_sent
from postroom.streaming.publisher import Condition, OnDone, Report
from postroom.testing.fault_script import FaultScript

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.libs.event import Record
    from postroom.testing.fault_script import TopicTrouble

# A clock under test tells nobody when it moves: whoever waits for it has to look.
_LOOK_S = 0.002

# What Kafka's client library says in these cases: what it means is looked up where the pipeline looks it up.
_MSG_TIMED_OUT = -192
_TROUBLES = {"gone": (-188, "_UNKNOWN_TOPIC"), "not_allowed": (29, "TOPIC_AUTHORIZATION_FAILED")}
_ALL_BROKERS_DOWN = "_ALL_BROKERS_DOWN"


class _Taken:
    """A record that was taken and is not reported.

    `is_held`: it waits for `release()`, whatever Kafka does. `trouble`: what became of the records that it waits with.
    """

    __slots__ = ("is_held", "never_connected", "number", "on_done", "record", "taken_at", "trouble")

    def __init__(
        self, number: int, record: Record, on_done: OnDone, taken_at: float, *, never_connected: bool, is_held: bool
    ) -> None:
        self.number = number
        self.record = record
        self.on_done = on_done
        self.taken_at = taken_at
        self.never_connected = never_connected
        self.is_held = is_held
        self.trouble: TopicTrouble | None = None


class MemoryPublisher:
    """Takes every record into `records` and reports it as delivered at once, unless told otherwise.

    `faults` says what Kafka does; times are those of `clock`. What is unreported for longer than `hand_over_after_s`
    is given up, as by the real client. `records` is what stands in Kafka, in order, and may begin with what another
    publisher has left there. A topic has one partition here, and its offsets count from 0.

    `script` holds what happens to the next records whatever Kafka does, one entry each: a `Report` that is given
    instead, or None for a queue that has no room for that record, however long its caller waits. With `holding = True`
    reports wait until `release()`.

    Reports that do not come at once come from a thread, in the order in which the records were taken.
    """

    def __init__(
        self,
        *,
        faults: FaultScript | None = None,
        clock: Clock = SYSTEM_CLOCK,
        hand_over_after_s: float | None = None,
        records: Iterable[Record] = (),
    ) -> None:
        self.records: list[Record] = list(records)
        self.script: deque[Report | None] = deque()
        self.holding = False
        self._faults = FaultScript() if faults is None else faults
        self._clock = clock
        self._hand_over_after_s = hand_over_after_s
        self._log = limited(get_logger("postroom.memory_publisher"))
        self._offsets = Counter(record.topic for record in self.records)
        # Locks are taken in this order: report, gate. A handler may publish, so it runs without the gate.
        self._report_lock = threading.Lock()
        self._reporter = 0  # the thread that is giving such reports now
        self._gate = threading.Condition(threading.RLock())
        self._number = 0
        self._open: dict[int, _Taken] = {}  # everything unreported
        self._queue: deque[_Taken] = deque()  # those of them that Kafka has not got, in order
        self._giving: list[int] = []  # the threads that are giving a report, once for each
        self._no_room_for: list[Record] = []
        self._has_room = True
        self._is_emptying = False
        self._is_fatal = False
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._is_connected = not self._faults.kafka.is_away
        self._since = clock.monotonic()
        self._stop_listening = self._faults.listen(self._on_change)

    # -- life

    def start(self) -> None:
        """Do nothing: it is always ready. Raises LifecycleError when closed."""
        self._refuse_if_closed()

    def close(self, timeout_s: float) -> None:
        """See Publisher."""
        self._refuse_in_handlers()
        with self._gate:
            self._is_closed = True
            self._gate.notify_all()
        self._stop_listening()
        if self.flush(timeout_s):
            self.purge()

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise LifecycleError("this publisher is closed", remedy="make a new one")

    # -- publishing

    def publish(self, record: Record, on_done: OnDone) -> None:
        """Take the record, or do what the scripts say."""
        self._faults.reached("before_publish")
        with self._gate:
            self._refuse_if_closed()
            if self._is_emptying or self._is_fatal:
                raise QueueFullError("the queue of unacknowledged records is being emptied")
            report = self._next_in_script(record)
            if self._faults.kafka.is_queue_full:
                raise QueueFullError("the queue of unacknowledged records is full")
            taken = self._take(record, on_done)
            self._faults.reached("after_publish")
            if report is not None:
                self._forget(taken)
            else:
                report = self._report_at_once(taken)
            if report is None:
                self._wake()
                return
            self._giving.append(threading.get_ident())
        self._give(taken, report)

    def _next_in_script(self, record: Record) -> Report | None:
        self._has_room = not any(record is other for other in self._no_room_for)
        if self._has_room and self.script:
            report = self.script.popleft()
            if report is not None:
                return report
            self._has_room = False
            self._no_room_for.append(record)
        if not self._has_room:
            raise QueueFullError("the queue of unacknowledged records is full")
        return None

    def _take(self, record: Record, on_done: OnDone) -> _Taken:
        self._number += 1
        taken = _Taken(
            self._number,
            record,
            on_done,
            self._clock.monotonic(),
            never_connected=not self._is_connected,
            is_held=self.holding,
        )
        self._open[taken.number] = taken
        self._queue.append(taken)
        if self._faults.take_fatal_error():
            self._is_fatal = True
        return taken

    def _report_at_once(self, taken: _Taken) -> Report | None:
        """Return the report of a record that Kafka answers on the spot; None when it has to wait."""
        kafka = self._faults.kafka
        if self._is_fatal or kafka.is_away or kafka.delay_s or taken.is_held or self._queue[0] is not taken:
            return None
        return self._sent(self._queue.popleft())

    def _sent(self, taken: _Taken) -> Report | None:
        """Let Kafka have a record; return what it says, None for nothing. The gate is held."""
        topic = taken.record.topic
        kafka = self._faults.kafka
        trouble = taken.trouble or kafka.trouble_of(topic)
        if trouble is not None:
            if taken.trouble is None:
                # What waits for a topic goes to it in one batch: if the others could get there, they would overtake.
                for other in self._queue:
                    if other.record.topic == topic:
                        other.trouble = trouble
            code, detail = _TROUBLES[trouble]
            report = Report(decide(code), code=code, detail=detail)
        else:
            offset = self._offsets[topic]
            self._offsets[topic] += 1
            self.records.append(taken.record)
            report = Report(DELIVERED, 0, offset)
            if self._faults.loses_ack(topic):
                if kafka.loss_is_silent:
                    return None
                report = Report(decide(_MSG_TIMED_OUT), code=_MSG_TIMED_OUT, detail="_MSG_TIMED_OUT")
        del self._open[taken.number]
        return report

    def _forget(self, taken: _Taken) -> None:
        del self._open[taken.number]
        self._queue.remove(taken)

    def _give(self, taken: _Taken, report: Report) -> None:
        """Give a record that is not open any more its report. What the handler raises is logged and hurts nobody."""
        is_delivered = report.decision.action is Action.DELIVERED
        try:
            if is_delivered:
                self._faults.reached("before_ack")
            taken.on_done(report)
            if is_delivered:
                self._faults.reached("after_ack")
        except Exception as exc:  # noqa: BLE001 - as the real client does: the next report must not suffer for this one
            self._log.error("report_handler_failed", operation="report", error=type(exc).__name__)
        finally:
            with self._gate:
                self._giving.remove(threading.get_ident())

    # -- reports that come later

    def release(self) -> None:
        """Deliver what was held, in order."""
        with self._gate:
            for taken in self._queue:
                taken.is_held = False
        self._report_due()

    def serve(self) -> None:
        """Give the reports that are due, unless another thread is at it."""
        if self._reporter != threading.get_ident():
            self._report_due(wait=False)

    def _report_due(self, *, wait: bool = True) -> None:
        if not self._queue or (not wait and self._report_lock.locked()):
            return
        with self._report_lock:  # no `acquire`: Ctrl-C right behind one would keep it for ever
            self._reporter = threading.get_ident()
            try:
                while (due := self._next_due()) is not None:
                    self._give(*due)
            finally:
                self._reporter = 0

    def _next_due(self) -> tuple[_Taken, Report] | None:
        with self._gate:
            while self._queue and not self._is_fatal:
                kafka, taken = self._faults.kafka, self._queue[0]
                age_s = self._clock.monotonic() - taken.taken_at
                if kafka.is_away or taken.is_held or age_s < kafka.delay_s:
                    return None
                report = self._sent(self._queue.popleft())
                if report is not None:
                    self._giving.append(threading.get_ident())
                    return taken, report
        return None

    def purge(self) -> None:
        """See Publisher."""
        self._refuse_in_handlers()
        self._empty()

    def _empty(self) -> None:
        """Report everything unreported as given up, in order; nothing is taken meanwhile."""
        with self._report_lock:
            self._reporter = threading.get_ident()
            with self._gate:
                self._is_emptying = True
                given_up = list(self._open.values())
                self._open.clear()
                self._queue.clear()
            try:
                for taken in given_up:
                    self._giving.append(threading.get_ident())
                    self._give(taken, self._given_up(taken, is_last=taken is given_up[-1]))
            finally:
                self._reporter = 0
                with self._gate:
                    self._is_emptying = self._is_fatal = False
                    self._gate.notify_all()

    def _given_up(self, taken: _Taken, *, is_last: bool) -> Report:
        if self._is_fatal and is_last:  # the record that met the error
            return Report(decide(FATAL, fatal=True), code=FATAL, detail="_FATAL")
        decision = decide(PURGE_QUEUE)
        if taken.never_connected:
            decision = was_never_sent(decision)
        problem = "" if self._is_connected else f" after {_ALL_BROKERS_DOWN}"
        return Report(decision, code=PURGE_QUEUE, detail=f"_PURGE_QUEUE{problem}")

    # -- the thread that looks at the clock

    def _wake(self) -> None:
        """Have somebody who gives this report when it is due; the gate is held."""
        if self._is_fatal or self._needs_thread():
            if self._thread is None or not self._thread.is_alive():  # not alive: left behind in another process
                self._thread = threading.Thread(target=self._run, name="memory-publisher", daemon=True)
                self._thread.start()
            self._gate.notify_all()

    def _needs_thread(self) -> bool:
        return any(not taken.is_held for taken in self._open.values())

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._gate:
                while not self._needs_thread() and not self._is_fatal:
                    if self._is_closed:
                        return
                    self._gate.wait()
            self._turn()
            pause.wait(_LOOK_S)

    def _turn(self) -> None:
        if self._is_fatal:
            self._empty()
        self._report_due()
        with self._gate:
            waiting = next((taken for taken in self._open.values() if not taken.is_held), None)
            patience_s = self._hand_over_after_s
            if waiting is None or patience_s is None or self._clock.monotonic() - waiting.taken_at <= patience_s:
                return
        self._empty()

    def _on_change(self) -> None:
        """Take note of a connection that came or went; what is due now is found by the thread."""
        with self._gate:
            is_connected = not self._faults.kafka.is_away
            if is_connected is not self._is_connected:
                self._is_connected = is_connected
                self._since = self._clock.monotonic()
            if is_connected:
                for taken in self._open.values():
                    taken.never_connected = False

    # -- waiting

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait for room as the real client does; but not for a record that `script` told there is none."""
        if not self._has_room:
            return False
        end = self._clock.monotonic() + timeout_s
        while self._is_emptying or self._is_fatal or self._faults.kafka.is_queue_full:
            if not self._clock.monotonic() < end:
                return False
            self._clock.sleep(_LOOK_S)
        return True

    def in_flight(self) -> int:
        """Return the number of records taken and not reported."""
        return len(self._open)

    def condition(self) -> Condition:
        """Return how it is doing; never waits, not even for a lock."""
        now = self._clock.monotonic()
        oldest = self._oldest()
        age_s = None if oldest is None else max(0.0, now - oldest.taken_at)
        problem = "" if self._is_connected else _ALL_BROKERS_DOWN
        return Condition(self._is_connected, max(0.0, now - self._since), age_s, problem)

    def _oldest(self) -> _Taken | None:
        while True:
            try:
                return next(iter(self._open.values()), None)
            except RuntimeError:  # a record came or went in this very moment
                continue

    def flush(self, deadline_s: float) -> int:
        """See Publisher."""
        self._refuse_in_handlers()
        end = self._clock.monotonic() + deadline_s
        while True:
            self._report_due()
            missing = self._missing()
            if not missing or not self._clock.monotonic() < end:
                return missing
            self._clock.sleep(_LOOK_S)

    def _missing(self) -> int:
        """Count what is unreported, and the handlers of other threads that have not returned."""
        own = threading.get_ident()
        with self._gate:
            return len(self._open) + sum(thread != own for thread in self._giving)

    def _refuse_in_handlers(self) -> None:
        if self._reporter == threading.get_ident():
            raise LifecycleError("a report handler waits for reports", remedy="wait in another thread")
