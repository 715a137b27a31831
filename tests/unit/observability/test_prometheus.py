"""What a scrape promises: the whole table, right numbers, in a form that Prometheus' own parser reads."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from postroom.observability.metric_table import METRIC_TABLE, PENDING, RECEIVED, Kind
from postroom.observability.metrics import SERIES_CAP, Metrics, Reading
from postroom.observability.prometheus import PrometheusCollector, render


def busy_metrics() -> Metrics:
    metrics = Metrics()
    metrics.add_source(lambda: [Reading(RECEIVED, 7, ("user_events",)), Reading(PENDING, 2, ("user_events",))])
    metrics.record_dlq_event(reason="validation_failed", topic="user_events")
    for latency_ms in (0.01, 0.4, 3.0, 3.0, 45.2, 2_000_000.0):
        metrics.record_publish_latency(latency_ms)
    return metrics


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(page)
        for sample in family.samples
    }


def test_every_metric_of_the_table_is_shown_with_its_kind_and_help() -> None:
    families = {family.name: family for family in parse_text(render(Metrics())[0].decode())}
    for metric in METRIC_TABLE:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)


def test_the_numbers_and_labels_arrive() -> None:
    shown = samples(render(busy_metrics())[0].decode())
    topic = ("topic", "user_events")
    assert shown["postroom_events_received_total", frozenset([topic])] == 7
    assert shown["postroom_events_pending", frozenset([topic])] == 2
    reason = ("reason", "validation_failed")
    assert shown["postroom_events_dead_lettered_total", frozenset([topic, reason])] == 1
    assert shown["postroom_retries_total", frozenset()] == 0


def test_the_latency_buckets_are_cumulated_and_end_with_all() -> None:
    shown = samples(render(busy_metrics())[0].decode())
    buckets = {
        float(dict(labels)["le"]): value
        for (name, labels), value in shown.items()
        if name == "postroom_event_latency_seconds_bucket"
    }
    assert list(buckets.values()) == sorted(buckets.values())
    assert (buckets[0.0001], buckets[0.001], buckets[0.00464]) == (1, 2, 4)
    assert (buckets[0.1], buckets[1_000.0], buckets[float("inf")]) == (5, 5, 6)
    assert len(buckets) == 3 * 7 + 2
    assert shown["postroom_event_latency_seconds_count", frozenset()] == 6
    assert shown["postroom_event_latency_seconds_sum", frozenset()] == pytest.approx(2_000.0516, abs=1e-3)


def test_openmetrics_is_given_to_who_asks_for_it_and_is_valid() -> None:
    page, content_type = render(busy_metrics(), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    families = list(parse_openmetrics(page.decode()))  # type: ignore[no-untyped-call]  # their parser has no types
    assert len(families) == len(METRIC_TABLE)


def test_a_scrape_is_bounded_however_many_names_come() -> None:
    metrics = Metrics()
    for number in range(20_000):
        metrics.record_dlq_event(reason=f"r{number}")
        metrics.record_error(f"e{number}")
        metrics.record_event_published(f"t{number}")
    lines = render(metrics)[0].decode().splitlines()
    assert len(lines) < 4 * SERIES_CAP + 200


def test_the_collector_registers_in_a_registry_of_somebody_else() -> None:
    registry = CollectorRegistry()
    collector = PrometheusCollector(busy_metrics())
    registry.register(collector)
    assert registry.get_sample_value("postroom_events_received_total", {"topic": "user_events"}) == 7
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(PrometheusCollector(Metrics()))


def test_registering_asks_no_source() -> None:
    metrics = Metrics()
    asked: list[int] = []

    def source() -> list[Reading]:
        asked.append(1)
        return []

    metrics.add_source(source)
    CollectorRegistry().register(PrometheusCollector(metrics))
    assert asked == []


def test_the_kinds_are_the_three_that_are_exported() -> None:
    assert {metric.kind for metric in METRIC_TABLE} == set(Kind)
