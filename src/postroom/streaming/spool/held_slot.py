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
    from collections.abc import Iterator

    from postroom.streaming.spool.file_system import FileSystem
    from postroom.streaming.spool.group_commit import Place
    from postroom.streaming.spool.key_counts import KeyCounts
    from postroom.streaming.spool.queue_reader import SpooledRecord
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

    def close(self) -> bool:
        """Write what waits and let go of everything; False where the disk does not answer.

        Then the slot stays ours until this process ends: a thread may still write to it.
        """
        have_closed = [queue.close() for queue in self.queues.values()]
        if not all(have_closed):  # each is closed first, whatever became of the others
            return False
        self.slot.release()
        return True

    def leave(self) -> None:
        """Write what waits, as far as the disk answers, and let go of nothing: a thread still waits for the disk.

        The slot stays ours until this process ends.
        """
        for queue in self.queues.values():
            queue.finish_writing()

    def status(self) -> SlotStatus:
        """Say what is in it. Waits for no disk."""
        records, dead_letters = (self.queues[kind].status() for kind in Kind)
        return SlotStatus(self.name, records, dead_letters, self.quarantine.names)


class HeldSlots:
    """The slots that a spool holds: its own first, then those it has taken over. Safe with threads.

    `is_counted` is True once everything found in them is counted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: tuple[HeldSlot, ...] = ()
        self.is_counted = False

    def __iter__(self) -> Iterator[HeldSlot]:
        return iter(self._all)

    def __getitem__(self, index: int) -> HeldSlot:
        return self._all[index]

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, held: HeldSlot) -> None:
        """Take in a slot. Until it is counted, every key waits: nobody can ask in between."""
        with self._lock:
            self.is_counted = False
            self._all = (*self._all, held)

    def clear(self) -> None:
        """Hold none any more."""
        with self._lock:
            self._all = ()

    def in_reading_order(self) -> tuple[HeldSlot, ...]:
        """Return those that were taken over, then our own: what is in them is older."""
        held = self._all
        return (*held[1:], *held[:1])

    def queues(self) -> Iterator[SpoolQueue]:
        """Give all queues."""
        for held in self._all:
            yield from held.queues.values()

    def queue_of(self, place: SpooledRecord | Place) -> SpoolQueue | None:
        """Return the queue in which a record stands; None when its slot is not held any more."""
        for held in self._all:
            if held.slot.name == place.slot:
                return held.queues[place.kind]
        return None

    def check_counted(self) -> None:
        """Find out whether everything is counted."""
        with self._lock:
            self.is_counted = all(queue.is_counted for queue in self.queues())

    def release_emptied(self) -> None:
        """Let go of the slots that were taken over and have no segments any more."""
        for held in self._all[1:]:
            if any(queue.has_segments for queue in held.queues.values()):
                continue
            with self._lock:
                self._all = tuple(one for one in self._all if one is not held)
            held.close()


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
        with contextlib.suppress(OSError):
            quarantine.look()
        for queue in queues.values():
            queue.open()
    except OSError:
        held.close()
        raise
    return held
