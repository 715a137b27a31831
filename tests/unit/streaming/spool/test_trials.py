"""Records that kill: a death counts only for the record that was alone on its way; who outlives it forgets it."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from postroom.libs.exceptions import SpoolUnavailableError
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, drained, quiet, record

TRIAL = "/spool/0001/records/trial"


def _open(disk: ModelFileSystem, **settings: Any) -> Spool:
    settings = {"cursor_bytes": 256, "key_counters": 64, **settings}
    return quiet("/spool", file_system=disk, clock=ManualClock(), **settings)


def _deaths(spool: Spool) -> list[int]:
    found = drained(spool)
    deaths = [spool.deaths_at(one) for one in found]
    spool.put_back(found, sent=False)
    spool.rewind(Kind.RECORD)
    return deaths


def test_deaths_in_a_row_are_counted_and_only_at_the_record_on_trial() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append_many([record(number) for number in range(3)])
    for death in range(1, 6):
        spool.on_trial(drained(spool)[1])
        abandon(spool)
        spool = _open(disk)
        assert _deaths(spool) == [0, death, 0]


def test_a_death_outside_a_trial_counts_for_nobody() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append_many([record(number) for number in range(2)])
    found = drained(spool)
    spool.on_trial(found[0])
    abandon(spool)
    spool = _open(disk)
    assert _deaths(spool) == [1, 0]
    drained(spool)
    abandon(spool)
    assert _deaths(_open(disk)) == [1, 0], "it had it in hand, but not alone"


def test_whoever_outlives_the_trial_makes_the_deaths_forgotten() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append(record(1)).wait()
    for _ in range(3):
        spool.on_trial(drained(spool)[0])
        abandon(spool)
        spool = _open(disk)
    (one,) = drained(spool)
    assert spool.deaths_at(one) == 3
    spool.on_trial(one)
    spool.trial_over(one)
    spool.trial_over(one)
    assert spool.deaths_at(one) == 0
    abandon(spool)
    assert _deaths(_open(disk)) == [0]


def test_a_clean_stop_during_a_trial_is_no_death_and_forgets_none() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append(record(1)).wait()
    spool.on_trial(drained(spool)[0])
    abandon(spool)
    spool = _open(disk)
    spool.on_trial(drained(spool)[0])
    spool.stop()
    assert _deaths(_open(disk)) == [1]


def test_the_deaths_of_several_records_are_remembered_beside_each_other() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append_many([record(number) for number in range(3)])
    for number in (0, 2, 0):
        spool.on_trial(drained(spool)[number])
        abandon(spool)
        spool = _open(disk)
    assert _deaths(spool) == [2, 0, 1]


def test_the_two_kinds_have_a_trial_each() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append(record(1)).wait()
    spool.append(record(2), kind=Kind.DEAD_LETTER).wait()
    for kind in Kind:
        spool.on_trial(drained(spool, kind)[0])
    abandon(spool)
    spool = _open(disk)
    assert [spool.deaths_at(drained(spool, kind)[0]) for kind in Kind] == [1, 1]


def test_a_note_for_a_segment_that_is_gone_is_dropped_with_it() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append(record(1)).wait()
    (one,) = drained(spool)
    spool.on_trial(one)
    assert spool.ack(one)
    spool.tend()
    abandon(spool)
    spool = _open(disk)
    spool.tend()
    spool.stop()
    disk.remove("/spool/0001/records/cursor")
    spool = _open(disk)
    spool.append(record(2)).wait()
    assert _deaths(spool) == [0]


def test_nothing_is_written_by_who_never_has_a_trial_and_little_by_who_does() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append_many([record(number) for number in range(100)])
    found = drained(spool)
    assert TRIAL not in disk.paths()
    for one in found:
        spool.on_trial(one)
        spool.trial_over(one)
    assert len(disk.content(TRIAL)) == 4096
    spool.ack(found[0])
    spool.on_trial(found[0])
    assert spool.deaths_at(found[0]) == 0
    spool.stop()


def test_a_disk_that_does_not_take_the_note_says_so_and_nothing_is_counted() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append(record(1)).wait()
    (one,) = drained(spool)
    disk.fault = lambda operation, path: (
        OSError(errno.EIO, "broken") if operation in {"write", "create"} and "trial" in path else None
    )
    with pytest.raises(SpoolUnavailableError):
        spool.on_trial(one)
    abandon(spool)
    disk.fault = None
    assert _deaths(_open(disk)) == [0]


def test_more_deaths_than_the_note_has_room_for_drop_the_oldest() -> None:
    disk = ModelFileSystem()
    spool = _open(disk)
    spool.append_many([record(number) for number in range(70)])
    for number in range(70):
        spool.on_trial(drained(spool)[number])
        abandon(spool)
        spool = _open(disk)
    deaths = _deaths(spool)
    assert sum(deaths) == 64
    assert deaths[-1] == 1
