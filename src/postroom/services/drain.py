"""Sends what waits in the spool, once Kafka takes it: in order, marked, a bounded window at a time. docs/design/0005.

A thread for each kind of queue, so that dead letters whose topic is away hold up no record, nor the other way round. It
reads the queue from the oldest on. What belongs to a topic whose path is closed is put back, so that it holds up no
other topic, and the oldest of it is kept as that topic's next probe.
"""

from __future__ import annotations

import contextlib
import random
import threading
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.event import DeadLetterReason, FailedReason
from postroom.libs.exceptions import PostroomError, QueueFullError, SpoolError
from postroom.libs.logger import get_logger, limited
from postroom.services.marks import marked
from postroom.services.paths import Path, Signal, State
from postroom.streaming.delivery import INVALID_TIMESTAMP, Action
from postroom.streaming.spool.record_format import Kind

if TYPE_CHECKING:
    from postroom.libs.clock import Clock
    from postroom.services.carried import Carried
    from postroom.services.dispatcher import Dispatcher
    from postroom.streaming.publisher import Publisher, Report
    from postroom.streaming.spool.queue_reader import SpooledRecord
    from postroom.streaming.spool.spool import Spool

UNEXPLAINED_TRIES = 5
"""So often a record may fail alone, for a reason that nobody can explain, before it becomes a dead letter."""

DEADLY = 5
"""So many processes in a row may die at one record before it becomes a dead letter."""

_UNEXPLAINED = {FailedReason.BROKER_ERROR, FailedReason.INTERNAL}
# Records between two looks for reports, as of every caller that sends without a rest: the poll thread has no turn then.
_SERVE_EVERY = 128
_IDLE_S = 0.25
_PAUSE_S = 0.05
_AFTER_ERROR_S = 1.0
_JOIN_S = 5.0


class _Sent:
    """One record from the spool that is with the client library."""

    __slots__ = ("_drain", "path", "waiting")

    def __init__(self, drain: Drain, path: Path, waiting: SpooledRecord) -> None:
        self._drain = drain
        self.path = path
        self.waiting = waiting

    def report(self, report: Report) -> None:
        """Take the publisher's last word."""
        self._drain.on_report(self, report)


