"""A record that is lost to a flipped bit is counted as set aside, and a line of the log says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.event import Spooled
from postroom.testing.recording_service import RecordingService
from tests.faults.post import PATIENCE_S, Said, until
from tests.faults.test_disk import Desk, files_with

if TYPE_CHECKING:
    from pathlib import Path


def test_the_books_do_not_say_for_ever_that_a_damaged_record_waits_to_be_sent(spool: Path) -> None:
    """Row 35: the spool is empty; what is in quarantine will never be sent by itself."""
    with Desk(spool) as desk:
        for _ in range(20):
            assert isinstance(desk.hand_in(), Spooled)
    [segment] = files_with(spool, b"id-10")
    data = bytearray(segment.read_bytes())
    data[data.index(b"id-10")] ^= 0x04
    segment.write_bytes(data)
    with RecordingService(spool_dir=spool) as later:
        spooling = later.parts.spooling
        assert spooling is not None
        until(lambda: spooling.spool.is_empty, "something waits", PATIENCE_S)
        until(lambda: not later.ledger.total().spooled, f"the spool is empty, the books say {later.ledger.total()}", 5)


def test_a_record_that_is_set_aside_is_told_by_a_line_of_the_log(spool: Path, said: Said) -> None:
    """Row 35: an accepted event is not delivered, and the operator hears of it by a counter alone."""
    with Desk(spool) as desk:
        for _ in range(20):
            assert isinstance(desk.hand_in(), Spooled)
    [segment] = files_with(spool, b"id-10")
    data = bytearray(segment.read_bytes())
    data[data.index(b"id-10")] ^= 0x04
    segment.write_bytes(data)
    with RecordingService(spool_dir=spool) as later:
        until(lambda: len(later.published) == 19, "the others do not come")
    assert [line for line in said.loud() if "quarantine" in str(line)], said.text()
