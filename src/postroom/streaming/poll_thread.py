"""The thread that handles reports, and how the others share the interpreter with it.

Facts this file is built on (measured with librdkafka 2.16.0 and CPython 3.11):
- Each delivery callback takes the interpreter lock anew. Beside a producing thread that never rests each of them waits
  for up to 5 ms: 17 % were handled when such a loop of 100,000 records ended. So a producing caller polls for
  itself every so many records, and this thread keeps away meanwhile.
- An exception from a signal handler (Ctrl-C, a time limit) strikes the main thread wherever it is. Inside a delivery
  callback it costs that report and, for Ctrl-C before Python 3.12, comes out as a SystemError of `poll` (144 of 157
  times). So the main thread does not poll: it asks this thread to, and stands aside until it has.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A producer is busy when it took this many records since the thread last looked (every 5 ms).
_BUSY_RECORDS = 32
_BUSY_PAUSE_S = 0.005
# How late an idle client hears that a connection went or came.
_IDLE_WAIT_S = 0.1
_POLL_S = 0.005
# How long the main thread stands aside at most.
_ASIDE_S = 0.05


class PollThread:
    """Calls `turn(seconds)` again and again, which polls for up to so long, until `stop()`.

    `has_work()` says whether a turn can bring anything, `taken()` how many records were taken since the start.
    `turn` must not raise.
    """

    def __init__(self, turn: Callable[[float], None], has_work: Callable[[], bool], taken: Callable[[], int]) -> None:
        self._turn = turn
        self._has_work = has_work
        self._taken = taken
        self._calls: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True asks for an answer
        self._answers: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = False
        self._busy = False
        self.idle = False
        self._thread = threading.Thread(target=self._run, name="postroom-poll", daemon=True)

    def start(self) -> None:
        """Start it; RuntimeError when the system has no thread left."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End it, and wait up to `timeout_s` seconds until it has ended."""
        self._stopping = True
        self.wake()
        self._thread.join(timeout_s)

    def is_alive(self) -> bool:
        """Return whether it runs."""
        return self._thread.is_alive()

    def is_current(self) -> bool:
        """Return whether the caller is this thread."""
        return threading.current_thread() is self._thread

    def wake(self) -> None:
        """Tell it that there is work; needed only when it is `idle`."""
        self.idle = False
        self._calls.put(False)  # noqa: FBT003 - no answer is asked for

    def stand_aside(self) -> None:
        """Let it have one turn without the caller in its way. For the main thread only."""
        while not self._answers.empty():  # to a question whose answer was not waited for
            self._answers.get()
        self._calls.put(True)  # noqa: FBT003 - an answer is asked for
        with contextlib.suppress(queue.Empty):
            self._answers.get(timeout=_ASIDE_S)

    def _run(self) -> None:
        seen = 0
        while not self._stopping:
            asked = self._wait_for_work()
            taken = self._taken()
            self._busy, seen = asked or taken - seen >= _BUSY_RECORDS, taken
            self._turn(0.0 if self._busy else _POLL_S)
            if asked:
                self._answers.put(None)

    def _wait_for_work(self) -> bool:
        """Wait while there is nothing to do, or while others poll; True when the main thread waits for an answer."""
        pause_s = _BUSY_PAUSE_S if self._busy else 0.0
        if not self._busy and not self._has_work():
            self.idle = True
            if not self._has_work():  # it came between the two lines: then nobody wakes us
                pause_s = _IDLE_WAIT_S
        asked = False
        with contextlib.suppress(queue.Empty):
            asked = self._calls.get(timeout=pause_s)
            while True:
                asked = self._calls.get_nowait() or asked
        self.idle = False
        return asked
