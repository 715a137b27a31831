"""What the metrics promise: every count kept, nothing twice, labels bounded, reading never in the way."""

import math
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.event import FailedReason, RefusedReason
from postroom.observability import metrics as module
from postroom.observability.histogram import Histogram
from postroom.observability.metric_table import (
    ACCEPTED,
    DEAD_LETTERED,
    DELIVERED,
    FAILED,
    LATENCY,
    METRIC_TABLE,
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
    SOURCE_ERRORS,
    Kind,
    Metric,
    reference_page,
)
from postroom.observability.metrics import METRICS, READINGS_CAP, SERIES_CAP, Metrics, Reading

ROOT = Path(__file__).parents[3]


class TestTable:
    def test_names_follow_the_rules_of_prometheus(self) -> None:
        for metric in METRIC_TABLE:
            assert re.fullmatch(r"postroom_[a-z_]+", metric.name)
            assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
            base = metric.name.removesuffix("_total")
            assert (metric.unit == "seconds") == base.endswith("_seconds")
            assert (metric.unit == "bytes") == base.endswith("_bytes")
            assert metric.help.endswith(".")

    def test_every_metric_of_the_module_stands_in_the_table_once(self) -> None:
        from postroom.observability import metric_table

        declared = [value for value in vars(metric_table).values() if isinstance(value, Metric)]
        assert declared == list(METRIC_TABLE)
        assert len({metric.name for metric in METRIC_TABLE}) == len(METRIC_TABLE)

    def test_the_reference_page_is_the_one_made_from_the_table(self) -> None:
        """When this fails: write `reference_page()` into docs/metrics.md."""
        assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == reference_page()

    def test_the_reference_page_names_every_metric_and_label_value(self) -> None:
        page = reference_page()
        for metric in METRIC_TABLE:
            assert f"| `{metric.name}` | {metric.kind} |" in page
            for label in metric.labels:
                assert all(f"`{value}`" in page for value in label.values or ())


class TestRecording:
    def test_each_record_function_counts_its_metric(self) -> None:
        metrics = Metrics()
        metrics.record_event_published("user_events")
        metrics.record_event_published()
        metrics.record_dlq_event(reason="validation_failed", topic="user_events")
        metrics.record_event_failed(FailedReason.KAFKA_UNAVAILABLE, "user_events")
        metrics.record_error("_MSG_TIMED_OUT")
        metrics.record_retry()
        metrics.record_retry(4)
        metrics.record_connection_failure()
        metrics.record_rate_limit_wait(0.25)
        metrics.record_rate_limit_wait(0.5)
        snapshot = metrics.snapshot()
        assert snapshot.series(DELIVERED) == [((NOT_KNOWN,), 1), (("user_events",), 1)]
        assert snapshot.series(DEAD_LETTERED) == [(("user_events", "validation_failed"), 1)]
        assert snapshot.series(FAILED) == [(("user_events", "kafka_unavailable"), 1)]
        assert snapshot.series(PUBLISH_ERRORS) == [(("_MSG_TIMED_OUT",), 1)]
        assert snapshot.total(RETRIES) == 5
        assert snapshot.total(RATE_LIMIT_WAITS) == 2
        assert snapshot.total(RATE_LIMIT_WAIT_SECONDS) == 0.75

    def test_latency_is_handed_in_as_milliseconds_and_kept_as_seconds(self) -> None:
        metrics = Metrics()
        metrics.record_publish_latency(45.2)
        assert metrics.snapshot().latency.longest_s == pytest.approx(0.0452)
        assert metrics.get_summary()["latency_ms"]["max"] == pytest.approx(45.2)

    @pytest.mark.parametrize("latency_ms", [math.nan, math.inf, -math.inf])
    def test_a_latency_that_is_no_number_spoils_nothing_and_is_counted(self, latency_ms: float) -> None:
        metrics = Metrics()
        metrics.record_publish_latency(5.0)
        metrics.record_publish_latency(latency_ms)
        assert metrics.snapshot().latency.sum_s == pytest.approx(0.005)
        assert metrics.snapshot().total(REJECTED) == 1

    def test_a_counter_cannot_be_made_to_fall(self) -> None:
        metrics = Metrics()
        metrics.record_retry(3)
        metrics.record_retry(-1)
        metrics.record_rate_limit_wait(math.nan)
        snapshot = metrics.snapshot()
        assert snapshot.total(RETRIES) == 3
        assert snapshot.total(REJECTED) == 2

    def test_the_functions_of_the_module_record_for_the_whole_process(self) -> None:
        before = METRICS.get_summary()
        module.record_event_published()
        module.record_publish_latency(45.2)
        module.record_dlq_event(reason="validation_failed")
        module.record_event_failed("internal")
        module.record_error("x")
        module.record_retry()
        module.record_connection_failure()
        module.record_rate_limit_wait(0.1)
        after = module.get_summary()
        for name in ("delivered", "dead_lettered", "failed", "retries", "connection_failures", "rate_limit_waits"):
            assert after[name] == before[name] + 1
        assert module.snapshot().latency.count >= 1

    def test_threads_lose_no_count(self) -> None:
        metrics = Metrics()

        def work() -> None:
            for _ in range(5_000):
                metrics.record_event_published("t")
                metrics.record_publish_latency(1.0)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        snapshot = metrics.snapshot()
        assert (snapshot.total(DELIVERED), snapshot.latency.count) == (20_000, 20_000)


