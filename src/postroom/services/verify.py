"""Looks in Kafka for every event of a journal, and says whether each is there, once and in order.

What is counted and what is judged: docs/specs/accepted-journal.md. `Checker` is pure; `verify` brings journal and
reader together. One event takes about 200 bytes while it is checked (a million were measured).
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
        """True when there is something to prove, and every topic is good."""
        return bool(self.topics) and all(topic.is_good for topic in self.topics)


class _Topic:
    """What is known of one topic: each accepted id has a place, and its numbers stand there in arrays."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.sequences = array("q")
        self.runs = array("I")
        self.expected = array("I")
        self.seen = array("I")
        self.repeats = array("I")  # of the seen: with an attempt above 1
        self.ordered = bytearray()  # 0 for what order does not apply to
        self.dead_lettered = 0
        self.foreign = 0
        self.out_of_order = 0
        self.out_of_order_at: list[str] = []
        self.highest: dict[tuple[int, bytes, int], int] = {}  # partition, key, run: the highest number so far

    def accept(self, entry: JournalEntry, run: int) -> None:
        """Note an accepted event."""
        self.dead_lettered += entry.dead_letter
        place = self.places.setdefault(entry.event_id, len(self.places))
        if place < len(self.expected):  # accepted again: which of them comes first in Kafka cannot be said
            self.expected[place] += 1
            self.ordered[place] = 0
            return
        self.sequences.append(entry.sequence)
        self.runs.append(run)
        self.expected.append(1)
        self.seen.append(0)
        self.repeats.append(0)
        self.ordered.append(not entry.dead_letter)

    def see(self, found: Found) -> None:
        """Note a record that stands in Kafka; those of a partition come in its order."""
        place = None if found.event_id is None else self.places.get(found.event_id)
        if place is None:
            self.foreign += 1
            return
        if not self.seen[place] and self.ordered[place] and found.key is not None:
            self._check_order(place, found, found.key)
        self.seen[place] += 1
        self.repeats[place] += found.attempt > 1

    def _check_order(self, place: int, found: Found, key: bytes) -> None:
        sequence = self.sequences[place]
        line = (found.partition, key, self.runs[place])
        if sequence > self.highest.get(line, -1):
            self.highest[line] = sequence
            return
        self.out_of_order += 1
        _note(self.out_of_order_at, f"{found.event_id} at [{found.partition}] {found.offset}")

    def report(self, topic: str) -> TopicReport:
        """The verdict, once every record has been seen."""
        missing = duplicated = unmarked = 0
        missing_ids: list[str] = []
        unmarked_ids: list[str] = []
        for event_id, place in self.places.items():
            expected, seen = self.expected[place], self.seen[place]
            if seen < expected:
                missing += expected - seen
                _note(missing_ids, event_id)
            elif seen > expected:
                duplicated += seen - expected
                lacking = max(0, seen - self.repeats[place] - expected)
                if lacking:
                    unmarked += lacking
                    _note(unmarked_ids, event_id)
        accepted = sum(self.expected)
        return TopicReport(
            topic=topic,
            accepted=accepted,
            found=accepted - missing,
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


def _note(examples: list[str], text: str) -> None:
    if len(examples) < EXAMPLES:
        examples.append(text)


class Checker:
    """Takes first the accepted events, then the records that stand in Kafka, and says what is wrong."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}
        self._runs: dict[str, int] = {}

    def accept(self, entry: JournalEntry) -> None:
        """Note an accepted event."""
        topic = self._topics.get(entry.topic)
        if topic is None:
            topic = self._topics[entry.topic] = _Topic()
        topic.accept(entry, self._runs.setdefault(entry.run, len(self._runs)))

    def topics(self) -> list[str]:
        """The names of the topics in which accepted events came to rest, sorted."""
        return sorted(self._topics)

    def see(self, found: Found) -> None:
        """Note a record that stands in Kafka; those of one partition must come in its order."""
        topic = self._topics.get(found.topic)
        if topic is not None:
            topic.see(found)

    def report(self) -> VerifyReport:
        """Return the verdict about what was accepted and seen so far."""
        return VerifyReport(tuple(self._topics[name].report(name) for name in self.topics()))


def check(accepted: Iterable[JournalEntry], found: Iterable[Found]) -> VerifyReport:
    """Compare what was accepted with what stands in Kafka; the records of one partition come in its order."""
    checker = Checker()
    for entry in accepted:
        checker.accept(entry)
    for record in found:
        checker.see(record)
    return checker.report()


def found_from(record: ReadRecord) -> Found:
    """Return what verify needs to know of a record: its id and attempt, from its headers."""
    event_id = dead_letter_id = attempt = None
    for name, value in record.headers:
        if name == "ce_id":
            event_id = value
        elif name == "dlq.event_id":
            dead_letter_id = value
        elif name == "x-attempt":
            attempt = value
    named = event_id if event_id is not None else dead_letter_id
    return Found(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        None if named is None else named.decode("utf-8", "replace"),
        int(attempt) if attempt is not None and attempt.isdigit() and len(attempt) < 10 else 1,
    )


class Reader(Protocol):
    """What verify needs of `KafkaReader`."""

    def read(self, topics: Sequence[str]) -> Iterator[ReadRecord]:
        """Yield the records of `topics` up to their present ends, each partition in its order."""
        ...


def verify(
    journal: str | os.PathLike[str], reader: Reader, on_progress: Callable[[int], None] | None = None
) -> VerifyReport:
    """Look in Kafka for every event of `journal` and say what is missing, repeated without a mark, or out of order.

    `on_progress` hears the number of records read, every 5,000 of them. Raises `JournalError` or `DecodeError` for
    a journal that cannot be read, and what the reader raises.
    """
    checker = Checker()
    for entry in read_journal(journal):
        checker.accept(entry)
    if not checker.topics():
        return checker.report()
    for count, record in enumerate(reader.read(checker.topics()), start=1):
        checker.see(found_from(record))
        if on_progress is not None and not count % _PROGRESS_EVERY:
            on_progress(count)
    return checker.report()
