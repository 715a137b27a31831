"""The numbers of this process: counted in plain integers, read at once, exported only when somebody asks.

Two ways in, and each number goes one of them:

- `record_...()`, methods of `Metrics` and functions of this module on the process-wide `METRICS`: for code that
  counts here and nowhere else.
- `add_source(source)`: for parts that keep their own books (the ledger, the client's queue, a latency histogram filled
  under a lock that is held anyway). A source is asked when somebody reads; nothing is counted twice.

Labels are bounded: an enumerated label knows its values, any other takes names of letters, digits and `._:-` only,
and a metric has at most `SERIES_CAP` combinations. Everything else is counted under `other`.
"""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypedDict

from postroom.observability.histogram import Histogram
from postroom.observability.metric_table import (
    ACCEPTED,
    CONNECTION_FAILURES,
    DEAD_LETTERED,
    DELIVERED,
    FAILED,
    IN_FLIGHT,
    LATENCY,
    NOT_KNOWN,
    OTHER,
    PENDING,
    PUBLISH_ERRORS,
    RATE_LIMIT_WAIT_SECONDS,
    RATE_LIMIT_WAITS,
    RECEIVED,
    REFUSED,
    REJECTED,
    RETRIES,
    RULE_FAILURES,
    SOURCE_ERRORS,
    SPOOLED,
    UNACCOUNTED,
    Kind,
    Label,
    Metric,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SERIES_CAP: Final = 100
"""Combinations of label values that one metric may have before new ones are counted under `other`."""

READINGS_CAP: Final = 10_000
"""Readings taken from one source at a time; what comes after them is not asked for."""

_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,249}")


class Reading(NamedTuple):
    """What a source says of one metric: a number, or a `Histogram` for a metric of that kind."""

    metric: Metric
    value: float | Histogram
    labels: tuple[str, ...] = ()


Source: TypeAlias = "Callable[[], Iterable[Reading]]"
"""Gives its present readings. Called by any thread; must be quick and must not take a lock held for long."""

_Key: TypeAlias = "tuple[Metric, tuple[str, ...]]"


class LatencySummary(TypedDict):
    """Time from hand-in to safe, in milliseconds; None without any event."""

    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


class Summary(TypedDict):
    """All topics together, since the start."""

    received: int
    accepted: int
    delivered: int
    dead_lettered: int
    spooled: int
    in_flight: int
    pending: int
    refused: int
    failed: int
    unaccounted: int
    error_rate: float
    latency_ms: LatencySummary
    dead_letters_by_reason: dict[str, int]
    refused_by_reason: dict[str, int]
    failed_by_reason: dict[str, int]
    publish_errors_by_code: dict[str, int]
    retries: int
    connection_failures: int
    rate_limit_waits: int
    rate_limit_wait_s: float


class _Series:
    """Numbers by metric and label values, with the bounds on labels."""

    __slots__ = ("_sizes", "values")

    def __init__(self, values: Mapping[_Key, float] | None = None) -> None:
        self.values: dict[_Key, float] = dict(values or {})
        self._sizes = Counter(metric for metric, _ in self.values)

    def add(self, metric: Metric, labels: tuple[str, ...], amount: float) -> None:
        """Add to a series; one that is new is admitted under its own name or under `other`."""
        try:
            self.values[metric, labels] += amount
        except KeyError:
            key = self._admitted(metric, labels)
            self.values[key] = self.values.get(key, 0) + amount

    def _admitted(self, metric: Metric, labels: tuple[str, ...]) -> _Key:
        fitting = tuple(_fitting(label, value) for label, value in zip(metric.labels, labels, strict=True))
        if (metric, fitting) in self.values:
            return metric, fitting
        if self._sizes[metric] >= SERIES_CAP:
            fitting = tuple(
                value if label.values is not None else OTHER
                for label, value in zip(metric.labels, fitting, strict=True)
            )
        else:
            self._sizes[metric] += 1
        return metric, fitting


