"""The Schema Registry is killed, restarted, slow and mad under load: no event waits, is lost, or passes unchecked."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest
from benchmarks.registry_gateway import Gateway
from benchmarks.registry_outage import ASKED_EVERY_SECOND, EVERY_BROKEN, PHASES, Load, Phase, World
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import schema_registry as confluent
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from postroom.__main__ import main
from postroom.libs.config_loader import load_config
from postroom.libs.event import Delivered, Refused, RefusedReason
from postroom.libs.exceptions import ConfigurationError, SubjectNotFoundError
from postroom.observability.health import State
from postroom.observability.metrics import Metrics
from postroom.schemas.avro_codec import Codec, unframe
from postroom.schemas.schema_registry_client import SchemaRegistryClient
from postroom.services import schema_ids
from postroom.services.health_checks import health_of
from postroom.services.producer_service import ProducerService
from tests.kafka.programs import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def test_a_contract_that_refers_to_a_type_of_another_subject_is_registered_published_and_read(
    stack: LocalStack, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.restore()
    name = f"order-{uuid.uuid4().hex[:8]}"
    address = {"type": "record", "name": "com.example.Address", "fields": [{"name": "street", "type": "string"}]}
    (tmp_path / "address.avsc").write_text(json.dumps(address))
    (tmp_path / "order.yaml").write_text(
        f"name: {name}\nversion: 1\ntopic: {name}\nschema: {{to: com.example.Address, from: com.example.Address}}\n"
        f"references: [{{name: com.example.Address, subject: {name}-address, version: 1, file: address.avsc}}]\n"
    )
    stack.create_topic(name, partitions=1)
    overrides: dict[str, object] = {
        "broker": stack.bootstrap,
        "schema_registry.url": stack.registry_url,
        "schema_registry.copies_dir": str(tmp_path / "copies"),
        "contracts.path": [str(tmp_path / "order.yaml")],
    }
    service = ProducerService(load_config(environ={}, overrides=overrides), metrics=Metrics())
    with pytest.raises(SubjectNotFoundError, match=f"{name}-address"):
        service.start()
    with SchemaRegistryClient(stack.registry_url) as client:
        client.register(f"{name}-address", json.dumps(address))
    with pytest.raises(ConfigurationError, match="postroom contracts register"):
        service.start()
    monkeypatch.chdir(tmp_path)
    settings = f"contracts: {{path: [order.yaml]}}\nschema_registry: {{url: '{stack.registry_url}'}}\n"
    (tmp_path / "kafka.yaml").write_text(settings)
    assert main(["contracts", "register", "--json"]) == 0
    (registered,) = json.loads(capsys.readouterr().out)["registered"]
    grown = "schema: {type: record, name: ORDER, fields: [{name: to, type: com.example.Address}, "
    grown += "{name: from, type: com.example.Address}, {name: more, type: int, default: 0}]}\n"
    changed = (
        (tmp_path / "order.yaml")
        .read_text()
        .replace("schema: {to: com.example.Address, from: com.example.Address}\n", grown)
    )
    (tmp_path / "grown.yaml").write_text(changed.replace("ORDER", name.replace("-", "_")))
    for file, state in (("order.yaml", "registered"), ("grown.yaml", "compatible")):
        assert main(["contracts", "check", file, "--registry", stack.registry_url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["contracts"][0]["state"] == state
    event = {"to": {"street": "Rue 1"}, "from": {"street": "Rue 2"}}
    with service:
        assert isinstance(service.publish_event(event, event_type=name).result(20), Delivered)
    (value,) = values_in(stack, name, 1)
    assert unframe(value)[0] == registered["schema_id"]
    with confluent.SchemaRegistryClient({"url": stack.registry_url, "timeout": 20}) as registry:
        # Named, or the client asks for the topic's associations first: the local registry lets some of these hang.
        decode = AvroDeserializer(registry, conf={"subject.name.strategy": confluent.topic_subject_name_strategy})
        assert decode(value, SerializationContext(name, MessageField.VALUE)) == event
