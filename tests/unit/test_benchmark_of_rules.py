"""The benchmark of rules runs, and its peer gives the same verdicts: a peer that skipped its rules would be cheap."""

from __future__ import annotations

import pytest
from benchmarks.rules import check_verdicts, measure, ruled_contract, ruled_events


def test_every_step_is_measured_and_the_peer_runs_its_rules() -> None:
    figures = measure(60, 1)
    assert 0 < figures.rules < figures.official
    assert figures.times_cheaper > 1


def test_a_peer_without_rules_is_noticed() -> None:
    with pytest.raises(AssertionError, match="user_id"):
        check_verdicts(ruled_contract(), lambda _: b"")


def test_the_events_of_the_benchmark_keep_every_rule() -> None:
    conditions = ruled_contract().conditions
    assert conditions is not None
    assert not any(conditions.failures(event) for event in ruled_events(500))
