"""A disk that breaks as its script says, under the real spool on the real file system."""

from __future__ import annotations

import contextlib
import errno
import threading
from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import SpoolFullError, SpoolUnavailableError
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from postroom.testing.fault_script import STEPS, FaultScript
from postroom.testing.faulty_file_system import FaultyFileSystem
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import drained, ids, quiet, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.libs.exceptions import PostroomError

PATIENCE_S = 20.0


class Desk:
    """A spool without threads on a disk that obeys a script."""

    def __init__(self, folder: Path) -> None:
        self.faults = FaultScript()
        self.clock = ManualClock()
        self.folder = folder / "spool"
        self.spool = self.opened()

    def opened(self) -> Spool:
        return quiet(self.folder, file_system=FaultyFileSystem(self.faults), clock=self.clock, cursor_bytes=256)

    def append(self, number: int) -> None:
        self.spool.append(record(number)).wait(0)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


class TestAWholeDisk:
    def test_without_faults_it_is_the_file_system_behind_it(self, desk: Desk) -> None:
        desk.append(1)
        desk.spool.stop()
        spool = quiet(desk.folder)
        assert ids(drained(spool)) == ["id-1"]
        spool.stop()

    def test_it_may_stand_before_any_other_file_system(self) -> None:
        disk = ModelFileSystem()
        faults = FaultScript()
        spool = quiet("/spool", file_system=FaultyFileSystem(faults, disk), clock=ManualClock())
        spool.append(record(1)).wait(0)
        assert any(path.endswith(".seg") for path in disk.paths())


class TestAFullDisk:
    def test_it_refuses_with_a_time_and_still_drains_and_takes_again(self, desk: Desk) -> None:
        desk.append(1)
        desk.faults.disk_full()
        with pytest.raises(SpoolFullError) as caught:
            desk.append(2)
        assert caught.value.retry_after_s
        found = drained(desk.spool)
        assert ids(found) == ["id-1"]
        assert desk.spool.ack(found[0])
        desk.spool.tend()
        desk.faults.disk_freed()
        desk.clock.advance(caught.value.retry_after_s)
        desk.spool.tend()
        desk.append(3)
        assert ids(drained(desk.spool)) == ["id-3"]

    def test_what_fits_is_written_and_nothing_of_the_rest_is_kept(self, desk: Desk) -> None:
        desk.append(1)
        desk.faults.disk_full(50)
        with pytest.raises(SpoolFullError):
            desk.append(2)
        assert ids(drained(desk.spool)) == ["id-1"]

    def test_room_that_a_segment_has_filled_ahead_counts_as_taken(self) -> None:
        faults = FaultScript()
        file = FaultyFileSystem(faults, ModelFileSystem()).create("/00000000000000000001.seg")
        assert file.write_at(b"record", 0) == 6
        assert file.write_at(bytes(100), 6) == 100
        faults.disk_full(4)
        assert file.write_at(bytes(100), 106) == 100
        assert file.write_at(b"again!", 0) == 6
        assert file.write_at(b"record", 6) == 4
        with pytest.raises(OSError, match="ENOSPC"):
            file.write_at(b"record", 10)
        file.truncate(6)
        with pytest.raises(OSError, match="ENOSPC"):
            file.write_at(b"record", 6)

    def test_other_files_keep_the_room_they_have(self) -> None:
        faults = FaultScript()
        file = FaultyFileSystem(faults, ModelFileSystem()).create("/cursor")
        file.write_at(bytes(100), 0)
        faults.disk_full()
        assert file.write_at(b"x" * 100, 0) == 100

    def test_the_spool_sees_what_is_left(self, tmp_path: Path) -> None:
        faults = FaultScript()
        disk = FaultyFileSystem(faults)
        total, free = disk.space(str(tmp_path))
        faults.disk_full(1000)
        assert disk.space(str(tmp_path)) == (total, 1000)
        faults.disk_freed()
        assert free > 1000


