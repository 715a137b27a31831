"""The end of a process: everything that was not closed is closed, and what a killed one left is taken over."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from postroom.services import process_life
from postroom.services.keeper import TAKE_OVER_EVERY_S
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 60.0


class Living:
    def __init__(self, error: Exception | None = None) -> None:
        self.closed = False
        self._error = error

    def close(self, timeout_s: float | None = None) -> None:
        self.closed = True
        if self._error is not None:
            raise self._error

    def after_fork_in_child(self) -> None: ...


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_life, "_living", weakref.WeakSet())


def test_one_that_raises_keeps_no_other_from_being_closed(caplog: pytest.LogCaptureFixture) -> None:
    all_of_them = [Living(), Living(RuntimeError("a secret")), Living()]
    for one in all_of_them:
        process_life.take_care_of(one)
    process_life._close_all()
    assert [one.closed for one in all_of_them] == [True, True, True]
    assert caplog.text.count("close_failed") == 1
    assert "a secret" not in caplog.text


def test_what_nobody_holds_is_not_held_here() -> None:
    process_life.take_care_of(Living())
    gc.collect()
    assert list(process_life._living) == []


def test_outside_a_worker_of_multiprocessing_there_is_nothing_to_register() -> None:
    before = set(process_life._told_by)
    process_life.close_at_worker_exit()
    assert process_life._told_by == before


# -- what a killed process left

VICTIM = """
import sys
from postroom.testing.fault_script import FaultScript
from postroom.testing.recording_service import RecordingService

faults = FaultScript()
faults.away()
service = RecordingService(spool_dir=sys.argv[1], write_ahead="fsync", faults=faults)
for number in range(200):
    event = {"user_id": "k", "timestamp": number}
    assert service.publish_event(event, event_id=f"left-{number}").safe
print("ready", flush=True)
sys.stdin.read()
"""
LEFT = [f"left-{number}" for number in range(200)]


@contextmanager
def victim(spool: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with two hundred events of one key in its slot; it is killed at the end, at the latest."""
    words = [sys.executable, "-c", VICTIM, str(spool)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


class FastClock:
    """Runs thirty times as fast as the wall's: a minute takes two seconds."""

    def monotonic(self) -> float:
        return time.monotonic() * 30

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 30)


@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
class TestWhatAKilledProcessLeft:
    def test_the_next_start_sends_before_new_events_of_the_same_key(self, tmp_path: Path, write_ahead: str) -> None:
        with victim(tmp_path) as process:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
        with RecordingService(spool_dir=tmp_path, write_ahead=write_ahead) as service:  # type: ignore[arg-type]  # one of two
            for number in range(200):
                service.publish_event({"user_id": "k", "timestamp": number}, event_id=f"new-{number}")
            wait_until_drained(service)
            books = service.ledger.total()
        assert [one.event_id for one in service.published] == [*LEFT, *(f"new-{number}" for number in range(200))]
        assert (books.taken_over, books.delivered, books.spooled, books.unaccounted) == (200, 400, 0, 0)

    def test_a_living_one_takes_over_within_a_minute(self, tmp_path: Path, write_ahead: str) -> None:
        """And from the moment on at which it has, new events of the key queue behind what was left."""
        clock = FastClock()
        service = RecordingService(spool_dir=tmp_path, write_ahead=write_ahead, clock=clock)  # type: ignore[arg-type]  # as above
        with service, victim(tmp_path) as process:
            publish_one(service, "before")
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
            died = clock.monotonic()
            number = 0
            while service.ledger.total().taken_over < 200:
                assert clock.monotonic() - died < TAKE_OVER_EVERY_S + 10, "a minute, and a little for a busy machine"
                publish_one(service, f"meanwhile-{number}")
                number += 1
            for late in range(50):
                publish_one(service, f"late-{late}")
            wait_until_drained(service)
        sent = [one.event_id for one in service.published]
        assert [event_id for event_id in sent if event_id.startswith("left")] == LEFT
        assert sent.index("left-199") < sent.index("late-0")
        assert len(sent) == len(set(sent)) == 1 + 200 + number + 50


def publish_one(service: RecordingService, event_id: str) -> None:
    service.publish_event({"user_id": "k", "timestamp": 1}, event_id=event_id)


def wait_until_drained(service: RecordingService) -> None:
    end = time.monotonic() + PATIENCE_S
    while (books := service.ledger.total()).spooled or books.pending or books.in_flight:
        assert time.monotonic() < end, books
        time.sleep(0.002)