class Drain:
    """Drains one kind of queue, from `start()` to `stop()`. `window` bounds how many records are on their way.

    `repeats` counts the records that were sent marked, `rejected` the dead letters that the broker refused.
    """

    def __init__(
        self,
        kind: Kind,
        order_lock: threading.RLock,
        *,
        spool: Spool,
        publisher: Publisher,
        dispatcher: Dispatcher,
        carried: Carried,
        clock: Clock,
        window: int,
    ) -> None:
        self._kind = kind
        self._lock = order_lock
        self._spool = spool
        self._publisher = publisher
        self._dispatcher = dispatcher
        self._carried = carried
        self._clock = clock
        self._window = window
        self._out = 0
        self.repeats = 0
        self.rejected = 0
        self._wants_rewind = False
        self._is_first = True
        self._trial: SpooledRecord | None = None
        self._is_trial_over = False
        self._was_connected = False
        self._random = random.Random()  # noqa: S311 - spreads waits, keeps no secret
        self._wake = threading.Event()
        self._stopping = False
        self._log = limited(get_logger("postroom.drain"), by="topic")
        self._thread = threading.Thread(target=self._run, name=f"postroom-drain-{kind.name.lower()}", daemon=True)

    # -- life

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more. What is on its way still gets its report."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def wake(self) -> None:
        """Say that there may be something to do."""
        if not self._wake.is_set():
            self._wake.set()

    def ask_rewind(self) -> None:
        """Say that a record was put back that the reading has passed. The order lock is held."""
        self._wants_rewind = True
        self.wake()

    def _run(self) -> None:
        while not self._stopping:
            pause_s = _IDLE_S
            try:
                if self._turn():
                    continue
                if self._spool.has_waiting(self._kind):
                    pause_s = _PAUSE_S
            except PostroomError as exc:
                self._log.error("drain_failed", operation="drain", error=exc.code, detail=exc.message)
                pause_s = _AFTER_ERROR_S
            except Exception as exc:  # noqa: BLE001 - without the thread nothing would ever leave the spool
                self._log.error("drain_failed", operation="drain", error=type(exc).__name__)
                pause_s = _AFTER_ERROR_S
            self._wake.wait(pause_s)
            self._wake.clear()

    # -- one turn

    def _turn(self) -> bool:
        """Do what can be done now; True if there may be more at once."""
        self._carried.count_found(self._kind)
        self._carried.count_lost(self._kind)
        self._open_emptied()
        if self._is_trial_over:
            self._end_trial()
        if self._trial is not None or not self._spool.has_waiting(self._kind) or not self._is_connected():
            return False
        self._send_probes()
        room = self._window - self._out
        count = self._worth_reading(room) if room > self._window // 2 else 0
        if not count:
            return False
        found = self._read(1 if self._is_first else count)
        for number, waiting in enumerate(found, 1):
            self._take(waiting)
            if number % _SERVE_EVERY == 0:
                self._publisher.serve()
        if found:
            self._send_probes()
        return bool(found)

    def _is_connected(self) -> bool:
        connected = self._publisher.condition().connected is True
        if connected and not self._was_connected:
            with self._lock:
                for path in self._dispatcher.paths(self._kind):
                    path.try_now()
        self._was_connected = connected
        return connected

    def _open_emptied(self) -> None:
        """Open the paths of topics of which nothing waits any more."""
        spool = self._spool
        for path in self._dispatcher.paths(self._kind):
            if path.is_direct or path.state is State.HANDING_OVER:
                continue
            with self._lock:
                if path.held or path.drain_out or not spool.is_counted or spool.waiting(path.topic, self._kind):
                    continue
                if path.state is State.SPOOLING and self._publisher.condition().connected is not True:
                    continue
                path.is_put_back, path.probe = False, None
                path.works()
                if path.signal(Signal.EMPTIED, self._clock.monotonic()):
                    self._log.info("path_direct", operation="drain", topic=path.topic)

    def _send_probes(self) -> None:
        now = self._clock.monotonic()
        for path in self._dispatcher.paths(self._kind):
            with self._lock:
                waiting = path.probe
                may = path.state is State.SPOOLING or path.state is State.DRAINING
                if waiting is None or not may or path.drain_out or now < path.next_try_at:
                    continue
                path.probe = None
                self._send(path, waiting)

    def _worth_reading(self, room: int) -> int:
        """Return how many records to read now: none while every topic of which something waits is closed."""
        now = self._clock.monotonic()
        count = 0
        topics = self._spool.waiting_by_topic(self._kind)
        for topic in topics:
            with self._lock:
                path = self._dispatcher.path(topic, self._kind)
                path.signal(Signal.FOUND, now)
                if path.state is State.DRAINING:
                    return room
                is_due = path.state is State.SPOOLING and now >= path.next_try_at
                if is_due and path.probe is None and not path.drain_out:
                    count = max(count, 1 if len(topics) == 1 else room)
        if not count and not self._spool.is_counted:  # the rest of it may be of any topic
            return room
        return count

    def _read(self, count: int) -> list[SpooledRecord]:
        with self._lock:
            if self._wants_rewind:
                self._rewind()
        found = self._spool.read(self._kind, max_records=count)
        self._carried.count_found(self._kind)
        with self._lock:
            if self._wants_rewind:  # something older was put back meanwhile: it comes first
                self._spool.put_back(found, sent=False)
                return []
            if not found and any(map(_is_behind, self._dispatcher.paths(self._kind))):
                self._rewind()
        return found

    def _rewind(self) -> None:
        self._wants_rewind = False
        self._spool.rewind(self._kind)
        for path in self._dispatcher.paths(self._kind):
            path.is_put_back = False

    def _take(self, waiting: SpooledRecord) -> None:
        """Send a record, or put it back where its topic is closed."""
        with self._lock:
            path = self._dispatcher.path(waiting.record.topic, self._kind)
            if path.is_direct:
                path.signal(Signal.FOUND, self._clock.monotonic())
            # The next one in order, unless an older one was put back: before this reading, or in this very moment.
            is_next = path.probe is None and not path.is_put_back and not self._wants_rewind and not self._stopping
            if is_next and path.state is State.DRAINING:
                self._send_first(path, waiting) if self._is_first else self._send(path, waiting)
            elif is_next and path.state is State.SPOOLING and not path.drain_out:
                path.probe = waiting
            else:
                self._spool.put_back([waiting], sent=False)
                path.is_put_back = True

    def _send_first(self, path: Path, waiting: SpooledRecord) -> None:
        """Send what a process had in its hands that is gone, alone: perhaps it died of it. The order lock is held.

        What stands before such a record is delivered by then: each start begins with the oldest, so it gets its turn.
        """
        if waiting.sent_before and not self._spool.is_own(waiting):
            if self._spool.deaths_at(waiting) >= DEADLY:
                self._rejected(path, waiting, DeadLetterReason.KILLS_THE_SENDER)
                return  # and the next one is the first
            with contextlib.suppress(SpoolError):  # a disk that takes no note is no reason not to send
                self._spool.on_trial(waiting)
                self._trial = waiting
        self._is_first = False
        self._send(path, waiting)

    def _end_trial(self) -> None:
        """Note that this process outlived its trial; not where reports arrive, since it waits for the disk."""
        self._is_trial_over = False
        trial, self._trial = self._trial, None
        assert trial is not None
        self._spool.trial_over(trial)

    def _send(self, path: Path, waiting: SpooledRecord) -> None:
        record = waiting.record
        if waiting.sent_before:
            record = marked(record, record.attempt + 1)
        if path.stamps_anew:
            record = msgspec.structs.replace(record, timestamp_ms=self._clock.time_ms())
        path.drain_out += 1
        self._out += 1
        self.repeats += record.attempt > 1
        try:
            self._publisher.publish(record, _Sent(self, path, waiting).report)
        except BaseException as exc:
            path.drain_out -= 1
            self._out -= 1
            self._spool.put_back([waiting], sent=waiting.sent_before or not isinstance(exc, QueueFullError))
            path.is_put_back = True
            self._is_trial_over = self._trial is waiting
            if not isinstance(exc, QueueFullError):
                raise

    # -- the publisher's last word

    def on_report(self, sent: _Sent, report: Report) -> None:
        """Act on what the report means. Called where reports arrive: never waits."""
        path, waiting = sent.path, sent.waiting
        decision = report.decision
        try:
            if decision.action is Action.DELIVERED:
                self._delivered(path, waiting)
            elif report.code == INVALID_TIMESTAMP and self._kind is Kind.DEAD_LETTER:
                # A clock was wrong when it failed, or is: the letter says itself when that was, see docs/design/0011.
                path.stamps_anew = True
                self._undelivered(path, waiting, report)
            elif decision.action is Action.DEAD_LETTER:
                assert isinstance(decision.reason, DeadLetterReason)
                self._rejected(path, waiting, decision.reason)
            else:
                self._undelivered(path, waiting, report)
        finally:
            with self._lock:
                path.drain_out -= 1
                self._out -= 1
            if self._trial is waiting:
                self._is_trial_over = True
            if self._out <= self._window // 2:
                self.wake()

    def _delivered(self, path: Path, waiting: SpooledRecord) -> None:
        self._spool.ack(waiting)
        self._carried.delivered(waiting)
        if path.state is not State.DRAINING or path.problem is not None:
            with self._lock:
                path.works()
                if path.signal(Signal.DELIVERED, self._clock.monotonic()):
                    self._log.info("path_drains", operation="drain", topic=path.topic)
                    if path.is_put_back:
                        self.ask_rewind()
                    self.wake()

    def _rejected(self, path: Path, waiting: SpooledRecord, reason: DeadLetterReason) -> None:
        """The broker refuses the record for its own sake: the others go on without it."""
        if self._kind is Kind.DEAD_LETTER:  # it stays in hand, and so on the disk, until a start tries it again
            self.rejected += 1
            self._log.error(
                "dead_letter_rejected", operation="drain", event_id=waiting.record.event_id, topic=path.topic
            )
            return
        self._carried.bury(waiting, reason, lambda: self._put_back(path, waiting))

    def _put_back(self, path: Path, waiting: SpooledRecord) -> None:
        """Have a record that could not be buried come again."""
        with self._lock:
            self._spool.put_back([waiting], sent=True)
            path.is_put_back = True

    def _undelivered(self, path: Path, waiting: SpooledRecord, report: Report) -> None:
        decision = report.decision
        with self._lock:
            was_probe = path.state is State.SPOOLING
            if was_probe:
                path.failed(decision.reason, self._clock.monotonic(), self._random)
                path.unexplained += decision.reason in _UNEXPLAINED
                if path.unexplained >= UNEXPLAINED_TRIES:
                    path.works()
                    self._rejected(path, waiting, DeadLetterReason.REJECTED_BY_BROKER)
                    return
                self._log.warning("probe_failed", operation="drain", topic=path.topic, error=report.detail)
            else:
                self._dispatcher.trouble(path, report)
            if was_probe:  # it stays the oldest of its topic
                maybe = waiting.sent_before or decision.may_be_in_kafka
                path.probe = msgspec.structs.replace(waiting, sent_before=maybe)
                return
            self._spool.put_back([waiting], sent=decision.may_be_in_kafka)
            path.is_put_back = True
            self.ask_rewind()


def _is_behind(path: Path) -> bool:
    """True for a topic whose oldest record was put back: the reading has to begin again to find it."""
    may = path.state is State.DRAINING or path.state is State.SPOOLING
    return may and path.is_put_back and path.probe is None and not (path.state is State.SPOOLING and path.drain_out)
