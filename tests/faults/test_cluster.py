"""Three brokers, of which some die: the library's own retries where they can help, the spool where they cannot."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, Producer

from postroom.libs.event import Delivered, Spooled
from postroom.testing.local_stack import LocalStack
from tests.faults.conftest import new_topic
from tests.faults.post import Judgement, Post, Said, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cluster(postroom_cluster: LocalStack) -> Iterator[LocalStack]:
    """Three brokers, whole before and after."""
    postroom_cluster.restore()
    yield postroom_cluster
    postroom_cluster.restore()


def plain_answer(bootstrap: str, topic: str) -> str:
    """What a plain producer, that tries once, is told by the broker."""
    answers: list[str] = []

    def note(error: KafkaError | None, _: object) -> None:
        answers.append("" if error is None else str(error.name()))

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "retries": 0, "log_level": 0})
    producer.produce(topic, b"probe", partition=0, headers={"ce_id": b"probe"}, on_delivery=note)
    producer.flush(30)
    return answers[0]


def controller(cluster: LocalStack) -> Any:
    """The broker that is the active controller now."""
    said = [(broker, broker._metadata().controller_id) for broker in cluster.brokers if broker.running]
    return cluster.broker(said[0][1])


@pytest.mark.timeout(240)
def test_a_dead_controller_and_then_no_majority_of_controllers(cluster: LocalStack, spool: Path, said: Said) -> None:
    """Rows 1, 4 and 5, one after the other, since each needs dead brokers and their return takes the longest.

    First the active controller dies, which leads partitions, too: a topic that needs two of three replicas goes on
    within 20 s, inside the client library; one that needs all three is refused (NOT_ENOUGH_REPLICAS) and waits in the
    spool, never called delivered. Then a second broker dies, and with it the majority: now both topics wait, nothing
    crashes, and metadata is asked for until they return.
    """
    usual, strict = new_topic(cluster), new_topic(cluster, min_insync_replicas="3")
    sentinel = new_topic(cluster, partitions=1, dead_letters=False, min_insync_replicas="3")
    with (
        Post(cluster.bootstrap, usual, spool / "usual", delivery__hand_over_after_s=25) as going_on,
        Post(cluster.bootstrap, strict, spool / "strict", producer__retries=1) as waiting,
    ):
        assert going_on.kinds(going_on.publish(60)) == waiting.kinds(waiting.publish(60)) == {"Delivered": 60}
        first = controller(cluster)
        led = [number for number in range(3) if cluster.leader(usual, number) is first]
        began = time.monotonic()
        first.kill()
        during = going_on.publish(60)
        assert set(map(type, going_on.outcomes(during))) == {Delivered}
        took_s = time.monotonic() - began
        assert not first.running
        assert led, "it led nothing: this kill proves nothing"
        assert all(cluster.leader(usual, number) is not first for number in led)
        assert took_s < 20
        assert going_on.path().hand_overs == 0
        assert going_on.balance.dead_lettered == 0

        until(lambda: plain_answer(cluster.bootstrap, sentinel) == "NOT_ENOUGH_REPLICAS", "the broker takes it")
        refused = waiting.publish(60)
        assert set(map(type, waiting.outcomes(refused))) == {Spooled}
        assert waiting.errors()["not_enough_replicas"] >= 1, waiting.errors()
        assert waiting.balance.delivered == 60

        second = next(broker for broker in cluster.brokers if broker.running)
        second.kill()
        assert [broker.running for broker in cluster.brokers].count(True) == 1
        at_last = going_on.publish(60)
        assert set(map(type, going_on.outcomes(at_last))) == {Spooled}
        assert said.events("path_spools", topic=usual)
        assert going_on.publisher.alive()
        assert waiting.publisher.alive()
        cluster.restore()
        going_on.settle(60)
        waiting.settle(60)
    print({"publishing again after the controller's death, s": round(took_s, 1)})  # noqa: T201
    Judgement(cluster.bootstrap, usual).check(going_on)
    Judgement(cluster.bootstrap, strict).check(waiting)