class TestLabels:
    def test_beyond_the_cap_everything_is_counted_under_other(self) -> None:
        metrics = Metrics()
        for number in range(SERIES_CAP * 3):
            metrics.record_dlq_event(reason=f"reason_{number}", topic="t")
        series = metrics.snapshot().series(DEAD_LETTERED)
        assert len(series) == SERIES_CAP + 1
        assert dict(series)[OTHER, OTHER] == SERIES_CAP * 2
        assert sum(value for _, value in series) == SERIES_CAP * 3

    def test_sources_together_stay_under_the_cap_too(self) -> None:
        metrics = Metrics()
        for source in range(3):
            readings = [Reading(RECEIVED, 1, (f"topic_{source}_{n}",)) for n in range(SERIES_CAP)]
            metrics.add_source(readings.__iter__)
        assert len(metrics.snapshot().series(RECEIVED)) == SERIES_CAP + 1
        assert metrics.snapshot().total(RECEIVED) == SERIES_CAP * 3

    def test_an_enumerated_label_keeps_its_value_beyond_the_cap(self) -> None:
        metrics = Metrics()
        for number in range(SERIES_CAP + 5):
            metrics.record_event_failed(FailedReason.CLOSED, f"topic_{number}")
        assert ((OTHER, "closed"), 5) in metrics.snapshot().series(FAILED)

    @pytest.mark.parametrize("text", ["bob@example.com", "two words", "x" * 250, "naïve", "a\nb", '"', "{}"])
    def test_what_is_no_name_never_becomes_a_label(self, text: str) -> None:
        metrics = Metrics()
        metrics.record_dlq_event(reason=text, topic=text)
        metrics.record_error(text)
        assert metrics.snapshot().series(DEAD_LETTERED) == [((OTHER, OTHER), 1)]
        assert metrics.snapshot().series(PUBLISH_ERRORS) == [((OTHER,), 1)]

    def test_bad_names_do_not_use_up_the_cap_of_the_good_ones(self) -> None:
        metrics = Metrics()
        for number in range(SERIES_CAP * 2):
            metrics.record_error(f"no name {number}")
        metrics.record_error("a_name")
        assert metrics.snapshot().series(PUBLISH_ERRORS) == [(("a_name",), 1), ((OTHER,), SERIES_CAP * 2)]

    def test_an_enumerated_label_takes_only_its_values(self) -> None:
        metrics = Metrics()
        metrics.record_event_failed("made_up", "t")
        for reason in FailedReason:
            metrics.record_event_failed(reason, "t")
        assert {labels[1] for labels, _ in metrics.snapshot().series(FAILED)} == {*FailedReason, OTHER}

    def test_an_empty_label_reads_none(self) -> None:
        metrics = Metrics()
        metrics.record_event_published("")
        assert metrics.snapshot().series(DELIVERED) == [((NOT_KNOWN,), 1)]


