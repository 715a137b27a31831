"""What waits for the next sync, and what its callers hold meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from copy import copy
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from postroom.libs.exceptions import ReceiptTimeoutError
from postroom.libs.logger import get_logger
from postroom.streaming.spool.record_format import Kind  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from postroom.libs.exceptions import PostroomError

BATCH_BYTES = 1024 * 1024


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a record stands in the spool. `sequence` rises within `kind` and `slot`."""

    slot: str
    kind: Kind
    sequence: int


class PendingFrame(msgspec.Struct, frozen=True, gc=False):
    """A record on its way to the disk. `key_hash` is None without a key; `size` is that of the whole frame."""

    sequence: int
    attempts: int
    body: bytes
    size: int
    topic: str
    key_hash: int | None
    appended_ms: int
    is_claim: bool


class Batch:
    """Frames that are written and synced together. The queue's lock guards `frames` and `callbacks` until it is taken.

    `claims_hold` turns true when its claims are noted as handed out.
    """

    __slots__ = ("_done", "_error", "_is_done", "callbacks", "claims_hold", "frames", "kind", "size", "slot")

    def __init__(self, slot: str, kind: Kind) -> None:
        self.slot = slot
        self.kind = kind
        self.claims_hold = False
        self._done = threading.Event()
        self._is_done = False
        self._error: PostroomError | None = None
        self.frames: list[PendingFrame] = []
        self.callbacks: list[tuple[OnStored, Ticket]] = []
        self.size = 0

    def complete(self, error: PostroomError | None) -> None:
        """Answer everybody, in the order of the frames; None is: safe."""
        self._error = error
        self._is_done = True
        self._done.set()
        callbacks, self.callbacks = self.callbacks, []
        for callback, ticket in callbacks:
            _call(callback, ticket)


class Ticket:
    """Stands for one appended record until it is known to be safe."""

    __slots__ = ("_batch", "_is_claim", "sequence")

    def __init__(self, batch: Batch, sequence: int, *, is_claim: bool = False) -> None:
        self._batch = batch
        self._is_claim = is_claim
        self.sequence = sequence

    @property
    def place(self) -> Place:
        """Where the record stands, once it is stored."""
        return Place(self._batch.slot, self._batch.kind, self.sequence)

    @property
    def is_claimed(self) -> bool:
        """True for a record that was stored as claimed.

        False when its claim could not be noted on the disk: then it waits in the spool like any other.
        """
        return self._is_claim and self._batch.claims_hold

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


def refused_ticket(error: PostroomError, kind: Kind) -> Ticket:
    """Return the ticket of a record that was not taken."""
    batch = Batch("", kind)
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

    __slots__ = ("_batch_bytes", "_batches", "_kind", "_slot", "size")

    def __init__(self, slot: str, kind: Kind, batch_bytes: int) -> None:
        self._slot = slot
        self._kind = kind
        self._batch_bytes = batch_bytes
        self._batches: deque[Batch] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def put(self, frames: Iterable[PendingFrame], on_stored: OnStored | None = None) -> list[Ticket]:
        """Add frames behind all others. `on_stored` is called with each ticket in the order of the frames."""
        tickets = []
        batch = self._batches[-1] if self._batches else None
        for frame in frames:
            if batch is None or batch.size + frame.size > self._batch_bytes:
                batch = self.new_batch()
                self._batches.append(batch)
            batch.frames.append(frame)
            batch.size += frame.size
            self.size += frame.size
            ticket = Ticket(batch, frame.sequence, is_claim=frame.is_claim)
            tickets.append(ticket)
            if on_stored is not None:
                batch.callbacks.append((on_stored, ticket))
        return tickets

    def new_batch(self) -> Batch:
        """Return an empty batch that is not among them."""
        return Batch(self._slot, self._kind)

    def take(self) -> Batch:
        """Take the first batch; its frames count as waiting until `forget`."""
        return self._batches.popleft()

    def forget(self, batch: Batch) -> None:
        """Stop counting a batch that was taken."""
        self.size -= batch.size
