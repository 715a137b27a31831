"""Rules in the pipeline: refused, kept for repair, or published and counted; each told without any value."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.event import DeadLettered, DeadLetterReason, Delivered, Refused, RefusedReason
from postroom.libs.exceptions import InvalidContractError, ValidationError
from postroom.observability.metric_table import RULE_FAILURES
from postroom.schemas.data_contracts import load_contract
from postroom.services.replay import Replay, Selection
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD = {"user_id": "u1", "timestamp": 1795416182091, "email": "a@example.com", "country": "DE"}


@pytest.fixture
def post() -> Iterator[RecordingService]:
    with RecordingService([load_contract("examples/contracts/user_event_with_rules.yaml")]) as service:
        yield service


def outcome(post: RecordingService, event: Any) -> Any:
    return post.publish_event(event).result(timeout=5)


def test_an_event_that_keeps_all_rules_is_published(post: RecordingService) -> None:
    assert isinstance(outcome(post, GOOD), Delivered)
    assert isinstance(outcome(post, json.dumps(GOOD)), Delivered)
    assert post._metrics.snapshot().series(RULE_FAILURES) == []


def test_error_refuses_the_event_and_names_the_rule(post: RecordingService) -> None:
    refused = outcome(post, {**GOOD, "user_id": "", "country": "Utopia"})
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.retry_after_s) == (RefusedReason.RULE_FAILED, None)
    assert refused.detail.startswith(
        "user_id: user_id_is_said, expected user_id is not empty., found condition not met"
    )
    assert "country_is_a_code" in refused.detail
    assert post.published == []
    assert post.dead_letters == []


def test_dlq_keeps_the_event_whole_and_it_can_be_replayed_after_a_fix(post: RecordingService) -> None:
    bad = {**GOOD, "country": "Utopia", "email": "nobody"}
    kept = outcome(post, bad)
    assert isinstance(kept, DeadLettered)
    assert kept.reason == DeadLetterReason.RULE_FAILED
    (letter,) = post.dead_letters
    assert letter.event == bad
    assert [(item.path, item.rule) for item in letter.violations] == [
        ("country", "country_is_a_code"),
        ("email", "email_has_an_at"),
    ]
    headers = dict(post.publisher.records[-1].headers)
    assert headers["__connect.errors.exception.class.name"].decode().endswith(ValidationError.__name__)
    assert not any(b"Utopia" in value or b"nobody" in value for value in headers.values())
    result = Replay(post, Selection()).run(lambda: _records(post), lambda: 0)
    assert (result.still_failing, result.still_failing_by_rule) == (
        1,
        {"country_is_a_code": 1, "email_has_an_at": 1},
    )


def test_none_publishes_counts_and_writes_a_line_now_and_then(
    post: RecordingService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(3):
        assert isinstance(outcome(post, {**GOOD, "position_ms": 7, "duration_ms": 6}), Delivered)
    assert post._metrics.snapshot().series(RULE_FAILURES) == [(("user_event", "position_is_within", "NONE"), 3)]
    lines = [record.getMessage() for record in caplog.records if "rule_failed" in record.getMessage()]
    assert len(lines) == 1
    assert "rule=user_event.position_is_within" in lines[0]


def test_an_event_that_breaks_the_schema_is_not_tried_on_rules(post: RecordingService) -> None:
    kept = outcome(post, {**GOOD, "user_id": "", "country": 7})
    assert kept.reason == DeadLetterReason.VALIDATION_FAILED
    assert post._metrics.snapshot().series(RULE_FAILURES) == []


def test_the_books_balance_with_rules(post: RecordingService) -> None:
    for event in (
        GOOD,
        {**GOOD, "user_id": ""},
        {**GOOD, "country": "x"},
        {**GOOD, "position_ms": 7, "duration_ms": 6},
    ):
        outcome(post, event)
    total = post.ledger.total()
    assert (total.received, total.delivered, total.dead_lettered, total.refused) == (4, 2, 1, 1)
    assert total.unaccounted == 0


def test_a_service_does_not_start_with_a_rule_that_cannot_run(tmp_path: Any) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "name: bad\nversion: 1\ntopic: bad\nschema: {id: string}\n"
        "ruleSet: {domainRules: [{name: r, type: CEL, expr: message.idd != ''}]}\nknown_bad: {r: {id: ''}}\n"
    )
    with pytest.raises(InvalidContractError, match="undefined field 'idd'"):
        load_contract(path)


def _records(post: RecordingService) -> Any:
    from postroom.streaming.kafka_reader import ReadRecord

    return [
        ReadRecord(record.topic, 0, at, record.key, record.value, record.headers, 0)
        for at, record in enumerate(post.publisher.records)
    ]
