"""Notices when books stop balancing and when they balance again: one line for each change, not for each look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.logger import get_logger
from postroom.observability.metric_table import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable


class BooksWatch:
    """Remembers which books were off. Works in two steps: who reads books holds a lock, and must not log under it."""

    __slots__ = ("_log", "_off")

    def __init__(self) -> None:
        self._off: set[str] = set()
        self._log = get_logger("postroom.ledger")

    def compare(self, unaccounted: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Take the number of unaccounted events of each topic, all of one instant; return what has changed.

        That is each topic whose books balanced before and are off now, by how many events, and each for which it is
        the other way round, with 0. The caller holds the lock of the books, so that two readers cannot cross.
        """
        off = {topic: count for topic, count in unaccounted if count}
        if not off and not self._off:
            return []
        news = [(topic, count) for topic, count in off.items() if topic not in self._off]
        news += [(topic, 0) for topic in sorted(self._off - off.keys())]
        self._off = set(off)
        return news

    def tell(self, news: list[tuple[str, int]]) -> None:
        """Write a line for each change."""
        for topic, count in news:
            if count:
                self._log.error("books_off_balance", operation="account", topic=topic or NOT_KNOWN, count=count)
            else:
                self._log.warning("books_balance_again", operation="account", topic=topic or NOT_KNOWN)
