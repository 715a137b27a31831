"""The Schema Registry is killed, restarted, slow and mad under load: no event waits, is lost, or passes unchecked."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest
from benchmarks.registry_gateway import Gateway
from benchmarks.registry_outage import ASKED_EVERY_SECOND, EVERY_BROKEN, PHASES, Load, Phase, World
from confluent_kafka import Consumer, TopicPartition

from postroom.libs.event import Delivered, Refused, RefusedReason
from postroom.observability.health import State
from postroom.schemas.avro_codec import Codec, unframe
from postroom.schemas.schema_registry_client import SchemaRegistryClient
from postroom.services import schema_ids
from postroom.services.health_checks import health_of
from tests.kafka.programs import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.services.producer_service import ProducerService
    from postroom.testing.local_stack import LocalStack

RATE, SECONDS = 400, 2.5
TARGET_US = 1_000.0
"""No event may wait so much longer, at the 99th percentile, than while the registry is up."""
TRIES = 4
EVENT = {"user_id": "u", "timestamp": 1, "text": "t"}


@pytest.fixture
def world(stack: LocalStack, tmp_path: Path) -> Iterator[World]:
    stack.restore()
    with Gateway(stack.registry.port) as gateway:
        yield World(stack, gateway, str(tmp_path / "copies"), f"away-{uuid.uuid4().hex[:8]}-")
    stack.restore()


def values_in(stack: LocalStack, topic: str, partitions: int) -> list[bytes]:
    """The value of every record of a topic, read by an ordinary consumer."""
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": "judge", "enable.auto.commit": False})
    try:
        places = [TopicPartition(topic, number, 0) for number in range(partitions)]
        left = sum(consumer.get_watermark_offsets(place, timeout=20)[1] for place in places)
        consumer.assign(places)
        found: list[bytes] = []
        while len(found) < left:
            message = consumer.poll(20)
            assert message is not None, "the topic ends early"
            assert message.error() is None, message.error()
            value = message.value()
            assert value is not None
            found.append(value)
        return found
    finally:
        consumer.close()


def states(service: ProducerService) -> set[str]:
    return {view.state for view in service.parts.schema_ids.views()}


def registry_part(service: ProducerService) -> tuple[State, str]:
    part = next(one for one in health_of(service).report().components if one.name == "schema_registry")
    return part.state, part.detail


@pytest.mark.timeout(300)
def test_under_load_no_event_waits_none_is_lost_and_none_passes_unchecked(
    world: World, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, pauses in ASKED_EVERY_SECOND.items():
        monkeypatch.setattr(schema_ids, name, pauses)
    with world.service() as service:
        load = Load(service, list(world.contracts), RATE)
        load.run(1.0)
        measured: dict[str, Phase] = {}
        for phase in PHASES:
            measured[phase] = world.measure(load, service, phase, SECONDS)
            allowed_us = measured["up"].p99_us + TARGET_US
            for _ in range(TRIES):  # other programs use the machine, too: what is slow each time is slow
                if measured[phase].p99_us <= allowed_us:
                    break
                again = world.measure(load, service, phase, SECONDS)
                measured[phase] = min(measured[phase], again, key=lambda one: one.p99_us)
            assert measured[phase].p99_us <= allowed_us, measured
            assert measured[phase].max_us < 1_000_000, measured  # a question of the slow registry takes three seconds
        assert all(phase.questions for phase in measured.values()), measured
        outcomes = load.outcomes()
        assert {view.schema_id for view in service.parts.schema_ids.views()} == set(world.ids.values())
        balance = service.ledger.total()
    # Each call of `run` breaks one event in a hundred.
    assert outcomes.keys() == {"Delivered", "DeadLettered"}
    assert outcomes["DeadLettered"] == pytest.approx(load.handed_in / EVERY_BROKEN, rel=0.05)
    assert outcomes.total() == load.handed_in
    assert (balance.refused, balance.failed, balance.unaccounted) == (0, 0, 0)
    found = 0
    with SchemaRegistryClient(stack.registry_url) as client:
        for name, schema_id in world.ids.items():
            codec = Codec(json.loads(client.by_id(schema_id)))
            for value in values_in(stack, name, 2):
                assert unframe(value)[0] == schema_id
                assert codec.decode(unframe(value)[1])["text"]
                found += 1
    assert found == outcomes["Delivered"]


def test_a_service_starts_with_the_copies_while_the_registry_is_dead(world: World) -> None:
    with world.service() as service:
        assert states(service) == {"fresh"}
    world.enter("away")
    with world.service() as service:
        assert states(service) == {"stale"}
        for name in world.contracts:
            assert isinstance(service.publish_event(EVENT, event_type=name).result(20), Delivered)
        state, detail = registry_part(service)
        assert state is State.DEGRADED
        assert "last known schema ids in use: 5, stale since 20" in detail
        world.enter("up")
        until(lambda: states(service) == {"fresh"}, "the ids are confirmed")
        assert registry_part(service) == (State.OK, "")


@pytest.mark.parametrize("phase", ["slow", "hanging", "rubbish"])
def test_a_service_starts_with_the_copies_whatever_the_registry_does(world: World, phase: str) -> None:
    with world.service() as service:
        assert states(service) == {"fresh"}
    world.enter(phase)
    with world.service() as service:
        for name in world.contracts:
            assert isinstance(service.publish_event(EVENT, event_type=name).result(20), Delivered)


def test_without_copies_the_lanes_are_closed_until_the_registry_answers(world: World) -> None:
    world.enter("away")
    with world.service() as service:
        outcome = service.publish_event(EVENT).result(0)
        assert isinstance(outcome, Refused)
        assert outcome.reason is RefusedReason.CONTRACT_UNAVAILABLE
        assert outcome.retry_after_s is not None
        assert registry_part(service)[0] is State.DOWN
        world.enter("up")
        until(lambda: states(service) == {"fresh"}, "the lanes are open")
        assert isinstance(service.publish_event(EVENT).result(20), Delivered)
