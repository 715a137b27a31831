"""What the tests of the spool share: records, and short ways to fill and empty one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from postroom.libs.event import Record
from postroom.streaming.spool.held_slot import HeldSlots
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.streaming.spool.queue_reader import SpooledRecord


def record(
    number: int, *, topic: str = "topic", key: bytes | None = b"key", size: int = 20, attempt: int = 1
) -> Record:
    """A record that is told from others by its id, timestamp and value."""
    value = b"%d " % number + b"v" * size
    return Record(
        topic, key, value, (("h", b"\x00\xff"), ("h", b"")), f"id-{number}", 1_700_000_000_000 + number, attempt
    )


def quiet(path: Path | str, **settings: Any) -> Spool:
    """A spool without threads, started."""
    spool = Spool(path, background=False, **settings)
    spool.start()
    return spool


def drained(spool: Spool, kind: Kind = Kind.RECORD) -> list[SpooledRecord]:
    """Everything that the spool hands out now."""
    found: list[SpooledRecord] = []
    while more := spool.read(kind):
        found += more
    return found


def ids(found: list[SpooledRecord]) -> list[str]:
    """The event ids, in order."""
    return [waiting.record.event_id for waiting in found]


def abandon(spool: Spool) -> None:
    """Let go of the slot's lock as a killed process does: nothing is written, nothing is noted."""
    for held in spool._held:
        held.slot.release()
        for queue in held.queues.values():
            queue._reader.close()
            queue._keeper.close()
            if queue._writer._writer is not None:
                queue._writer._writer.close()
    spool._held, spool._own = HeldSlots(), None


def until(condition: Callable[[], bool], thing: str) -> None:
    """Wait for another thread, without a limit of its own: the test's timeout is one."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.002)
    assert condition(), thing
