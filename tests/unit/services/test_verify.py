"""The checker behind `postroom verify`: what is missing, repeated or out of order is found, and nothing else."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.libs.exceptions import JournalError
from postroom.services.journal import AcceptedJournal, JournalEntry
from postroom.services.verify import EXAMPLES, Found, TopicReport, check, found_from, verify
from postroom.streaming.kafka_reader import ReadRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def accepted(number: int, key: str | None = "k", topic: str = "t", **more: object) -> JournalEntry:
    """The journal's line for event `number`."""
    return JournalEntry(f"id-{number}", key, topic, number, **more)  # type: ignore[arg-type]  # by name


def found(number: int, offset: int, key: bytes | None = b"k", topic: str = "t", **more: int) -> Found:
    """The record of event `number` at `offset`."""
    return Found(topic, more.get("partition", 0), offset, key, f"id-{number}", more.get("attempt", 1))


def only(entries: list[JournalEntry], records: list[Found]) -> TopicReport:
    """The verdict about the one topic there is."""
    (report,) = check(entries, records).topics
    return report


def test_everything_there_once_and_in_order_is_good() -> None:
    """All counts but two are 0."""
    report = only([accepted(n) for n in range(5)], [found(n, n) for n in range(5)])
    assert report == TopicReport("t", 5, 5, 0, 0, 0, 0, 0, 0, 0)
    assert report.is_good


def test_a_missing_event_is_found() -> None:
    """And named."""
    report = only([accepted(n) for n in range(5)], [found(n, n) for n in (0, 1, 3, 4)])
    assert (report.accepted, report.found, report.missing) == (5, 4, 1)
    assert report.missing_ids == ("id-2",)
    assert not report.is_good


def test_a_duplicate_without_a_mark_is_found() -> None:
    """And named."""
    report = only([accepted(1), accepted(2)], [found(1, 0), found(2, 1), found(1, 2)])
    assert (report.duplicated, report.marked, report.unmarked, report.unmarked_ids) == (1, 0, 1, ("id-1",))
    assert not report.is_good


def test_a_marked_duplicate_is_counted_and_fine() -> None:
    """The mark may come first, where the repeat overtook the original in another partition."""
    for attempts in ([1, 2], [2, 1], [2, 3]):
        records = [found(1, offset, attempt=attempt) for offset, attempt in enumerate(attempts)]
        report = only([accepted(1)], records)
        assert (report.duplicated, report.marked, report.unmarked) == (1, 1, 0)
        assert report.is_good
    report = only([accepted(1)], [found(1, 0), found(1, 1), found(1, 2, attempt=2)])
    assert (report.duplicated, report.marked, report.unmarked) == (2, 1, 1)


def test_a_marked_record_that_stands_alone_is_no_duplicate() -> None:
    """The first try never arrived."""
    assert only([accepted(1)], [found(1, 0, attempt=2)]).duplicated == 0


def test_swapped_records_of_a_key_are_found() -> None:
    """With partition and offset of the one that is late."""
    report = only([accepted(n) for n in (1, 2, 3)], [found(2, 7), found(1, 8), found(3, 9)])
    assert (report.out_of_order, report.out_of_order_at) == (1, ("id-1 at [0] 8",))
    assert not report.is_good


@pytest.mark.parametrize(
    ("entries", "records"),
    [
        ([accepted(1, None), accepted(2, None)], [found(2, 0, None), found(1, 1, None)]),
        ([accepted(1, "a"), accepted(2, "b")], [found(2, 0, b"b"), found(1, 1, b"a")]),
        ([accepted(1), accepted(2)], [found(2, 0, partition=1), found(1, 0, partition=0)]),
        ([accepted(1), accepted(2)], [found(1, 0), found(2, 1), found(1, 2, attempt=2)]),
        ([accepted(1, dead_letter=True), accepted(2, dead_letter=True)], [found(2, 0), found(1, 1)]),
        ([accepted(9, run="a"), accepted(1, run="b")], [found(9, 0), found(1, 1)]),
    ],
    ids=["no key", "other keys", "other partitions", "a late repeat", "dead letters", "other runs"],
)
def test_what_order_does_not_apply_to_is_not_judged(entries: list[JournalEntry], records: list[Found]) -> None:
    """No key, another key, another partition, a repeat, dead letters, another run."""
    assert check(entries, records).is_good


def test_an_id_accepted_twice_is_expected_twice() -> None:
    """Its caller handed it in again under the same id: no duplicate of ours."""
    report = only([accepted(1), accepted(1)], [found(1, 0), found(1, 1)])
    assert (report.accepted, report.found, report.duplicated) == (2, 2, 0)
    assert only([accepted(1), accepted(1)], [found(1, 0)]).missing == 1


def test_records_of_others_are_counted_apart() -> None:
    """Without an id, with an unknown one; and other topics are no concern at all."""
    report = only([accepted(1)], [found(1, 0), found(7, 1), Found("t", 0, 2, None, None), found(1, 0, topic="u")])
    assert (report.foreign, report.is_good) == (2, True)


