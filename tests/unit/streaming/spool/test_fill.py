"""The room that is made ahead of the records: it makes syncs cheap, and nobody may ever see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, drained, ids, quiet, record

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.streaming.spool.spool import Spool

FRAME = 112  # bytes of a small record on the disk, in a group of its own
SEGMENT = "/spool/0001/records/00000000000000000001.seg"


def _model(disk: ModelFileSystem | None = None, **settings: Any) -> tuple[ModelFileSystem, Spool]:
    disk = disk or ModelFileSystem()
    settings = {"cursor_bytes": 256, "key_counters": 64, **settings}
    return disk, quiet("/spool", file_system=disk, clock=ManualClock(), **settings)


def test_appending_into_the_room_that_was_made_changes_no_size() -> None:
    disk, spool = _model()
    spool.append(record(0)).wait()
    size = len(disk.content(SEGMENT))
    for number in range(1, 500):
        spool.append(record(number)).wait()
    assert len(disk.content(SEGMENT)) == size == 128 + FRAME + 64 * 1024
    assert spool.used_bytes < 64 * 1024, "zeros count for nothing"


def test_a_segment_is_filled_as_far_again_as_it_is_long_and_not_beyond_its_limit() -> None:
    disk, spool = _model(segment_bytes=300_000, fill_bytes=100_000)
    for number in range(290):
        spool.append(record(number, size=900)).wait()
    size = len(disk.content(SEGMENT))
    assert size <= 300_000
    assert size - spool.used_bytes <= 100_000


def test_large_batches_make_no_room_that_only_a_few_would_use() -> None:
    disk, spool = _model()
    spool.append(record(0, size=100_000)).wait()
    assert len(disk.content(SEGMENT)) == spool.used_bytes


def test_a_sealed_segment_ends_with_its_footer(tmp_path: Path) -> None:
    spool = quiet(tmp_path)
    spool.append_many([record(number) for number in range(10)])
    spool.stop()
    (path,) = (tmp_path / "0001" / "records").glob("*.seg")
    assert path.read_bytes().endswith(b"PSFT")
    spool = quiet(tmp_path)
    assert len(drained(spool)) == 10
    spool.stop()


def test_a_crash_leaves_zeros_that_are_no_torn_tail() -> None:
    disk, spool = _model()
    spool.append_many([record(number) for number in range(10)])
    abandon(spool)
    disk, spool = _model(disk)
    assert len(drained(spool)) == 10
    damages = spool.status().slots[0].records.damages
    assert (damages.torn_tails, damages.ranges) == (0, 0)
    assert spool.status().slots[0].quarantined == ()


def test_a_batch_torn_in_the_room_is_kept_as_long_as_it_was_without_the_zeros_behind_it() -> None:
    disk, spool = _model()
    spool.append_many([record(number) for number in range(3)])
    end = spool.used_bytes
    spool.append(record(3)).wait()
    behind = spool.used_bytes
    abandon(spool)
    torn = disk.content(SEGMENT)[: end + 50] + bytes(5000)
    disk.put(SEGMENT, torn)
    disk, spool = _model(disk)
    assert ids(drained(spool)) == ["id-0", "id-1", "id-2"]
    assert spool.status().slots[0].records.damages.torn_tails == 1
    (name,) = spool.status().slots[0].quarantined
    assert disk.content(f"/spool/0001/quarantine/{name}")[128:] == torn[end + 36 : behind]


@pytest.mark.parametrize("room", [0, 10_000])
def test_a_disk_without_room_for_zeros_takes_records_all_the_same(room: int) -> None:
    disk, spool = _model()
    disk.free_bytes = 128 + FRAME + room + 512  # the segment's header, the record, the cursor
    spool.append(record(0)).wait()
    assert len(disk.content(SEGMENT)) == 128 + FRAME, "what was taken for zeros is given back"
    assert ids(drained(spool)) == ["id-0"]
