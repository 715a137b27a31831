"""Checked by mypy in strict mode, never run: what a user's code may rely on."""

from __future__ import annotations

from typing import assert_never, assert_type

from postroom import (
    AsyncProducerService,
    BatchResult,
    Config,
    Contract,
    DeadLettered,
    Delivered,
    Failed,
    Outcome,
    ProducerService,
    Receipt,
    Refused,
    Spooled,
    Violation,
    get_service,
    load_config,
    load_contract,
)
from postroom.testing.recording_service import PublishedEvent, RecordingService


def every_outcome_is_one_of_five(receipt: Receipt) -> str:
    match receipt.result(timeout=20):
        case Delivered(topic=topic, partition=partition, offset=offset):
            assert_type(topic, str)
            assert_type(partition, int)
            return f"{topic} {partition} {offset}"
        case Spooled():
            return "spooled"
        case DeadLettered(reason=reason, violations=violations):
            assert_type(violations, tuple[Violation, ...])
            return reason
        case Refused(reason=why, retry_after_s=seconds):
            assert_type(seconds, float | None)
            return why.value
        case Failed(may_be_in_kafka=maybe):
            assert_type(maybe, bool)
            return "failed"
        case nothing_else:
            assert_never(nothing_else)


def a_service_keeps_its_types(config: Config) -> None:
    with ProducerService(config) as post:
        assert_type(post, ProducerService)
        receipt = post.publish_event({"user_id": "u1", "timestamp": 1}, event_type="user_event", key=b"k", timeout=0)
        assert_type(receipt, Receipt)
        assert_type(receipt.outcome, Outcome | None)
        assert_type(receipt.raise_for_outcome(), Delivered | Spooled)
        assert_type(receipt.safe, bool)
        many: list[dict[str, object] | bytes | str] = [{"a": 1}, b"{}", "{}"]
        result = post.publish_many(iter(many), headers=[("a", b"x")])
        assert_type(result, BatchResult)
        assert_type([problem.index for problem in result.problems], list[int])
    assert_type(get_service(), ProducerService)
    assert_type(ProducerService.from_config("kafka.yaml", env="prod"), ProducerService)


async def the_asyncio_face_gives_the_outcome() -> Outcome:
    async with AsyncProducerService.from_config("kafka.yaml") as post:
        assert_type(post, AsyncProducerService)
        return await post.publish_event({"user_id": "u1"}, headers={"tenant": "a"})


def settings_and_contracts_are_typed() -> None:
    config = load_config("kafka.yaml", overrides={"broker": "localhost:9092"})
    assert_type(config, Config)
    assert_type(config.broker, str)
    assert_type(load_contract("clicks.yaml"), Contract)


def a_user_s_test(service: RecordingService) -> None:
    post: ProducerService = service
    post.publish_event({"user_id": "u1"})
    assert_type(service.published, list[PublishedEvent])
