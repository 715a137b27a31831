"""The one state machine for trouble, as a table: every state, every signal."""

from __future__ import annotations

from random import Random

import pytest

from postroom.libs.event import DeadLetterReason, FailedReason
from postroom.services.paths import Path, Signal, State, next_state
from postroom.streaming.spool.record_format import Kind

TABLE = {
    State.DIRECT: {Signal.TROUBLE: State.HANDING_OVER, Signal.FOUND: State.DRAINING},
    State.HANDING_OVER: {Signal.HANDED_OVER: State.SPOOLING},
    State.SPOOLING: {Signal.DELIVERED: State.DRAINING, Signal.EMPTIED: State.DIRECT},
    State.DRAINING: {Signal.TROUBLE: State.HANDING_OVER, Signal.EMPTIED: State.DIRECT},
}


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize("state", State)
def test_each_signal_leads_where_the_table_says_and_leaves_every_other_state(state: State, signal: Signal) -> None:
    assert next_state(state, signal) is TABLE[state].get(signal, state)


def test_no_state_is_a_dead_end_and_direct_can_be_reached_from_everywhere() -> None:
    for start in State:
        reached, border = {start}, [start]
        while border:
            more = [following for following in TABLE[border.pop()].values() if following not in reached]
            reached.update(more)
            border += more
        assert State.DIRECT in reached, start


def test_a_path_is_direct_in_the_beginning_and_knows_since_when_it_is_what_it_is() -> None:
    path = Path("t", Kind.RECORD, 5.0)
    assert (path.is_direct, path.since) == (True, 5.0)
    assert path.signal(Signal.TROUBLE, 7.0)
    assert (path.is_direct, path.state, path.since) == (False, State.HANDING_OVER, 7.0)
    assert not path.signal(Signal.TROUBLE, 9.0)
    assert path.since == 7.0


def test_failed_probes_are_due_again_after_1_2_4_and_4_seconds_each_shortened_by_up_to_a_fifth() -> None:
    """None is longer: the first record from the spool follows Kafka's return by 5 s at most, the probe included."""
    path, random = Path("t", Kind.RECORD, 0.0), Random(1)
    waits = []
    for _ in range(6):
        path.failed(FailedReason.KAFKA_UNAVAILABLE, 100.0, random)
        waits.append(path.next_try_at - 100.0)
    for wait_s, longest_s in zip(waits, (1.0, 2.0, 4.0, 4.0, 4.0, 4.0), strict=True):
        assert 0.8 * longest_s <= wait_s <= longest_s
    assert len({round(wait_s, 6) for wait_s in waits[-3:]}) == 3


def test_what_works_again_is_tried_at_once_and_has_no_problem_any_more() -> None:
    path = Path("t", Kind.RECORD, 0.0)
    path.failed(FailedReason.TOPIC_MISSING, 100.0, Random(1))
    problem_before = path.problem
    path.works()
    assert problem_before is FailedReason.TOPIC_MISSING
    assert path.problem is None
    assert (path.tries, path.next_try_at) == (0, 0.0)


def test_a_reason_that_belongs_to_the_record_is_told_as_the_broker_s() -> None:
    path = Path("t", Kind.RECORD, 0.0)
    path.note_problem(DeadLetterReason.REJECTED_BY_BROKER)
    assert path.problem is FailedReason.BROKER_ERROR
