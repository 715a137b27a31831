"""The journal of accepted events: whole lines, with the operating system before anybody hears the answer."""

from __future__ import annotations

import errno
import json
import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.libs.exceptions import DecodeError, JournalError
from postroom.services.journal import AcceptedJournal, Base64, JournalEntry, read_journal

if TYPE_CHECKING:
    from pathlib import Path


def lines(path: Path) -> list[dict[str, object]]:
    """The file as any JSON reader sees it."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Disk:
    """Writes at most `step` bytes at a time, and nothing beyond `capacity` bytes in all."""

    def __init__(self, step: int = 10**9, capacity: int = 10**9) -> None:
        self.step = step
        self.left = capacity

    def write(self, descriptor: int, data: memoryview) -> int:
        """As `os.write`, but short, or with no space left."""
        size = min(self.step, self.left, len(data))
        if not size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= size
        return os.write(descriptor, data[:size])


def broken(_: int, __: int) -> None:
    """A file system that cannot even cut a file."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_line_is_as_documented(tmp_path: Path) -> None:
    """Four names that everybody knows, the run, and a mark on dead letters only."""
    path = tmp_path / "a.ndjson"
    with AcceptedJournal(path, run="r1") as journal:
        journal.accepted("id-1", b"u1", "user_events", 17)
        journal.accepted("id-2", None, "user_events.dlq", 18, dead_letter=True)
        journal.accepted("id-3", b"\xff", "user_events", 19)
    assert lines(path) == [
        {"event_id": "id-1", "key": "u1", "topic": "user_events", "sequence": 17, "run": "r1"},
        {
            "event_id": "id-2",
            "key": None,
            "topic": "user_events.dlq",
            "sequence": 18,
            "run": "r1",
            "dead_letter": True,
        },
        {"event_id": "id-3", "key": {"base64": "/w=="}, "topic": "user_events", "sequence": 19, "run": "r1"},
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_line_is_in_the_file_when_accepted_returns(tmp_path: Path) -> None:
    """Nothing waits in this process: whoever is killed now leaves the line behind."""
    path = tmp_path / "a.ndjson"
    with AcceptedJournal(path) as journal:
        for number in range(3):
            journal.accepted(f"id-{number}", b"k", "t", number)
            assert len(lines(path)) == number + 1


@given(
    entries=st.lists(
        st.tuples(
            st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40),
            st.none() | st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "ignore")),
            st.integers(0, 2**63 - 1),
            st.booleans(),
        ),
        max_size=5,
    )
)
@settings(max_examples=100, deadline=None)
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes | None, int, bool]]
) -> None:
    """Any key, any number, in order."""
    path = tmp_path_factory.mktemp("journal") / "a.ndjson"
    with AcceptedJournal(path) as journal:
        for event_id, key, sequence, dead_letter in entries:
            journal.accepted(event_id, key, "t", sequence, dead_letter=dead_letter)
    back = [(entry.event_id, entry.key_bytes(), entry.sequence, entry.dead_letter) for entry in read_journal(path)]
    assert back == entries


def test_a_file_is_continued_and_runs_are_told_apart(tmp_path: Path) -> None:
    """A second run writes behind the first; its numbers start anew, and its name says so."""
    path = tmp_path / "a.ndjson"
    for _ in range(2):
        with AcceptedJournal(path) as journal:
            journal.accepted("id", None, "t", 1)
    first, second = read_journal(path)
    assert first.run != second.run


@pytest.mark.parametrize("torn", ["", "x" * 10, '{"event_id":"id-9"', "x" * 200_000])
def test_the_torn_line_of_a_dead_process_is_cut_off(tmp_path: Path, torn: str) -> None:
    """What is written next stands on a line of its own."""
    path = tmp_path / "a.ndjson"
    with AcceptedJournal(path) as journal:
        journal.accepted("id-1", None, "t", 1)
    with path.open("a") as file:
        file.write(torn)
    with AcceptedJournal(path) as journal:
        journal.accepted("id-2", None, "t", 2)
    assert [entry.event_id for entry in read_journal(path)] == ["id-1", "id-2"]


def test_a_file_that_is_one_torn_line_starts_anew(tmp_path: Path) -> None:
    """There is nothing whole in it."""
    path = tmp_path / "a.ndjson"
    path.write_text("x" * 100_000)
    with AcceptedJournal(path) as journal:
        journal.accepted("id-1", None, "t", 1)
    assert len(lines(path)) == 1


def test_short_writes_are_continued(tmp_path: Path) -> None:
    """The operating system may take any part of a line at a time."""
    path = tmp_path / "a.ndjson"
    with AcceptedJournal(path, write=Disk(step=3).write) as journal:
        journal.accepted("id-1", b"k", "t", 1)
    assert [entry.event_id for entry in read_journal(path)] == ["id-1"]


def test_a_full_disk_is_a_typed_error_and_leaves_whole_lines(tmp_path: Path) -> None:
    """No half line stays, and once there is room the journal goes on."""
    path = tmp_path / "a.ndjson"
    disk = Disk(step=7, capacity=100)
    with AcceptedJournal(path, run="r", write=disk.write) as journal:
        journal.accepted("id-1", b"k", "t", 1)
        with pytest.raises(JournalError, match="No space left") as caught:
            journal.accepted("id-2", b"k", "t", 2)
        assert caught.value.remedy
        assert len(lines(path)) == 1
        disk.left = 1000
        journal.accepted("id-3", b"k", "t", 3)
    assert [entry.event_id for entry in read_journal(path)] == ["id-1", "id-3"]


