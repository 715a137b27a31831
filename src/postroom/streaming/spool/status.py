"""What a spool says of itself."""

from __future__ import annotations

import msgspec

from postroom.streaming.spool.damage_control import Damages  # noqa: TC001 - msgspec reads the annotations


class QueueStatus(msgspec.Struct, frozen=True):
    """What is in a queue that is not acknowledged. `by_topic` holds records and bytes.

    `in_hand` of them were read or claimed and not put back, `claimed` among these were never read. `passed_over` of
    the segments cannot be read now. `is_counted` is False while a start still counts.
    """

    records: int
    bytes: int
    by_topic: dict[str, tuple[int, int]]
    oldest_ms: int | None
    in_hand: int
    claimed: int
    segments: int
    passed_over: int
    disk_bytes: int
    is_counted: bool
    refusing_since: float | None
    damages: Damages
    foreign: tuple[str, ...]


class SlotStatus(msgspec.Struct, frozen=True):
    """One slot that this process holds: its two queues, and what stands in its quarantine."""

    name: str
    records: QueueStatus
    dead_letters: QueueStatus
    quarantined: tuple[str, ...]


class SpoolStatus(msgspec.Struct, frozen=True):
    """What a spool holds and whether it takes more. The first slot is its own, the others it has taken over."""

    slots: tuple[SlotStatus, ...]
    used_bytes: int
    limit_bytes: int
    is_full: bool
    newer_slots: tuple[str, ...]

    @property
    def records(self) -> int:
        """How many records wait, without dead letters."""
        return sum(slot.records.records for slot in self.slots)

    @property
    def dead_letters(self) -> int:
        """How many dead letters wait."""
        return sum(slot.dead_letters.records for slot in self.slots)


class FoundRecords(msgspec.Struct, frozen=True):
    """How many records of a topic an earlier process left in a slot."""

    slot: str
    topic: str
    records: int
