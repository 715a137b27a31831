"""The examples of the user's guide that need Kafka and a Schema Registry, run as the guide writes them.

Nothing is handed to the constructors: the addresses come from the environment, as in production.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient as OfficialRegistryClient
from confluent_kafka.schema_registry import topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from postroom.libs.config_loader import load_config
from postroom.schemas.data_contracts import packaged_contracts
from postroom.services.topics import create_contract_topics
from postroom.streaming.dead_letter_queue import DeadLetter, rebuild
from postroom.streaming.kafka_reader import KafkaReader, ReadRecord
from postroom.streaming.librdkafka_settings import client_settings

if TYPE_CHECKING:
    from postroom.testing.local_stack import LocalStack

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def topic(stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Variables say where the servers are; topics and contract are there, as an operator made them.

    Behind the name `user_events` stands a fresh topic: one of the examples writes JSON into it, which the readers of
    other tests would stumble over.
    """
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    topic = f"guide-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("POSTROOM_BROKER", stack.bootstrap)
    monkeypatch.setenv("POSTROOM_SCHEMA_REGISTRY_URL", stack.registry_url)
    monkeypatch.setenv("POSTROOM_TOPICS_USER_EVENTS", topic)
    create_contract_topics(packaged_contracts().values(), load_config())
    from postroom.schemas.schema_registry_client import SchemaRegistryClient

    with SchemaRegistryClient() as registry:
        for subject in (f"{topic}-value", "user_events-value"):
            registry.register(subject, packaged_contracts()["user_event"].schema_json)
    return topic


def new_event() -> dict[str, object]:
    return {"user_id": f"guide-{uuid.uuid4()}", "timestamp": 1795416182091}


def read_back(topic: str, partition: int, offset: int) -> ReadRecord:
    """The record that stands there, by a plain consumer."""
    for record in KafkaReader(client_settings(load_config())).read([topic]):
        if (record.partition, record.offset) == (partition, offset):
            return record
    raise AssertionError(f"nothing at {topic}[{partition}] {offset}")


def test_5_the_registry_client_finds_the_schema_of_a_topic() -> None:
    from postroom.schemas.schema_registry_client import SchemaRegistryClient

    found = SchemaRegistryClient().get_schema("user_events")
    assert found.subject == "user_events-value"
    assert found.version >= 1
    assert json.loads(found.schema)["type"] == "record"


def test_5_the_registry_keeps_new_versions_backward_compatible() -> None:
    from postroom.schemas.schema_registry_client import Compatibility, SchemaRegistryClient

    registry = SchemaRegistryClient()
    subject = f"guide-{uuid.uuid4()}-value"
    fields = [{"name": "user_id", "type": "string"}]
    registry.register(subject, json.dumps({"type": "record", "name": "Login", "fields": fields}))
    registry.set_compatibility(subject, Compatibility.BACKWARD)
    optional = [*fields, {"name": "country", "type": "string", "default": ""}]
    required = [*fields, {"name": "country", "type": "string"}]
    assert registry.check_compatibility(subject, json.dumps({"type": "record", "name": "Login", "fields": optional}))
    assert not registry.check_compatibility(
        subject, json.dumps({"type": "record", "name": "Login", "fields": required})
    )


def test_8_the_kafka_client_publishes_a_mapping(topic: str) -> None:
    from postroom.streaming.kafka_client import KafkaClient

    event = new_event()
    client = KafkaClient()
    try:
        delivered = client.publish(event)
    finally:
        client.close()
    record = read_back(delivered.topic, delivered.partition, delivered.offset)
    assert delivered.topic == topic
    assert record.value is not None
    assert json.loads(record.value) == event


def test_9_the_producer_service_publishes_an_event_that_everybody_can_decode(stack: LocalStack, topic: str) -> None:
    from postroom import Delivered
    from postroom.services.producer_service import ProducerService

    event = new_event()
    service = ProducerService()
    try:
        outcome = service.publish_event(event).result(timeout=60)
    finally:
        service.close()
    assert isinstance(outcome, Delivered)
    record = read_back(outcome.topic, outcome.partition, outcome.offset)
    with OfficialRegistryClient({"url": stack.registry_url}) as registry:
        # Named, or the client asks for the topic's associations first: the local registry lets some of these hang.
        decode = AvroDeserializer(registry, conf={"subject.name.strategy": topic_subject_name_strategy})
        decoded = decode(record.value, SerializationContext(topic, MessageField.VALUE))
    assert decoded is not None
    assert {name: decoded[name] for name in event} == event
    assert record.key == str(event["user_id"]).encode()


def test_9_an_event_that_breaks_its_contract_goes_to_the_dead_letters() -> None:
    from postroom import DeadLettered
    from postroom.services.producer_service import ProducerService

    event = {"user_id": f"guide-{uuid.uuid4()}", "timestamp": "yesterday"}
    service = ProducerService()
    try:
        outcome = service.publish_event(event).result(timeout=60)
    finally:
        service.close()
    assert isinstance(outcome, DeadLettered)
    assert outcome.reason == "validation_failed"
    letter: DeadLetter = rebuild(read_back(outcome.topic, outcome.partition, outcome.offset))
    assert (letter.event, letter.reason) == (event, "validation_failed")


def test_8_9_and_12_work_as_one_liners_that_nobody_closes(topic: str) -> None:
    """What the guide prints, word for word, in a process that then ends: nothing is lost and nothing complains."""
    user = f"guide-{uuid.uuid4()}"
    program = f"""
from postroom.services.producer_service import ProducerService
from postroom.streaming.dead_letter_queue import DeadLetterQueue
from postroom.streaming.kafka_client import KafkaClient

event = {{"user_id": "{user}", "timestamp": 1795416182091}}
KafkaClient().publish(event)
DeadLetterQueue().send_to_dlq(event, reason="validation_failed")
ProducerService().publish_event(event)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    reader = KafkaReader(client_settings(load_config()))
    values = [record.value or b"" for record in reader.read([topic, f"{topic}.dlq"])]
    assert sum(user.encode() in value for value in values) == 3


def test_10_the_entry_point_publishes_to_the_broker_that_the_environment_names() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "src/postroom/services/producer_main.py",
            "--count",
            "500",
            "--invalid-ratio",
            "0.1",
            "--json",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["received"], summary["accepted"], summary["unaccounted"]) == (500, 500, 0)
    assert summary["delivered"] + summary["dead_lettered"] == 500
    assert summary["dead_lettered"] > 0


def test_12_the_dead_letter_queue_keeps_an_event_with_its_reason(topic: str) -> None:
    from postroom.streaming.dead_letter_queue import DeadLetterQueue

    event = new_event()
    dlq = DeadLetterQueue()
    try:
        kept = dlq.send_to_dlq(event, reason="validation_failed")
    finally:
        dlq.close()
    assert kept.topic == f"{topic}.dlq"
    letter = rebuild(read_back(kept.topic, kept.partition, kept.offset))
    assert (letter.event, letter.reason) == (event, "validation_failed")
