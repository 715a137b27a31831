"""Broker error codes that a real cluster does not give on request: a mock cluster answers with them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import KafkaError

from postroom.libs.event import Spooled
from tests.faults.post import Judgement, Post, Said, pause, until
from tests.mock_cluster import MockCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOPIC = "events"


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        cluster.create_topic(TOPIC, 3)
        cluster.create_topic(f"{TOPIC}.dlq", 1)
        yield cluster


@pytest.mark.parametrize(
    "code",
    [KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.REQUEST_TIMED_OUT],
    ids=["NOT_ENOUGH_REPLICAS_AFTER_APPEND", "NOT_ENOUGH_REPLICAS", "REQUEST_TIMED_OUT"],
)
def test_what_may_be_written_although_the_broker_says_no_is_sent_again_marked(
    mock: MockCluster, spool: Path, said: Said, code: int
) -> None:
    """Rows 5 and 6: the library has repeated it in vain; the record is spooled, and its repeat is marked."""
    with Post(mock.bootstrap, TOPIC, spool, keys=1, producer__retries=1, producer__retry_backoff_ms=100) as post:
        assert post.kinds(post.publish(5)) == {"Delivered": 5}
        mock.push_errors(*[code] * 2)
        [receipt] = post.publish(1)
        assert isinstance(receipt.result(20), Spooled)
        name = KafkaError(code).name()
        assert post.errors()[name.lower()] == 1, post.errors()
        assert said.events("path_closed", topic=TOPIC, detail=name)
        post.settle()
        assert post.balance.dead_lettered == 0
        judgement = Judgement(mock.bootstrap, TOPIC)
    judgement.check(post)
    assert judgement.marked == {receipt.event_id}


def test_brokers_short_of_replicas_get_the_first_record_from_the_spool_five_seconds_after_their_return(
    mock: MockCluster, spool: Path
) -> None:
    """Row 5: the connection stays up, and the probe is repeated inside the client library."""
    with Post(mock.bootstrap, TOPIC, spool, delivery__hand_over_after_s=15) as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        mock.push_errors(*[19] * 4_000)
        with post.load(10):
            pause(23.0)  # the probe has been repeated after 1, 2 and 4 s
            assert post.state() == "spooling"
            assert not post.balance.drained
            mock.clear_errors()
            assert until(lambda: post.balance.drained, "nothing is drained") < 5.0
        post.settle()
        judgement = Judgement(mock.bootstrap, TOPIC)
    judgement.check(post)


def test_after_a_fatal_error_there_is_a_new_producer_in_two_seconds_and_everything_unreported_is_sent_again(
    mock: MockCluster, spool: Path, said: Said
) -> None:
    """Row 10: OUT_OF_ORDER_SEQUENCE_NUMBER is the end of an idempotent producer."""
    with Post(mock.bootstrap, TOPIC, spool) as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        producer = post.publisher._life.producer
        mock.slow(300)
        before = post.publish(200)
        mock.push_errors(45)
        post.publish(100)
        until(lambda: said.events("producer_fatal"), "there is no fatal error")
        met_at = said.events("producer_fatal")[0]["at"]
        until(lambda: post.publisher._life.producer is not producer, "there is no new producer")
        assert time.monotonic() - met_at < 2.0
        mock.slow(0)
        post.publish(50)
        post.settle()
        assert post.errors()["producer_fatal"] == 1
        assert post.errors()["out_of_order_sequence_number"] >= 1, post.errors()
        assert said.events("producer_fatal")[0]["open"] > 0
        judgement = Judgement(mock.bootstrap, TOPIC)
    judgement.check(post)
    assert post.kinds()["Failed"] == 0
    assert len(before) == 200


def test_a_new_producer_that_meets_a_fatal_error_at_once_is_replaced_as_well(
    mock: MockCluster, spool: Path, said: Said
) -> None:
    """Row 10: the first record that the drain sends through the new one ends it, too."""
    with Post(mock.bootstrap, TOPIC, spool) as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        first = post.publisher._life.producer
        mock.push_errors(45, 45, 45, 45)
        post.publish(100)
        until(lambda: post.publisher._life.producer is not first, "there is no new producer")
        second = post.publisher._life.producer
        until(lambda: post.publisher._life.producer is not second, "the second one stays")
        post.settle()
        assert post.errors()["producer_fatal"] >= 2, post.errors()
        assert said.events("producer_fatal")
        judgement = Judgement(mock.bootstrap, TOPIC)
    judgement.check(post)
    assert post.kinds()["Failed"] == 0
