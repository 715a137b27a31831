"""Which keys have something in the spool, in memory that does not grow with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MOST = 255


class KeyCounts:
    """Counts waiting records by the hash of their key. Never says no wrongly; a wrong yes is as rare as collisions.

    One byte a counter whatever it holds: 1 MiB for 2^20, where a set of 3.6 million keys would take 350. It is what a
    processor's cache still holds: with four bytes each, counting a batch took longer than packing it. A counter that
    has reached 255 stays there until nothing waits at all: it says yes meanwhile. The caller holds a lock.
    """

    __slots__ = ("_count", "_counters", "_has_lost_count", "_total")

    def __init__(self, counters: int) -> None:
        self._counters = bytearray(counters)
        self._count = counters
        self._total = 0
        self._has_lost_count = False

    def add(self, key_hash: int, count: int = 1) -> None:
        """Count `count` more records of this key."""
        at = key_hash % self._count
        now = self._counters[at] + count
        if now >= _MOST:
            now, self._has_lost_count = _MOST, True
        self._counters[at] = now
        self._total += count

    def remove(self, key_hash: int, count: int = 1) -> None:
        """Count records of this key out that were added before."""
        at = key_hash % self._count
        if self._counters[at] < _MOST:
            self._counters[at] -= count
        self._total -= count
        if not self._total and self._has_lost_count:
            self._counters, self._has_lost_count = bytearray(self._count), False

    def add_all(self, counts: Mapping[int, int]) -> None:
        """Count many keys in."""
        for key_hash, count in counts.items():
            self.add(key_hash, count)

    def add_each(self, key_hashes: Iterable[int | None]) -> None:
        """Count one more record for each; None is a record without a key."""
        counters, count, added = self._counters, self._count, 0
        for key_hash in key_hashes:
            if key_hash is not None:
                at = key_hash % count
                now = counters[at]
                if now < _MOST:
                    counters[at] = now + 1
                    if now + 1 == _MOST:
                        self._has_lost_count = True
                added += 1
        self._total += added

    def holds(self, key_hash: int) -> bool:
        """True if a record of this key waits, or one whose key shares its counter."""
        return self._counters[key_hash % self._count] > 0
