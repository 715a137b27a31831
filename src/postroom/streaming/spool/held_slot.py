"""A slot that this process holds, with its two queues."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import msgspec

from postroom.streaming.spool.quarantine import Quarantine
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.segment_store import QueuePlace
from postroom.streaming.spool.slots import QUEUE_FOLDERS
from postroom.streaming.spool.spool_queue import SpoolQueue
from postroom.streaming.spool.status import SlotStatus

if TYPE_CHECKING:
    from postroom.streaming.spool.file_system import FileSystem
    from postroom.streaming.spool.key_counts import KeyCounts
    from postroom.streaming.spool.queue_writer import WriteSettings
    from postroom.streaming.spool.record_format import KeyHash
    from postroom.streaming.spool.slots import Slot


class SharedByQueues(msgspec.Struct, frozen=True):
    """What all queues of a spool have in common."""

    file_system: FileSystem
    keys: KeyCounts
    keys_lock: threading.Lock
    key_hash: KeyHash


class HeldSlot(msgspec.Struct, frozen=True):
    """A slot, locked, and its queues, open."""

    slot: Slot
    queues: dict[Kind, SpoolQueue]
    quarantine: Quarantine

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.slot.name

    def close(self) -> None:
        """Write what waits and let go of everything."""
        for queue in self.queues.values():
            queue.close()
        self.slot.release()

    def status(self) -> SlotStatus:
        """Say what is in it."""
        quarantined: list[str] = []
        with contextlib.suppress(OSError):
            quarantined = self.quarantine.names()
        records, dead_letters = (self.queues[kind].status() for kind in Kind)
        return SlotStatus(self.name, records, dead_letters, tuple(quarantined))


def hold(slot: Slot, shared: SharedByQueues, settings: WriteSettings, *, cursor_bytes: int) -> HeldSlot:
    """Open the queues of a slot. Raises OSError; then the slot is released."""
    quarantine = Quarantine(shared.file_system, slot.path)
    queues = {}
    for kind, folder in QUEUE_FOLDERS.items():
        place = QueuePlace(
            shared.file_system,
            f"{slot.path}/{folder}",
            kind,
            threading.Lock(),
            shared.keys,
            shared.keys_lock,
            shared.key_hash,
            quarantine,
        )
        queues[kind] = SpoolQueue(place, settings, slot=slot.name, cursor_bytes=cursor_bytes)
    held = HeldSlot(slot, queues, quarantine)
    try:
        for queue in queues.values():
            queue.open()
    except OSError:
        held.close()
        raise
    return held
