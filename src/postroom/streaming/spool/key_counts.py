"""Which keys have something in the spool, in memory that does not grow with them."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class KeyCounts:
    """Counts waiting records by the hash of their key. Never says no wrongly; a wrong yes is as rare as collisions.

    Four bytes a counter whatever it holds: 4 MiB for 2^20, where a set of 3.6 million keys would take 350. The caller
    holds a lock.
    """

    __slots__ = ("_count", "_counters")

    def __init__(self, counters: int) -> None:
        self._counters = array("I", bytes(4 * counters))
        self._count = counters

    def add(self, key_hash: int, count: int = 1) -> None:
        """Count `count` more records of this key."""
        self._counters[key_hash % self._count] += count

    def remove(self, key_hash: int, count: int = 1) -> None:
        """Count records of this key out that were added before."""
        self._counters[key_hash % self._count] -= count

    def add_all(self, counts: Mapping[int, int]) -> None:
        """Count many keys in."""
        for key_hash, count in counts.items():
            self.add(key_hash, count)

    def add_each(self, key_hashes: Iterable[int | None]) -> None:
        """Count one more record for each; None is a record without a key."""
        counters, count = self._counters, self._count
        for key_hash in key_hashes:
            if key_hash is not None:
                counters[key_hash % count] += 1

    def holds(self, key_hash: int) -> bool:
        """True if a record of this key waits, or one whose key shares its counter."""
        return self._counters[key_hash % self._count] > 0
