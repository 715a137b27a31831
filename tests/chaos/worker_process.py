"""A worker as its driver sees it: started, watched, killed, ended, started again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from tests.chaos.journals import note_kill
from tests.chaos.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_START_S = 60.0
_END_S = 120.0


class WorkerProcess:
    """One worker after the other on the same journals; each has the next number."""

    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        self.folder = folder
        self.run = -1
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._progress: Progress | None = None

    @property
    def progress(self) -> Progress:
        """The counters of the run that was started last."""
        assert self._progress is not None
        return self._progress

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *more: str) -> float:
        """Start the next run; return the seconds until its first event was handed in and, if it is told, safe."""
        self.run += 1
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.chaos.worker", "--folder", str(self.folder), "--run", str(self.run)]
        with (self.folder / f"worker-{self.run:04d}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")},
            )
        path = self.folder / f"progress-{self.run:04d}.bin"

        def has_begun() -> bool:
            self._progress = self._progress or Progress.of(path)
            return self._progress is not None and self._progress["handed"] > 0

        if self._progress is not None:
            self._progress.close()
        self._progress = None
        self._wait(has_begun, _START_S, "hand in anything")
        return time.monotonic() - began

    def kill(self, chance: random.Random, *, at_least: int, patience_s: float) -> dict[str, Any]:
        """Kill it (-9) at a random moment with at least so many open events; return what was open when it was gone.

        Waits up to `patience_s` for such a moment, then kills it all the same: the answer says how many there were.
        """
        deadline = time.monotonic() + patience_s
        while self.progress.open < at_least and self.is_running and time.monotonic() < deadline:
            time.sleep(0.0005)  # a moment of a few milliseconds: whoever sleeps longer misses it
        later = time.monotonic() + chance.uniform(0, 0.008)  # also while requests are under way, not only before
        while time.monotonic() < later:
            pass
        note_kill(self.folder, self.run)
        return self.kill_now()

    def kill_now(self) -> dict[str, Any]:
        """Kill it at once. Its journal must say so before."""
        assert self._process is not None
        pid = self._process.pid
        self._process.kill()
        code = self._process.wait()
        return {"pid": pid, "exit_code": code, "unanswered": self.progress.open, "handed": self.progress["handed"]}

    def rest(self) -> None:
        """Let it hand in nothing more, and stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)

    def end(self, timeout_s: float = _END_S) -> tuple[int | None, float]:
        """End it in good order; return its exit code and the seconds it took. None: it had to be killed."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        try:
            return self._process.wait(timeout_s), time.monotonic() - began
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None, time.monotonic() - began

    def close(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> dict[str, Any]:
        """What the last run reported when it ended in good order; nothing when it did not."""
        for line in reversed(self.log_tail().splitlines()):
            with contextlib.suppress(ValueError):
                told: dict[str, Any] = json.loads(line)
                if told.get("state") == "ended":
                    return told
        return {}

    def log_tail(self, size: int = 3_000) -> str:
        """The end of what the last run printed."""
        return (self.folder / f"worker-{self.run:04d}.log").read_bytes()[-size:].decode(errors="replace")

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.is_running or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"run {self.run} of the worker did not {what}. Its output ends:\n{self.log_tail()}")
            time.sleep(0.005)  # another process, in real time