def _fitting(label: Label, value: str) -> str:
    if label.values is not None:
        return value if value in label.values else OTHER
    if not value:
        return NOT_KNOWN
    return value if _NAME.fullmatch(value) else OTHER


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All numbers at one moment: `values` by metric and label values, and the histogram of the latency."""

    values: Mapping[tuple[Metric, tuple[str, ...]], float]
    latency: Histogram

    def series(self, metric: Metric) -> list[tuple[tuple[str, ...], float]]:
        """Label values and number of each series of `metric`, sorted by labels."""
        return sorted((labels, value) for (row, labels), value in self.values.items() if row is metric)

    def total(self, metric: Metric) -> float:
        """All series of `metric` together."""
        return sum(value for (row, _), value in self.values.items() if row is metric)

    def by_label(self, metric: Metric, label: str) -> dict[str, int]:
        """The whole numbers of `metric` by the values of one label, the largest first."""
        at = [row.name for row in metric.labels].index(label)
        totals: Counter[str] = Counter()
        for labels, value in self.series(metric):
            totals[labels[at]] += int(value)
        return dict(totals.most_common())

    def error_rate(self) -> float:
        """Dead letters, refused and failed events as a share of all, 0.0 to 1.0, since the start.

        "All" are the received ones or, where events are only recorded when they end, the ended ones.
        """
        errors = self.total(DEAD_LETTERED) + self.total(REFUSED) + self.total(FAILED)
        ended = errors + self.total(DELIVERED) + self.total(SPOOLED)
        return errors / max(self.total(RECEIVED), ended, 1)

    def summary(self) -> Summary:
        """The numbers a person asks for, by the words of the product."""

        def count(metric: Metric) -> int:
            return int(self.total(metric))

        def milliseconds(share: float) -> float | None:
            seconds = self.latency.percentile(share)
            return None if seconds is None else seconds * 1_000.0

        return {
            "received": count(RECEIVED),
            "accepted": count(ACCEPTED),
            "delivered": count(DELIVERED),
            "dead_lettered": count(DEAD_LETTERED),
            "spooled": count(SPOOLED),
            "in_flight": count(IN_FLIGHT),
            "pending": count(PENDING),
            "refused": count(REFUSED),
            "failed": count(FAILED),
            "unaccounted": count(UNACCOUNTED),
            "error_rate": self.error_rate(),
            "latency_ms": {
                "p50": milliseconds(0.50),
                "p95": milliseconds(0.95),
                "p99": milliseconds(0.99),
                "max": milliseconds(1.0),
            },
            "dead_letters_by_reason": self.by_label(DEAD_LETTERED, "reason"),
            "refused_by_reason": self.by_label(REFUSED, "reason"),
            "failed_by_reason": self.by_label(FAILED, "reason"),
            "publish_errors_by_code": self.by_label(PUBLISH_ERRORS, "code"),
            "retries": count(RETRIES),
            "connection_failures": count(CONNECTION_FAILURES),
            "rate_limit_waits": count(RATE_LIMIT_WAITS),
            "rate_limit_wait_s": self.total(RATE_LIMIT_WAIT_SECONDS),
        }


class Metrics:
    """One set of numbers. Every method may be called by any thread; a record call takes about 0.4 us.

    In a forked child the numbers recorded here start at zero again, so that parent and child together say what
    happened. Sources stay: whoever owns one starts it anew in the child.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series = _Series()
        self._latency = Histogram()
        self._sources: dict[int, Source] = {}
        self._next_source = 0
        _ALL_METRICS.add(self)

    def record_event_published(self, topic: str = NOT_KNOWN) -> None:
        """Count an event that Kafka acknowledged."""
        with self._lock:
            self._series.add(DELIVERED, (topic,), 1)

    def record_publish_latency(self, latency_ms: float) -> None:
        """Count the time from handing an event in until it was safe, in milliseconds."""
        with self._lock:
            if -math.inf < latency_ms < math.inf:
                self._latency.observe(latency_ms / 1_000.0)
            else:
                self._series.add(REJECTED, (), 1)

    def record_dlq_event(self, reason: str, topic: str = NOT_KNOWN) -> None:
        """Count an event that was kept for repair, with the code of the reason."""
        with self._lock:
            self._series.add(DEAD_LETTERED, (topic, reason), 1)

    def record_event_failed(self, reason: str, topic: str = NOT_KNOWN) -> None:
        """Count an event that could not be made safe; `reason` is a `FailedReason`."""
        with self._lock:
            self._series.add(FAILED, (topic, reason), 1)

    def record_error(self, code: str) -> None:
        """Count a record that came back with an error, by its stable code. No outcome yet: it may be sent again."""
        with self._lock:
            self._series.add(PUBLISH_ERRORS, (code,), 1)

    def record_rule_failure(self, contract: str, rule: str, action: str) -> None:
        """Count an event that broke a rule of its contract, once for each rule; `action` says what became of it."""
        with self._lock:
            self._series.add(RULE_FAILURES, (contract, rule, action), 1)

    def record_retry(self, count: int = 1) -> None:
        """Count sendings that were repeated after an error."""
        self._record(RETRIES, count)

    def record_connection_failure(self) -> None:
        """Count a connection to a broker that failed or broke."""
        self._record(CONNECTION_FAILURES, 1)

    def record_rate_limit_wait(self, seconds: float) -> None:
        """Count an event that waited `seconds` for the rate limit."""
        self._record(RATE_LIMIT_WAITS, 1)
        self._record(RATE_LIMIT_WAIT_SECONDS, seconds)

    def add_source(self, source: Source) -> Callable[[], None]:
        """Ask `source` for its readings whenever somebody reads; the function returned ends that.

        Readings of several sources for the same metric and labels add up. Ending reads the source a last time
        and keeps its counters and histogram (a counter never falls), while its gauges vanish: end it once it counts no
        more. Ending twice does nothing. A source that raises is counted and left out of that reading.
        """
        with self._lock:
            number = self._next_source
            self._next_source += 1
            self._sources[number] = source

        def end() -> None:
            last = list(self._readings(source))
            with self._lock:
                if self._sources.pop(number, None) is None:
                    return
                for reading in last:
                    if reading.metric.kind is not Kind.GAUGE:
                        _take_in(reading, self._series, self._latency)

        return end

    def snapshot(self) -> Snapshot:
        """All numbers now, those of the sources included.

        Each number is right by itself. Numbers of one source fit together as far as the source reads them together.
        """
        with self._lock:
            sources = list(self._sources.values())
            series = _Series(self._series.values)
            latency = Histogram()
            latency.add(self._latency)
        # Outside the lock: a source may itself record something, and a slow one must not hold up the hot path.
        for source in sources:
            for reading in self._readings(source):
                _take_in(reading, series, latency)
        return Snapshot(series.values, latency)

    def get_summary(self) -> Summary:
        """Counts by outcome, p50, p95, p99 and longest latency in milliseconds, the error rate, reasons."""
        return self.snapshot().summary()

    @property
    def error_rate(self) -> float:
        """Dead letters, refused and failed events as a share of all, 0.0 to 1.0, since the start."""
        return self.snapshot().error_rate()

    def _record(self, metric: Metric, amount: float) -> None:
        with self._lock:
            if 0 <= amount < math.inf:
                self._series.add(metric, (), amount)
            else:
                self._series.add(REJECTED, (), 1)

    def _readings(self, source: Source) -> Iterator[Reading]:
        """What `source` says, up to its first error."""
        try:
            for reading in islice(source(), READINGS_CAP):
                if not _fits(reading):
                    self._record(SOURCE_ERRORS, 1)
                else:
                    yield reading
        except Exception:  # noqa: BLE001  a broken source must not take the other numbers with it; it is counted
            self._record(SOURCE_ERRORS, 1)

    def _start_anew_after_fork(self) -> None:
        # Another thread of the parent may have held the lock at the fork; it does not exist here.
        self._lock = threading.Lock()
        self._series = _Series()
        self._latency = Histogram()