class TestSources:
    def test_a_source_is_asked_at_each_reading_and_adds_to_what_was_recorded(self) -> None:
        metrics = Metrics()
        delivered = [0]
        metrics.add_source(lambda: [Reading(DELIVERED, delivered[0], ("t",))])
        metrics.record_event_published("t")
        assert metrics.snapshot().total(DELIVERED) == 1
        delivered[0] = 41
        assert metrics.snapshot().total(DELIVERED) == 42
        assert metrics.snapshot().total(DELIVERED) == 42

    def test_two_sources_of_one_metric_add_up(self) -> None:
        metrics = Metrics()
        for value in (3, 4):
            metrics.add_source([Reading(PENDING, value, ("t",))].__iter__)
        assert metrics.snapshot().series(PENDING) == [(("t",), 7)]

    def test_a_source_that_ends_leaves_its_counters_and_takes_its_gauges_along(self) -> None:
        metrics = Metrics()
        histogram = Histogram()
        histogram.observe(2.0)
        end = metrics.add_source(
            lambda: [
                Reading(DELIVERED, 5, ("t",)),
                Reading(PENDING, 9, ("t",)),
                Reading(LATENCY, histogram),
            ]
        )
        end()
        end()
        snapshot = metrics.snapshot()
        assert (snapshot.total(DELIVERED), snapshot.total(PENDING)) == (5, 0)
        assert (snapshot.latency.count, snapshot.latency.longest_s) == (1, 2.0)

    def test_reading_a_histogram_does_not_change_it(self) -> None:
        metrics = Metrics()
        histogram = Histogram()
        histogram.observe(1.0)
        metrics.add_source(lambda: [Reading(LATENCY, histogram)])
        assert [metrics.snapshot().latency.count for _ in range(3)] == [1, 1, 1]
        assert histogram.count == 1

    def test_a_source_that_raises_is_counted_and_does_not_hide_the_others(self) -> None:
        metrics = Metrics()

        def broken() -> Iterator[Reading]:
            yield Reading(RECEIVED, 1, ("t",))
            raise KeyError("secret")

        metrics.add_source(broken)
        metrics.add_source(lambda: [Reading(RECEIVED, 2, ("t",))])
        assert metrics.snapshot().total(RECEIVED) == 3
        assert metrics.snapshot().total(SOURCE_ERRORS) >= 1

    @pytest.mark.parametrize(
        "reading",
        [
            Reading(RECEIVED, 1),
            Reading(RECEIVED, 1, ("a", "b")),
            Reading(RECEIVED, -1, ("a",)),
            Reading(RECEIVED, math.nan, ("a",)),
            Reading(PENDING, math.inf, ("a",)),
            Reading(LATENCY, 1.0),
            Reading(RECEIVED, Histogram(), ("a",)),
        ],
    )
    def test_a_reading_that_does_not_fit_the_table_is_counted_as_an_error(self, reading: Reading) -> None:
        metrics = Metrics()
        metrics.add_source(lambda: [reading, Reading(ACCEPTED, 1, ("t",))])
        metrics.snapshot()
        snapshot = metrics.snapshot()
        assert snapshot.total(ACCEPTED) == 1
        assert snapshot.total(reading.metric) == 0
        assert snapshot.total(SOURCE_ERRORS) == 1

    def test_an_endless_source_is_cut_off(self) -> None:
        metrics = Metrics()
        metrics.add_source(lambda: (Reading(RECEIVED, 1, ("t",)) for _ in count()))
        assert metrics.snapshot().total(RECEIVED) == READINGS_CAP

    def test_a_source_may_record_while_it_is_asked(self) -> None:
        metrics = Metrics()

        def source() -> list[Reading]:
            metrics.record_retry()
            return []

        metrics.add_source(source)
        metrics.snapshot()
        assert metrics.snapshot().total(RETRIES) == 1

    def test_counters_never_fall_while_sources_come_and_go(self) -> None:
        """One thread reads all the time; sources are added and ended under its eyes."""
        metrics = Metrics()
        seen: list[float] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                seen.append(metrics.snapshot().total(DELIVERED))

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(300):
            metrics.add_source(lambda: [Reading(DELIVERED, 1, ("t",))])()
        done.set()
        reader.join(30)
        assert seen == sorted(seen)
        assert metrics.snapshot().total(DELIVERED) == 300


