"""A producer service without Kafka: the same checks, the same outcomes, everything kept in memory.

def test_checkout_publishes(recording_service):
    checkout(cart, post=recording_service)
    assert recording_service.published[0].event["user_id"] == "u1"
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, get_args

import msgspec

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import DeadLetterReason, FailedReason, RefusedReason
from postroom.observability.metrics import Metrics
from postroom.schemas.avro_codec import unframe
from postroom.schemas.registry_protocol import RegisteredSchema
from postroom.services.addressing import lane_of_record
from postroom.services.producer_service import ProducerService
from postroom.streaming.dead_letter_queue import DeadLetter, rebuild
from postroom.streaming.delivery import Action, Decision
from postroom.streaming.publisher import Report
from postroom.testing.fault_script import FaultScript
from postroom.testing.faulty_file_system import FaultyFileSystem
from postroom.testing.memory_publisher import MemoryPublisher

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postroom.libs.event import Headers, Record
    from postroom.schemas.data_contracts import Contract
    from postroom.schemas.registration import Registration


WriteAhead: TypeAlias = Literal["off", "fsync"]

# While it waits for the drain: how far a clock under test is moved on at a time.
_LOOK_S = 0.02
# How long the other threads get to run whenever a clock under test is moved on.
_PAUSE_S = 0.0005


class PublishedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event as a consumer would see it: decoded, with its key and headers."""

    topic: str
    event_type: str
    event: dict[str, object]
    key: bytes | None
    headers: Headers
    event_id: str
    timestamp_ms: int


class _SharedClock:
    """A clock whose waits let other threads run, also where waiting only moves it on.

    A service with a spool is several threads: while one waits five seconds, the others must get some time, too.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pause = threading.Event()
        self.monotonic = clock.monotonic
        self.time_ms = clock.time_ms

    def sleep(self, seconds: float) -> None:
        """Sleep on the clock, and for a moment in earnest."""
        self._clock.sleep(seconds)
        self._pause.wait(_PAUSE_S)


class MemoryRegistry:
    """Gives every schema an id, in the order in which they come."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def register(self, subject: str, schema: Registration) -> int:
        """Return the id of the schema, the same for the same text."""
        del subject
        return self._ids.setdefault(schema.fingerprint, len(self._ids) + 1)

    def lookup(self, subject: str, schema: Registration) -> int:
        """Return the id of the schema; every schema is known here."""
        return self.register(subject, schema)

    def kept(self, subject: str, schema: Registration) -> RegisteredSchema:
        """Return the schema with all that came with it."""
        schema_id = self.register(subject, schema)
        return RegisteredSchema(subject, 1, schema_id, schema.schema, schema.metadata, schema.rule_set)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