def _fits(reading: Reading) -> bool:
    metric, value, labels = reading
    if len(labels) != len(metric.labels):
        return False
    if isinstance(value, Histogram):
        return metric is LATENCY
    if metric.kind is Kind.COUNTER:
        return 0 <= value < math.inf
    return metric.kind is Kind.GAUGE and -math.inf < value < math.inf


def _take_in(reading: Reading, series: _Series, latency: Histogram) -> None:
    if isinstance(reading.value, Histogram):
        latency.add(reading.value)
    else:
        series.add(reading.metric, reading.labels, reading.value)


_ALL_METRICS: weakref.WeakSet[Metrics] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for metrics in list(_ALL_METRICS):
        metrics._start_anew_after_fork()  # noqa: SLF001  the same module


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)

METRICS: Final = Metrics()
"""The numbers of this process. The functions below record here."""

record_event_published = METRICS.record_event_published
record_publish_latency = METRICS.record_publish_latency
record_dlq_event = METRICS.record_dlq_event
record_event_failed = METRICS.record_event_failed
record_error = METRICS.record_error
record_retry = METRICS.record_retry
record_connection_failure = METRICS.record_connection_failure
record_rate_limit_wait = METRICS.record_rate_limit_wait
get_summary = METRICS.get_summary
snapshot = METRICS.snapshot
