"""Lines of NDJSON as they really come: every kind of line end and rubbish, one event each, in bounded memory."""

from __future__ import annotations

import io
import os
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from postroom.libs.event import DeadLettered, Delivered
from postroom.libs.exceptions import ConfigurationError
from postroom.services import event_source
from postroom.services.event_source import generated, lines_of
from postroom.services.stoppable_input import InputStoppedError
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from pathlib import Path

GOOD = b'{"user_id": "u1", "timestamp": 1}'

FILES = [
    ("nothing at all", b"", []),
    ("only blank lines", b"\n\n \t\n\r\n", []),
    ("one line without an end", GOOD, [GOOD]),
    ("line feeds", GOOD + b"\n" + GOOD + b"\n", [GOOD, GOOD]),
    ("carriage returns and line feeds", GOOD + b"\r\n" + GOOD + b"\r\n", [GOOD, GOOD]),
    ("blank lines between", b"\n" + GOOD + b"\n\n\n" + GOOD + b"\n \n", [GOOD, GOOD]),
    ("a byte order mark at the beginning", b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD, [GOOD, GOOD]),
    ("a byte order mark alone", b"\xef\xbb\xbf\n", []),
    ("a torn last line", GOOD + b"\n" + GOOD[:10], [GOOD, GOOD[:10]]),
    ("bytes that are no text", b"\xff\xfe\x00\n" + GOOD, [b"\xff\xfe\x00", GOOD]),
    ("zero bytes inside", b"\x00\x00\n" + GOOD, [b"\x00\x00", GOOD]),
]


@pytest.mark.parametrize(("what", "content", "lines"), FILES, ids=[name for name, _, _ in FILES])
def test_a_file_gives_its_lines_and_nothing_else(what: str, content: bytes, lines: list[bytes], tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(content)
    assert list(lines_of(str(file))) == lines


def test_standard_input_is_read_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(GOOD + b"\r\n\n" + GOOD)))
    assert list(lines_of("-")) == [GOOD, GOOD]


def test_a_line_that_is_too_long_is_cut_and_the_next_one_is_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(event_source, "LINE_CAP_BYTES", 100)
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"x" * 1_050 + b"\n" + GOOD + b"\n" + b"y" * 100 + b"\n" + b"z" * 99 + b"\n")
    assert list(lines_of(str(file))) == [b"x" * 100, GOOD, b"y" * 100, b"z" * 99]


@pytest.mark.parametrize("name", ["nowhere.ndjson", "."])
def test_what_cannot_be_read_is_a_setting_to_mend(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        list(lines_of(str(tmp_path / name)))
    assert str(tmp_path) in caught.value.message
    assert caught.value.remedy


def test_a_hundred_megabytes_in_one_line_end_as_one_dead_letter_and_the_next_event_goes_through(
    tmp_path: Path,
) -> None:
    file = tmp_path / "events.ndjson"
    with file.open("wb") as out:
        out.write(b'{"user_id": "')
        for _ in range(100):
            out.write(b"x" * 1_000_000)
        out.write(b'", "timestamp": 1}\n' + GOOD + b"\n")
    with RecordingService() as post:
        outcomes = [post.publish_event(line).result(10) for line in lines_of(str(file))]
        assert [type(outcome) for outcome in outcomes] == [DeadLettered, Delivered]
        (letter,) = post.publisher.records[:1]
        assert len(letter.value or b"") < 1_000_000


def test_one_bad_line_of_ten_thousand_is_the_only_dead_letter() -> None:
    with RecordingService() as post:
        lines = [b'{"user_id": "u%d", "timestamp": %d}' % (number, number) for number in range(10_000)]
        lines[7_777] = b'{"user_id": "u7777", "timestamp": 7777'
        result = post.publish_many(lines)
        assert (result.delivered, result.dead_lettered) == (9_999, 1)
        assert [problem.index for problem in result.problems] == [7_777]


def test_a_file_of_nothing_but_rubbish_is_all_dead_letters() -> None:
    with RecordingService() as post:
        result = post.publish_many(b"rubbish %d" % number for number in range(1_000))
        assert (result.received, result.dead_lettered) == (1_000, 1_000)
        assert post.ledger.total().unaccounted == 0


def test_generated_events_are_the_same_for_the_same_seed() -> None:
    def without_time(seed: int) -> list[dict[str, object]]:
        return [{**event, "timestamp": 0} for event in generated(seed, 0.3, 200)]

    assert without_time(3) == without_time(3) != without_time(4)


class TestStopped:
    """Whoever ends a run does not wait for one who writes into its source now and then."""

    def test_what_was_written_is_read_and_then_the_waiting_ends(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        stopped: list[bool] = []
        lines = lines_of(str(tmp_path / "pipe"), lambda: bool(stopped))
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(GOOD + b"\n" + GOOD[:5],))
        writer.start()
        assert next(lines) == GOOD
        writer.join()
        assert list(lines) == [GOOD[:5]], "who wrote has closed it: that is its end"

        lines = lines_of(str(tmp_path / "pipe"), lambda: bool(stopped))
        threading.Timer(0.05, stopped.append, (True,)).start()
        with pytest.raises(InputStoppedError):
            next(lines)

    def test_it_is_read_as_fast_and_as_whole_as_a_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        content = b"".join(b"%d\n" % number for number in range(300_000))
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
        writer.start()
        assert b"\n".join(lines_of(str(tmp_path / "pipe"), lambda: False)) + b"\n" == content
        writer.join()
