"""A spool's folder as people and programs see it: `postroom spool status`, and the folder part of `postroom status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from postroom.cli.words import counts, duration, printable, size
from postroom.libs.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

QUEUES = ("records", "dead_letters")


class QueueLook(msgspec.Struct, frozen=True):
    """What of one kind waits in a slot."""

    waiting: int
    by_topic: dict[str, int]
    bytes: int
    oldest_s: float | None


class SlotLook(msgspec.Struct, frozen=True):
    """One slot of a spool; `owner` is what its process wrote about itself, None for a slot that is nobody's.

    `newer`: only a newer version can read it, `problem`: the disk does not give it; its numbers are 0 then.
    """

    slot: str
    owner: str | None
    records: QueueLook
    dead_letters: QueueLook
    quarantined: tuple[str, ...]
    foreign: tuple[str, ...]
    newer: bool
    problem: str

    @property
    def waiting(self) -> int:
        """How many records and dead letters wait."""
        return self.records.waiting + self.dead_letters.waiting


def look_into(directory: Path, clock: Clock = SYSTEM_CLOCK) -> list[SlotLook]:
    """Return the slots of a spool, changing nothing. Raises ConfigurationError for what is no folder."""
    from postroom.libs.exceptions import ConfigurationError

    if not directory.is_dir():
        raise ConfigurationError(f"{directory} is no folder", remedy="name the folder of a spool, see spool.dir")
    raise NotImplementedError


def told_folder(directory: Path) -> dict[str, Any]:
    """The slots of a spool and their sum, as JSON has it. Raises as `look_into`."""
    slots = look_into(directory)
    queues = [queue for slot in slots for queue in (slot.records, slot.dead_letters)]
    return {
        "directory": str(directory.absolute()),
        "slots": msgspec.to_builtins(slots),
        "total": {
            "slots": len(slots),
            "in_use": sum(slot.owner is not None for slot in slots),
            "records": sum(slot.records.waiting for slot in slots),
            "dead_letters": sum(slot.dead_letters.waiting for slot in slots),
            "bytes": sum(queue.bytes for queue in queues),
            "oldest_s": max((queue.oldest_s for queue in queues if queue.oldest_s is not None), default=None),
            "quarantined": sum(len(slot.quarantined) for slot in slots),
            "foreign": sum(len(slot.foreign) for slot in slots),
            "newer": sum(slot.newer for slot in slots),
        },
    }


def print_folder(out: Console, folder: Mapping[str, Any]) -> None:
    """Print a line a slot and queue with something in it, what is odd about it, and the sum."""
    out.print(f"spool {folder['directory']}", style="bold", markup=False)
    for slot in folder["slots"]:
        for line in _slot_lines(slot):
            out.print(line, markup=False)
    total = folder["total"]
    used = f", {total['in_use']} in use" if total["in_use"] else ""
    oldest = f", oldest waits {duration(total['oldest_s'])}" if total["oldest_s"] is not None else ""
    out.print(
        f"total: {_many(total['slots'], 'slot')}{used}; {_many(total['records'], 'record')} and"
        f" {_many(total['dead_letters'], 'dead letter')} waiting, {size(total['bytes'])}{oldest}",
        style="bold",
        markup=False,
    )


def _slot_lines(slot: Mapping[str, Any]) -> list[str]:
    owner = "unclaimed" if slot["owner"] is None else f"in use by {printable(slot['owner'])}"
    lines = [f"  {slot['slot']}  {owner}"]
    if slot["newer"]:
        return [*lines, "        written by a newer version of postroom: left alone"]
    if slot["problem"]:
        lines.append(f"        not all of it can be read: {printable(slot['problem'])}")
    for name in QUEUES:
        queue = slot[name]
        if queue["waiting"]:
            lines.append(
                f"        {name.replace('_', ' ')}: {queue['waiting']:,} waiting ({counts(queue['by_topic'])}),"
                f" {size(queue['bytes'])}, oldest {duration(queue['oldest_s'])}"
            )
    if not (slot["records"]["waiting"] or slot["dead_letters"]["waiting"]):
        lines[0] += ", nothing waits"
    if slot["quarantined"]:
        lines.append(f"        quarantine: {_files(slot['quarantined'])} that could not be read, kept for people")
    if slot["foreign"]:
        lines.append(f"        not of this spool, left alone: {_files(slot['foreign'])}")
    return lines


def _files(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:3])
    return f"{_many(len(names), 'file')} ({shown}{', ...' if len(names) > 3 else ''})"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
