"""Judges a run: what was handed in and told, against what really stands in the topics and in the spool.

    python -m tests.chaos.checker --journals DIR --bootstrap HOST:PORT --topic T --dead-letters T.dlq --spool DIR

Ends with 0 when every promise was kept, 1 when one was broken, 2 when it cannot be judged. It shares no code with the
product and imports nothing of it; a test keeps it so. Its own test plants every fault that it is there to find.

What is outside the order promise (P4) is left out here too: records without a key, dead letters, events that were
handed in again under their id, and events that failed (they were never accepted). The order is judged within
one run of the worker; what stands behind a later run's events is counted apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.chaos import journals as words
from tests.chaos.journals import Handed, Journals, Told, read_journals
from tests.chaos.spool_files import SpoolFolders, read_spool
from tests.chaos.topic_logs import Entry, Log, read_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_EXAMPLES = 5


@dataclass(slots=True)
class Breaches:
    """How often each promise was broken. All zero is a good run."""

    lost: int = 0  # accepted, and now nowhere
    only_in_quarantine: int = 0  # accepted, and found only among what the spool could not read
    duplicates_unmarked: int = 0  # repeats without `x-attempt` above 1
    duplicates_of_the_library: int = 0  # the same, but of events that were never spooled, in a block behind itself
    duplicates_left: int = 0  # one event under two ids: there even after removing repeats by event_id
    repeats_waiting_unmarked: int = 0  # in Kafka, and in the spool as if it had never been sent
    reordered: int = 0  # first occurrences behind one of their key with a higher number, within one run
    spread_keys: int = 0  # keys whose records stand in more than one partition
    unanswered: int = 0  # handed in, no outcome, and nobody killed the worker
    answered_twice: int = 0  # a second outcome
    taken_back: int = 0  # told safe, and later refused or failed
    raised: int = 0  # the call raised instead of answering
    invented: int = 0  # records that nobody handed in
    altered: int = 0  # records with another content than was handed in, or events in the wrong kind of topic
    refused_but_there: int = 0  # refused, and in a topic or on its way to one
    failed_but_there: int = 0  # failed with "nothing of it is in Kafka", and there
    not_where_said: int = 0  # told delivered or dead-lettered, and not in the topic of that kind
    crashed_runs: int = 0  # runs that ended neither in good order nor by our hand
    unreadable: int = 0  # topics or spool files that could not be judged whole


@dataclass(slots=True)
class Facts:
    """What happened, good or bad by itself."""

    runs: int = 0
    killed_runs: int = 0
    handed: int = 0
    accepted: int = 0
    delivered: int = 0
    spooled: int = 0
    dead_lettered: int = 0
    refused: int = 0
    failed: int = 0
    cut_off: int = 0  # no outcome because the worker was killed
    cut_off_found: int = 0  # of them: in a topic or in the spool
    failed_found: int = 0  # failed with "may be in Kafka", and there
    records: int = 0  # in all topics
    waiting: int = 0  # in the spool, not acknowledged
    duplicates_marked: int = 0
    repeat_before_original: int = 0  # the unmarked copy stands behind a marked one
    reordered_across_runs: int = 0  # behind an event of a later run
    offset_unlike_said: int = 0  # there, but not at the offset that was told
    torn_lines: int = 0
    torn_tails: int = 0
    quarantined_files: int = 0


@dataclass(slots=True)
class Verdict:
    """The judgement: breaches, facts, and for each kind of breach a few events to look at."""

    breaches: Breaches = field(default_factory=Breaches)
    facts: Facts = field(default_factory=Facts)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """True when no promise was broken."""
        return not any(dataclasses.astuple(self.breaches))

    def note(self, kind: str, example: str, count: int = 1) -> None:
        """Count a breach, and keep the first few to be looked at."""
        setattr(self.breaches, kind, getattr(self.breaches, kind) + count)
        kept = self.examples.setdefault(kind, [])
        if len(kept) < _EXAMPLES:
            kept.append(example)

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"good": self.is_good, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        lines = [f"{'GOOD' if self.is_good else 'BROKEN'}: {_pairs(self.facts, zeros=False)}"]
        for name, count in dataclasses.asdict(self.breaches).items():
            if count:
                lines.append(f"  {name}: {count}")
                lines += [f"    {example}" for example in self.examples.get(name, [])]
        return "\n".join(lines)


class _Place(NamedTuple):
    log: int
    entry: Entry


@dataclass(slots=True)
class _World:
    """Everything that is known, by event id."""

    journals: Journals
    logs: Sequence[Log]
    spool: SpoolFolders
    handed: dict[str, list[Handed]] = field(default_factory=lambda: defaultdict(list))
    told: dict[str, list[Told]] = field(default_factory=lambda: defaultdict(list))
    places: dict[str, list[_Place]] = field(default_factory=lambda: defaultdict(list))
    waiting: set[str] = field(default_factory=set)

    def is_there(self, event_id: str) -> bool:
        return event_id in self.places or event_id in self.waiting

    def is_in(self, event_id: str, *, dead_letters: bool) -> bool:
        return any(self.logs[place.log].is_dead_letters == dead_letters for place in self.places.get(event_id, ()))

    def kinds(self, event_id: str) -> set[str]:
        return {answer.kind for answer in self.told.get(event_id, ())}


def judge(journals: Journals, logs: Sequence[Log], spool: SpoolFolders | None = None) -> Verdict:
    """Compare what was told with what is there. `logs` has every topic, and every earlier life of it."""
    world = _World(journals, sorted(logs, key=lambda log: (log.topic, log.generation)), spool or SpoolFolders())
    for event in journals.handed:
        world.handed[event.event_id].append(event)
    for answer in journals.told:
        world.told[answer.event_id].append(answer)
    for number, log in enumerate(world.logs):
        for entry in log.entries:
            if not entry.is_marker:
                world.places[entry.event_id].append(_Place(number, entry))
    world.waiting = {stored.event_id for stored in world.spool.waiting}
    verdict = Verdict()
    for step in (_count, _runs, _answers, _losses, _strangers, _contents, _repeats, _doubles, _order, _wholeness):
        step(world, verdict)
    return verdict


# -- the steps


def _count(world: _World, verdict: Verdict) -> None:
    facts = verdict.facts
    facts.runs, facts.killed_runs = len(world.journals.runs), len(world.journals.killed & world.journals.runs)
    facts.handed = len(world.handed)
    facts.records = sum(map(len, world.places.values()))
    facts.waiting = len(world.spool.waiting)
    facts.torn_lines, facts.torn_tails = world.journals.torn_lines, world.spool.torn_tails
    facts.quarantined_files = len(world.spool.quarantine)
    for event_id in world.told:
        kinds = world.kinds(event_id)
        facts.accepted += bool(kinds & words.ACCEPTED)
        for kind in kinds & {words.DELIVERED, words.SPOOLED, words.DEAD_LETTERED, words.REFUSED, words.FAILED}:
            setattr(facts, kind, getattr(facts, kind) + 1)


def _runs(world: _World, verdict: Verdict) -> None:
    for run in sorted(world.journals.runs - world.journals.ended - world.journals.killed):
        verdict.note("crashed_runs", f"run {run}")


def _answers(world: _World, verdict: Verdict) -> None:
    """Every event has one outcome, unless its worker was killed, and no answer contradicts another or the topics."""
    killed = world.journals.killed
    for event_id, times in world.handed.items():
        answers = world.told.get(event_id, [])
        outcomes = [answer for answer in answers if answer.kind in words.OUTCOMES]
        owed = sum(event.run not in killed for event in times)
        if len(outcomes) > len(times):
            verdict.note("answered_twice", _say(world, event_id))
        elif len(outcomes) < owed:
            verdict.note("unanswered", _say(world, event_id), owed - len(outcomes))
        elif not outcomes:
            verdict.facts.cut_off += 1
            verdict.facts.cut_off_found += world.is_there(event_id)
        if len(times) == 1:
            _judge_outcomes(world, verdict, event_id, answers)


def _judge_outcomes(world: _World, verdict: Verdict, event_id: str, answers: Sequence[Told]) -> None:
    kinds = {answer.kind for answer in answers}
    if kinds & words.ACCEPTED and kinds & {words.REFUSED, words.FAILED, words.RAISED}:
        verdict.note("taken_back", _say(world, event_id))
    if words.RAISED in kinds:
        verdict.note("raised", f"{_say(world, event_id)}: {answers[-1].detail}")
    if words.REFUSED in kinds and world.is_there(event_id):
        verdict.note("refused_but_there", _say(world, event_id))
    if words.FAILED in kinds and world.is_there(event_id):
        if any(answer.kind == words.FAILED and not answer.may_be_in_kafka for answer in answers):
            verdict.note("failed_but_there", _say(world, event_id))
        else:
            verdict.facts.failed_found += 1
    for answer in answers:
        if answer.kind in {words.DELIVERED, words.DEAD_LETTERED} and answer.topic:
            _judge_place(world, verdict, answer)


def _judge_place(world: _World, verdict: Verdict, answer: Told) -> None:
    if not world.is_in(answer.event_id, dead_letters=answer.kind == words.DEAD_LETTERED):
        if world.is_there(answer.event_id):  # else it is lost, and counted there
            verdict.note("not_where_said", _say(world, answer.event_id))
    elif not any(
        (world.logs[place.log].topic, place.entry.partition, place.entry.offset)
        == (answer.topic, answer.partition, answer.offset)
        for place in world.places[answer.event_id]
    ):
        verdict.facts.offset_unlike_said += 1


def _losses(world: _World, verdict: Verdict) -> None:
    for event_id in world.told:
        if not world.kinds(event_id) & words.ACCEPTED or world.is_there(event_id):
            continue
        if any(event_id.encode() in data for data in world.spool.quarantine.values()):
            verdict.note("only_in_quarantine", _say(world, event_id))
        else:
            verdict.note("lost", _say(world, event_id))


def _strangers(world: _World, verdict: Verdict) -> None:
    for event_id, places in world.places.items():
        if event_id not in world.handed:
            verdict.note("invented", f"{event_id or 'no id'} in {_where(world, places[0])}", len(places))
    for event_id in world.waiting:
        if event_id not in world.handed:
            verdict.note("invented", f"{event_id} in the spool")


def _contents(world: _World, verdict: Verdict) -> None:
    for event_id, place in _known_places(world):
        event, entry = world.handed[event_id][0], place.entry
        is_dead = world.logs[place.log].is_dead_letters
        found = _dead_letter_identity(entry) if is_dead else _avro_identity(entry.value)
        if (event.is_bad and not is_dead) or entry.key != event.key.encode():
            verdict.note(
                "altered", f"{_say(world, event_id)} stands in {_where(world, place)} with another key or kind"
            )
        elif found != (event.key, event.number) and not (is_dead and entry.is_packed):
            verdict.note("altered", f"{_say(world, event_id)} stands in {_where(world, place)} as {found}")


def _repeats(world: _World, verdict: Verdict) -> None:
    """One unmarked copy of an event is the original; every other has to bear a mark."""
    by_library = _library_repeats(world)
    for event_id in world.handed:
        by_topic: defaultdict[str, list[_Place]] = defaultdict(list)
        for place in world.places.get(event_id, ()):
            by_topic[world.logs[place.log].topic].append(place)
        for copies in by_topic.values():
            unmarked = [copy for copy in copies if copy.entry.attempt <= 1]
            originals = len(world.handed[event_id])
            bad = max(0, len(unmarked) - originals)
            verdict.facts.duplicates_marked += max(0, len(copies) - originals - bad)
            verdict.facts.repeat_before_original += bool(unmarked) and copies[0].entry.attempt > 1
            for copy in unmarked[len(unmarked) - bad :]:
                is_block = (copy.log, copy.entry.partition, copy.entry.offset) in by_library
                is_library = is_block and _went_straight(world, event_id)
                kind = "duplicates_of_the_library" if is_library else "duplicates_unmarked"
                verdict.note(kind, f"{_say(world, event_id)} again in {_where(world, copy)}")
    for stored in world.spool.waiting:
        in_topic = any(world.logs[place.log].topic == stored.topic for place in world.places.get(stored.event_id, ()))
        if in_topic and stored.attempts <= 1 and not stored.was_handed_out:
            verdict.note("repeats_waiting_unmarked", _say(world, stored.event_id))


def _went_straight(world: _World, event_id: str) -> bool:
    """Whether the product sent the event once, as far as it said: acknowledged at once, by a worker that lived on."""
    lived = all(event.run not in world.journals.killed for event in world.handed[event_id])
    return lived and bool(world.kinds(event_id) & {words.DELIVERED, words.DEAD_LETTERED})


def _library_repeats(world: _World) -> set[tuple[int, int, int]]:
    """Places of repeats that look like a request which the client library sent twice.

    Such a repeat is a block: records with the same attempts, in the same order, directly behind themselves.
    """
    found: set[tuple[int, int, int]] = set()
    for number, log in enumerate(world.logs):
        last: dict[tuple[str, int], tuple[int, int]] = {}  # id and attempt -> partition and offset of the latest copy
        blocks: list[tuple[int, int, int]] = []  # partition, offset, distance to the copy before
        for entry in log.entries:
            before = last.get((entry.event_id, entry.attempt))
            if before is not None and before[0] == entry.partition:
                blocks.append((entry.partition, entry.offset, entry.offset - before[1]))
            last[entry.event_id, entry.attempt] = (entry.partition, entry.offset)
        numbered = enumerate(blocks)
        for _, group in groupby(numbered, key=lambda one: (one[1][0], one[1][1] - one[0], one[1][2])):
            block = [one for _, one in group]
            if len(block) == block[0][2]:
                found |= {(number, partition, offset) for partition, offset, _ in block}
    return found


def _doubles(world: _World, verdict: Verdict) -> None:
    """Removing repeats by event id must leave each event once: the same event under two ids would stay."""
    ids: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for event_id, place in world.places.items():
        for copy in place:
            is_dead = world.logs[copy.log].is_dead_letters
            identity = _dead_letter_identity(copy.entry) if is_dead else _avro_identity(copy.entry.value)
            if identity is not None:
                ids[identity].add(event_id)
    for (key, number), found in ids.items():
        if len(found) > 1:
            verdict.note("duplicates_left", f"{key} #{number} under {sorted(found)}", len(found) - 1)


def _order(world: _World, verdict: Verdict) -> None:
    firsts: defaultdict[tuple[str, str], list[tuple[Handed, _Place]]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for event_id, place in sorted(_known_places(world), key=_position):
        log, times = world.logs[place.log], world.handed[event_id]
        if log.is_dead_letters or place.entry.key is None or (log.topic, event_id) in seen:
            continue
        seen.add((log.topic, event_id))
        if len(times) == 1 and not world.kinds(event_id) & {words.FAILED, words.REFUSED}:
            firsts[log.topic, times[0].key].append((times[0], place))
    for (topic, key), events in firsts.items():
        partitions = Counter((place.log, place.entry.partition) for _, place in events)
        if len({partition for _, partition in partitions}) > 1:
            verdict.note("spread_keys", f"{key} in {topic}: partitions {sorted(number for _, number in partitions)}")
        within = list(_behind(events, across_runs=False))
        for event, place in within:
            verdict.note("reordered", f"{_say(world, event.event_id)} in {_where(world, place)}")
        in_all = sum(1 for _ in _behind(events, across_runs=True))
        verdict.facts.reordered_across_runs += max(0, in_all - len(within))


def _behind(events: Iterable[tuple[Handed, _Place]], *, across_runs: bool) -> Iterator[tuple[Handed, _Place]]:
    """The events that stand behind one with a higher number, of the same run or of any."""
    highest: dict[int, int] = {}
    for event, place in events:
        group = 0 if across_runs else event.run
        if event.number < highest.get(group, -1):
            yield event, place
        highest[group] = max(event.number, highest.get(group, -1))


def _wholeness(world: _World, verdict: Verdict) -> None:
    for log in world.logs:
        for problem in log.problems:
            verdict.note("unreadable", problem)
    for name in world.spool.unknown:
        verdict.note("unreadable", f"{name} in the spool is a file that the specification does not know")
    if world.spool.bad_ranges:
        verdict.note("unreadable", "ranges between good frames of the spool", world.spool.bad_ranges)


# -- helpers


def _known_places(world: _World) -> Iterator[tuple[str, _Place]]:
    for event_id, places in world.places.items():
        if event_id in world.handed:
            for place in places:
                yield event_id, place


def _position(known: tuple[str, _Place]) -> tuple[int, int, int]:
    place = known[1]
    return (place.log, place.entry.partition, place.entry.offset)


def _say(world: _World, event_id: str) -> str:
    event = world.handed[event_id][0] if event_id in world.handed else None
    what = f"{event.key} #{event.number}, run {event.run}" if event else "never handed in"
    told = ", ".join(answer.kind for answer in world.told.get(event_id, ())) or "nothing"
    return f"{event_id} ({what}; told: {told})"


def _where(world: _World, place: _Place) -> str:
    return f"{world.logs[place.log].topic}[{place.entry.partition}] at {place.entry.offset}"


def _pairs(values: Any, *, zeros: bool) -> str:
    return ", ".join(f"{name} {count}" for name, count in dataclasses.asdict(values).items() if count or zeros)


def _avro_identity(value: bytes | None) -> tuple[str, int] | None:
    """Key and number of an event from its bytes: five of framing, then a string and a long (Avro 1.11)."""
    if value is None or value[:1] != b"\0":
        return None
    try:
        length, at = _varint(value, 5)
        key = value[at : at + length].decode()
        number, _ = _varint(value, at + length)
    except (IndexError, UnicodeDecodeError):
        return None
    return key, number


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at


def _dead_letter_identity(entry: Entry) -> tuple[str, int] | None:
    try:
        event = json.loads(entry.value or b"")
        return event["user_id"], event["timestamp"]
    except (ValueError, KeyError, TypeError):
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.checker", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--journals", type=Path, required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", action="append", required=True)
    parser.add_argument("--dead-letters", action="append", default=[])
    parser.add_argument("--spool", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    try:
        logs = [read_topic(asked.bootstrap, topic) for topic in asked.topic]
        logs += [read_topic(asked.bootstrap, topic, is_dead_letters=True) for topic in asked.dead_letters]
        verdict = judge(read_journals(asked.journals), logs, read_spool(asked.spool) if asked.spool else None)
    except (OSError, ValueError) as exc:
        print(f"cannot be judged: {exc}", file=sys.stderr)  # noqa: T201 - a command
        return 2
    print(json.dumps(verdict.as_json()) if asked.json else verdict)  # noqa: T201 - a command
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
