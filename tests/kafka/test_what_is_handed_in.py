"""On the real Kafka: tombstones, and two types in one topic, one of them a CloudEvent, as any consumer reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from postroom.__main__ import main
from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLettered, Delivered
from postroom.observability.metrics import Metrics
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.services.journal import AcceptedJournal
from postroom.services.producer_service import ProducerService
from postroom.services.replay import Replay, Selection
from postroom.services.verify import verify
from postroom.streaming.kafka_admin import KafkaAdmin, TopicSpec
from postroom.streaming.kafka_reader import KafkaReader

if TYPE_CHECKING:
    from confluent_kafka import Message

    from postroom.testing.local_stack import LocalStack

PROFILE = replace(
    contract_from_short_form("profile", {"user_id": "string"}, topic="people", key_field="user_id"),
    headers="cloudevents",
    tombstones=True,
)
MOVED = contract_from_short_form("moved", {"user_id": "string", "city": "string"}, topic="people", key_field="user_id")


def settings(stack: LocalStack, topic: str) -> dict[str, object]:
    return {
        "broker": stack.bootstrap,
        "topics.people": topic,
        "contracts.default": "profile",
        "schema_registry.url": stack.registry_url,
        "schema_registry.auto_register": True,
        "schema_registry.subject_strategy": "topic_record_name",
    }


def service(stack: LocalStack, topic: str, **more: Any) -> ProducerService:
    config = load_config(overrides=settings(stack, topic), environ={})
    contracts = {one.name: one for one in (PROFILE, MOVED)}
    return ProducerService(config, contracts=contracts, metrics=Metrics(), **more)


def messages(stack: LocalStack, topic: str) -> list[Message]:
    """What an ordinary consumer gets, partition by partition."""
    consumer = Consumer({"bootstrap.servers": stack.bootstrap, "group.id": "judge", "enable.auto.commit": False})
    found: list[Message] = []
    try:
        for partition in consumer.list_topics(topic, timeout=20).topics[topic].partitions:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
            consumer.assign([TopicPartition(topic, partition, 0)])
            while high and (not found or found[-1].partition() != partition or found[-1].offset() != high - 1):
                message = consumer.poll(20)
                assert message is not None
                assert message.error() is None
                found.append(message)
        return found
    finally:
        consumer.close()


def test_a_tombstone_arrives_as_null_with_its_key_and_headers_in_its_place(
    postroom_stack: LocalStack, postroom_topic: str, tmp_path: Path
) -> None:
    path = tmp_path / "accepted.ndjson"
    with AcceptedJournal(path) as journal, service(postroom_stack, postroom_topic, journal=journal) as post:
        receipts = [
            post.publish_event({"user_id": "u1"}, event_id="e-1"),
            post.publish_tombstone("u1", event_id="e-2", headers={"own": b"\xff"}),
            post.publish_event({"user_id": "u1"}, event_id="e-3"),
        ]
        assert [type(receipt.result(20)) for receipt in receipts] == [Delivered] * 3
    found = messages(postroom_stack, postroom_topic)
    assert [(message.key(), message.value() is None) for message in found] == [
        (b"u1", False),
        (b"u1", True),
        (b"u1", False),
    ]
    headers = dict(found[1].headers() or [])
    assert (headers["ce_id"], headers["ce_type"], headers["own"]) == (b"e-2", b"profile", b"\xff")
    assert not {"content-type", "ce_dataschema"} & headers.keys()
    report = verify(path, KafkaReader({"bootstrap.servers": postroom_stack.bootstrap})).topics[0]
    assert (report.found, report.missing, report.duplicated, report.out_of_order) == (3, 0, 0, 0)


def test_two_types_share_a_topic_and_are_told_apart_shown_and_replayed(
    postroom_stack: LocalStack, postroom_topic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = KafkaAdmin({"bootstrap.servers": postroom_stack.bootstrap})
    admin.create_topics([TopicSpec(f"{postroom_topic}.dlq", 1, 1)])
    with service(postroom_stack, postroom_topic) as post:
        envelope = {"specversion": "1.0", "id": "e-1", "source": "/crm", "type": "moved"}
        data = {"user_id": "u1", "city": "Köln"}
        receipts = [
            post.publish_event({"user_id": "u1"}, event_type="profile"),
            post.publish_event(
                json.dumps({**envelope, "data": data}), headers={"content-type": "application/cloudevents+json"}
            ),
            post.publish_event(b'{"user_id": "u2"}', event_type="moved", event_id="e-2"),
        ]
        assert [type(receipt.result(20)) for receipt in receipts] == [Delivered, Delivered, DeadLettered]
        types = [dict(message.headers() or [])["ce_type"] for message in messages(postroom_stack, postroom_topic)]
        assert types == [b"profile", b"moved"]
    mended = contract_from_short_form("moved", {"user_id": "string"}, topic="people", key_field="user_id")
    overrides = {**settings(postroom_stack, postroom_topic), "schema_registry.subject_strategy": "record_name"}
    config = load_config(overrides=overrides, environ={})
    # The new contract is another record, so that it may stand beside the one of before in the registry.
    mended = replace(mended, record_name=f"{postroom_topic.replace('-', '_')}_moved")
    contracts = {one.name: one for one in (replace(PROFILE, record_name=f"p{mended.record_name}"), mended)}
    with ProducerService(config, contracts=contracts, metrics=Metrics()) as post:
        reader = KafkaReader({"bootstrap.servers": postroom_stack.bootstrap})
        result = Replay(post, Selection()).run(lambda: reader.read([f"{postroom_topic}.dlq"]), lambda: 0)
        assert (result.delivered, result.selected) == (1, 1)
    last = [message for message in messages(postroom_stack, postroom_topic) if message.key() == b"u2"]
    assert [dict(message.headers() or [])["ce_type"] for message in last] == [b"moved"]
    capsys.readouterr()
    where = ["--broker", postroom_stack.bootstrap, "--registry", postroom_stack.registry_url]
    assert main(["tail", postroom_topic, "--from", "beginning", "--json", "-n", "3", *where]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(json.dumps(one["event"], sort_keys=True) for one in told) == sorted(
        json.dumps(event, sort_keys=True) for event in ({"user_id": "u1"}, data, {"user_id": "u2"})
    )
