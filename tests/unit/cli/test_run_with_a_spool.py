"""What a run promises with a spool, on the double: it hands in no faster than events are taken, waits, and adds up."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from errno import ENOSPC
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from postroom.cli.run_view import Lines, spool_line, tell_summary, waiting_words
from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLetterReason, Refused, RefusedReason
from postroom.services.producer_main import Run, RunOptions
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.services.receipt import Receipt

PATIENCE_S = 30.0
BOTH_WAYS = pytest.mark.parametrize("write_ahead", ["off", "fsync"])


class FastClock:
    """Runs twenty times as fast as the wall's: patience takes milliseconds."""

    def monotonic(self) -> float:
        return time.monotonic() * 20

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 20)


def run_with(folder: Path | None, write_ahead: str = "off", **options: Any) -> tuple[Run, RecordingService]:
    spool = {} if folder is None else {"spool.dir": str(folder), "spool.write_ahead": write_ahead}
    config = load_config(environ={}, overrides=spool)
    service = RecordingService(config=config, clock=FastClock())
    return Run(config, RunOptions(**options), clock=FastClock(), service=service), service


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def close_the_path(service: RecordingService) -> None:
    """Let Kafka be away, and the next event go to the spool at once. Takes one event."""
    service.faults.away()
    service.publish_event({"user_id": "u1", "timestamp": 1}).result(PATIENCE_S)


class TestFeeding:
    @BOTH_WAYS
    def test_everything_is_delivered_and_nothing_is_left(self, write_ahead: str, tmp_path: Path) -> None:
        run, _ = run_with(tmp_path, write_ahead, count=500, seed=1)
        with run:
            run.feed()
            run.finish()
        now = run.summary()
        assert (now.received, now.delivered, now.spooled, now.taken_over, now.unaccounted) == (500, 500, 0, 0, 0)
        assert run.exit_code() == 0

    @BOTH_WAYS
    def test_with_a_full_disk_it_refuses_one_event_at_a_time_and_goes_on_when_there_is_room(
        self, write_ahead: str, tmp_path: Path
    ) -> None:
        run, service = run_with(tmp_path, write_ahead, count=100, seed=1, drain_timeout_s=0.0)
        refused: list[Refused] = []
        answered: list[Receipt] = []

        def count(receipt: Receipt) -> None:
            outcome = receipt.outcome
            if isinstance(outcome, Refused):
                refused.append(outcome)
                if len(refused) == 2:
                    service.faults.disk_mended()

        def note(receipt: Receipt) -> None:
            answered.append(receipt)
            receipt.listen(count)
            if len(answered) <= 21:  # slowly at first: what is in memory when the disk says no is refused with it
                wait_until(lambda: receipt.safe or receipt.done())
            if len(answered) == 20:
                service.faults.disk_error("write", code=ENOSPC)

        with run:
            close_the_path(service)
            run.feed(note)
            run.finish()
        now = run.summary()
        assert now.refused_by_reason == {"spool_full": 2}
        assert {one.reason for one in refused} == {RefusedReason.SPOOL_FULL}
        assert (now.received, now.spooled, now.failed, now.unaccounted) == (101, 99, 0, 0)
        assert run.exit_code() == 3

    def test_a_stop_ends_the_waiting_for_room(self, tmp_path: Path) -> None:
        run, service = run_with(tmp_path, drain_timeout_s=0.0)
        with run:
            close_the_path(service)
            service.faults.disk_error("write", code=ENOSPC)
            feeding = threading.Thread(target=run.feed)
            feeding.start()
            wait_until(lambda: run.summary().refused)
            run.stop()
            feeding.join(PATIENCE_S)
            assert not feeding.is_alive()
            service.faults.all_well()

    def test_the_end_of_its_time_ends_the_waiting_for_room(self, tmp_path: Path) -> None:
        run, service = run_with(tmp_path, duration_s=5.0, drain_timeout_s=0.0)
        with run:
            close_the_path(service)
            service.faults.disk_error("write", code=ENOSPC)
            run.feed()
            service.faults.all_well()
        assert run.summary().refused


