"""Folders of another host: every record is found again, whenever and however the adoption is broken off."""

from __future__ import annotations

import errno
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random
from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import LifecycleError, SpoolFullError, SpoolUnavailableError
from postroom.streaming.spool.adoption import WORKSHOP, adopt
from postroom.streaming.spool.inspection import inspect_spool
from postroom.streaming.spool.record_format import Kind, pack_segment_header
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, drained, ids, quiet, record
from tests.unit.streaming.spool.test_disk_faults import needs_root, small_disk

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.streaming.spool.queue_reader import SpooledRecord
    from postroom.streaming.spool.spool import Spool

__all__ = ["small_disk"]


class _KilledError(BaseException):
    """The process is gone."""


def _spool(disk: ModelFileSystem, root: str) -> Spool:
    return quiet(root, file_system=disk, clock=ManualClock(), segment_bytes=500, cursor_bytes=256, key_counters=64)


def _world(*, two_file_systems: bool) -> ModelFileSystem:
    """Two dead slots with records under /old, some acknowledged, some handed out; one with a record under /new."""
    disk = ModelFileSystem()
    first, second = _spool(disk, "/old"), _spool(disk, "/old")
    first.append_many([record(number) for number in range(6)])
    for one in first.read(Kind.RECORD, max_records=2):
        assert first.ack(one)
    second.append_many([record(number) for number in range(10, 13)])
    second.append(record(20), kind=Kind.DEAD_LETTER).wait()
    new = _spool(disk, "/new")
    new.append(record(30)).wait()
    for spool in (first, second, new):
        spool.tend()
        abandon(spool)
    disk = next(disk.crash_states(Random(1)))
    if two_file_systems:
        _split(disk)
    return disk


def _split(disk: ModelFileSystem) -> None:
    slots = {"/old/0001", "/old/0002"}
    disk.fault = lambda operation, path: (
        OSError(errno.EXDEV, "another file system") if operation == "rename" and path in slots else None
    )


WANTED = {f"id-{number}" for number in (2, 3, 4, 5, 10, 11, 12, 20, 30)}


def _everything(disk: ModelFileSystem, root: str) -> list[SpooledRecord]:
    spool = _spool(disk, root)
    spool.take_over_unclaimed()
    found = drained(spool) + drained(spool, Kind.DEAD_LETTER)
    abandon(spool)
    return found


@pytest.mark.parametrize("two_file_systems", [False, True])
def test_slots_come_over_with_what_was_acknowledged_and_handed_out(two_file_systems: bool) -> None:
    disk = _world(two_file_systems=two_file_systems)
    done = adopt("/old", "/new", file_system=disk)
    assert [(one.source, one.target, one.is_copied) for one in done.adopted] == [
        ("0001", "0002", two_file_systems),
        ("0002", "0003", two_file_systems),
    ]
    assert [one.records.records for one in done.adopted] == [4, 3]
    assert done.adopted[1].dead_letters.records == 1
    assert done.refused == ()
    found = _everything(disk, "/new")
    assert sorted(ids(found)) == sorted(WANTED)
    marks = {one.record.event_id for one in found if one.sent_before}
    assert {"id-10", "id-11", "id-12", "id-20"}.isdisjoint(marks), "nobody was ever given these"
    assert _everything(disk, "/old") == []
    again = adopt("/old", "/new", file_system=disk)
    assert again.adopted == ()


def _kill_at(disk: ModelFileSystem, step: int) -> bool:
    """Adopt, and die before the operation with this number; False if it was done before that."""
    steps = iter(range(step))
    inner = disk.fault

    def fault(operation: str, path: str) -> OSError | None:
        if next(steps, None) is None:
            raise _KilledError
        return inner(operation, path) if inner is not None else None

    disk.fault = fault
    try:
        adopt("/old", "/new", file_system=disk)
    except _KilledError:
        return True
    return False


def _check(disk: ModelFileSystem) -> None:
    old, new = _everything(disk, "/old"), _everything(disk, "/new")
    assert set(ids(old)) | set(ids(new)) == WANTED, "lost, or an acknowledged one is back"
    twice = set(ids(old)) & set(ids(new))
    assert all(one.sent_before for one in (*old, *new) if one.record.event_id in twice), "a repeat without its mark"
    assert len(ids(old)) + len(ids(new)) - len(twice) == len(WANTED)


@pytest.mark.parametrize("two_file_systems", [False, True])
def test_a_kill_or_a_power_cut_at_any_moment_loses_nothing_and_marks_what_is_twice(two_file_systems: bool) -> None:
    random = Random(7)
    step = 0
    while True:
        disk = _world(two_file_systems=two_file_systems)
        if not _kill_at(disk, step):
            break
        states = list(disk.crash_states(random))
        for state in states[:2] + random.sample(states[2:], min(6, len(states[2:]))):
            copies = [next(state.crash_states(random)) for _ in range(2)]
            _check(copies[0])
            if two_file_systems:
                _split(copies[1])
            adopt("/old", "/new", file_system=copies[1])  # the next try brings it to an end
            found = _everything(copies[1], "/new")
            assert set(ids(found)) == WANTED
            assert _everything(copies[1], "/old") == []
        step += 1
    assert step > (80 if two_file_systems else 20)


@pytest.mark.parametrize("two_file_systems", [False, True])
def test_what_was_reported_as_adopted_stays_so_after_a_power_cut(two_file_systems: bool) -> None:
    disk = _world(two_file_systems=two_file_systems)
    adopt("/old", "/new", file_system=disk)
    for state in disk.crash_states(Random(1)):
        assert set(ids(_everything(state, "/new"))) == WANTED
        assert _everything(state, "/old") == []


