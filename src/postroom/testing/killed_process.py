"""A process that is killed in the middle: what it had put into Kafka and on the disk, for the next one to find.

left = killed_at("after_sync", lambda post: post.publish_event(event), spool_dir=spool)
with RecordingService(spool_dir=spool, records=left.records) as post:
    post.wait_until_drained()
    assert set(left.safe) <= {found.event_id for found in post.published}
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import threading
import time
import traceback
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from postroom.libs.event import Record
from postroom.testing.fault_script import FaultScript
from postroom.testing.recording_service import RecordingService, WriteAhead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from postroom.libs.clock import Clock
    from postroom.libs.config_loader import Config
    from postroom.libs.event import Event
    from postroom.schemas.data_contracts import Contract
    from postroom.services.item import Item
    from postroom.services.receipt import Receipt
    from postroom.testing.fault_script import Step

_LENGTH = struct.Struct("<I")
_READ_BYTES = 65_536


class ServiceArguments(TypedDict, total=False):
    """What `killed_at` passes on to its `RecordingService`."""

    contracts: Mapping[str, Contract] | Iterable[Contract] | None
    config: Config | None
    clock: Clock
    faults: FaultScript
    spool_dir: str | Path | None
    write_ahead: WriteAhead | None
    records: Iterable[Record]


@dataclass(frozen=True, slots=True)
class Remains:
    """What a killed process left, apart from its spool.

    `records` is what stood in Kafka, in order; `safe` the ids of the events that it knew to be safe, by the outcome or
    by `Receipt.safe`, in the order in which it came to know.
    """

    records: tuple[Record, ...]
    safe: tuple[str, ...]


def killed_at(
    step: Step,
    work: Callable[[RecordingService], object],
    *,
    nth: int = 1,
    timeout_s: float = 60.0,
    **arguments: Unpack[ServiceArguments],
) -> Remains:
    """Run `work(service)` in a forked child that SIGKILL ends when `step` is reached for the `nth` time.

    The service is a `RecordingService` with these arguments, started before and closed after `work`: steps of its
    closing count, too. Nothing of that process is heard of again, no `finally`, no `atexit`, no buffer: what it had put
    into Kafka and on the disk is left.

    Raises LookupError when the step was not reached that often, RuntimeError with the child's traceback when `work`
    raised, TimeoutError when neither happened within `timeout_s` real seconds. What `work` changes in memory stays in
    the child. Its locks are copies: call this where no other thread is in the middle of something that `work` needs.
    """
    FaultScript().at(step, _die, nth=nth)  # nonsense raises here, not in a child
    reading, writing = os.pipe()
    parent_lives, until_the_end = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of every fork beside threads. This child needs none of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:
        try:
            os.close(reading)
            os.close(until_the_end)
            threading.Thread(target=_die_with_parent, args=(parent_lives,), daemon=True).start()
            _live_and_die(step, work, nth, _Notes(writing), arguments)
        finally:
            os._exit(1)  # whatever happens: never back into the caller's test
    os.close(writing)
    os.close(parent_lives)
    try:
        notes, has_ended = _read_notes(reading, timeout_s)
    finally:
        os.close(reading)
        os.close(until_the_end)
        os.kill(process, signal.SIGKILL)  # dead already, or it must be now
        os.waitpid(process, 0)
    if "raised" in notes:
        raise RuntimeError(f"the process that was to be killed at {step} raised:\n{notes['raised'][0]}")
    if "survived" in notes:
        raise LookupError(f"{step} was reached {notes['survived'][0]} times, not {nth}: nothing was killed")
    if not has_ended:
        raise TimeoutError(f"the process neither reached {step} nor ended within {timeout_s:g} s")
    return Remains(tuple(notes.get("record", ())), tuple(dict.fromkeys(notes.get("safe", ()))))


# -- the child


def _live_and_die(
    step: Step,
    work: Callable[[RecordingService], object],
    nth: int,
    notes: _Notes,
    arguments: ServiceArguments,
) -> None:
    reached = 0

    def count() -> None:
        nonlocal reached
        reached += 1
        faults.at(step, count)

    try:
        faults = arguments.setdefault("faults", FaultScript())
        faults.at(step, count).at(step, _die, nth=nth)
        with _ToldService(notes, arguments) as service:
            work(service)
    except BaseException:  # noqa: BLE001 - the parent raises it
        notes.write("raised", traceback.format_exc())
    else:
        notes.write("survived", reached)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the thread that got here goes not one step further


def _die_with_parent(parent_lives: int) -> None:
    os.read(parent_lives, 1)  # nothing is ever written: it returns when the last one who could is gone
    _die()


class _Notes:
    """What the child tells while it lives."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, kind: str, value: object) -> None:
        """Tell the parent; it knows when this returns."""
        data = pickle.dumps((kind, value))
        data = _LENGTH.pack(len(data)) + data
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


class _ToldRecords(list[Record]):
    """What stands in Kafka, which does not die with its producer."""

    def __init__(self, notes: _Notes, records: Iterable[Record]) -> None:
        super().__init__()
        self._notes = notes
        for record in records:
            self.append(record)

    def append(self, record: Record) -> None:
        """Keep a record and tell of it."""
        super().append(record)
        self._notes.write("record", record)


class _ToldService(RecordingService):
    """Tells which events its callers know to be safe."""

    def __init__(self, notes: _Notes, arguments: ServiceArguments) -> None:
        super().__init__(**arguments)
        self._notes = notes
        self.publisher.records = _ToldRecords(notes, self.publisher.records)

    def admit(self, *arguments: Any) -> Item:
        """Listen to the outcome, whichever way the event came in."""
        item = super().admit(*arguments)
        item.receipt.listen(self._tell)
        return item

    def publish_event(self, event: Event | bytes | str, **arguments: Any) -> Receipt:
        """Tell at once of an event that is written ahead."""
        receipt = super().publish_event(event, **arguments)
        self._tell(receipt)
        return receipt

    def _tell(self, receipt: Receipt) -> None:
        if receipt.safe:
            self._notes.write("safe", receipt.event_id)


# -- the parent


def _read_notes(descriptor: int, timeout_s: float) -> tuple[dict[str, list[Any]], bool]:
    """Return the notes by their kind, and whether the child has ended, and with it the last writer of the pipe."""
    end = time.monotonic() + timeout_s
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    data = bytearray()
    while (left := end - time.monotonic()) > 0 and waiting.poll(left * 1000):
        more = os.read(descriptor, _READ_BYTES)
        if not more:
            return _parsed(data), True
        data += more
    return _parsed(data), False


def _parsed(data: bytearray) -> dict[str, list[Any]]:
    notes: dict[str, list[Any]] = {}
    begin = 0
    while begin + _LENGTH.size <= len(data):
        end = begin + _LENGTH.size + _LENGTH.unpack_from(data, begin)[0]
        if end > len(data):
            break  # it died while it wrote this one
        kind, value = pickle.loads(data[begin + _LENGTH.size : end])  # noqa: S301 - our own child wrote it
        notes.setdefault(kind, []).append(value)
        begin = end
    return notes
