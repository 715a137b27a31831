"""A spool folder that is removed while a service runs is noticed: nothing more is called safe that has no file."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from postroom.libs.event import Spooled
from tests.faults.test_disk import Desk, desk

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["desk"]  # the fixture


def test_a_spool_folder_that_somebody_removes_is_noticed_and_nothing_more_is_called_safe(
    desk: Desk, spool: Path
) -> None:
    """Row 33: what goes to a file without a name would be gone with the process."""
    assert isinstance(desk.hand_in(), Spooled)
    shutil.rmtree(spool)
    assert not spool.exists()
    safe_after = [desk.hand_in() for _ in range(20)]
    on_disk = b"".join(file.read_bytes() for file in spool.rglob("*") if file.is_file()) if spool.exists() else b""
    for number, outcome in enumerate(safe_after, start=2):
        if outcome.is_safe:
            assert f"id-{number}".encode() in on_disk, "called safe, and no file on the disk has it"
    desk.faults.back()