class TestFinishing:
    @BOTH_WAYS
    def test_it_waits_for_the_spool_to_empty(self, write_ahead: str, tmp_path: Path) -> None:
        run, service = run_with(tmp_path, write_ahead, count=50, seed=1)
        with run:
            service.faults.away()
            run.feed()
            wait_until(lambda: run.summary().spooled == 50)
            waiting = threading.Thread(target=run.finish)
            waiting.start()
            wait_until(lambda: run.finishing_for_s is not None)
            assert waiting.is_alive()
            service.faults.back()
            waiting.join(PATIENCE_S)
            assert run.finishing_for_s is None
        now = run.summary()
        assert (now.delivered, now.spooled) == (50, 0)
        assert run.exit_code() == 0

    def test_what_is_left_after_its_time_is_told_by_number_and_exit_code(self, tmp_path: Path) -> None:
        run, service = run_with(tmp_path, count=50, seed=1, drain_timeout_s=2.0)
        with run:
            service.faults.away()
            run.feed()
            run.finish()
        now = run.summary()
        assert (now.accepted, now.spooled, now.pending, now.unaccounted) == (50, 50, 0, 0)
        assert run.exit_code() == 4

    @pytest.mark.parametrize(("signals", "code"), [([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGTERM], 4)])
    def test_ctrl_c_twice_or_sigterm_ends_the_waiting_and_loses_nothing(
        self, signals: list[signal.Signals], code: int, tmp_path: Path
    ) -> None:
        run, service = run_with(tmp_path, count=50, seed=1, drain_timeout_s=1e6)
        with run:
            service.faults.away()
            run.handle_signals()
            run.feed()
            wait_until(lambda: run.summary().spooled == 50)

            def end_it() -> None:
                wait_until(lambda: run.finishing_for_s is not None)
                for number in signals:
                    os.kill(os.getpid(), number)
                    wait_until(lambda: run.interrupted or run._terminated)  # two at once would count as one

            ending = threading.Thread(target=end_it)
            ending.start()
            run.finish()
            ending.join(PATIENCE_S)
        assert run.summary().spooled == 50
        assert run.exit_code() == code

    def test_dead_letters_that_the_broker_refuses_are_not_waited_for(self, tmp_path: Path) -> None:
        run, service = run_with(tmp_path, count=5, invalid_ratio=1.0, seed=1, drain_timeout_s=1e6)
        with run:
            service.faults.away()
            run.feed()
            wait_until(lambda: run.summary().spooled == 5)
            for _ in range(5):
                service.fail_next(reason=DeadLetterReason.MESSAGE_TOO_LARGE)
            service.faults.back()
            run.finish()
        assert run.summary().spooled == 5
        assert run.exit_code() == 4


class TestTakingOver:
    def left_by_another(self, folder: Path, count: int) -> None:
        run, service = run_with(folder, count=count, seed=2, drain_timeout_s=0.0)
        with run:
            service.faults.away()
            run.feed()
            run.finish()
        assert run.summary().spooled == count

    def test_what_an_earlier_run_left_is_sent_and_told_apart(self, tmp_path: Path) -> None:
        self.left_by_another(tmp_path, 30)
        run, _ = run_with(tmp_path, count=10, seed=1)
        with run:
            assert run.wait_until_counted(PATIENCE_S)
            run.feed()
            run.finish()
        now = run.summary()
        assert (now.received, now.taken_over, now.accepted, now.delivered) == (40, 30, 40, 40)
        assert now.events_per_s < 11 / now.elapsed_s
        assert run.exit_code() == 0

    def test_it_is_left_again_while_kafka_is_away(self, tmp_path: Path) -> None:
        self.left_by_another(tmp_path, 30)
        run, service = run_with(tmp_path, count=10, seed=1, drain_timeout_s=1.0)
        with run:
            service.faults.away()
            run.feed()
            run.finish()
        now = run.summary()
        assert (now.taken_over, now.unaccounted, now.pending) == (30, 0, 0)
        assert now.received == now.accepted == now.delivered + now.spooled == 40
        assert run.exit_code() == 4 if now.spooled else 0

    def test_what_the_disk_lost_is_told_and_no_success(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.left_by_another(tmp_path, 30)
        (segment,) = (tmp_path / "0001" / "records").glob("*.seg")
        data = bytearray(segment.read_bytes())
        data[data.find(b"ce_id", 3000)] ^= 1
        segment.write_bytes(data)
        run, _ = run_with(tmp_path, count=10, seed=1)
        with run:
            run.feed()
            run.finish()
            wait_until(lambda: run.summary().quarantined)
        now = run.summary()
        assert (now.delivered, now.spooled, now.quarantined, now.unaccounted) == (39, 0, 1, 0)
        assert run.exit_code() == 1
        tell_summary(Console(width=120), now)
        assert "unreadable on the disk" in capsys.readouterr().out


class TestTheView:
    def test_an_outage_is_told_behind_each_line(self, tmp_path: Path) -> None:
        run, service = run_with(tmp_path, count=7, seed=1, drain_timeout_s=0.0)
        with run:
            assert spool_line(run.summary(), run) == ""
            service.faults.away()
            run.feed()
            wait_until(lambda: run.summary().spooled == 7)
            told = spool_line(run.summary(), run)
            assert "spooled 7  oldest " in told
            assert "user_events spooling" in told
            assert "(kafka_unavailable)" in told
            run._finish_by = FastClock().monotonic() + 55
            assert re.match(r"waits [0-9]+ s more for the spool to empty; ", waiting_words(run))
            assert "Ctrl-C twice ends that" in waiting_words(run)
            with Lines(run, lambda _: None):
                pass

    def test_without_a_spool_nothing_is_said_of_one(self) -> None:
        run, _ = run_with(None, count=7, seed=1)
        with run:
            run.feed()
            run._finish_by = 0.0
            assert (spool_line(run.summary(), run), waiting_words(run)) == ("", "")
            run.finish()
