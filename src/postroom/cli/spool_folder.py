"""A spool's folder as people and programs see it: `postroom spool status`, and the folder part of `postroom status`."""

from __future__ import annotations

import errno
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from postroom.cli.spool_content import told_labels
from postroom.cli.words import counts, duration, many, printable, size
from postroom.libs.clock import SYSTEM_CLOCK, Clock, rfc3339
from postroom.libs.exceptions import ConfigurationError
from postroom.services.spool_view import QUEUE_NAMES
from postroom.streaming.spool.inspection import inspect_spool, shut_slots, stored_records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from postroom.cli.spool_content import SpoolContent
    from postroom.streaming.spool.inspection import QueueView, SlotView

_OWNER = re.compile(r"pid (?P<pid>[0-9]+), since (?P<since_ms>[0-9]{1,15}) ms")
_SHOWN_FILES = 3
SHUT = "another user's, or no folder"


class QueueLook(msgspec.Struct, frozen=True):
    """What of one kind waits in a slot. `unreadable` counts ranges of its files that hold no whole record."""

    waiting: int
    by_topic: dict[str, int]
    bytes: int
    oldest_s: float | None
    unreadable: int


class SlotLook(msgspec.Struct, frozen=True):
    """One slot of a spool; `owner` is who has it, for people, None for a slot that is nobody's.

    Only a newer version can read a slot that is `newer`: its numbers are 0.
    """

    slot: str
    owner: str | None
    newer: bool
    records: QueueLook
    dead_letters: QueueLook
    quarantined: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def waiting(self) -> int:
        """How many records and dead letters wait."""
        return self.records.waiting + self.dead_letters.waiting

    @property
    def unreadable(self) -> int:
        """How many places in its files hold no record."""
        return self.records.unreadable + self.dead_letters.unreadable


def look_into(directory: Path, clock: Clock = SYSTEM_CLOCK) -> list[SlotLook]:
    """Return the slots of a spool, changing nothing.

    Raises ConfigurationError for what is no folder, SpoolUnavailableError for one that cannot be read.
    """
    _refuse_what_is_no_folder(directory)
    return [_slot(view, clock.time_ms()) for view in inspect_spool(directory).slots]


def _refuse_what_is_no_folder(directory: Path) -> None:
    why = ""
    try:
        is_folder = directory.is_dir()
    except OSError as exc:  # a name that is too long, a way there that is closed
        is_folder, why = False, f" that can be reached ({errno.errorcode.get(exc.errno or 0, 'error')})"
    if not is_folder:
        raise ConfigurationError(f"{directory} is no folder{why}", remedy="name the folder of a spool, see spool.dir")


def _slot(view: SlotView, now_ms: int) -> SlotLook:
    return SlotLook(
        slot=view.name,
        owner=_owner(view.owner) if view.is_in_use else None,
        newer=view.is_newer,
        records=_queue(view.records, now_ms),
        dead_letters=_queue(view.dead_letters, now_ms),
        quarantined=view.quarantined,
        foreign=(*view.foreign, *view.records.foreign, *view.dead_letters.foreign),
    )


def _queue(view: QueueView, now_ms: int) -> QueueLook:
    by_topic = {topic: records for topic, (records, _) in view.by_topic.items()}
    oldest_s = None if view.oldest_ms is None else max(0.0, round((now_ms - view.oldest_ms) / 1000, 3))
    return QueueLook(view.records, by_topic, view.bytes, oldest_s, view.unreadable)


def _owner(text: str) -> str:
    """What stands in the lock of a slot, with the time as people read it."""
    known = _OWNER.fullmatch(text)
    if known is None:
        return text or "a process that did not say which"
    return f"pid {known['pid']}, since {_moment(int(known['since_ms']))}"


def _moment(time_ms: int) -> str:
    """A time as RFC 3339 has it; what no calendar holds as a number."""
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return f"{time_ms} ms"
    return rfc3339(moment)


# -- all slots


def told_folder(directory: Path) -> dict[str, Any]:
    """The slots of a spool and their sum, as JSON has it. Raises as `look_into`."""
    slots = look_into(directory)
    queues = [queue for slot in slots for queue in (slot.records, slot.dead_letters)]
    return {
        "directory": str(directory.absolute()),
        "slots": msgspec.to_builtins(slots),
        "shut": list(shut_slots(directory)),
        "total": {
            "slots": len(slots),
            "in_use": sum(slot.owner is not None for slot in slots),
            "records": sum(slot.records.waiting for slot in slots),
            "dead_letters": sum(slot.dead_letters.waiting for slot in slots),
            "bytes": sum(queue.bytes for queue in queues),
            "oldest_s": max((queue.oldest_s for queue in queues if queue.oldest_s is not None), default=None),
            "unreadable": sum(queue.unreadable for queue in queues),
            "quarantined": sum(len(slot.quarantined) for slot in slots),
            "foreign": sum(len(slot.foreign) for slot in slots),
            "newer": sum(slot.newer for slot in slots),
        },
    }


def print_folder(out: Console, folder: Mapping[str, Any]) -> None:
    """Print each slot with what waits in it and what is odd about it, and the sum."""
    out.print(f"spool {printable(folder['directory'])}", style="bold", markup=False)
    for slot in folder["slots"]:
        for line in _slot_lines(slot):
            out.print(line, markup=False)
    for name in folder["shut"]:
        out.print(f"  {name}  {SHUT}: nobody knows what waits there", markup=False)
    total = folder["total"]
    used = f", {total['in_use']} in use" if total["in_use"] else ""
    oldest = f", oldest waits {duration(total['oldest_s'])}" if total["oldest_s"] is not None else ""
    out.print(
        f"total: {many(total['slots'], 'slot')}{used}; {many(total['records'], 'record')} and"
        f" {many(total['dead_letters'], 'dead letter')} waiting, {size(total['bytes'])}{oldest}",
        style="bold",
        markup=False,
    )


