"""The checker finds every kind of broken promise that is planted, and none where there is none."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import journals as words
from tests.chaos.checker import Breaches, Verdict, judge
from tests.chaos.journals import (
    Handed,
    Journals,
    LineFile,
    Told,
    end_line,
    handed_line,
    handed_path,
    note_kill,
    read_journals,
    told_line,
    told_path,
)
from tests.chaos.spool_files import SpoolFolders, Stored
from tests.chaos.topic_logs import Entry, Log

TOPIC, DEAD = "events", "events.dlq"
KEYS = 4
PER_KEY = 5


def varint(number: int) -> bytes:
    number, out = number << 1, b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def value(key: str, number: int) -> bytes:
    """An event as it stands in a topic: framing, key, number, and other fields behind."""
    return b"\0\0\0\0\1" + varint(len(key)) + key.encode() + varint(number) + b"\0\0"


def dead_value(key: str, number: int) -> bytes:
    return json.dumps({"user_id": key, "timestamp": number, "action": "no such thing"}).encode()


class History:
    """A clean run of 20 events, delivered in one partition, two dead-lettered ones, and what may be done to it."""

    def __init__(self) -> None:
        self.journals = Journals(ended={0})
        self.entries: list[Entry] = []
        self.dead: list[Entry] = []
        self.spool = SpoolFolders()
        self.problems: tuple[str, ...] = ()
        self.earlier: list[Log] = []
        for number in range(PER_KEY):
            for key in range(KEYS):
                self.deliver(f"id-{key}-{number}", f"k{key}", number)
        for number in (100, 101):
            self.dead_letter(f"bad-{number}", "k0", number)

    def hand(self, event_id: str, key: str, number: int, *, run: int = 0, is_bad: bool = False) -> None:
        self.journals.handed.append(Handed(event_id, key, number, run, is_bad))

    def tell(self, event_id: str, kind: str, **more: Any) -> None:
        self.journals.told.append(Told(event_id, kind, **{"run": 0, **more}))

    def put(self, event_id: str, key: str, number: int, attempt: int = 1) -> int:
        offset = len(self.entries)
        self.entries.append(Entry(0, offset, key.encode(), value(key, number), event_id, attempt))
        return offset

    def deliver(self, event_id: str, key: str, number: int, run: int = 0) -> None:
        self.hand(event_id, key, number, run=run)
        offset = self.put(event_id, key, number)
        self.tell(event_id, words.DELIVERED, topic=TOPIC, partition=0, offset=offset, run=run)

    def dead_letter(self, event_id: str, key: str, number: int) -> None:
        self.hand(event_id, key, number, is_bad=True)
        offset = len(self.dead)
        self.dead.append(Entry(0, offset, key.encode(), dead_value(key, number), event_id))
        self.tell(event_id, words.DEAD_LETTERED, topic=DEAD, partition=0, offset=offset)

    def spooled(self, event_id: str, key: str, number: int, *, acknowledged: bool = False, **more: Any) -> None:
        fields: dict[str, Any] = {"attempts": 1, "was_handed_out": False, **more}
        self.spool.stored.append(
            Stored(
                "0001", "records", 0, len(self.spool.stored), event_id, TOPIC, key.encode(), value(key, number), (), (),
                0, is_acknowledged=acknowledged, **fields,
            )
        )  # fmt: skip

    def move(self, event_id: str, to: int) -> None:
        """Put a record to another place in its log; the answers about places then miss, which is no breach."""
        [at] = [index for index, entry in enumerate(self.entries) if entry.event_id == event_id]
        self.entries.insert(to, self.entries.pop(at))
        self.entries = [entry._replace(offset=offset) for offset, entry in enumerate(self.entries)]

    def remove(self, event_id: str) -> None:
        self.entries = [entry for entry in self.entries if entry.event_id != event_id]

    def judged(self) -> Verdict:
        logs = [
            *self.earlier,
            Log(TOPIC, self.entries, len(self.earlier), problems=self.problems),
            Log(DEAD, self.dead, is_dead_letters=True),
        ]
        return judge(self.journals, logs, self.spool)


@pytest.fixture
def history() -> History:
    return History()


def breaches(history: History) -> dict[str, int]:
    """What was found, without zeros."""
    verdict = history.judged()
    found = {name: getattr(verdict.breaches, name) for name in Breaches.__slots__}
    assert verdict.is_good == (not any(found.values()))
    assert set(verdict.examples) == {name for name, count in found.items() if count}
    return {name: count for name, count in found.items() if count}


class TestAGoodRun:
    def test_it_has_no_breach(self, history: History) -> None:
        assert breaches(history) == {}
        facts = history.judged().facts
        assert (facts.handed, facts.accepted, facts.delivered, facts.dead_lettered) == (22, 22, 20, 2)
        assert (facts.records, facts.duplicates_marked, facts.offset_unlike_said) == (22, 0, 0)

    def test_what_waits_in_the_spool_is_not_lost(self, history: History) -> None:
        history.hand("late", "k1", 50)
        history.tell("late", words.SPOOLED)
        history.spooled("late", "k1", 50)
        assert breaches(history) == {}
        assert history.judged().facts.waiting == 1

    def test_marked_repeats_are_facts_and_no_breaches(self, history: History) -> None:
        history.put("id-1-0", "k1", 0, attempt=2)
        history.put("id-1-0", "k1", 0, attempt=2)
        history.put("id-2-0", "k2", 0, attempt=3)
        assert breaches(history) == {}
        assert history.judged().facts.duplicates_marked == 3

    def test_two_marked_copies_without_an_original_are_marked(self, history: History) -> None:
        history.entries[0] = history.entries[0]._replace(attempt=2)
        history.put("id-0-0", "k0", 0, attempt=3)
        assert breaches(history) == {}
        assert history.judged().facts.duplicates_marked == 1

    def test_an_original_behind_its_marked_repeat_is_counted(self, history: History) -> None:
        history.entries[0] = history.entries[0]._replace(attempt=2)
        history.put("id-0-0", "k0", 0, attempt=1)
        assert breaches(history) == {}
        assert history.judged().facts.repeat_before_original == 1

    def test_a_killed_run_owes_no_answer_and_what_it_sent_may_be_there(self, history: History) -> None:
        history.journals.killed = {1}
        history.hand("open-1", "k1", 60, run=1)
        history.hand("open-2", "k1", 61, run=1)
        history.put("open-1", "k1", 60)
        assert breaches(history) == {}
        assert (history.judged().facts.cut_off, history.judged().facts.cut_off_found) == (2, 1)

    def test_refused_and_failed_events_that_are_nowhere_are_fine(self, history: History) -> None:
        history.hand("refused", "k1", 60)
        history.tell("refused", words.REFUSED)
        history.hand("failed", "k1", 61)
        history.tell("failed", words.FAILED)
        assert breaches(history) == {}

    def test_a_failed_event_that_may_be_in_kafka_may_be_there(self, history: History) -> None:
        history.hand("failed", "k1", 1)
        history.tell("failed", words.FAILED, may_be_in_kafka=True)
        history.put("failed", "k1", 61)
        history.entries[-1] = history.entries[-1]._replace(value=value("k1", 1))
        history.remove("id-1-1")
        history.journals.handed = [event for event in history.journals.handed if event.event_id != "id-1-1"]
        history.journals.told = [answer for answer in history.journals.told if answer.event_id != "id-1-1"]
        assert breaches(history) == {}
        assert history.judged().facts.failed_found == 1

    def test_safe_and_then_an_outcome_is_one_answer(self, history: History) -> None:
        history.tell("id-1-1", words.SAFE)
        assert breaches(history) == {}

    def test_markers_that_settle_dead_letters_are_no_events(self, history: History) -> None:
        history.dead.append(Entry(0, 2, b"k0", b"", "", is_marker=True))
        assert breaches(history) == {}

    def test_a_topic_s_earlier_life_counts(self, history: History) -> None:
        history.earlier = [Log(TOPIC, history.entries[:10], 0)]
        history.entries = [entry._replace(offset=at) for at, entry in enumerate(history.entries[10:])]
        assert breaches(history) == {}

    def test_a_key_of_a_later_run_may_begin_again_behind_an_earlier_one(self, history: History) -> None:
        history.journals.ended.add(1)
        history.deliver("next-1", "k1", 1_000, run=1)
        assert breaches(history) == {}
        history.move("next-1", 0)
        assert breaches(history) == {}
        assert history.judged().facts.reordered_across_runs == PER_KEY


class TestPlanted:
    @pytest.mark.parametrize("kind", [words.SAFE, words.DELIVERED, words.SPOOLED, words.DEAD_LETTERED])
    def test_accepted_and_nowhere_is_lost(self, history: History, kind: str) -> None:
        history.hand("gone", "k1", 60)
        history.tell("gone", kind)
        found = breaches(history)
        assert found.pop("lost") == 1
        assert found == ({"unanswered": 1} if kind == words.SAFE else {})

    def test_accepted_in_a_killed_run_and_nowhere_is_lost(self, history: History) -> None:
        history.journals.killed = {1}
        history.hand("gone", "k1", 60, run=1)
        history.tell("gone", words.SAFE, run=1)
        assert breaches(history) == {"lost": 1}

    def test_acknowledged_in_the_spool_and_not_in_kafka_is_lost(self, history: History) -> None:
        history.hand("gone", "k1", 60)
        history.tell("gone", words.SPOOLED)
        history.spooled("gone", "k1", 60, acknowledged=True)
        assert breaches(history) == {"lost": 1}

    def test_only_in_quarantine_is_named_apart(self, history: History) -> None:
        history.hand("dirty", "k1", 60)
        history.tell("dirty", words.SPOOLED)
        history.spool.quarantine["0001/1-7-128.bad"] = b"\0\1dirty\2"
        assert breaches(history) == {"only_in_quarantine": 1}

    def test_a_repeat_without_a_mark_is_found(self, history: History) -> None:
        history.put("id-1-0", "k1", 0)
        assert breaches(history) == {"duplicates_unmarked": 1}

    def test_a_mark_excuses_no_other_repeat(self, history: History) -> None:
        history.put("id-1-0", "k1", 0, attempt=2)
        history.put("id-1-0", "k1", 0)
        assert breaches(history) == {"duplicates_unmarked": 1}
        assert history.judged().facts.duplicates_marked == 1

    def test_a_repeated_dead_letter_is_found(self, history: History) -> None:
        history.dead.append(history.dead[0]._replace(offset=2))
        assert breaches(history) == {"duplicates_unmarked": 1}

    def test_a_request_that_went_twice_is_the_client_library_s(self, history: History) -> None:
        for entry in history.entries[-3:]:
            history.entries.append(entry._replace(offset=len(history.entries)))
        assert breaches(history) == {"duplicates_of_the_library": 3}

    def test_a_request_that_went_twice_by_way_of_the_spool_is_ours(self, history: History) -> None:
        for entry in history.entries[-3:]:
            history.entries.append(entry._replace(offset=len(history.entries)))
        history.journals.told = [
            answer._replace(kind=words.SPOOLED) if answer.event_id.startswith("id-2") else answer
            for answer in history.journals.told
        ]
        assert breaches(history) == {"duplicates_of_the_library": 2, "duplicates_unmarked": 1}
        history.journals.killed, history.journals.ended = {0}, set()
        assert breaches(history) == {"duplicates_unmarked": 3}

    def test_a_block_that_does_not_follow_itself_is_not_the_client_library_s(self, history: History) -> None:
        for entry in history.entries[-4:-1]:
            history.entries.append(entry._replace(offset=len(history.entries)))
        assert breaches(history) == {"duplicates_unmarked": 3}

    def test_one_event_under_two_ids_stays_after_removing_repeats(self, history: History) -> None:
        history.hand("other-id", "k1", 0)
        history.tell("other-id", words.DELIVERED)
        history.put("other-id", "k1", 0)
        found = breaches(history)
        assert found.pop("duplicates_left") == 1
        assert found == {"reordered": 1}

    def test_a_record_waiting_to_be_sent_again_without_a_mark_is_found(self, history: History) -> None:
        history.spooled("id-1-0", "k1", 0)
        assert breaches(history) == {"repeats_waiting_unmarked": 1}

    @pytest.mark.parametrize("marked", [{"attempts": 2}, {"was_handed_out": True}])
    def test_one_that_will_be_marked_is_fine(self, history: History, marked: dict[str, Any]) -> None:
        history.spooled("id-1-0", "k1", 0, **marked)
        assert breaches(history) == {}

    def test_a_key_out_of_order_is_found(self, history: History) -> None:
        history.move("id-1-3", 0)
        assert breaches(history) == {"reordered": 3}
        assert history.judged().facts.offset_unlike_said > 0

    def test_a_late_one_of_a_key_is_found(self, history: History) -> None:
        history.move("id-1-1", len(history.entries))
        assert breaches(history) == {"reordered": 1}

    def test_repeats_do_not_hide_and_do_not_make_disorder(self, history: History) -> None:
        history.put("id-1-4", "k1", 4, attempt=2)
        history.put("id-1-1", "k1", 1, attempt=2)
        assert breaches(history) == {}
        history.move("id-2-1", len(history.entries))
        history.put("id-2-1", "k2", 1, attempt=2)
        assert breaches(history) == {"reordered": 1}

    def test_a_key_in_two_partitions_is_found(self, history: History) -> None:
        history.entries[-1] = history.entries[-1]._replace(partition=1, offset=0)
        assert breaches(history) == {"spread_keys": 1}

    def test_no_outcome_is_found(self, history: History) -> None:
        history.hand("open", "k1", 60)
        assert breaches(history) == {"unanswered": 1}

    def test_a_second_outcome_is_found(self, history: History) -> None:
        history.tell("id-1-1", words.DELIVERED)
        assert breaches(history) == {"answered_twice": 1}

    def test_safe_and_then_failed_is_found(self, history: History) -> None:
        history.hand("back", "k1", 60)
        history.tell("back", words.SAFE)
        history.tell("back", words.FAILED, may_be_in_kafka=True)
        history.put("back", "k1", 60)
        assert breaches(history) == {"taken_back": 1}

    def test_a_call_that_raised_is_found(self, history: History) -> None:
        history.hand("raised", "k1", 60)
        history.tell("raised", words.RAISED, detail="ValueError")
        assert breaches(history) == {"raised": 1}

    def test_a_record_that_nobody_handed_in_is_found(self, history: History) -> None:
        history.put("stranger", "k1", 60)
        history.put("", "k1", 61)
        history.spooled("stranger-2", "k1", 62)
        assert breaches(history) == {"invented": 3}

    def test_a_record_with_another_content_is_found(self, history: History) -> None:
        history.entries[0] = history.entries[0]._replace(value=value("k0", 77))
        history.entries[1] = history.entries[1]._replace(key=b"k2")
        history.entries[2] = history.entries[2]._replace(value=b"\0\0\0\0\1\xff")
        assert breaches(history) == {"altered": 3}

    def test_a_dead_letter_with_another_content_is_found_unless_it_is_packed(self, history: History) -> None:
        history.dead[0] = history.dead[0]._replace(value=dead_value("k0", 7))
        assert breaches(history) == {"altered": 1}
        history.dead[0] = history.dead[0]._replace(value=b"\x1f\x8b", is_packed=True)
        assert breaches(history) == {}

    def test_an_event_that_breaks_its_contract_has_no_business_in_the_topic(self, history: History) -> None:
        history.put("bad-100", "k0", 100)
        assert breaches(history) == {"altered": 1}

    @pytest.mark.parametrize("where", ["topic", "spool"])
    def test_refused_and_yet_there_is_found(self, history: History, where: str) -> None:
        history.hand("refused", "k1", 60)
        history.tell("refused", words.REFUSED)
        if where == "topic":
            history.put("refused", "k1", 60)
        else:
            history.spooled("refused", "k1", 60)
        assert breaches(history) == {"refused_but_there": 1}

    def test_failed_with_nothing_in_kafka_and_yet_there_is_found(self, history: History) -> None:
        history.hand("failed", "k1", 60)
        history.tell("failed", words.FAILED)
        history.put("failed", "k1", 60)
        assert breaches(history) == {"failed_but_there": 1}

    def test_told_delivered_and_only_in_the_spool_is_found(self, history: History) -> None:
        history.hand("early", "k1", 60)
        history.tell("early", words.DELIVERED, topic=TOPIC, partition=0, offset=99)
        history.spooled("early", "k1", 60)
        assert breaches(history) == {"not_where_said": 1}

    def test_a_run_that_ended_by_itself_is_found(self, history: History) -> None:
        history.journals.ended = set()
        assert breaches(history) == {"crashed_runs": 1}

    def test_what_could_not_be_read_whole_is_no_good_run(self, history: History) -> None:
        history.problems = ("events[0] begins at offset 5: older records were removed",)
        history.spool.unknown = ["0001/notes.txt"]
        history.spool.bad_ranges = 2
        assert breaches(history) == {"unreadable": 4}


def test_every_breach_is_planted_somewhere_above() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in Breaches.__slots__ if f'"{name}":' not in source and f'"{name}")' not in source] == []


def test_the_checker_knows_nothing_of_the_product() -> None:
    names = ("checker", "journals", "spool_files", "topic_logs")
    for name in names:
        tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [module for module in modules if "postroom" in module]
    script = "import sys, tests.chaos.checker; print([name for name in sys.modules if name.startswith('postroom')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestTheForms:
    def test_a_verdict_names_what_is_broken_and_an_event_to_look_at(self, history: History) -> None:
        history.hand("gone", "k1", 60)
        history.tell("gone", words.SPOOLED)
        text = str(history.judged())
        assert text.startswith("BROKEN: runs 1, handed 23")
        assert "lost: 1" in text
        assert "gone (k1 #60, run 0; told: spooled)" in text
        assert str(History().judged()).startswith("GOOD: ")

    def test_its_json_has_every_figure(self, history: History) -> None:
        form = json.loads(json.dumps(history.judged().as_json()))
        assert form["good"] is True
        assert form["breaches"]["lost"] == 0
        assert form["facts"]["handed"] == 22

    def test_only_a_few_examples_are_kept(self, history: History) -> None:
        for number in range(40):
            history.hand(f"open-{number}", "k1", 60 + number)
        verdict = history.judged()
        assert verdict.breaches.unanswered == 40
        assert len(verdict.examples["unanswered"]) == 5


class TestJournals:
    def test_what_is_written_is_read_again(self, tmp_path: Path) -> None:
        events = [Handed("a", "k1", 1, 3), Handed("b", "k2", 1, 3, is_bad=True)]
        answers = [
            Told("a", words.DELIVERED, 3, topic="t", partition=2, offset=7),
            Told("b", words.FAILED, 3, may_be_in_kafka=True, detail='with "quotes"'),
        ]
        with LineFile(handed_path(tmp_path, 3)) as file:
            for event in events:
                file.write(handed_line(event))
            file.write(end_line(3))
        with LineFile(told_path(tmp_path, 3)) as file:
            for answer in answers:
                file.write(told_line(answer))
        note_kill(tmp_path, 2)
        found = read_journals(tmp_path)
        assert (found.handed, found.told, found.ended, found.killed) == (events, answers, {3}, {2})
        assert found.runs == {3}

    def test_a_torn_last_line_is_no_line_and_a_torn_one_before_is_an_error(self, tmp_path: Path) -> None:
        path = handed_path(tmp_path, 0)
        path.write_text(handed_line(Handed("a", "k", 1, 0)) + "\n" + '{"id":"b","ke')
        found = read_journals(tmp_path)
        assert (len(found.handed), found.torn_lines) == (1, 1)
        path.write_text('{"id":"b","ke\n' + handed_line(Handed("a", "k", 1, 0)) + "\n")
        with pytest.raises(ValueError, match="line 1 cannot be read"):
            read_journals(tmp_path)

    def test_a_line_that_does_not_fit_on_the_disk_is_an_error(self, tmp_path: Path, monkeypatch: Any) -> None:
        with LineFile(tmp_path / "x") as file:
            monkeypatch.setattr("os.write", lambda _descriptor, data: len(data) - 1)
            with pytest.raises(OSError, match="bytes of the journal"):
                file.write("line")


def test_a_verdict_of_a_log_that_does_not_exist_is_not_good() -> None:
    history = History()
    log = replace(Log(TOPIC, ()), problems=("events does not exist",))
    assert not judge(history.journals, [log]).is_good
