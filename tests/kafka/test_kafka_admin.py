"""Creating and describing topics on a real Kafka."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import ConfigurationError, KafkaConnectionError
from postroom.streaming.embedded_broker import EmbeddedBroker
from postroom.streaming.kafka_admin import KafkaAdmin, TopicResult, TopicSpec, TopicState

if TYPE_CHECKING:
    from postroom.testing.local_stack import LocalStack


@pytest.fixture
def admin(postroom_stack: LocalStack) -> KafkaAdmin:
    """An administrator of the stack."""
    return KafkaAdmin({"bootstrap.servers": postroom_stack.bootstrap})


def new_name() -> str:
    """A name that nobody has."""
    return f"admin-{uuid.uuid4().hex[:12]}"


def test_topics_are_created_once_and_ready_at_once(admin: KafkaAdmin) -> None:
    """The second time says that they are there."""
    specs = [TopicSpec(new_name(), 6, 1, {"retention.ms": "3600000"}), TopicSpec(new_name(), 1, 1)]
    assert [result.state for result in admin.create_topics(specs)] == [TopicState.CREATED] * 2
    described = admin.describe([specs[0].name])[specs[0].name]
    assert described is not None
    assert described.has_leaders
    assert [partition.number for partition in described.partitions] == list(range(6))
    assert [result.state for result in admin.create_topics(specs)] == [TopicState.EXISTS] * 2
    assert {spec.name for spec in specs} <= set(admin.list_topics())


def test_a_topic_with_other_partitions_is_reported_and_left_alone(admin: KafkaAdmin) -> None:
    """Adding partitions moves keys: nobody does that by the way."""
    name = new_name()
    admin.create_topics([TopicSpec(name, 2, 1)])
    assert admin.create_topics([TopicSpec(name, 6, 1)]) == [TopicResult(name, TopicState.DIFFERS, 2, 1)]


def test_the_cluster_decides_where_the_spec_does_not(admin: KafkaAdmin) -> None:
    """-1 stands for the cluster's own default, and never differs from what is there."""
    name = new_name()
    (made,) = admin.create_topics([TopicSpec(name, -1, -1)])
    assert (made.state, made.replication) == (TopicState.CREATED, 1)
    assert made.partitions >= 1
    assert admin.create_topics([TopicSpec(name, -1, -1)])[0].state is TopicState.EXISTS


def test_what_the_cluster_refuses_is_a_configuration_error_and_the_others_are_created(admin: KafkaAdmin) -> None:
    """Too many replicas, a name that Kafka does not allow, a setting that it does not know."""
    good = TopicSpec(new_name(), 1, 1)
    for bad in (
        TopicSpec(new_name(), 1, 3),
        TopicSpec("a b", 1, 1),
        TopicSpec(new_name(), 1, 1, {"no.such.setting": "1"}),
    ):
        with pytest.raises(ConfigurationError, match="could not create topic"):
            admin.create_topics([bad, good])
    assert admin.describe([good.name])[good.name] is not None


def test_an_unknown_topic_is_described_by_none(admin: KafkaAdmin) -> None:
    """Asking does not create it."""
    for _ in range(2):
        assert admin.describe(["no-such-topic"]) == {"no-such-topic": None}
    assert "no-such-topic" not in admin.list_topics()


def test_a_topic_that_never_comes_is_named(postroom_stack: LocalStack) -> None:
    """After the time that was given."""
    admin = KafkaAdmin({"bootstrap.servers": postroom_stack.bootstrap}, timeout_s=1)
    with pytest.raises(KafkaConnectionError, match="not ready after 1 s: no-such-topic"):
        admin.wait_until_visible({"no-such-topic": 1})


def test_a_real_broker_is_not_taken_for_the_embedded_one(admin: KafkaAdmin) -> None:
    """And the embedded one is known by its address alone."""
    assert not admin.is_embedded()
    with EmbeddedBroker() as broker:
        assert KafkaAdmin({"bootstrap.servers": broker.bootstrap}).is_embedded()


def test_creating_topics_on_the_embedded_broker_is_refused() -> None:
    """It cannot; its topics come by themselves."""
    with EmbeddedBroker() as broker, pytest.raises(ConfigurationError, match="creates no topics on request"):
        KafkaAdmin({"bootstrap.servers": broker.bootstrap}, timeout_s=5).create_topics([TopicSpec("t", 1, 1)])


def test_a_broker_that_is_away_is_a_typed_error_in_time() -> None:
    """Nobody listens there."""
    admin = KafkaAdmin({"bootstrap.servers": "127.0.0.1:1"}, timeout_s=0.5)
    with pytest.raises(KafkaConnectionError) as caught:
        admin.list_topics()
    assert caught.value.retriable
    with pytest.raises(KafkaConnectionError):
        admin.create_topics([TopicSpec("t", 1, 1)])


def test_nothing_to_create_is_nothing_to_ask() -> None:
    """No connection is made."""
    assert KafkaAdmin({"bootstrap.servers": "127.0.0.1:1"}).create_topics([]) == []