class TestSummary:
    def test_a_new_set_of_metrics_has_a_complete_summary_of_nothing(self) -> None:
        summary = Metrics().get_summary()
        assert summary["latency_ms"] == {"p50": None, "p95": None, "p99": None, "max": None}
        assert summary["error_rate"] == 0.0
        assert summary["received"] == summary["unaccounted"] == 0
        assert summary["dead_letters_by_reason"] == {}

    def test_the_summary_adds_topics_and_sorts_reasons_by_number(self) -> None:
        metrics = Metrics()
        metrics.add_source(
            lambda: [
                Reading(RECEIVED, 60, ("a",)),
                Reading(RECEIVED, 40, ("b",)),
                Reading(DEAD_LETTERED, 1, ("a", "decode_failed")),
                Reading(DEAD_LETTERED, 2, ("a", "validation_failed")),
                Reading(DEAD_LETTERED, 1, ("b", "validation_failed")),
                Reading(REFUSED, 3, ("b", RefusedReason.RATE_LIMITED)),
                Reading(FAILED, 1, ("b", FailedReason.CLOSED)),
                Reading(DELIVERED, 90, ("a",)),
            ]
        )
        summary = metrics.get_summary()
        assert summary["received"] == 100
        assert list(summary["dead_letters_by_reason"].items()) == [("validation_failed", 3), ("decode_failed", 1)]
        assert summary["refused_by_reason"] == {"rate_limited": 3}
        assert summary["failed_by_reason"] == {"closed": 1}
        assert summary["error_rate"] == metrics.error_rate == pytest.approx(0.08)

    def test_where_only_ends_are_recorded_the_error_rate_is_a_share_of_the_ended(self) -> None:
        metrics = Metrics()
        for _ in range(3):
            metrics.record_event_published()
        metrics.record_dlq_event(reason="validation_failed")
        assert metrics.error_rate == 0.25

    @given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 200))
    def test_the_error_rate_is_a_share(self, dead: int, failed: int, delivered: int, received: int) -> None:
        metrics = Metrics()
        metrics.add_source(
            lambda: [
                Reading(DEAD_LETTERED, dead, ("t", "x")),
                Reading(FAILED, failed, ("t", "closed")),
                Reading(DELIVERED, delivered, ("t",)),
                Reading(RECEIVED, received, ("t",)),
            ]
        )
        assert 0.0 <= metrics.error_rate <= 1.0


class TestProcess:
    def test_counting_loads_none_of_the_heavy_libraries(self) -> None:
        code = (
            "import sys; from postroom.observability.metrics import record_event_published as r; r();"
            "print([m for m in ('prometheus_client', 'structlog', 'confluent_kafka', 'pydantic') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == "[]"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks on this system")
    def test_a_forked_child_counts_from_zero_even_if_the_lock_was_held(self) -> None:
        """In a process of its own: forking this one, with its threads, is not the subject."""
        code = """
import os
from postroom.observability.metrics import METRICS
from postroom.observability.metric_table import DELIVERED
METRICS.record_event_published()
with METRICS._lock:
    child = os.fork()
    if not child:
        METRICS.record_event_published("child")
        os._exit(int(METRICS.snapshot().total(DELIVERED)))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), METRICS.snapshot().total(DELIVERED))
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
        assert run.stdout.split() == ["1", "1"]
