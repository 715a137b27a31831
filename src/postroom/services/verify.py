"""Looks in Kafka for every event of a journal: is it there, once, in order?

What is counted and what is judged: docs/specs/accepted-journal.md. `Checker` is pure; `verify` brings journal and
reader together. One event takes about 250 bytes while it is checked.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from postroom.services.journal import read_journal

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from postroom.services.journal import JournalEntry
    from postroom.streaming.kafka_reader import ReadRecord

EXAMPLES = 10
"""So many event ids of each kind of trouble are named."""

_PROGRESS_EVERY = 5000
_MANY = 255  # counts of one id are kept in a byte; more than that is all the same


class Found(NamedTuple):
    """A record that stands in Kafka. `attempt` is 1 unless it is marked as a repeat."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    event_id: str | None
    attempt: int = 1


class TopicReport(msgspec.Struct, frozen=True):
    """The verdict about one topic; the names are those of the specification.

    The lists name up to ten event ids each, those out of order with partition and offset.
    """

    topic: str
    accepted: int
    found: int
    dead_lettered: int
    missing: int
    duplicated: int
    marked: int
    unmarked: int
    out_of_order: int
    foreign: int
    missing_ids: tuple[str, ...] = ()
    unmarked_ids: tuple[str, ...] = ()
    out_of_order_at: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """True when nothing is missing, no repeat lacks its mark, and every key is in order."""
        return not (self.missing or self.unmarked or self.out_of_order)


class VerifyReport(msgspec.Struct, frozen=True):
    """The verdict about all topics of a journal, in the order of their names."""

    topics: tuple[TopicReport, ...]

    @property
    def is_good(self) -> bool:
        """True when every topic is good."""
        return all(topic.is_good for topic in self.topics)


class _Topic:
    """What is known of one topic: each accepted id has a place, and its numbers stand there in arrays."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.sequences = array("q")
        self.runs = array("L")
        self.expected = bytearray()
        self.seen = bytearray()
        self.repeats = bytearray()  # of the seen: with an attempt above 1
        self.in_order = bytearray()  # 0 for what order does not apply to
        self.accepted = 0
        self.dead_lettered = 0
        self.foreign = 0
        self.out_of_order = 0
        self.out_of_order_at: list[str] = []
        self.highest: dict[tuple[int, bytes, int], int] = {}  # partition, key, run: the highest number so far

    def accept(self, entry: JournalEntry, run: int) -> None:
        self.accepted += 1
        self.dead_lettered += entry.dead_letter
        place = self.places.setdefault(entry.event_id, len(self.places))
        if place == len(self.expected):
            self.sequences.append(entry.sequence)
            self.runs.append(run)
            self.expected.append(1)
            self.seen.append(0)
            self.repeats.append(0)
            self.in_order.append(0 if entry.dead_letter else 1)
        else:
            self.expected[place] = min(_MANY, self.expected[place] + 1)
            self.in_order[place] = 0

    def see(self, found: Found) -> None:
        place = None if found.event_id is None else self.places.get(found.event_id)
        if place is None:
            self.foreign += 1
            return
        if not self.seen[place] and self.in_order[place] and found.key is not None:
            self._check_order(place, found, found.key)
        self.seen[place] = min(_MANY, self.seen[place] + 1)
        if found.attempt > 1:
            self.repeats[place] = min(_MANY, self.repeats[place] + 1)

    def _check_order(self, place: int, found: Found, key: bytes) -> None:
        sequence = self.sequences[place]
        line = (found.partition, key, self.runs[place])
        highest = self.highest.get(line)
        if highest is None or sequence > highest:
            self.highest[line] = sequence
            return
        self.out_of_order += 1
        if len(self.out_of_order_at) < EXAMPLES:
            self.out_of_order_at.append(f"{found.event_id} at [{found.partition}] {found.offset}")

    def report(self, topic: str) -> TopicReport:
        there = missing = duplicated = unmarked = 0
        missing_ids: list[str] = []
        unmarked_ids: list[str] = []
        for event_id, place in self.places.items():
            expected, seen = self.expected[place], self.seen[place]
            there += min(seen, expected)
            if seen < expected:
                missing += expected - seen
                missing_ids.append(event_id) if len(missing_ids) < EXAMPLES else None
            elif seen > expected:
                duplicated += seen - expected
                lacking = max(0, seen - self.repeats[place] - expected)
                if lacking:
                    unmarked += lacking
                    unmarked_ids.append(event_id) if len(unmarked_ids) < EXAMPLES else None
        return TopicReport(
            topic=topic,
            accepted=self.accepted,
            found=there,
            dead_lettered=self.dead_lettered,
            missing=missing,
            duplicated=duplicated,
            marked=duplicated - unmarked,
            unmarked=unmarked,
            out_of_order=self.out_of_order,
            foreign=self.foreign,
            missing_ids=tuple(missing_ids),
            unmarked_ids=tuple(unmarked_ids),
            out_of_order_at=tuple(self.out_of_order_at),
        )