def test_a_write_of_nothing_is_no_endless_loop(tmp_path: Path) -> None:
    """An operating system that takes nothing has no room."""
    with (
        AcceptedJournal(tmp_path / "a", write=lambda _, __: 0) as journal,
        pytest.raises(JournalError, match="No space left"),
    ):
        journal.accepted("id-1", None, "t", 1)


def test_a_half_line_that_cannot_be_taken_back_ends_the_journal(tmp_path: Path) -> None:
    """A line glued to half a line would be lost: better none at all, and loud."""
    path = tmp_path / "a.ndjson"
    with AcceptedJournal(path, write=Disk(step=7, capacity=20).write, truncate=broken) as journal:
        for _ in range(2):
            with pytest.raises(JournalError):
                journal.accepted("id-1", None, "t", 1)
    assert list(read_journal(path)) == []


def test_lines_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    """Also when each line takes many writes."""
    path = tmp_path / "a.ndjson"
    with AcceptedJournal(path, write=Disk(step=5).write) as journal:

        def accept(worker: int) -> None:
            for number in range(50):
                journal.accepted(f"{worker}-{number}", b"k" * 30, "t", number)

        threads = [threading.Thread(target=accept, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({entry.event_id for entry in read_journal(path)}) == 200


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    """Nobody shall believe that something was written."""
    journal = AcceptedJournal(tmp_path / "a.ndjson")
    with pytest.raises(JournalError, match="not open"):
        journal.accepted("id-1", None, "t", 1)
    with journal, journal:
        journal.accepted("id-1", None, "t", 1)
    journal.close()
    with pytest.raises(JournalError, match="not open"):
        journal.accepted("id-1", None, "t", 1)


def test_a_path_that_cannot_be_opened_is_a_typed_error(tmp_path: Path) -> None:
    """A folder, a missing folder."""
    for path in (tmp_path, tmp_path / "no" / "such"):
        with pytest.raises(JournalError, match="could not be opened"):
            AcceptedJournal(path).open()
        with pytest.raises(JournalError, match="could not be read"):
            list(read_journal(path))


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """What is no regular file is neither cut nor measured."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with AcceptedJournal(path) as journal:
            journal.accepted("id-1", None, "t", 1)
        assert json.loads(os.read(reader, 1000))["event_id"] == "id-1"
    finally:
        os.close(reader)


GOOD = b'{"event_id":"id-1","key":null,"topic":"t","sequence":1}\n'


@pytest.mark.parametrize("cut", range(len(GOOD)))
def test_a_last_line_cut_anywhere_is_ignored_or_whole(tmp_path: Path, cut: int) -> None:
    """Cut at every byte: only the line without its line feed is whole."""
    path = tmp_path / "a.ndjson"
    path.write_bytes(GOOD + GOOD[:cut])
    assert len(list(read_journal(path))) == (2 if cut == len(GOOD) - 1 else 1)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"secret\n",
        b'{"event_id":"id","key":1,"topic":"t","sequence":1}\n',
        b'{"event_id":"id","key":{"base64":"?"},"topic":"t","sequence":1}\n',
        b'{"event_id":"id","key":null,"topic":"t","sequence":"1"}\n',
        b'{"event_id":"id","key":null,"topic":"t"}\n',
        b'{"event_id":"\xff","key":null,"topic":"t","sequence":1}\n',
        b"[" * 100_000 + b"\n",
        GOOD[:20] + GOOD,
    ],
    ids=lambda line: repr(line[:40]),
)
@pytest.mark.parametrize("behind", [b"", GOOD])
def test_any_other_broken_line_is_named_by_its_number(tmp_path: Path, line: bytes, behind: bytes) -> None:
    """With file and number, without its content."""
    path = tmp_path / "a.ndjson"
    path.write_bytes(GOOD + line + behind)
    with pytest.raises(DecodeError, match=r"a\.ndjson: line 2 is no line") as caught:
        list(read_journal(path))
    assert "secret" not in str(caught.value)


def test_names_from_the_future_are_ignored(tmp_path: Path) -> None:
    """A newer writer may say more."""
    path = tmp_path / "a.ndjson"
    path.write_bytes(GOOD.replace(b"}", b',"more":[1]}'))
    assert list(read_journal(path)) == [JournalEntry("id-1", None, "t", 1)]


def test_a_key_that_looks_like_base64_is_text(tmp_path: Path) -> None:
    """Text and base64 cannot be mistaken for each other."""
    path = tmp_path / "a.ndjson"
    with AcceptedJournal(path) as journal:
        journal.accepted("id-1", b'{"base64":"/w=="}', "t", 1)
        journal.accepted("id-2", b"\xff", "t", 2)
    first, second = read_journal(path)
    assert first.key_bytes() == b'{"base64":"/w=="}'
    assert second.key == Base64("/w==")
