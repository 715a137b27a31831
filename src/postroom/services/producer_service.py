"""The pipeline: contract, validate, pace, order, publish, outcome, account. The one way in for every event.

`publish_event` hands back a receipt; what happens to the event is an outcome, never an exception. The steps are
written once: the asyncio face, files, replays and the command line all come through here.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Self

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import Failed, FailedReason, RefusedReason
from postroom.libs.exceptions import LifecycleError
from postroom.observability.metrics import METRICS, Metrics
from postroom.services.batch import Batch
from postroom.services.components import Components
from postroom.services.door import Door
from postroom.services.intake import Intake
from postroom.services.item import TOMBSTONE
from postroom.services.ledger import Ledger
from postroom.services.process_life import close_at_worker_exit, is_ending, take_care_of
from postroom.services.receipt import CALLBACKS
from postroom.services.settlement import Settlement
from postroom.services.spool_view import readings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from postroom.libs.event import Event
    from postroom.observability.metrics import Reading
    from postroom.schemas.data_contracts import Contract
    from postroom.services.batch import BatchResult
    from postroom.services.item import Item, Tombstone
    from postroom.services.journal import AcceptedJournal
    from postroom.services.lane import HeadersInput
    from postroom.services.receipt import Receipt
    from postroom.services.registry_asking import Registry
    from postroom.streaming.publisher import Publisher
    from postroom.streaming.rate_limiter import RateLimiter
    from postroom.streaming.spool.file_system import FileSystem

# Records between two inline polls of a producing caller.
_SERVE_EVERY = 128

_LONGEST_WAIT_S = 1e9  # thirty years stand for ever
OVERFLOW_S = 5.0
"""So long a caller whose patience with a full queue has ended waits once more, for the spool to take its event."""

# Who may give up waits for room in slices, and is asked between two of them.
_SLICE_S = 0.1

# How long `publish_event` waits for the disk when it writes ahead; a sync takes milliseconds.
_DISK_PATIENCE_S = 30.0
# How long closing waits for callers who are just handing an event in; that takes microseconds.
_ADMISSION_S = 1.0

_never_freed: list[Components] = []  # in a forked child: the parent's, whose threads and sockets live there


class ProducerService:
    """Takes events, checks them against their contracts, publishes them and accounts for each of them.

    Without arguments the settings are found by `load_config()`: `POSTROOM_CONFIG`, `./kafka.yaml`,
    `./config/kafka.yaml`, packaged defaults. Nothing is opened before `start()`, which the context manager and
    the first event call. Safe to use from several threads. After a fork the child starts anew at its first event,
    with books of its own and without the journal; the parent's open events stay the parent's. A service that was
    not closed is closed when the interpreter ends, or the worker process of `multiprocessing` it lives in.

    The other arguments are for tests and special wiring: a publisher, a registry, contracts, a limiter, a journal of
    accepted events, the file system of the spool, a clock, a set of metrics.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        publisher: Publisher | None = None,
        registry: Registry | None = None,
        contracts: Mapping[str, Contract] | None = None,
        limiter: RateLimiter | None = None,
        journal: AcceptedJournal | None = None,
        spool_files: FileSystem | None = None,
        clock: Clock = SYSTEM_CLOCK,
        metrics: Metrics = METRICS,
    ) -> None:
        self._config = config
        self._publisher = publisher
        self._registry = registry
        self._contracts = contracts
        self._limiter = limiter
        self._journal = journal
        self._spool_files = spool_files
        self._clock = clock
        self._metrics = metrics
        self._end_readings: Callable[[], None] | None = None
        self._reset()
        take_care_of(self)

    def _reset(self) -> None:
        """Set the state of a service that has not started: new, or on the far side of a fork."""
        self._life_lock = threading.Lock()
        self._order_lock = threading.RLock()  # a record may be reported while it is handed over
        self._running = False
        self._closed = False
        self._ended = False
        self.door = Door()
        self._parts: Components | None = None
        self._intake: Intake | None = None
        self.ledger = Ledger()
        self.settlement = Settlement(
            lambda: self.parts,
            journal=self._journal,
            clock=self._clock,
            metrics=self._metrics,
        )

    @classmethod
    def from_config(
        cls, path: str | Path | None = None, *, env: str | None = None, overrides: Mapping[str, object] | None = None
    ) -> Self:
        """Make a service from a settings file. Raises ConfigurationError with file, line, key and remedy."""
        return cls(load_config(path, env=env, overrides=overrides))

    # -- life

    def start(self) -> Self:
        """Load contracts, ask the registry for their ids, make ready to publish. Calling it again does nothing.

        Does not wait for a broker, except to create topics (`contracts.create_topics`): with a spool for some seconds,
        and they are created once Kafka is there; without one KafkaConnectionError is raised. Raises ConfigurationError,
        ContractError or SchemaRegistryError when the set-up is wrong, LifecycleError when the service is closed. A
        registry that does not answer stops nothing: events are refused as `contract_unavailable` until it does.
        """
        self._refuse_if_closed()  # before the lock, which closing holds for long
        with self._life_lock:
            self._refuse_if_closed()
            if self._running:
                return self
            parts = Components(
                self._config or load_config(),
                ledger=self.ledger,
                settlement=self.settlement,
                order_lock=self._order_lock,
                clock=self._clock,
                metrics=self._metrics,
                publisher=self._publisher,
                registry=self._registry,
                contracts=self._contracts,
                limiter=self._limiter,
                spool_files=self._spool_files,
            )
            self._parts = parts  # what a start finds in the spool may be dealt with before it has ended
            try:
                parts.start()
            except BaseException:
                self._parts = None
                raise
            self._intake = Intake(parts, self.ledger, self.settlement, self._clock)
            if self._end_readings is None:  # a forked child has its parent's source, which reads the new ledger
                self._end_readings = self._metrics.add_source(self._readings)
            close_at_worker_exit()
            self._running = True
        return self

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise LifecycleError("this producer service is closed", remedy="make a new one")
        if not self._running and is_ending():
            raise LifecycleError("the interpreter is ending: nobody would close this service", remedy="publish earlier")

    def _readings(self) -> Iterator[Reading]:
        yield from self.ledger.readings()
        if self._parts is not None:
            yield from readings_of(self._parts, self._clock)
            yield from self._parts.schema_ids.readings()

    def close(self, timeout_s: float | None = None) -> None:
        """Take no more events, wait for those on their way, let go of everything.

        What is not acknowledged within `timeout_s` seconds (default `delivery.close_timeout_s`), or as soon as Kafka is
        away, goes to the spool, and has failed where there is none; every receipt has its outcome when this returns.
        Calling it again does nothing; when Ctrl-C cut it short, it goes on. Not for use in a signal handler: raise an
        exception there (`sys.exit`), and close where it arrives.
        """
        with self._life_lock:
            parts = self._parts
            self._closed = True
            if self._ended or parts is None:
                return
            try:
                patience_s = parts.config.delivery.close_timeout_s if timeout_s is None else timeout_s
                end = self._clock.monotonic() + (patience_s if patience_s > 0 else 0.0)
                self._stop_taking()
                parts.closing.finish_open_events(end, patience_s)
            finally:
                parts.closing.let_go()
                if self._end_readings is not None:
                    self._end_readings()
                parts.stop()
            self._ended = True
        # Without the lock: a user's callback that is waited for here may call this service.
        CALLBACKS.drain(max(0.1, end - self._clock.monotonic()))

    def _stop_taking(self) -> None:
        """From here on nothing goes to the publisher; who stands at the door with an event is turned away."""
        with self._order_lock:  # whoever is sending right now has sent; who comes later sees it closed
            self._running = False
        waiting = self.door.waiting(self._clock, _ADMISSION_S)
        with self._order_lock:
            for item in waiting:
                self._turn_away(item)

    def _turn_away(self, item: Item) -> None:
        """Tell an event that was not sent that it will not be; the order lock is held."""
        if not item.sequence and not item.receipt.done():
            detail = "the service was closed"
            self.settlement.fail(item, Failed(FailedReason.CLOSED, may_be_in_kafka=False, detail=detail))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """True from the start to the close."""
        return self._running

    @property
    def parts(self) -> Components:
        """The parts at work; LifecycleError before the start."""
        if self._parts is None:
            raise LifecycleError("this producer service has not started", remedy="call start() first")
        return self._parts

    # -- the way in

    def publish_event(
        self,
        event: Event | bytes | str,
        *,
        event_type: str | None = None,
        key: str | bytes | None = None,
        event_id: str | None = None,
        timestamp: int | None = None,
        headers: HeadersInput | None = None,
        timeout: float = 5.0,
    ) -> Receipt:
        """Hand in one event; its outcome comes on the receipt.

        `event` is a mapping, or the JSON of one (bytes or text), which is read by the contract. With the headers of a
        CloudEvent (`content-type: application/cloudevents+json`, or `ce_specversion`) it is one, see docs/inputs.md.
        The contract is `event_type`, else the CloudEvents type, else the default contract; a topic's name does if only
        one contract has it. `key` replaces the one that the contract
        names; `event_id` (else the header `ce_id`, else a new UUID version 7) stays the same through every repeat;
        `timestamp` is the record's time in milliseconds since 1970, by default now. `timeout` is the longest wait in
        seconds for pace or for room in the queue; 0 never waits.

        Raises only for misuse: TypeError for an argument of a wrong kind, LifecycleError when closed, and what
        `start()` raises when this is the first event.
        """
        patience_s = checked_timeout(timeout)
        return self._publish(self.admit(event, event_type, key, event_id, timestamp, headers), patience_s)

    def publish_tombstone(
        self,
        key: str | bytes,
        *,
        event_type: str | None = None,
        event_id: str | None = None,
        timestamp: int | None = None,
        headers: HeadersInput | None = None,
        timeout: float = 5.0,
    ) -> Receipt:
        """Hand in a record without a value: on a compacted topic it takes away what stands there under `key`.

        Refused as `tombstone_not_allowed` unless the contract says `tombstones: true`. Everything else is as with
        `publish_event`; `key` must be given: there is no event to take it from.
        """
        patience_s = checked_timeout(timeout)
        return self._publish(self.admit(TOMBSTONE, event_type, key, event_id, timestamp, headers), patience_s)

    def _publish(self, item: Item, patience_s: float) -> Receipt:
        self.hand_over(item, patience_s)
        if item.ticket is not None:
            item.wait_until_stored(_DISK_PATIENCE_S)
        return item.receipt

    def hand_over(self, item: Item, timeout: float, gives_up: Callable[[], bool] | None = None) -> None:
        """Steps 3 to 5: wait up to `timeout` seconds for pace and room, then publish what was admitted.

        `gives_up` is asked ten times a second while there is no room: once it says True, the time is over.
        """
        if item.record is None:
            return
        try:
            paced = self.parts.limiter.acquire()
            if paced and self.try_send(item):
                return
            end = self._clock.monotonic() + timeout
            if paced or self._wait_for_pace(item, timeout):
                self._wait_for_room(item, end, gives_up)
        except BaseException:  # a signal handler's, Ctrl-C for one: it goes on up, the event gets its outcome
            self.cut_short(item)
            raise
        finally:
            self.door.leave(item)

    def _wait_for_pace(self, item: Item, timeout: float) -> bool:
        limiter = self.parts.limiter
        began = self._clock.monotonic()
        if not limiter.acquire(timeout):
            self.refuse(item, RefusedReason.RATE_LIMITED, limiter.retry_after())
            return False
        self.count_pace_wait(self._clock.monotonic() - began)
        return True

    def count_pace_wait(self, seconds: float) -> None:
        """Count an event that had to wait for its pace."""
        self._metrics.record_rate_limit_wait(seconds)

    def _wait_for_room(self, item: Item, end: float, gives_up: Callable[[], bool] | None) -> None:
        dispatcher = self.parts.dispatcher
        may_overflow = end > self._clock.monotonic()  # who does not want to wait at all is told at once
        while not self.try_send(item):
            left = end - self._clock.monotonic()
            if gives_up is not None and may_overflow and gives_up():
                left = 0.0
            slice_s = left if gives_up is None else min(left, _SLICE_S)
            if left > 0 and (dispatcher.wait_for_room(item, slice_s) or slice_s < left):
                continue
            if not (may_overflow and dispatcher.overflow(item)):
                self.turn_back(item)
                return
            may_overflow, end = False, self._clock.monotonic() + OVERFLOW_S

    def publish_many(
        self,
        events: Iterable[Event | bytes | str],
        *,
        event_type: str | None = None,
        headers: HeadersInput | None = None,
        timeout: float = 60.0,
    ) -> BatchResult:
        """Hand in events one after the other and wait for all outcomes; see `BatchResult`.

        `events` is read lazily and memory stays bounded. `timeout` is the longest wait in seconds for pace or room,
        for each event. What iterating `events` raises is raised here, once the events before it have their outcomes.
        """
        patience_s = checked_timeout(timeout)
        batch = Batch()
        try:
            for event in events:
                item = self.admit(event, event_type, None, None, None, headers)
                self.hand_over(item, patience_s)
                batch.add(item.receipt)
        finally:
            result = batch.finish()
        return result

    # -- the steps; the asyncio face walks them with its own way of waiting

    def admit(
        self,
        event: Event | bytes | str | Tombstone,
        event_type: str | None,
        key: str | bytes | None,
        event_id: str | None,
        timestamp: int | None,
        headers: HeadersInput | None,
        attempt: int = 1,
    ) -> Item:
        """Steps 1 and 2, see `Intake.admit`; starts the service when this is its first event.

        `attempt` is above 1 for an event that postroom itself hands in again: it is marked with `x-attempt`.
        An item with a record stands at the door until `hand_over` is done with it.
        """
        door = self.door
        door.enter()
        try:
            while not self._running:
                door.entered()
                self.start()
                door.enter()
            intake = self._intake
            assert intake is not None
            item = intake.admit(event, event_type, key, event_id, timestamp, headers, attempt)
            if item.record is not None:
                door.wait(item)
        finally:
            door.entered()
        return item

    def try_send(self, item: Item) -> bool:
        """Steps 4 and 5: give the sequence number and hand over, as one step; False when there is no room."""
        parts = self.parts
        with self._order_lock:
            if not self._running:
                self._turn_away(item)
                return True
            try:
                if not parts.dispatcher.send(item):
                    return False
            except Exception as exc:  # noqa: BLE001 - what happens to an event is an outcome, never an exception
                self.settlement.fail_for_defect(item, "publish", exc)
                return True
            except BaseException as exc:  # a signal handler's: the publisher will not report this record any more
                self.settlement.fail_for_defect(item, "publish", exc, may_be_in_kafka=True)
                raise
        if item.sequence % _SERVE_EVERY == 0:
            parts.publisher.serve()
        return True

    def turn_back(self, item: Item) -> None:
        """End the way of an item for which there was no room, unless closing has turned it away meanwhile."""
        with self._order_lock:
            if not item.receipt.done():
                self.parts.dispatcher.turn_back(item)

    def overflow(self, item: Item) -> bool:
        """Make room in the spool for an item whose caller has waited long enough; see `Dispatcher.overflow`."""
        return self.parts.dispatcher.overflow(item)

    def refuse(self, item: Item, reason: RefusedReason, retry_after_s: float | None = None, detail: str = "") -> None:
        """End the way of an item that was not sent, unless closing has turned it away meanwhile."""
        with self._order_lock:
            if not item.receipt.done():
                self.settlement.refuse(item, reason, retry_after_s, detail)

    def cut_short(self, item: Item) -> None:
        """End the way of an item whose caller was interrupted while it waited; one that was sent goes on."""
        if not item.sequence:
            self.refuse(item, RefusedReason.RATE_LIMITED, 0.0, "interrupted before it was sent")

    # -- fork

    def after_fork_in_child(self) -> None:
        """Forget what belongs to the parent, see `process_life`."""
        parts, parents_receipts, closed = self._parts, self.ledger.open_receipts(), self._closed
        if parts is not None:
            _never_freed.append(parts)
            if parts.embedded is not None:  # it goes on in the parent, and what runs there is asked for nothing more
                contracts = parts.config.contracts.model_copy(update={"create_topics": False})
                self._config = parts.config.model_copy(update={"contracts": contracts})
        self._journal = None
        self._reset()
        self._closed = closed
        detail = "its outcome is known in the parent process only"
        for receipt in parents_receipts:
            if not receipt.done():
                receipt.abandon(Failed(FailedReason.CLOSED, may_be_in_kafka=True, detail=detail))


def checked_timeout(timeout: object) -> float:
    """Return the number of seconds; TypeError for what cannot be one, before anything is counted."""
    if not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    return min(timeout, _LONGEST_WAIT_S)


_shared_lock = threading.Lock()
_shared: ProducerService | None = None


def get_service() -> ProducerService:
    """Return this process's own service, made from the settings found by `load_config()` at the first call.

    In a forked child it starts anew; it is closed when the interpreter exits.
    """
    global _shared  # noqa: PLW0603 - one service a process is what this function is for
    with _shared_lock:
        if _shared is None or _shared._closed:  # noqa: SLF001 - the module's own class
            _shared = ProducerService()
        return _shared


def _after_fork_in_child() -> None:
    global _shared_lock  # noqa: PLW0603 - another thread may have held it when the process forked
    _shared_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
