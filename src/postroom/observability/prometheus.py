"""The metrics in Prometheus' words. This module loads prometheus_client; nothing that counts does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from postroom.observability.histogram import BOUNDS
from postroom.observability.metric_table import LATENCY, METRIC_TABLE, Kind, Metric

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.observability.histogram import Histogram
    from postroom.observability.metrics import Metrics, Snapshot

_EVERY = 8  # of 24 buckets a decade three are exported: 1, 2.15, 4.64, 10, ...
_FIRST = 24  # from 100 us; what is quicker is in the first bucket


class PrometheusCollector(Collector):
    """Shows `metrics` to Prometheus.

    For a program with a page of its own: `prometheus_client.REGISTRY.register(PrometheusCollector(METRICS))`.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[MetricFamily]:
        """Every metric of the table with its present series; those without labels always have one."""
        snapshot = self._metrics.snapshot()
        for metric in METRIC_TABLE:
            yield _family(metric, snapshot)

    def describe(self) -> Iterator[MetricFamily]:
        """The names without numbers, so that registering reads nothing."""
        for metric in METRIC_TABLE:
            yield MetricFamily(metric.name.removesuffix("_total"), metric.help, metric.kind.value)


def render(metrics: Metrics, accept: str = "") -> tuple[bytes, str]:
    """The page for a scrape and its content type.

    The form is OpenMetrics if the `accept` header asks for it, Prometheus' text otherwise.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PrometheusCollector(metrics))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _family(metric: Metric, snapshot: Snapshot) -> MetricFamily:
    if metric is LATENCY:
        latency = HistogramMetricFamily(metric.name, metric.help)
        latency.add_metric([], _cumulated(snapshot.latency), snapshot.latency.sum_s)
        return latency
    names = [label.name for label in metric.labels]
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind is Kind.COUNTER:
        family = CounterMetricFamily(metric.name, metric.help, labels=names)
    else:
        family = GaugeMetricFamily(metric.name, metric.help, labels=names)
    for labels, value in snapshot.series(metric) or ([] if names else [((), 0)]):
        family.add_metric(labels, value)
    return family


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    counts = histogram.counts()
    buckets: list[tuple[str, float]] = []
    below = 0
    for bucket, count in enumerate(counts[:-1]):
        below += count
        if bucket >= _FIRST and (bucket - _FIRST) % _EVERY == 0:
            buckets.append((str(BOUNDS[bucket]), below))
    buckets.append(("+Inf", below + counts[-1]))
    return buckets
