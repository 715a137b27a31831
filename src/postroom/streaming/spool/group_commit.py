"""What waits for the next sync, and what its callers hold meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from copy import copy
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from postroom.libs.exceptions import ReceiptTimeoutError
from postroom.libs.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from postroom.libs.exceptions import PostroomError

BATCH_BYTES = 1024 * 1024


class PendingFrame(msgspec.Struct, frozen=True, gc=False):
    """A record on its way to the disk. `key_hash` is None without a key; `size` is that of the whole frame."""

    sequence: int
    attempts: int
    body: bytes
    size: int
    topic: str
    key_hash: int | None
    appended_ms: int


class Batch:
    """Frames that are written and synced together. The queue's lock guards `frames` and `callbacks`."""

    __slots__ = ("_done", "_error", "_is_done", "_lock", "callbacks", "frames", "size")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._done = threading.Event()
        self._is_done = False
        self._error: PostroomError | None = None
        self.frames: list[PendingFrame] = []
        self.callbacks: list[tuple[OnStored, Ticket]] = []
        self.size = 0

    def complete(self, error: PostroomError | None) -> None:
        """Answer everybody, in the order of the frames; None is: safe."""
        with self._lock:
            self._error = error
            self._is_done = True
            callbacks, self.callbacks = self.callbacks, []
        self._done.set()
        for callback, ticket in callbacks:
            _call(callback, ticket)


class Ticket:
    """Stands for one appended record until it is known to be safe."""

    __slots__ = ("_batch", "sequence")

    def __init__(self, batch: Batch, sequence: int) -> None:
        self._batch = batch
        self.sequence = sequence

    @property
    def is_done(self) -> bool:
        """True once it is known whether the record is safe."""
        return self._batch._is_done  # noqa: SLF001 - a ticket is a view of its batch

    @property
    def error(self) -> PostroomError | None:
        """Why the record was not kept; None when it was, or when that is not known yet."""
        return self._batch._error  # noqa: SLF001 - a ticket is a view of its batch

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the record's sequence once it would survive a power cut.

        Raises SpoolFullError or SpoolUnavailableError when it was not kept, ReceiptTimeoutError when that is
        not known after `timeout_s` seconds.
        """
        batch = self._batch
        if not batch._is_done and not batch._done.wait(timeout_s):  # noqa: SLF001 - a ticket is a view of its batch
            raise ReceiptTimeoutError("the spool has not synced the record yet")
        if batch._error is not None:  # noqa: SLF001 - a ticket is a view of its batch
            raise copy(batch._error)  # noqa: SLF001 - a ticket is a view of its batch; one traceback for each caller
        return self.sequence

    def on_done(self, callback: OnStored) -> None:
        """Call `callback(ticket)` once it is known whether the record is safe: at once, or on the writing thread.

        On the writing thread they run in the order of their records. They must be short: the next batch waits for them.
        """
        batch = self._batch
        with batch._lock:  # noqa: SLF001 - a ticket is a view of its batch
            if not batch._is_done:  # noqa: SLF001 - a ticket is a view of its batch
                batch.callbacks.append((callback, self))
                return
        _call(callback, self)


def refused_ticket(error: PostroomError) -> Ticket:
    """Return the ticket of a record that was not taken."""
    batch = Batch(threading.Lock())
    batch.complete(error)
    return Ticket(batch, 0)


OnStored: TypeAlias = "Callable[[Ticket], object]"


def _call(callback: OnStored, ticket: Ticket) -> None:
    try:
        callback(ticket)
    except Exception as exc:  # noqa: BLE001 - whatever a callback raises, the others must run and the writer go on
        get_logger("postroom.spool").error("spool_callback_failed", operation="spool", error=type(exc).__name__)


class WaitingBatches:
    """Batches in the order of writing; the last one still takes frames. Guarded by the queue's lock."""

    __slots__ = ("_batch_bytes", "_batches", "_lock", "size")

    def __init__(self, lock: threading.Lock, batch_bytes: int) -> None:
        self._lock = lock
        self._batch_bytes = batch_bytes
        self._batches: deque[Batch] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def put(self, frames: Iterable[PendingFrame]) -> list[Ticket]:
        """Add frames behind all others."""
        tickets = []
        batch = self._batches[-1] if self._batches else None
        for frame in frames:
            if batch is None or batch.size + frame.size > self._batch_bytes:
                batch = Batch(self._lock)
                self._batches.append(batch)
            batch.frames.append(frame)
            batch.size += frame.size
            self.size += frame.size
            tickets.append(Ticket(batch, frame.sequence))
        return tickets

    def take(self) -> Batch:
        """Take the first batch; its frames count as waiting until `forget`."""
        return self._batches.popleft()

    def forget(self, batch: Batch) -> None:
        """Stop counting a batch that was taken."""
        self.size -= batch.size
