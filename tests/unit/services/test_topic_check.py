"""What of a topic's settings does not fit what is sent there; and a check that hurts nobody."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.exceptions import AuthorizationError, KafkaConnectionError
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.schemas.schema_validator import SchemaValidator
from postroom.services import topic_check
from postroom.services.lane import Lane
from postroom.services.ledger import Ledger
from postroom.services.topic_check import TopicCheck, TopicUse, unfit, uses

CONFIG = load_config(environ={})


@pytest.mark.parametrize(
    ("settings", "may_lack_key", "named"),
    [
        ({"cleanup.policy": "delete", "max.message.bytes": "1048588"}, True, []),
        ({"cleanup.policy": "compact"}, False, []),
        ({"cleanup.policy": "compact"}, True, ["cleanup.policy"]),
        (
            {"cleanup.policy": "compact,delete", "max.message.bytes": "999"},
            True,
            ["cleanup.policy", "max.message.bytes"],
        ),
        ({"max.message.bytes": "1000"}, True, []),
        ({}, True, []),
    ],
)
def test_a_setting_that_makes_brokers_refuse_records_is_named(
    settings: dict[str, str], may_lack_key: bool, named: list[str]
) -> None:
    found = unfit("t", settings, TopicUse(may_lack_key, 1000))
    assert [one.problem.split()[0] for one in found] == named
    assert all(one.topic == "t" and one.remedy for one in found)


def lane(name: str, key_field: str | None, kind: object = "string", topic: str = "t") -> Lane:
    contract = contract_from_short_form(name, {"id": kind}, topic=topic, key_field=key_field)
    return Lane(contract, CONFIG, validator=SchemaValidator({name: contract}), book=Ledger().book(topic))


@pytest.mark.parametrize(
    ("lanes", "may_lack_key"),
    [
        ([lane("a", "id")], False),
        ([lane("a", None)], True),
        ([lane("a", "id", ["null", "string"])], True),
        ([lane("a", None), lane("b", "id")], True),
        ([lane("b", "id"), lane("a", None)], True),
    ],
)
def test_a_topic_may_get_records_without_a_key_if_one_of_its_contracts_does_not_ask_for_one(
    lanes: list[Lane], may_lack_key: bool
) -> None:
    found = uses(lanes, CONFIG)
    assert found["t"].may_lack_key is may_lack_key
    assert found["t.dlq"].may_lack_key


class Admin:
    """Answers as it is told, one answer for each question."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked = threading.Event()

    def __call__(self, *_: object, **__: object) -> Admin:
        return self

    def settings_of(self, _: list[str]) -> Any:
        answer = self.answers.pop(0)
        if not self.answers:
            self.asked.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "answers",
    [
        [KafkaConnectionError("away"), {"t": {"cleanup.policy": "compact"}, "t.dlq": None}],
        [{"t": {"cleanup.policy": "compact"}}],
    ],
)
def test_who_does_not_answer_is_asked_again(answers: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_check, "_AFTER_CONNECTING_S", 0.0)
    admin = Admin(*answers)
    check = TopicCheck(CONFIG, [lane("a", None)], lambda: True, admin)
    check.start()
    assert admin.asked.wait(5)
    check._thread.join(5)
    assert [one.topic for one in check.found] == ["t"]
    check.stop()


@pytest.mark.parametrize("answer", [AuthorizationError("no"), RuntimeError("what")])
def test_who_says_no_is_not(answer: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_check, "_AFTER_CONNECTING_S", 0.0)
    check = TopicCheck(CONFIG, [lane("a", None)], lambda: True, Admin(answer, "never asked for"))
    check.start()
    check._thread.join(5)
    assert not check._thread.is_alive()
    assert check.found == ()
    check.stop()


def test_a_check_that_waits_for_kafka_ends_at_once() -> None:
    check = TopicCheck(CONFIG, [lane("a", None)], lambda: False, Admin())
    check.start()
    check.stop()
    assert not check._thread.is_alive()