def test_each_topic_has_its_own_verdict() -> None:
    """A dead letter is looked for in its topic, and not found in another one."""
    entries = [accepted(1), accepted(2, topic="t.dlq", dead_letter=True), accepted(3, topic="t.dlq", dead_letter=True)]
    main, letters = check(entries, [found(1, 0), found(2, 0, topic="t.dlq"), found(3, 1)]).topics
    assert (main.topic, main.accepted, main.found, main.foreign, main.dead_lettered) == ("t", 1, 1, 1, 0)
    assert (letters.topic, letters.accepted, letters.found, letters.missing) == ("t.dlq", 2, 1, 1)
    assert letters.dead_lettered == 2


def test_only_a_few_examples_are_kept() -> None:
    """A million missing events are counted, ten are named."""
    report = only([accepted(n) for n in range(1000)], [])
    assert report.missing == 1000
    assert len(report.missing_ids) == EXAMPLES


def test_an_empty_journal_proves_nothing() -> None:
    """A run that failed at its start leaves one: that must not look like a proof."""
    assert not check([], [found(1, 0)]).is_good
    assert check([], []).topics == ()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_planted_faults_are_counted_exactly(data: st.DataObject) -> None:
    """Events of several keys in several partitions; some lost, some repeated with and without a mark."""
    count = data.draw(st.integers(0, 30))
    keys = [f"k{n % 4}" for n in range(count)]
    lost = data.draw(st.sets(st.integers(0, max(0, count - 1)), max_size=count)) if count else set()
    there = [n for n in range(count) if n not in lost]
    repeats = data.draw(st.lists(st.tuples(st.sampled_from(there), st.booleans()), max_size=10)) if there else []
    records = [(n, 1) for n in there] + [(n, 2 if marked else 1) for n, marked in repeats]
    report = check(
        [accepted(n, keys[n]) for n in range(count)],
        [
            found(n, offset, keys[n].encode(), partition=int(keys[n][1]) % 3, attempt=attempt)
            for offset, (n, attempt) in enumerate(records)
        ],
    )
    if not count:
        return
    (topic,) = report.topics
    assert (topic.accepted, topic.found, topic.missing) == (count, len(there), len(lost))
    assert topic.duplicated == len(repeats)
    assert topic.unmarked == sum(not marked for _, marked in repeats)
    assert topic.out_of_order == 0


def test_a_shuffled_key_is_never_called_good() -> None:
    """Any order but the right one is noticed."""
    entries = [accepted(n) for n in range(8)]
    for seed in range(50):
        order = random.Random(seed).sample(range(8), 8)
        report = only(entries, [found(n, offset) for offset, n in enumerate(order)])
        assert report.is_good == (order == sorted(order))


@pytest.mark.parametrize(
    ("headers", "event_id", "attempt"),
    [
        ((("ce_id", b"a"),), "a", 1),
        ((("ce_id", b"a"), ("x-attempt", b"3")), "a", 3),
        ((("dlq.event_id", b"b"),), "b", 1),
        ((("dlq.event_id", b"b"), ("ce_id", b"a")), "a", 1),
        ((), None, 1),
        ((("ce_id", None),), None, 1),
        ((("ce_id", b"\xff"), ("x-attempt", b"many")), "\ufffd", 1),
        ((("ce_id", b"a"), ("x-attempt", b"9" * 5000)), "a", 1),
        ((("ce_id", b"a"), ("x-attempt", None)), "a", 1),
    ],
)
def test_id_and_attempt_come_from_the_headers(
    headers: tuple[tuple[str, bytes | None], ...], event_id: str | None, attempt: int
) -> None:
    """Odd ones never raise."""
    seen = found_from(ReadRecord("t", 1, 2, b"k", b"v", headers, 0))
    assert seen == Found("t", 1, 2, b"k", event_id, attempt)


class _Reader:
    """Gives what it was told to, and remembers what it was asked for."""

    def __init__(self, records: list[ReadRecord]) -> None:
        self.records = records
        self.asked: list[str] = []

    def read(self, topics: Sequence[str]) -> Iterator[ReadRecord]:
        """As KafkaReader."""
        self.asked = list(topics)
        yield from self.records


def test_journal_and_reader_are_brought_together(tmp_path: Path) -> None:
    """The topics of the journal are read, and progress is told."""
    path = tmp_path / "a.ndjson"
    with AcceptedJournal(path) as journal:
        for number in range(12_000):
            journal.accepted(f"id-{number}", b"k", "t", number)
        journal.accepted("id-x", None, "t.dlq", 12_000, dead_letter=True)
    records = [
        ReadRecord("t", 0, number, b"k", b"", (("ce_id", f"id-{number}".encode()),), 0) for number in range(12_000)
    ]
    reader = _Reader(records)
    heard: list[int] = []
    report = verify(path, reader, heard.append)
    assert reader.asked == ["t", "t.dlq"]
    assert heard == [5000, 10_000]
    main, letters = report.topics
    assert main.is_good
    assert letters.missing_ids == ("id-x",)


def test_an_empty_journal_reads_nothing(tmp_path: Path) -> None:
    """There is no topic to ask for."""
    path = tmp_path / "a.ndjson"
    path.touch()
    reader = _Reader([])
    assert verify(path, reader).topics == ()
    assert reader.asked == []
    with pytest.raises(JournalError):
        verify(tmp_path / "no", reader)
