"""A disk that failed is tried again while records wait for it: they are readable afterwards."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

from postroom.libs.event import Record
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from postroom.testing.fault_script import FaultScript
from postroom.testing.faulty_file_system import FaultyFileSystem

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 30.0


def test_records_that_wait_while_a_failed_disk_is_tried_again_can_be_read(tmp_path: Path) -> None:
    """The try makes a segment; what waits goes into it, though it was numbered before the segment was made."""
    faults, in_callback, may_go_on = FaultScript(), threading.Event(), threading.Event()
    spool = Spool(tmp_path, file_system=FaultyFileSystem(faults))
    spool.start()

    def wait(_: object) -> None:
        in_callback.set()
        may_go_on.wait(PATIENCE_S)

    try:
        faults.disk_error("write", code=errno.EIO, times=1)
        failed = spool.append(Record("t", b"k", b"v", (), "id0", 0), on_stored=wait)
        in_callback.wait(PATIENCE_S)  # the writing thread is busy with an answer: the next record waits
        waiting = spool.append(Record("t", b"k", b"v", (), "id1", 1))
        spool._own[Kind.RECORD]._writer.try_again()  # type: ignore[index]  # it runs
        may_go_on.set()
        assert failed.error is not None
        waiting.wait(PATIENCE_S)
        found: list[str] = []
        while not found:
            found = [one.record.event_id for one in spool.read(Kind.RECORD)]
    finally:
        may_go_on.set()
        spool.stop()
    assert found == ["id1"]
