"""What the latency histogram promises: nothing lost, percentiles within the stated bound, an exact maximum."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.observability.histogram import BOUNDS, WIDEST_STEP, Histogram


def filled(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for seconds in durations:
        histogram.observe(seconds)
    return histogram


def test_the_bounds_rise_from_10_microseconds_to_1000_seconds_in_steps_of_8_to_11_percent() -> None:
    steps = [upper / lower for lower, upper in pairwise(BOUNDS)]
    assert (BOUNDS[0], BOUNDS[-1]) == (1e-5, 1_000.0)
    assert min(steps) > 1.08
    assert max(steps) == 1 + WIDEST_STEP < 1.11


@given(st.lists(st.floats(1e-5, 1_000, exclude_min=True), min_size=1, max_size=200), st.floats(0.001, 1))
def test_a_percentile_is_within_the_bound_of_the_true_one(durations: list[float], share: float) -> None:
    true = sorted(durations)[max(1, math.ceil(share * len(durations))) - 1]
    estimate = filled(durations).percentile(share)
    assert estimate is not None
    assert abs(estimate - true) <= true * WIDEST_STEP * (1 + 1e-9)
    assert estimate <= max(durations)


@given(st.lists(st.floats(0, 1e9), min_size=1), st.lists(st.floats(0, 1e9)))
def test_nothing_is_lost_and_the_longest_is_exact(durations: list[float], more: list[float]) -> None:
    histogram = filled(durations)
    histogram.add(filled(more))
    assert histogram.count == sum(histogram.counts()) == len(durations) + len(more)
    assert histogram.sum_s == pytest.approx(math.fsum(durations + more))
    assert histogram.longest_s == max(durations + more) == histogram.percentile(1)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_a_higher_share_has_no_smaller_percentile(durations: list[float]) -> None:
    histogram = filled(durations)
    estimates = [histogram.percentile(share) or 0.0 for share in (0.01, 0.5, 0.9, 0.95, 0.99, 1.0)]
    assert estimates == sorted(estimates)


def test_an_empty_histogram_has_no_percentile() -> None:
    assert Histogram().percentile(0.5) is None
    assert Histogram().longest_s == 0.0


def test_outside_the_buckets_the_error_is_bounded_by_their_ends() -> None:
    """Below 10 us at most 10 us off, above 1,000 s between that and the longest."""
    short = filled([1e-7] * 99 + [5e-6]).percentile(0.5)
    assert short is not None
    assert 0 <= short <= 5e-6
    long = filled([5_000.0] * 9 + [9_000.0]).percentile(0.5)
    assert long is not None
    assert 1_000 <= long <= 9_000


def test_a_negative_duration_counts_as_zero() -> None:
    histogram = filled([-5.0])
    assert (histogram.count, histogram.sum_s, histogram.longest_s) == (1, 0.0, 0.0)


def test_a_duration_on_a_bound_belongs_to_the_bucket_below_it() -> None:
    """As Prometheus counts: `le` is less than or equal."""
    assert filled([BOUNDS[30]]).counts()[30] == 1
