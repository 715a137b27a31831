"""Every signal of librdkafka has one meaning, and the table says which."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from postroom.libs.event import DeadLetterReason, FailedReason
from postroom.streaming.delivery import TABLE, Action, decide, was_never_sent


def _codes() -> dict[str, int]:
    return {
        name: value
        for name in dir(KafkaError)
        if name.upper() == name and isinstance(value := getattr(KafkaError, name), int)
    }


CODES = _codes()


def test_the_client_library_still_has_the_codes_that_this_test_walks() -> None:
    assert len(CODES) > 150
    assert CODES["_MSG_TIMED_OUT"] == -192


@pytest.mark.parametrize("name", sorted(CODES))
def test_every_code_of_the_client_library_has_a_row_of_its_own(name: str) -> None:
    assert CODES[name] in TABLE


@pytest.mark.parametrize("code", sorted(TABLE))
def test_every_row_says_why_unless_the_record_was_delivered(code: int) -> None:
    decision = decide(code)
    if decision.action is Action.DELIVERED:
        assert code == 0
        assert decision.reason is None
    elif decision.action is Action.HOLD:
        assert isinstance(decision.reason, FailedReason)
    else:
        assert isinstance(decision.reason, DeadLetterReason)
        assert not decision.may_be_in_kafka


@pytest.mark.parametrize(
    ("name", "action", "maybe", "reason"),
    [
        ("NO_ERROR", Action.DELIVERED, False, None),
        ("_MSG_TIMED_OUT", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("_PURGE_INFLIGHT", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("_PURGE_QUEUE", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("NOT_ENOUGH_REPLICAS", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("NOT_ENOUGH_REPLICAS_AFTER_APPEND", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("_UNKNOWN_TOPIC", Action.HOLD, False, FailedReason.TOPIC_MISSING),
        ("UNKNOWN_TOPIC_OR_PART", Action.HOLD, True, FailedReason.TOPIC_MISSING),
        ("TOPIC_AUTHORIZATION_FAILED", Action.HOLD, True, FailedReason.NOT_AUTHORIZED),
        ("MSG_SIZE_TOO_LARGE", Action.DEAD_LETTER, False, DeadLetterReason.MESSAGE_TOO_LARGE),
        ("INVALID_RECORD", Action.DEAD_LETTER, False, DeadLetterReason.REJECTED_BY_BROKER),
        ("_INVALID_DIFFERENT_RECORD", Action.HOLD, False, FailedReason.BROKER_ERROR),
    ],
)
def test_the_signals_that_matter_most_mean_what_they_should(
    name: str, action: Action, maybe: bool, reason: object
) -> None:
    decision = decide(CODES[name])
    assert (decision.action, decision.may_be_in_kafka, decision.reason) == (action, maybe, reason)


def test_a_fatal_error_asks_for_a_new_producer_whatever_its_code() -> None:
    for code in (CODES["_FATAL"], CODES["OUT_OF_ORDER_SEQUENCE_NUMBER"]):
        assert decide(code).rebuild
    assert decide(CODES["INVALID_MSG"], fatal=True).rebuild


def test_a_code_from_the_future_is_held_and_nothing_is_assumed_about_the_log() -> None:
    decision = decide(32_000)
    assert decision.action is Action.HOLD
    assert decision.may_be_in_kafka


def test_only_a_held_record_can_turn_out_never_to_have_been_sent() -> None:
    held = was_never_sent(decide(CODES["_PURGE_QUEUE"]))
    assert held.action is Action.HOLD
    assert not held.may_be_in_kafka
    assert was_never_sent(decide(0)) is decide(0)
