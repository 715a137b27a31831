"""The recording service gives users' tests the same checks and outcomes as the real one, without Kafka."""

from __future__ import annotations

import pytest

from postroom.libs.event import (
    DeadLettered,
    DeadLetterReason,
    Delivered,
    Failed,
    FailedReason,
    Refused,
    RefusedReason,
)
from postroom.libs.exceptions import LifecycleError
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.testing.manual_clock import ManualClock
from postroom.testing.recording_service import RecordingService

GOOD = {"user_id": "u1", "timestamp": 1}


class TestWhatItShows:
    def test_published_events_are_decoded_with_everything_a_consumer_would_see(self) -> None:
        clock = ManualClock(time_ms=1_795_416_182_091)
        with RecordingService(clock=clock) as service:
            service.publish_event(GOOD, event_id="id-1", headers={"tenant": b"a"})
            (event,) = service.published
        assert (event.topic, event.event_type, event.key, event.event_id) == (
            "user_events",
            "user_event",
            b"u1",
            "id-1",
        )
        assert event.event["user_id"] == "u1"
        assert event.event["action"] == "unknown"  # the default of the contract
        assert event.headers == (("ce_id", b"id-1"), ("tenant", b"a"))
        assert event.timestamp_ms == 1_795_416_182_091
        assert service.dead_letters == []

    def test_dead_letters_are_rebuilt_into_what_was_handed_in(self) -> None:
        with RecordingService() as service:
            service.publish_event({"user_id": b"\xff", "more": (1, 2)}, key="k")
            service.publish_event(b"not json")
        first, second = service.dead_letters
        assert first.event == {"user_id": b"\xff", "more": (1, 2)}
        assert (first.key, first.reason, first.topic) == (b"k", "validation_failed", "user_events")
        assert (second.event, second.reason) == (b"not json", "decode_failed")
        assert service.published == []

    def test_before_the_first_event_there_is_nothing_and_after_clear_neither(self) -> None:
        service = RecordingService()
        assert (service.published, service.dead_letters) == ([], [])
        service.publish_event(GOOD)
        service.publish_event({})
        service.fail_next()
        service.clear()
        assert (service.published, service.dead_letters) == ([], [])
        assert isinstance(service.publish_event(GOOD).result(0), Delivered)
        service.close()

    def test_contracts_of_one_s_own_may_be_a_list(self) -> None:
        contract = contract_from_short_form("clicks", {"id": "string"}, key_field="id")
        with RecordingService([contract]) as service:
            service.publish_event({"id": "a"}, event_type="clicks")
            outcome = service.publish_event(GOOD).result(0)
        assert [(event.topic, event.key) for event in service.published] == [("clicks", b"a")]
        assert isinstance(outcome, Refused)
        assert outcome.reason is RefusedReason.UNKNOWN_EVENT_TYPE

    def test_no_file_and_no_variable_has_a_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POSTROOM_TOPICS_USER_EVENTS", "elsewhere")
        monkeypatch.setenv("POSTROOM_CONFIG", "/nowhere.yaml")
        with RecordingService() as service:
            service.publish_event(GOOD)
        assert service.published[0].topic == "user_events"


class TestTrouble:
    @pytest.mark.parametrize("reason", FailedReason)
    @pytest.mark.parametrize("maybe", [True, False])
    def test_events_fail_as_asked_and_the_next_one_goes_through(self, reason: FailedReason, maybe: bool) -> None:
        with RecordingService() as service:
            service.fail_next(reason, times=2, may_be_in_kafka=maybe)
            outcomes = [service.publish_event(GOOD).result(0) for _ in range(3)]
        assert isinstance(outcomes[2], Delivered)
        for outcome in outcomes[:2]:
            assert isinstance(outcome, Failed)
            assert (outcome.reason, outcome.may_be_in_kafka) == (reason, maybe)

    @pytest.mark.parametrize("reason", [DeadLetterReason.MESSAGE_TOO_LARGE, DeadLetterReason.REJECTED_BY_BROKER])
    def test_a_record_that_the_broker_rejects_becomes_a_dead_letter(self, reason: DeadLetterReason) -> None:
        with RecordingService() as service:
            service.fail_next(reason)
            outcome = service.publish_event(GOOD, headers={"tenant": "a"}).result(20)
            assert isinstance(outcome, DeadLettered)
            assert outcome.reason == reason
            (letter,) = service.dead_letters
        assert isinstance(letter.event, dict)
        assert letter.event["user_id"] == "u1"
        assert letter.headers == (("tenant", b"a"),)

    @pytest.mark.parametrize("timeout", [0, 5, 3_600])
    def test_a_full_queue_refuses_the_event_however_long_it_would_wait(self, timeout: float) -> None:
        with RecordingService() as service:
            service.fail_next(RefusedReason.QUEUE_FULL)
            outcome = service.publish_event(GOOD, event_id="same", timeout=timeout).result(0)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.QUEUE_FULL
            again = service.publish_event(GOOD, event_id="same", timeout=timeout)
            assert isinstance(again.result(0), Delivered)

    @pytest.mark.parametrize(
        "reason", [RefusedReason.RATE_LIMITED, DeadLetterReason.VALIDATION_FAILED, DeadLetterReason.DECODE_FAILED]
    )
    def test_what_does_not_come_from_publishing_is_not_made_up(self, reason: RefusedReason | DeadLetterReason) -> None:
        with pytest.raises(ValueError, match="does not come from publishing"):
            RecordingService().fail_next(reason)

    def test_held_events_are_open_until_they_are_released(self) -> None:
        with RecordingService() as service:
            service.publisher.holding = True
            receipts = [service.publish_event(GOOD) for _ in range(3)]
            assert not any(receipt.done() for receipt in receipts)
            assert (service.ledger.total().pending, service.published) == (3, [])
            service.publisher.release()
            assert [type(receipt.result(0)) for receipt in receipts] == [Delivered] * 3

    def test_closing_gives_up_at_once_on_what_is_held(self) -> None:
        service = RecordingService().start()
        service.publisher.holding = True
        receipt = service.publish_event(GOOD)
        service.close()
        assert isinstance(receipt.result(0), Failed)
        with pytest.raises(LifecycleError):
            service.publish_event(GOOD)


def test_users_get_it_as_a_fixture(recording_service: RecordingService) -> None:
    recording_service.publish_event({"user_id": "u1", "timestamp": 1}).raise_for_outcome(1)
    assert recording_service.published[0].event["user_id"] == "u1"