class RecordingService(ProducerService):
    """Use it where the code under test takes a `ProducerService`.

    Events are checked against the same contracts and end in the same outcomes; `published` and `dead_letters` show
    what would stand in Kafka, and `fail_next` makes the next events fail. `faults` is a script of what goes wrong with
    Kafka, and with the disk if there is a spool: one in `spool_dir`, that the service writes to as `write_ahead` says.
    `records` stand in Kafka already: those of a service before this one. Settings are the packaged ones unless `config`
    is given: no file and no environment variable has a say.
    """

    def __init__(
        self,
        contracts: Mapping[str, Contract] | Iterable[Contract] | None = None,
        *,
        config: Config | None = None,
        clock: Clock = SYSTEM_CLOCK,
        faults: FaultScript | None = None,
        spool_dir: str | Path | None = None,
        write_ahead: WriteAhead | None = None,
        records: Iterable[Record] = (),
    ) -> None:
        config = _with_spool(config or load_config(overrides={}, environ={}), spool_dir, write_ahead)
        self.faults = FaultScript() if faults is None else faults
        if config.spool.dir is not None and clock is not SYSTEM_CLOCK:
            clock = _SharedClock(clock)
        self.publisher = MemoryPublisher(
            faults=self.faults, clock=clock, hand_over_after_s=config.hand_over_after_s, records=records
        )
        if config.spool.dir is None:
            self.faults.has_no_disk("give RecordingService a spool_dir")
        named = contracts if contracts is None or hasattr(contracts, "items") else {one.name: one for one in contracts}
        super().__init__(
            config,
            publisher=self.publisher,
            registry=MemoryRegistry(),
            contracts=named,  # type: ignore[arg-type]  # the branch above made it a mapping
            spool_files=None if config.spool.dir is None else FaultyFileSystem(self.faults),
            clock=clock,
            metrics=Metrics(),
        )

    def start(self) -> Self:
        """Start as `ProducerService.start` does. Raises ValueError when the fault script names an unknown topic."""
        super().start()
        lanes = self.parts.lanes.values()
        self.faults.knows({topic for lane in lanes for topic in (lane.topic, lane.dead_letter_topic)})
        return self

    @property
    def published(self) -> list[PublishedEvent]:
        """The events that reached their topic, decoded, in order."""
        found = []
        for record in self.publisher.records:
            lane = lane_of_record(self.parts.lanes.values(), record.topic, record.headers)
            if lane is None or record.value is None:
                continue
            event = lane.contract.codec.decode(unframe(record.value)[1])
            found.append(
                PublishedEvent(
                    topic=record.topic,
                    event_type=lane.name,
                    event=event,
                    key=record.key,
                    headers=record.headers,
                    event_id=record.event_id,
                    timestamp_ms=record.timestamp_ms,
                )
            )
        return found

    @property
    def tombstones(self) -> list[Record]:
        """The records without a value that reached their topic, in order."""
        topics = {lane.topic for lane in self.parts.lanes.values()} if self.publisher.records else set()
        return [record for record in self.publisher.records if record.value is None and record.topic in topics]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters, rebuilt into what was handed in, with their reasons."""
        topics = {lane.topic for lane in self.parts.lanes.values()} if self.publisher.records else set()
        return [rebuild(record) for record in self.publisher.records if record.topic not in topics]

    def fail_next(
        self,
        reason: FailedReason | DeadLetterReason | RefusedReason = FailedReason.KAFKA_UNAVAILABLE,
        *,
        times: int = 1,
        may_be_in_kafka: bool = False,
    ) -> None:
        """Let the next `times` records meet trouble instead of being delivered.

        A `FailedReason` makes the events fail (`may_be_in_kafka` is passed on), a `DeadLetterReason` of a broker
        (`message_too_large`, `rejected_by_broker`) makes dead letters of them, `RefusedReason.QUEUE_FULL` refuses
        them. Raises ValueError for a reason that does not come from publishing.
        """
        if reason is RefusedReason.QUEUE_FULL:
            self.publisher.script.extend([None] * times)
            return
        if isinstance(reason, FailedReason):
            decision = Decision(Action.HOLD, reason, may_be_in_kafka=may_be_in_kafka)
        elif reason in {DeadLetterReason.MESSAGE_TOO_LARGE, DeadLetterReason.REJECTED_BY_BROKER}:
            decision = Decision(Action.DEAD_LETTER, DeadLetterReason(reason))
        else:
            raise ValueError(f"{reason.value} does not come from publishing: hand in such an event instead")
        self.publisher.script.extend([Report(decision, code=-1, detail="asked for by fail_next")] * times)

    def wait_until_drained(self, timeout_s: float = 20.0) -> None:
        """Return once every event has its outcome and nothing waits in the spool any more.

        A `ManualClock` that is not `blocking` is moved on meanwhile, so that no pause of the drain is waited for in
        earnest. Raises TimeoutError after `timeout_s` real seconds: with Kafka away, for instance.
        """
        pause = threading.Event()
        end = time.monotonic() + timeout_s
        while not self._is_drained():
            if time.monotonic() > end:
                balance = self.ledger.total()
                raise TimeoutError(
                    f"after {timeout_s:g} s {balance.pending} events are open, {balance.in_flight} on their way, "
                    f"and {balance.spooled} wait in the spool"
                )
            self._clock.sleep(_LOOK_S)
            pause.wait(_PAUSE_S)  # without a spool the clock is the one that was handed in

    def _is_drained(self) -> bool:
        if not self.running:
            return True
        spooling, balance = self.parts.spooling, self.ledger.total()
        is_empty = spooling is None or spooling.spool.is_empty
        return is_empty and not balance.pending + balance.in_flight + balance.spooled

    def close(self, timeout_s: float | None = None) -> None:
        """Close as `ProducerService.close` does, by default at once: nothing changes here by waiting."""
        super().close(0.0 if timeout_s is None else timeout_s)

    def clear(self) -> None:
        """Forget what was published so far."""
        self.publisher.records.clear()
        self.publisher.script.clear()


def _with_spool(config: Config, spool_dir: str | Path | None, write_ahead: WriteAhead | None) -> Config:
    """Return the settings with this spool in them."""
    if write_ahead not in {None, *get_args(WriteAhead)}:
        raise ValueError(f"write_ahead is off or fsync, not {write_ahead}")
    spool = config.spool.model_copy(
        update={
            "dir": config.spool.dir if spool_dir is None else Path(spool_dir),
            "write_ahead": write_ahead or config.spool.write_ahead,
        }
    )
    if spool.dir is None and spool.write_ahead != "off":
        raise ValueError("write_ahead needs a disk to write to: give spool_dir")
    return config.model_copy(update={"spool": spool})
