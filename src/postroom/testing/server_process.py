"""One server process of the local stack: started, paused, killed, stopped, and never left behind.

A process started here ends with us, however we end: by `stop`, at interpreter exit, and when this process is
killed by -9. For the last there is a guard, a small Python process that ends what it was told about when it
finds that its parent is gone. (PR_SET_PDEATHSIG would be shorter, but it fires when the *thread* that started
the child ends, and exists on Linux only.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_TAIL_BYTES = 8 * 1024
_READ_BYTES = 1024 * 1024

# Reads lines: "+pid", "-pid", and "/folder" for one that is to be removed in the end. Asks twice a second whether its
# parent is still the one it was given: the end of the pipe alone says little, because a forked child of the parent
# keeps the pipe open.
_GUARD = """
import os, select, shutil, signal, sys, time
parent, alive, folders, rest = int(sys.argv[1]), set(), [], b""
while os.getppid() == parent:
    if not select.select([0], [], [], 0.5)[0]:
        continue
    data = os.read(0, 4096)
    if not data:
        break
    *lines, rest = (rest + data).split(b"\\n")
    for line in lines:
        if line[:1] == b"/":
            folders.append(line)
        else:
            (alive.add if line[:1] == b"+" else alive.discard)(int(line[1:]))
for pid in alive:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
for folder in folders * 20:
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.exists(folder):  # the dying still wrote into it
        time.sleep(0.1)
"""


class Guard:
    """Ends the processes it watches, and removes what is temporary, when this process is gone.

    Belongs to the process that made it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, pid: int) -> None:
        """From now on `pid` is killed when this process ends."""
        self._start()
        self._tell(f"+{pid}\n")

    def remove_later(self, folder: Path) -> None:
        """From now on `folder`, an absolute path without line breaks, is removed when this process ends."""
        self._start()
        self._tell(f"{folder}\n")

    def _start(self) -> None:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own text
                [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def forget(self, pid: int) -> None:
        """`pid` has ended and its number may go to a stranger: leave it alone."""
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """Send the guard home: what it watched has been ended.

        It is killed, and not told by the end of its pipe, which a forked child of ours may hold open.
        """
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.kill()
            self._process.wait()
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process = None

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed the guard: the rest works without
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for a moment: a process must not come to life between two lines, known to nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in handlers.items():
        if handler is not None:  # None: not Python's, and not to be put back by Python
            signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        for missed in held:
            signal.raise_signal(missed)


class ServerProcess:
    """A program that can be started again and again with the same command line; its output goes to one file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        guard: Guard,
        directory: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._guard = guard
        self._directory = directory
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._launched_at = 0  # the length of the log at the last start

    @property
    def pid(self) -> int:
        """The number of the running process. Raises StackError when it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise StackError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def paused(self) -> bool:
        """Whether the process exists and was frozen by `pause`."""
        return self.running and self._paused

    def launch(self) -> None:
        """Start the process and return at once; it is not ready yet. Raises StackError if it is running already."""
        if self.running:
            raise StackError(f"{self.name} is running already")
        self._reap()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._log.open("ab") as output, _undisturbed():
                self._launched_at = output.seek(0, os.SEEK_END)
                self._process = subprocess.Popen(  # noqa: S603 - the command line is made by local_stack.py
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._directory,
                    start_new_session=True,  # Ctrl-C on the terminal is ours to answer
                )
                self._guard.watch(self._process.pid)
        except OSError as exc:
            raise StackError(f"{self.name} could not be started ({exc.strerror})") from exc
        self._paused = False

    def kill(self) -> None:
        """End the process by SIGKILL, like a power cut; it is gone on return. Does nothing when it is not running."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        self._reap()

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM, after waking it if it is paused) and return at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> None:
        """Wait for the end that `terminate` asked for; after `timeout_s` seconds end it by SIGKILL."""
        if self._process is not None:
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): its connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let the process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the process wrote, at most 8 KiB of them."""
        return "\n".join(self._read(-_TAIL_BYTES).splitlines()[-lines:])

    def said(self, *phrases: str) -> bool:
        """Whether one of the phrases stands in what the process wrote since it was started last."""
        output = self._read(self._launched_at)
        return any(phrase in output for phrase in phrases)

    def _read(self, position: int) -> str:
        """The log from a byte position on; a negative position counts from its end."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(position if position >= 0 else max(0, size + position))
                return file.read(_READ_BYTES).decode(errors="replace")
        except OSError:
            return ""

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._guard.forget(self._process.pid)
            self._process = None
            self._paused = False
