"""Takes over what a spool of another host or path has left: slot by slot, and nothing is lost on the way.

Where both roots are on one file system, a slot is moved by one rename: each of its records is in exactly one place at
every moment. Else its files are copied, synced, and removed from where they were; a kill in between leaves records in
both places, and then all of them are marked as repeats in both.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.exceptions import LifecycleError, SpoolUnavailableError
from postroom.streaming.spool.availability import spool_error
from postroom.streaming.spool.file_system import Entry, OsFileSystem
from postroom.streaming.spool.inspection import QueueView, inspect_slot
from postroom.streaming.spool.slot_copy import SlotCopy
from postroom.streaming.spool.slots import MOST_SLOTS, Slots

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.streaming.spool.file_system import FileSystem
    from postroom.streaming.spool.inspection import SlotView

WORKSHOP = "adopting"
"""Where copies are made, beside the slots: no process takes it for one."""


class AdoptedSlot(msgspec.Struct, frozen=True):
    """A slot that was taken over: its names in the two roots, and what waited in it."""

    source: str
    target: str
    is_copied: bool
    records: QueueView
    dead_letters: QueueView


class RefusedSlot(msgspec.Struct, frozen=True):
    """A slot that was left where it is, and why."""

    source: str
    reason: str


class Adoption(msgspec.Struct, frozen=True):
    """What an adoption did."""

    adopted: tuple[AdoptedSlot, ...]
    refused: tuple[RefusedSlot, ...]


def adopt(source: str | Path, target: str | Path, *, file_system: FileSystem | None = None) -> Adoption:
    """Move the slots with records under the root `source` into new slots under the root `target`, oldest name first.

    Slots that a living process has, or that only a newer version can read, are refused by name. The processes of
    `target` take the others over like those of a dead neighbour. What was done before an error stays done: calling
    this again goes on. Raises SpoolError for a disk that does not do its part, LifecycleError for two times the same
    root, or while another adoption into `target` is at work.
    """
    files: FileSystem = OsFileSystem() if file_system is None else file_system
    source_root, target_root = (os.path.abspath(root) for root in (source, target))  # noqa: PTH100 - links kept
    if source_root == target_root:
        raise LifecycleError("a spool cannot adopt its own slots", remedy="name the folder of the other spool")
    try:
        return _Adopter(files, source_root, target_root).run()
    except OSError as exc:
        raise spool_error(exc, retry_after_s=None) from exc


class _Adopter:
    def __init__(self, files: FileSystem, source_root: str, target_root: str) -> None:
        self._files = files
        self._source_root = source_root
        self._target_root = target_root
        self._owner = f"pid {os.getpid()}, adopting\n"
        self._source = Slots(files, source_root, owner=self._owner)
        self._target = Slots(files, target_root, owner=self._owner)

    def run(self) -> Adoption:
        """Do it. Raises OSError and SpoolError."""
        if self._files.entry(self._source_root) is not Entry.FOLDER:
            raise SpoolUnavailableError(f"there is no spool at {self._source_root}", remedy="check the path")
        self._target.make_root()
        adopted: list[AdoptedSlot] = []
        refused = [RefusedSlot(name, "another user's, or no folder") for name in self._source.shut()]
        for name in self._source.names():
            if not self._source.has_segments(name):
                continue
            slot = self._source.lock(name)
            view = inspect_slot(self._source_root, name, file_system=self._files)
            if slot is None:
                refused.append(RefusedSlot(name, _reason(view)))
                continue
            try:
                adopted.append(self._adopt(view))
            finally:
                slot.release()
        return Adoption(tuple(adopted), tuple(refused))

    def _adopt(self, view: SlotView) -> AdoptedSlot:
        path = f"{self._source_root}/{view.name}"
        is_copied = False
        try:
            name = self._publish(path)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            name, is_copied = self._copy(path), True
        return AdoptedSlot(view.name, name, is_copied, view.records, view.dead_letters)

    def _copy(self, path: str) -> str:
        with contextlib.closing(SlotCopy(self._files, path, f"{self._target_root}/{WORKSHOP}", self._owner)) as copy:
            copy.make()
            name = self._publish(copy.path)
            copy.settle(f"{self._target_root}/{name}")
        return name

    def _publish(self, path: str) -> str:
        """Rename a folder to the next free slot of the target; return the slot's name."""
        taken = set(self._target.names())
        for name in (f"{number:04d}" for number in range(1, MOST_SLOTS + 1)):
            if name in taken:
                continue
            try:
                if self._files.entry(f"{self._target_root}/{name}") is Entry.ABSENT:
                    self._files.rename(path, f"{self._target_root}/{name}")
                    self._files.sync_folder(self._target_root)
                    return name
            except OSError as exc:
                if exc.errno not in {errno.EEXIST, errno.ENOTEMPTY}:  # a process was quicker to make its slot there
                    raise
        raise SpoolUnavailableError(f"{self._target_root} has no room for another slot", remedy="let it drain")


def _reason(view: SlotView) -> str:
    if view.is_newer:
        return "only a newer version can read it"
    return f"in use by {view.owner}" if view.is_in_use else "it cannot be locked"
