"""The receipt: what a caller holds while its event is on its way."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from typing import TYPE_CHECKING

from postroom.libs.exceptions import ReceiptTimeoutError
from postroom.libs.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.event import Delivered, Outcome, Spooled

# One lock for all receipts: it is held for a few instructions, and a lock for each would cost more than it saves.
_lock = threading.Lock()


class Receipt:
    """Stands for one event that was handed in. Its outcome comes exactly once and never changes.

    `event_id` is the id under which the event travels. The receipt is open until the event is delivered,
    spooled, dead-lettered, refused or failed.
    """

    __slots__ = ("__weakref__", "_ahead", "_listeners", "_outcome", "event_id")

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id
        self._outcome: Outcome | None = None
        self._ahead = False
        self._listeners: list[Callable[[Receipt], None]] | None = None

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, or None while the event is on its way."""
        return self._outcome

    @property
    def safe(self) -> bool:
        """True from the moment on at which the event is in Kafka, in the dead letter topic or in the spool."""
        outcome = self._outcome
        return self._ahead if outcome is None else outcome.is_safe

    def written_ahead(self) -> None:
        """Say that the event is on the disk: safe from now on, whatever its outcome will be; for postroom's own use."""
        self._ahead = True

    def done(self) -> bool:
        """Return whether the outcome is known."""
        return self._outcome is not None

    def result(self, timeout: float | None = None) -> Outcome:
        """Wait for the outcome, at most `timeout` seconds (None: as long as it takes).

        Raises ReceiptTimeoutError, which is also a TimeoutError, when the outcome is not known by then; the event
        stays on its way.
        """
        if self._outcome is None and not self._wait(timeout):
            raise ReceiptTimeoutError(
                f"the outcome of event {self.event_id} is not known after {timeout} s",
                remedy="ask the receipt again later; the event is still on its way",
            )
        assert self._outcome is not None
        return self._outcome

    def _wait(self, timeout: float | None) -> bool:
        arrived = threading.Event()

        def listener(_: Receipt) -> None:
            arrived.set()

        self.listen(listener)
        try:
            return arrived.wait(timeout if timeout is None or timeout < threading.TIMEOUT_MAX else None)
        finally:
            with _lock:  # who asks again and again leaves nothing behind
                if self._listeners is not None and listener in self._listeners:
                    self._listeners.remove(listener)

    def raise_for_outcome(self, timeout: float | None = None) -> Delivered | Spooled:
        """Wait like `result` and return a good outcome; raise the OutcomeError of any other."""
        outcome = self.result(timeout)
        error = outcome.error()
        if error is not None:
            raise error
        return outcome  # type: ignore[return-value]  # the two outcomes without an error are these two

    def add_done_callback(self, callback: Callable[[Receipt], object]) -> None:
        """Call `callback(receipt)` once the outcome is known, on a thread that postroom keeps for such calls.

        It may take its time and may publish events; what it raises is logged and hurts nobody else.
        """
        self.listen(lambda receipt: CALLBACKS.call(callback, receipt))

    def listen(self, listener: Callable[[Receipt], None]) -> None:
        """Call `listener(receipt)` from the thread that brings the outcome; for postroom's own use.

        A listener must be quick and must not raise.
        """
        with _lock:
            if self._outcome is None:
                if self._listeners is None:
                    self._listeners = [listener]
                else:
                    self._listeners.append(listener)
                return
        listener(self)

    def resolve(self, outcome: Outcome) -> None:
        """Set the outcome; for postroom's own use. A second outcome is a defect and raises RuntimeError."""
        with _lock:
            if self._outcome is not None:
                raise RuntimeError(f"event {self.event_id} got a second outcome")
            self._outcome = outcome
            listeners, self._listeners = self._listeners, None
        if listeners is not None:
            for listener in listeners:
                listener(self)

    def abandon(self, outcome: Outcome) -> None:
        """Set the outcome and tell nobody: those who listen live in the parent process; for postroom's own use."""
        self._listeners = None
        self._outcome = outcome

    def __repr__(self) -> str:
        state = "open" if self._outcome is None else type(self._outcome).__name__
        return f"<Receipt {self.event_id} {state}>"


class CallbackThread:
    """Runs users' callbacks, one after the other, away from the thread that serves Kafka."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._start_lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Callable[[Receipt], object], Receipt]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, callback: Callable[[Receipt], object], receipt: Receipt) -> None:
        """Queue one call. The thread starts with the first; where none can start, `drain` makes the calls."""
        self._queue.put((callback, receipt))
        if self._thread is None:
            with self._start_lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="postroom-callbacks", daemon=True)
                    with contextlib.suppress(RuntimeError):  # the interpreter is ending, or there are too many threads
                        thread.start()
                        self._thread = thread

    def drain(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until the calls queued so far have run; False if they have not."""
        if threading.current_thread() is self._thread:
            return True
        if self._thread is None:
            while not self._queue.empty():
                self._call(*self._queue.get())
            return True
        reached = threading.Event()
        self._queue.put((lambda _: reached.set(), Receipt("")))
        return reached.wait(min(timeout_s, threading.TIMEOUT_MAX))

    def _run(self) -> None:
        while True:
            self._call(*self._queue.get())

    def _call(self, callback: Callable[[Receipt], object], receipt: Receipt) -> None:
        try:
            callback(receipt)
        except BaseException as exc:  # noqa: BLE001 - a user's callback may raise anything, SystemExit too; it is contained
            log = get_logger("postroom.receipt")
            log.error("callback_failed", operation="callback", event_id=receipt.event_id, error=type(exc).__name__)


CALLBACKS = CallbackThread()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - another thread may have held it when the process forked
    _lock = threading.Lock()
    CALLBACKS._reset()  # noqa: SLF001 - the module's own class


os.register_at_fork(after_in_child=_after_fork_in_child)