def _slot_lines(slot: Mapping[str, Any]) -> list[str]:
    owner = "unclaimed" if slot["owner"] is None else f"in use by {printable(slot['owner'])}"
    if slot["newer"]:
        return [f"  {slot['slot']}  {owner}, written by a newer version of postroom: left alone"]
    lines = [f"  {slot['slot']}  {owner}"]
    for name in QUEUE_NAMES.values():
        queue, told = slot[name], name.replace("_", " ")
        if queue["waiting"]:
            lines.append(
                f"        {told}: {queue['waiting']:,} waiting ({counts(queue['by_topic'])}),"
                f" {size(queue['bytes'])}, oldest {duration(queue['oldest_s'])}"
            )
        if queue["unreadable"]:
            lines.append(f"        {told}: {many(queue['unreadable'], 'damaged place')}, to be set aside")
    if not (slot["records"]["waiting"] or slot["dead_letters"]["waiting"]):
        lines[0] += ", nothing waits"
    if slot["quarantined"]:
        lines.append(f"        quarantine: {_files(slot['quarantined'])} that could not be read, kept for people")
    if slot["foreign"]:
        lines.append(f"        not of this spool, left alone: {_files(slot['foreign'])}")
    return lines


def _files(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_SHOWN_FILES])
    return f"{many(len(names), 'file')} ({shown}{', ...' if len(names) > _SHOWN_FILES else ''})"


# -- single records


def count_waiting(directory: Path, topic: str | None) -> int:
    """Return how many records and dead letters wait, of one topic of the cluster or all. Raises as `look_into`."""
    queues = [queue for slot in look_into(directory) for queue in (slot.records, slot.dead_letters)]
    return sum(queue.waiting if topic is None else queue.by_topic.get(topic, 0) for queue in queues)


def told_records(directory: Path, topic: str | None, content: SpoolContent | None) -> Iterator[dict[str, Any]]:
    """The records that wait, slot by slot, the oldest first, as JSON has them; of one topic of the cluster or all.

    What is in them is told as `content` says, and without it only their contract. Raises as `look_into`.
    """
    _refuse_what_is_no_folder(directory)
    for waiting, stored in stored_records(directory):
        if topic not in {None, waiting.topic}:
            continue
        told = {
            "slot": waiting.place.slot,
            "queue": QUEUE_NAMES[waiting.place.kind],
            "sequence": waiting.place.sequence,
            "topic": waiting.topic,
            "event_id": waiting.event_id,
            "key_bytes": waiting.key_bytes,
            "value_bytes": waiting.value_bytes,
            "appended_at": _moment(waiting.appended_ms),
            "attempt": waiting.attempt,
            "may_be_in_kafka": waiting.sent_before or waiting.attempt > 1,
            **told_labels(stored),
        }
        yield told if content is None else told | content.tell(stored)


def record_line(told: Mapping[str, Any]) -> str:
    """A record of `told_records` on one line."""
    key = "no key" if told["key_bytes"] is None else f"key of {told['key_bytes']} bytes"
    maybe = ", may be in Kafka" if told["may_be_in_kafka"] else ""
    labels = "".join(f"  {printable(told[name])}" for name in ("contract", "reason") if name in told)
    return (
        f"{told['slot']}/{told['queue']}/{told['sequence']}  {printable(told['topic'])}  {printable(told['event_id'])}"
        f"  {key}  since {told['appended_at']}  attempt {told['attempt']}{maybe}{labels}"
    )


# -- folders of others


def adopt_folder(source: Path, target: Path) -> dict[str, Any]:
    """Take the slots of `source` into the spool `target`; what was taken and what was left, as JSON has it.

    Raises ConfigurationError for a source that is no folder, or the target itself, SpoolError for a disk that fails.
    """
    from postroom.streaming.spool.adoption import adopt

    _refuse_what_is_no_folder(source)
    if os.path.exists(target) and source.samefile(target):  # noqa: PTH110 - it raises for no name
        raise ConfigurationError(f"{source} is the spool itself", remedy="name the folder that came from another host")
    done = adopt(source, target)
    return {
        "source": str(source.absolute()),
        "target": str(target.absolute()),
        "adopted": [
            {
                "from": slot.source,
                "to": slot.target,
                "records": slot.records.records,
                "dead_letters": slot.dead_letters.records,
                "copied": slot.is_copied,
            }
            for slot in done.adopted
        ],
        "refused": [{"slot": slot.source, "reason": slot.reason} for slot in done.refused],
    }


def adoption_lines(told: Mapping[str, Any]) -> list[str]:
    """The result of `adopt_folder` for people."""
    lines = [
        f"slot {slot['from']} is {slot['to']} now: {many(slot['records'], 'record')} and"
        f" {many(slot['dead_letters'], 'dead letter')}"
        + (", copied from another file system" if slot["copied"] else "")
        for slot in told["adopted"]
    ]
    lines += [f"slot {slot['slot']} was left: {printable(slot['reason'])}" for slot in told["refused"]]
    if told["adopted"]:
        lines.append(f"The next process with {printable(told['target'])} sends them, or: postroom spool drain")
    return lines or [f"Nothing waits in {printable(told['source'])}."]
