"""A process of the stack, shown with `sleep` and `sh` in the place of Java."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import StackError
from postroom.testing import server_process
from postroom.testing.server_process import Guard, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard()
    yield guard
    guard.close()


@pytest.fixture
def sleeper(guard: Guard, tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess("sleeper", ["sleep", "60"], log=tmp_path / "log", guard=guard)
    yield process
    process.kill()


def state(pid: int) -> str:
    """The letter that ps shows: T is stopped."""
    return subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout[:1]


def end_kindly(process: ServerProcess) -> None:
    process.terminate()
    process.wait(10)


@pytest.mark.parametrize("end", [ServerProcess.kill, end_kindly])
def test_it_can_be_started_and_ended_again_and_again(
    sleeper: ServerProcess, end: Callable[[ServerProcess], None]
) -> None:
    pids, running = set(), []
    for _ in range(2):
        sleeper.launch()
        running.append(sleeper.running)
        pids.add(sleeper.pid)
        end(sleeper)
        running.append(sleeper.running)
    assert running == [True, False, True, False]
    assert len(pids) == 2
    end(sleeper)


def test_what_does_not_run_has_no_number_and_cannot_be_paused(sleeper: ServerProcess) -> None:
    for ask in (lambda: sleeper.pid, sleeper.pause, sleeper.resume):
        with pytest.raises(StackError, match="sleeper is not running"):
            ask()


def test_a_second_start_is_refused(sleeper: ServerProcess) -> None:
    sleeper.launch()
    with pytest.raises(StackError, match="running already"):
        sleeper.launch()


def test_pause_freezes_it_and_resume_lets_it_go_on(sleeper: ServerProcess) -> None:
    sleeper.launch()
    sleeper.pause()
    assert (sleeper.paused, state(sleeper.pid)) == (True, "T")
    sleeper.resume()
    assert (sleeper.paused, state(sleeper.pid)) == (False, "S")


def test_a_paused_one_can_be_terminated(sleeper: ServerProcess) -> None:
    sleeper.launch()
    sleeper.pause()
    sleeper.terminate()
    sleeper.wait(10)
    assert (sleeper.running, sleeper.paused) == (False, False)


def test_who_does_not_end_when_asked_is_killed(guard: Guard, tmp_path: Path) -> None:
    deaf = ServerProcess(
        "deaf", ["sh", "-c", "trap '' TERM; echo up; exec sleep 60"], log=tmp_path / "log", guard=guard
    )
    deaf.launch()
    while not deaf.said("up"):
        assert deaf.running
    deaf.terminate()
    deaf.wait(0.05)
    assert not deaf.running


def test_a_program_that_does_not_exist_is_a_stack_error(guard: Guard, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="could not be started"):
        ServerProcess("ghost", [str(tmp_path / "none")], log=tmp_path / "log", guard=guard).launch()


def test_the_log_s_end_is_shown_and_only_the_last_run_is_searched(guard: Guard, tmp_path: Path) -> None:
    talker = ServerProcess(
        "talker", ["sh", "-c", "cat text; exit"], log=tmp_path / "log", guard=guard, directory=tmp_path
    )
    assert talker.log_tail() == ""
    for text in ("first " * 10_000, "one\ntwo\nthree\n"):
        (tmp_path / "text").write_text(text, encoding="utf-8")
        talker.launch()
        talker.wait(10)
    assert talker.log_tail(2) == "two\nthree"
    assert len(talker.log_tail(1_000)) <= 8 * 1024
    assert talker.said("nothing", "three")
    assert not talker.said("first")


def test_an_interrupt_while_a_process_is_being_started_comes_after_it_is_known(
    sleeper: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen

    def interrupted(*args: object, **options: object) -> object:
        process = real(*args, **options)  # type: ignore[call-overload]  # handed through as it came
        os.kill(os.getpid(), signal.SIGINT)
        return process

    monkeypatch.setattr(server_process.subprocess, "Popen", interrupted)  # type: ignore[attr-defined]  # the module's own import
    with pytest.raises(KeyboardInterrupt):
        sleeper.launch()
    monkeypatch.undo()
    assert sleeper.running


def test_a_guard_that_somebody_killed_keeps_nothing_from_working(sleeper: ServerProcess, guard: Guard) -> None:
    sleeper.launch()
    assert guard._process is not None
    guard._process.kill()
    guard._process.wait()
    sleeper.kill()
    sleeper.launch()
    assert sleeper.running
