"""The outcomes of many events, gathered in bounded memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.event import DeadLettered, Delivered, Failed, Outcome, Refused, Spooled

if TYPE_CHECKING:
    from postroom.services.receipt import Receipt

_GOOD = (Delivered, Spooled)
_OPEN_CAP = 50_000
_PROBLEMS_CAP = 1_000


class Problem(msgspec.Struct, frozen=True):
    """One event of a batch that was neither delivered nor spooled; `index` counts the events from 0."""

    index: int
    event_id: str
    outcome: Outcome


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events of one `publish_many`.

    `problems` holds the first 1,000 events that were dead-lettered, refused or failed, in the order of the input;
    `problems_omitted` says how many more there were.
    """

    received: int = 0
    delivered: int = 0
    spooled: int = 0
    dead_lettered: int = 0
    refused: int = 0
    failed: int = 0
    problems: tuple[Problem, ...] = ()
    problems_omitted: int = 0

    @property
    def ok(self) -> bool:
        """True when every event was delivered or spooled."""
        return self.delivered + self.spooled == self.received


class Batch:
    """Takes receipts in order and counts their outcomes; at most 50,000 are open at a time."""

    def __init__(self) -> None:
        self._open: deque[Receipt] = deque()
        self._counts = dict.fromkeys((Delivered, Spooled, DeadLettered, Refused, Failed), 0)
        self._settled = 0
        self._problems: list[Problem] = []
        self._problem_count = 0

    def add(self, receipt: Receipt) -> None:
        """Take the next receipt; waits for the oldest one when too many are open."""
        self._open.append(receipt)
        while self._open and self._open[0].done():
            self._count(self._open.popleft())
        if len(self._open) >= _OPEN_CAP:
            self._count(self._open.popleft())

    def finish(self) -> BatchResult:
        """Wait for all outcomes and return their counts."""
        while self._open:
            self._count(self._open.popleft())
        return BatchResult(
            received=self._settled,
            delivered=self._counts[Delivered],
            spooled=self._counts[Spooled],
            dead_lettered=self._counts[DeadLettered],
            refused=self._counts[Refused],
            failed=self._counts[Failed],
            problems=tuple(self._problems),
            problems_omitted=self._problem_count - len(self._problems),
        )

    def _count(self, receipt: Receipt) -> None:
        outcome = receipt.result()
        self._counts[type(outcome)] += 1
        if not isinstance(outcome, _GOOD):
            self._problem_count += 1
            if len(self._problems) < _PROBLEMS_CAP:
                self._problems.append(Problem(self._settled, receipt.event_id, outcome))
        self._settled += 1