class TestABrokenDisk:
    @pytest.mark.parametrize(
        ("fault", "code", "may_resurface"),
        [
            (lambda faults: faults.disk_error("write"), errno.EIO, False),
            (lambda faults: faults.disk_error("sync"), errno.EIO, True),
            (lambda faults: faults.read_only(), errno.EROFS, True),
        ],
        ids=["write", "sync", "read-only"],
    )
    def test_an_event_is_refused_with_the_reason_and_the_next_one_is_kept(
        self, desk: Desk, fault: Callable[[FaultScript], object], code: int, may_resurface: bool
    ) -> None:
        desk.append(1)
        fault(desk.faults)
        with pytest.raises(SpoolUnavailableError) as caught:
            desk.append(2)
        assert errno.errorcode[code] in str(caught.value)
        assert caught.value.may_resurface is may_resurface
        desk.faults.disk_mended()
        desk.append(3)
        assert ids(drained(desk.spool)) == ["id-1", "id-3"]

    def test_without_file_handles_what_is_open_goes_on_and_a_start_says_why_it_cannot(self, desk: Desk) -> None:
        desk.append(1)
        desk.faults.no_file_handles()
        desk.append(2)
        with pytest.raises(SpoolUnavailableError, match="EMFILE"):
            desk.spool.read(Kind.RECORD)
        with pytest.raises(SpoolUnavailableError, match="EMFILE"):
            desk.opened()
        desk.faults.disk_mended()
        assert ids(drained(desk.spool)) == ["id-1", "id-2"]

    def test_an_error_that_happens_once_costs_one_batch(self, desk: Desk) -> None:
        desk.append(1)
        desk.faults.disk_error("write", times=1)
        with pytest.raises(SpoolUnavailableError):
            desk.append(2)
        desk.append(3)

    @pytest.mark.parametrize("most_bytes", [1, 7, 1000])
    def test_short_writes_cost_nothing(self, tmp_path: Path, most_bytes: int) -> None:
        desk = Desk(tmp_path)
        desk.faults.short_writes(most_bytes)
        for number in range(3):
            desk.append(number)
        desk.spool.stop()
        spool = quiet(desk.folder)
        assert ids(drained(spool)) == ["id-0", "id-1", "id-2"]
        spool.stop()


class TestSteps:
    def test_a_record_passes_them_in_this_order(self, desk: Desk) -> None:
        passed: list[str] = []

        def note(step: str) -> None:
            passed.append(step)
            desk.faults.at(step, lambda: note(step))  # type: ignore[arg-type]  # one of the steps

        for step in STEPS:
            desk.faults.at(step, lambda step=step: note(step))  # type: ignore[misc]
        desk.append(1)
        assert passed[-4:] == ["before_append", "after_append", "before_sync", "after_sync"]
        assert set(passed[:-4]) == {"before_cursor", "after_cursor"}
        (found,) = drained(desk.spool)
        desk.spool.ack(found)
        passed.clear()
        desk.spool.stop()
        assert passed == ["before_unlink", "after_unlink", "before_cursor", "after_cursor"]

    def test_the_end_of_a_segment_is_no_record(self, desk: Desk) -> None:
        desk.append(1)
        desk.faults.at("before_append", lambda: pytest.fail("a footer holds no records"))
        desk.spool.stop()

    def test_at_one_of_them_a_second_thread_can_come_between(self, tmp_path: Path) -> None:
        """The disk is tried again, without a record, and in this moment one comes: it is stored, and can be read."""
        faults, clock = FaultScript(), ManualClock()
        spool = Spool(tmp_path / "spool", file_system=FaultyFileSystem(faults), clock=clock)
        spool.start()
        faults.disk_error("create")
        for number in range(3):
            assert isinstance(stored(spool, number), SpoolUnavailableError)
        tries, goes_on = threading.Event(), threading.Event()
        faults.disk_mended().at("before_cursor", tries.set).at("before_cursor", lambda: goes_on.wait(PATIENCE_S))
        clock.advance(1)
        assert tries.wait(PATIENCE_S)
        ticket = spool.append(record(3))
        goes_on.set()
        ticket.wait(PATIENCE_S)
        assert ids(drained(spool)) == ["id-3"]
        spool.stop()


def stored(spool: Spool, number: int) -> PostroomError | None:
    """Append a record; return what was wrong with it."""
    ticket = spool.append(record(number))
    with contextlib.suppress(SpoolUnavailableError):
        ticket.wait(PATIENCE_S)
    return ticket.error
