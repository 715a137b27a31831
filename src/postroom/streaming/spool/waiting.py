"""What of a queue waits: neither acknowledged nor claimed. By topic, and by key in counters that queues share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping

    from postroom.streaming.spool.key_counts import KeyCounts


class Waiting:
    """Counts records in and out. Guarded by the queue's lock; it takes the lock of the keys by itself.

    `keys` is None for a queue whose records have no order to keep. `total` is the sum of `by_topic`.
    """

    __slots__ = ("_keys", "_keys_lock", "by_topic", "total")

    def __init__(self, keys: KeyCounts | None, keys_lock: threading.Lock) -> None:
        self._keys = keys
        self._keys_lock = keys_lock
        self.by_topic: dict[str, int] = {}
        self.total = 0

    def add(self, topic: str, key_hash: int | None) -> None:
        """Count a record in before anybody can see it: who asks for its key from now on must queue behind it."""
        if key_hash is not None and self._keys is not None:
            with self._keys_lock:
                self._keys.add(key_hash)
        self.by_topic[topic] = self.by_topic.get(topic, 0) + 1
        self.total += 1

    def add_all(self, by_topic: Mapping[str, int], key_hashes: Iterable[int | None]) -> None:
        """Count records in, as `add` does."""
        if self._keys is not None:
            with self._keys_lock:
                self._keys.add_each(key_hashes)
        self._add_topics(by_topic)

    def add_found(self, by_topic: Mapping[str, int]) -> None:
        """Count in what a start found, after its keys (`add_keys`)."""
        self._add_topics(by_topic)

    def add_keys(self, keys: Mapping[int, int]) -> None:
        """Count the keys of found records in, before their segment counts as known. Needs no lock of the queue."""
        if self._keys is not None:
            with self._keys_lock:
                self._keys.add_all(keys)

    def remove(self, topic: str, key_hash: int | None) -> None:
        """Count one record out that was counted in."""
        self._remove_topic(topic, 1)
        if key_hash is not None and self._keys is not None:
            with self._keys_lock:
                self._keys.remove(key_hash)

    def remove_all(self, by_topic: Mapping[str, int], key_hashes: Iterable[int]) -> None:
        """Count records out that were counted in and not stored."""
        self.remove_lost(by_topic, Counter(key_hashes))

    def remove_lost(self, by_topic: Mapping[str, int], keys: Mapping[int, int]) -> None:
        """Count out what turned out unreadable."""
        for topic, count in by_topic.items():
            self._remove_topic(topic, count)
        if self._keys is not None:
            with self._keys_lock:
                for key_hash, count in keys.items():
                    self._keys.remove(key_hash, count)

    def _add_topics(self, by_topic: Mapping[str, int]) -> None:
        for topic, count in by_topic.items():
            self.by_topic[topic] = self.by_topic.get(topic, 0) + count
            self.total += count

    def _remove_topic(self, topic: str, count: int) -> None:
        self.by_topic[topic] -= count
        self.total -= count
