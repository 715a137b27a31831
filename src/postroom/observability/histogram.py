"""A histogram of durations with fixed buckets: cheap to fill, good enough to read percentiles from."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise

_PER_DECADE = 24
_DECADES = range(-5, 3)  # 10 us to 1,000 s

BOUNDS: tuple[float, ...] = (
    *(float(f"{10 ** (step / _PER_DECADE):.2f}e{decade}") for decade in _DECADES for step in range(_PER_DECADE)),
    1_000.0,
)
"""Upper ends of the buckets in seconds, each 8 to 11 % above the one before: 1.00, 1.10, 1.21, 1.33, ... times a power
of ten (every second value of the preferred numbers E48 of IEC 60063). One more bucket takes what is longer."""

WIDEST_STEP = max(upper / lower for lower, upper in pairwise(BOUNDS)) - 1.0
"""The error bound of a percentile above 10 us and up to 1,000 s, as a share of the true value."""


class Histogram:
    """Counts durations into `BOUNDS` and keeps their sum and the exact longest one.

    Only one thread may call `observe()` at a time: the owner holds a lock or is the only writer. Reading
    meanwhile is fine; the sum may then be one event behind or ahead. About 0.25 us for an observation.
    """

    __slots__ = ("_counts", "_longest", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0
        self._longest = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration. What is negative counts as 0; it must be finite."""
        if seconds < 0.0:  # noqa: PLR1730  max() costs 0.07 us more, on the way of every event
            seconds = 0.0
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds
        if seconds > self._longest:  # noqa: PLR1730  as above
            self._longest = seconds

    def add(self, other: Histogram) -> None:
        """Take in everything that `other` has counted."""
        for bucket, count in enumerate(other.counts()):
            self._counts[bucket] += count
        self._sum += other.sum_s
        self._longest = max(self._longest, other.longest_s)

    def counts(self) -> tuple[int, ...]:
        """How many durations fell into each bucket, not cumulated; the last one is above all bounds."""
        return tuple(self._counts)

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self._counts)

    @property
    def sum_s(self) -> float:
        """All durations together, in seconds."""
        return self._sum

    @property
    def longest_s(self) -> float:
        """The longest duration, exactly, in seconds; 0.0 when there was none."""
        return self._longest

    def percentile(self, share: float) -> float | None:
        """The duration in seconds that the `share` (above 0, up to 1) of all did not exceed; None without any.

        The true value (of the nearest rank) lies in the same bucket as the answer, so above 10 us and up to 1,000 s
        the answer is at most 11 % off (`WIDEST_STEP`), below that at most 10 us, and it is never above the longest one.
        Within a bucket the durations are taken to be spread evenly. `percentile(1)` is the longest, exactly.
        """
        counts = self.counts()
        total = sum(counts)
        if total == 0:
            return None
        rank = max(1, math.ceil(share * total))
        if rank >= total:
            return self._longest
        before = 0
        for bucket, count in enumerate(counts):  # noqa: B007  the bucket is used after the loop
            if before + count >= rank:
                break
            before += count
        lower = BOUNDS[bucket - 1] if bucket else 0.0
        upper = BOUNDS[bucket] if bucket < len(BOUNDS) else self._longest
        estimate = lower + (upper - lower) * (rank - before) / count
        return min(estimate, self._longest)
