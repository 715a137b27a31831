"""A disk that does not answer: nobody waits for it twice, closing ends, and what it may have kept is said."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from postroom.libs.event import Record
from postroom.libs.exceptions import LifecycleError, SpoolUnavailableError
from postroom.streaming.spool import spool as spool_module
from postroom.streaming.spool.availability import STALL_S
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from postroom.testing.fault_script import FaultScript
from postroom.testing.faulty_file_system import FaultyFileSystem
from postroom.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.streaming.spool.group_commit import Ticket

PATIENCE_S = 30.0


class Desk:
    """A spool with its threads, on a disk that hangs once its first record is safe."""

    def __init__(self, folder: Path) -> None:
        self.faults, self.clock, self.is_syncing = FaultScript(), ManualClock(), threading.Event()
        self.spool = self.another(folder)
        self.spool.start()
        self.append(0).wait(PATIENCE_S)
        self.faults.at("before_sync", self.is_syncing.set)
        self.faults.disk_hangs()

    def another(self, folder: Path) -> Spool:
        return Spool(folder, file_system=FaultyFileSystem(self.faults), clock=self.clock)

    def append(self, number: int) -> Ticket:
        return self.spool.append(Record("t", b"k", b"v", (), f"id{number}", number))

    def hang(self, number: int) -> Ticket:
        """Append a record, and return when the disk hangs with it."""
        ticket = self.append(number)
        assert self.is_syncing.wait(PATIENCE_S)
        return ticket

    def stored(self, folder: Path) -> list[str]:
        """What a later process finds, once the disk answers again."""
        later = Spool(folder, background=False)
        later.start()
        found = [one.record.event_id for one in later.read(Kind.RECORD)]
        later.stop()
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.faults.disk_mended()
    desk.spool.stop()


def test_what_comes_while_the_disk_hangs_waits_at_first_and_is_refused_at_once_then(desk: Desk) -> None:
    hanging = desk.hang(1)
    waiting = desk.append(2)
    desk.clock.advance(STALL_S + 1)
    with pytest.raises(SpoolUnavailableError) as refused:
        desk.append(3)
    assert refused.value.retry_after_s == 1.0
    assert not refused.value.may_resurface
    [slot] = desk.spool.status().slots
    assert slot.records.refusing_since == desk.clock.monotonic() - STALL_S - 1
    assert slot.dead_letters.refusing_since is None

    desk.faults.disk_mended()
    assert [ticket.wait(PATIENCE_S) for ticket in (hanging, waiting)] == [2, 3]
    assert desk.append(4).wait(PATIENCE_S) == 4
    [slot] = desk.spool.status().slots
    assert slot.records.refusing_since is None


def test_a_stop_waits_for_no_disk_that_hangs_and_tells_everybody_what_may_be_there(desk: Desk, tmp_path: Path) -> None:
    told: list[tuple[int, bool]] = []
    hanging = desk.hang(1)
    waiting = [
        desk.spool.append(
            Record("t", b"k", b"v", (), f"id{number}", number),
            on_stored=lambda ticket: told.append((ticket.sequence, ticket.error is None)),
        )
        for number in (2, 3)
    ]
    desk.clock.advance(STALL_S + 1)
    desk.spool.stop()
    assert isinstance(hanging.error, SpoolUnavailableError)
    assert hanging.error.may_resurface
    errors = [ticket.error for ticket in waiting]
    assert [isinstance(error, SpoolUnavailableError) and not error.may_resurface for error in errors] == [True, True]
    assert told == [(3, False), (4, False)]
    with pytest.raises(LifecycleError):
        desk.append(4)

    # A thread of that process may write to the slot still: nobody else gets it before the process has ended.
    desk.faults.disk_mended()
    other = desk.another(tmp_path)
    other.start()
    assert [slot.name for slot in other.status().slots] == ["0002"]
    other.stop()


def test_a_stop_beside_upkeep_that_hangs_still_writes_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread waits for the disk, which takes records all the same: they are safe, and the stop ends."""
    monkeypatch.setattr(spool_module, "_UPKEEP_ENDS_S", 0.01)
    tends, may_go_on = threading.Event(), threading.Event()

    def tend(_spool: Spool) -> None:
        tends.set()
        may_go_on.wait(PATIENCE_S)

    monkeypatch.setattr(Spool, "tend", tend)
    spool = Spool(tmp_path)
    spool.start()
    assert tends.wait(PATIENCE_S)
    tickets = spool.append_many([Record("t", b"k", b"v", (), f"id{number}", number) for number in range(1000)])
    spool.stop()
    assert [ticket.error for ticket in tickets] == [None] * 1000
    assert all(ticket.is_done for ticket in tickets)
    may_go_on.set()


def test_what_a_hanging_disk_has_kept_in_the_end_is_found_and_nothing_that_was_refused(
    desk: Desk, tmp_path: Path
) -> None:
    queue = desk.spool._own[Kind.RECORD]  # type: ignore[index]  # it runs
    desk.hang(1)
    desk.append(2)
    desk.clock.advance(STALL_S + 1)
    held = list(desk.spool._held)
    desk.spool.stop()
    desk.faults.disk_mended()
    assert queue._thread is not None
    queue._thread.join(PATIENCE_S)
    assert queue._writer.waiting.size == 0
    for slot in held:  # as the end of the process does
        slot.slot.release()
    assert desk.stored(tmp_path) == ["id0", "id1"]