def _sync_places() -> list[tuple[bool, str]]:
    found = []
    for two_file_systems in (False, True):
        disk = _world(two_file_systems=two_file_systems)
        adopt("/old", "/new", file_system=disk)
        found += [(two_file_systems, place) for place in sorted(disk.sync_places)]
    return found


@pytest.mark.timeout(1800)
def test_taking_out_any_one_sync_call_of_an_adoption_breaks_a_promise() -> None:
    places = _sync_places()
    assert len(places) >= 7, places
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        noticed = list(pool.map(_is_noticed, places))
    assert [place for place, is_noticed in zip(places, noticed, strict=True) if not is_noticed] == []


def _is_noticed(case: tuple[bool, str]) -> bool:
    two_file_systems, place = case
    random = Random(3)
    step, goes_on = 0, True
    while goes_on:
        disk = _world(two_file_systems=two_file_systems)
        disk.deaf_to = frozenset({place})
        goes_on = _kill_at(disk, step)
        states = list(disk.crash_states(random))
        try:
            for state in states if len(states) < 40 else random.sample(states, 40):
                _check(state)
                assert goes_on or not _everything(state, "/old")
        except AssertionError:
            return True
        step += 1
    return False


def test_a_slot_in_use_is_refused_and_its_owner_named() -> None:
    disk = _world(two_file_systems=False)
    owner = _spool(disk, "/old")
    done = adopt("/old", "/new", file_system=disk)
    assert [one.source for one in done.adopted] == ["0002"]
    (refused,) = done.refused
    assert refused.source == "0001"
    assert refused.reason.startswith("in use by pid ")
    assert ids(drained(owner)) == ["id-2", "id-3", "id-4", "id-5"], "it goes on undisturbed"
    owner.append(record(40)).wait()


def test_a_slot_of_a_newer_version_is_refused() -> None:
    disk = ModelFileSystem()
    for folder in ("/old", "/old/0001", "/old/0001/records"):
        disk.make_folder(folder)
    header = bytearray(pack_segment_header(1, 1, 1, 0, bytes(8)))
    header[8] = header[72] = 2
    disk.put("/old/0001/records/00000000000000000001.seg", bytes(header))
    done = adopt("/old", "/new", file_system=disk)
    assert done.adopted == ()
    assert done.refused[0].reason == "only a newer version can read it"


def test_what_is_no_spool_or_the_same_is_refused() -> None:
    disk = _world(two_file_systems=False)
    with pytest.raises(LifecycleError):
        adopt("/old", "/old", file_system=disk)
    with pytest.raises(SpoolUnavailableError):
        adopt("/none", "/new", file_system=disk)


def test_two_copies_at_once_are_refused() -> None:
    disk = _world(two_file_systems=True)
    disk.make_folder(f"/new/{WORKSHOP}")
    lock = disk.create(f"/new/{WORKSHOP}/LOCK")
    assert lock.try_lock()
    with pytest.raises(LifecycleError):
        adopt("/old", "/new", file_system=disk)
    lock.close()
    assert len(adopt("/old", "/new", file_system=disk).adopted) == 2


def test_a_target_without_room_leaves_everything_where_it_is() -> None:
    disk = _world(two_file_systems=True)
    disk.free_bytes = 500
    with pytest.raises(SpoolFullError):
        adopt("/old", "/new", file_system=disk)
    disk.free_bytes = None
    _check(disk)
    assert len(adopt("/old", "/new", file_system=disk).adopted) == 2


def test_a_slot_without_a_cursor_and_with_quarantine_comes_over_whole() -> None:
    disk = _world(two_file_systems=True)
    disk.remove("/old/0001/records/cursor")
    disk.make_folder("/old/0001/quarantine")
    disk.put("/old/0001/quarantine/kept.bad", b"kept")
    adopt("/old", "/new", file_system=disk)
    assert disk.content("/new/0002/quarantine/kept.bad") == b"kept"
    found = [one for one in _everything(disk, "/new") if one.slot == "0002"]
    assert ids(found) == [f"id-{number}" for number in range(6)]
    assert all(one.sent_before for one in found)


def test_on_a_real_disk_a_slot_is_moved_with_its_lock_and_taken_over_by_the_target(tmp_path: Path) -> None:
    old, target = quiet(tmp_path / "old"), quiet(tmp_path / "new")
    old.append(record(1)).wait()
    assert [one.source for one in adopt(tmp_path / "old", tmp_path / "new").refused] == ["0001"]
    abandon(old)
    assert [one.target for one in adopt(tmp_path / "old", tmp_path / "new").adopted] == ["0002"]
    assert target.take_over_unclaimed() == 1
    assert ids(drained(target)) == ["id-1"]
    target.stop()
    assert inspect_spool(tmp_path / "old").slots == ()


@needs_root
def test_between_real_file_systems_a_slot_is_copied(tmp_path: Path, small_disk: Path) -> None:
    old = quiet(small_disk / "old", max_disk_share=1.0, reserve_bytes=0)
    old.append_many([record(number) for number in range(100)])
    for one in old.read(Kind.RECORD, max_records=30):
        old.ack(one)
    old.stop()
    (done,) = adopt(small_disk / "old", tmp_path / "new").adopted
    assert done.is_copied
    assert done.records.records == 70
    target = quiet(tmp_path / "new")
    found = drained(target)
    assert ids(found) == [f"id-{number}" for number in range(30, 100)]
    assert not any(one.sent_before for one in found)
    target.stop()
    assert inspect_spool(small_disk / "old").slots[0].records.records == 0
