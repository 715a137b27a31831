"""What the spool and the paths of a running service say of themselves: for health, metrics, `/status`, the live view.

Reads what is known, waits for nothing, and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from postroom.observability.metric_table import (
    HAND_OVERS,
    PATH_PROBLEM,
    PATH_STATE,
    REPEATS,
    SPOOL_BYTES,
    SPOOL_FULL,
    SPOOL_LIMIT_BYTES,
    SPOOL_OLDEST_AGE,
    SPOOL_QUARANTINED,
    SPOOL_RECORDS,
    SPOOL_REFUSES,
    SPOOL_REJECTED,
)
from postroom.observability.metrics import Reading
from postroom.services.paths import State
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.space import STOP_SHARE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from postroom.libs.clock import Clock
    from postroom.services.components import Components
    from postroom.services.spooling import Spooling
    from postroom.streaming.spool.status import QueueStatus

QUEUE_NAMES = {Kind.RECORD: "records", Kind.DEAD_LETTER: "dead_letters"}


class PathView(msgspec.Struct, frozen=True):
    """The path to one topic: its state, for how many seconds, and why Kafka did not take a record last."""

    topic: str
    queue: str
    state: str
    for_s: float
    problem: str | None
    hand_overs: int

    @property
    def is_direct(self) -> bool:
        """True when nothing is wrong and nothing waits."""
        return self.state == State.DIRECT.value and self.problem is None


class QueueSummary(msgspec.Struct, frozen=True):
    """What of one kind is in the spool and not acknowledged, all slots together; `oldest_s` is the oldest one's age.

    `damaged` counts the places in the files of the slots it holds now that could not be read.
    """

    records: int
    bytes: int
    by_topic: dict[str, int]
    oldest_s: float | None
    repeats: int
    rejected: int
    damaged: int


class SpoolSummary(msgspec.Struct, frozen=True):
    """The spool at one moment.

    `slots` are the names of those that this process holds, its own first. `refusing_for_s` is for how many seconds the
    disk has taken nothing, None while it takes. `quarantined` counts files with what could not be read, `foreign`
    and `newer_slots` name what is left alone. Numbers of records are those counted so far until `is_counted`.
    """

    directory: str
    slots: tuple[str, ...]
    records: QueueSummary
    dead_letters: QueueSummary
    used_bytes: int
    limit_bytes: int
    is_full: bool
    refusing_for_s: float | None
    is_counted: bool
    quarantined: int
    foreign: tuple[str, ...]
    newer_slots: tuple[str, ...]

    @property
    def takes(self) -> bool:
        """True when a record that arrives now would be stored, as far as one can know."""
        return bool(self.slots) and not self.is_full and self.refusing_for_s is None

    @property
    def waiting(self) -> int:
        """How many records and dead letters are not acknowledged."""
        return self.records.records + self.dead_letters.records

    @property
    def rejected(self) -> int:
        """How many dead letters the broker refused: they stay until the next start."""
        return self.dead_letters.rejected

    @property
    def oldest_s(self) -> float | None:
        """The age of the oldest of them in seconds, None when there is none."""
        return max(
            (view.oldest_s for view in (self.records, self.dead_letters) if view.oldest_s is not None), default=None
        )

    @property
    def fullness(self) -> float:
        """What is used as a share of what the spool may hold, 0 to 1; it refuses from 0.9 on."""
        return min(1.0, self.used_bytes / self.limit_bytes) if self.limit_bytes else 1.0


def paths_of(parts: Components, clock: Clock) -> list[PathView]:
    """Return the paths there are, those that are not direct first, then by topic."""
    now = clock.monotonic()
    views = [
        PathView(
            path.topic,
            QUEUE_NAMES[path.kind],
            path.state.value,
            round(now - path.since, 3),
            None if (problem := path.problem_at(now)) is None else problem.value,
            path.hand_overs,
        )
        for path in parts.dispatcher.paths()
    ]
    return sorted(views, key=lambda view: (view.is_direct, view.topic))


def spool_of(parts: Components, clock: Clock) -> SpoolSummary | None:
    """Return what the spool of a service says, None for a service without one."""
    spooling, directory = parts.spooling, parts.config.spool.dir
    if spooling is None or directory is None:
        return None
    status = spooling.spool.status()
    slots = status.slots
    own = slots[:1]
    refusing = [
        queue.refusing_since for slot in own for queue in (slot.records, slot.dead_letters) if queue.refusing_since
    ]
    queues = [queue for slot in slots for queue in (slot.records, slot.dead_letters)]
    return SpoolSummary(
        directory=str(directory.absolute()),
        slots=tuple(slot.name for slot in slots),
        records=_queue(Kind.RECORD, [slot.records for slot in slots], spooling, clock),
        dead_letters=_queue(Kind.DEAD_LETTER, [slot.dead_letters for slot in slots], spooling, clock),
        used_bytes=status.used_bytes,
        limit_bytes=status.limit_bytes,
        # What the spool says once it has refused; and what it would say to the next record.
        is_full=status.is_full or status.used_bytes >= STOP_SHARE * status.limit_bytes,
        refusing_for_s=max(0.0, clock.monotonic() - min(refusing)) if refusing else None,
        is_counted=all(queue.is_counted for queue in queues),
        quarantined=sum(len(slot.quarantined) for slot in slots),
        foreign=tuple(name for queue in queues for name in queue.foreign),
        newer_slots=status.newer_slots,
    )


def _queue(kind: Kind, queues: Iterable[QueueStatus], spooling: Spooling, clock: Clock) -> QueueSummary:
    records = size = damaged = 0
    by_topic: dict[str, int] = {}
    oldest: list[int] = []
    for queue in queues:
        records += queue.records
        size += queue.bytes
        oldest += [queue.oldest_ms] if queue.oldest_ms is not None else []
        damaged += queue.damages.ranges + queue.damages.segments + queue.damages.missing_segments
        for topic, (count, _) in queue.by_topic.items():
            by_topic[topic] = by_topic.get(topic, 0) + count
    drain = spooling.drains[kind]
    oldest_s = max(0.0, round((clock.time_ms() - min(oldest)) / 1000, 3)) if oldest else None
    return QueueSummary(records, size, by_topic, oldest_s, drain.repeats, drain.rejected, damaged)


def readings_of(parts: Components, clock: Clock) -> Iterator[Reading]:
    """Give spool and paths to the metrics."""
    for path in paths_of(parts, clock):
        yield Reading(PATH_STATE, 1, (path.topic, path.state))
        yield Reading(HAND_OVERS, path.hand_overs, (path.topic,))
        if path.problem is not None:
            yield Reading(PATH_PROBLEM, 1, (path.topic, path.problem))
    spool = spool_of(parts, clock)
    if spool is None:
        return
    for name, queue in (("records", spool.records), ("dead_letters", spool.dead_letters)):
        yield Reading(SPOOL_RECORDS, queue.records, (name,))
        yield Reading(SPOOL_OLDEST_AGE, queue.oldest_s or 0.0, (name,))
        yield Reading(REPEATS, queue.repeats, (name,))
    yield Reading(SPOOL_BYTES, spool.used_bytes)
    yield Reading(SPOOL_LIMIT_BYTES, spool.limit_bytes)
    yield Reading(SPOOL_FULL, int(spool.is_full))
    yield Reading(SPOOL_REFUSES, int(spool.refusing_for_s is not None))
    yield Reading(SPOOL_QUARANTINED, spool.quarantined)
    yield Reading(SPOOL_REJECTED, spool.rejected)
