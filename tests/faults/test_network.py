"""A network that loses, delays or holds everything: what may be in Kafka is sent again marked, none waits for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from postroom.libs.event import Spooled
from postroom.streaming.kafka_client import KafkaClient
from tests.faults.post import Judgement, Post, Said, connected, pause, until

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.libs.config_loader import Config
    from postroom.observability.metrics import Metrics
    from tests.faults.conftest import Relayed

pytestmark = pytest.mark.kafka


def impatient_library(config: Config, metrics: Metrics) -> KafkaClient:
    """The real client, whose library gives up on a record by itself after two seconds."""

    def make(settings: dict[str, Any], **more: Any) -> Producer:
        return Producer({**settings, "message.timeout.ms": 2_000, "topic.metadata.propagation.max.ms": 0}, **more)

    return KafkaClient(config, metrics=metrics, make_producer=make)


def test_events_whose_acknowledgement_was_lost_are_sent_again_marked(relayed: Relayed, spool: Path) -> None:
    """Rows 7 and 8: the brokers append, the replies are swallowed, patience ends; every second copy carries a mark."""
    topic, proxy = relayed.new_topic(), relayed.proxy
    with Post(relayed.bootstrap, topic, spool, spool__write_ahead="off") as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        before = proxy.counts
        proxy.drop_replies()
        lost = post.publish(60)
        until(lambda: len(Judgement(relayed.direct, topic).entries) == 80, "the records are not in the log")
        now = proxy.counts
        assert now.requests_while_lossy_bytes > 1_000
        assert now.swallowed_bytes > before.swallowed_bytes
        assert not any(receipt.done() for receipt in lost)

        outcomes = post.outcomes(lost)
        assert set(map(type, outcomes)) == {Spooled}
        proxy.heal()
        post.settle()
        assert post.errors()["_purge_inflight"] >= 1, post.errors()
    judgement = Judgement(relayed.direct, topic)
    judgement.check(post)
    assert judgement.repeated == judgement.marked == {receipt.event_id for receipt in lost}
    assert set(judgement.ids.values()) == {1, 2}


def test_a_delivery_timeout_in_flight_says_nothing_so_the_record_is_spooled_and_marked(
    relayed: Relayed, spool: Path, said: Said
) -> None:
    """Row 8: the client library itself gives up (`_MSG_TIMED_OUT`) on records that are in the log."""
    topic, proxy = relayed.new_topic(), relayed.proxy
    with Post(relayed.bootstrap, topic, spool, make_publisher=impatient_library, spool__write_ahead="off") as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        proxy.drop_replies()
        lost = post.publish(40)
        assert set(map(type, post.outcomes(lost))) == {Spooled}
        assert post.errors()["_msg_timed_out"] >= 1, post.errors()
        assert proxy.counts.swallowed_bytes
        assert len(Judgement(relayed.direct, topic).entries) == 60
        assert said.events("path_closed", topic=topic)
        proxy.heal()
        post.settle()
        assert post.balance.dead_lettered == 0
    judgement = Judgement(relayed.direct, topic)
    judgement.check(post)
    assert judgement.repeated == {receipt.event_id for receipt in lost}


def test_a_queue_that_stays_full_is_waited_for_as_long_as_said_and_then_the_spool_takes_over(
    relayed: Relayed, spool: Path, said: Said
) -> None:
    """Row 19: no room because the network is half-open. Each event has one outcome, and the spool has them all."""
    topic, proxy = relayed.new_topic(), relayed.proxy
    with Post(relayed.bootstrap, topic, spool, producer__queue_max_messages=300, spool__write_ahead="off") as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        proxy.freeze()
        post.publish(300)
        assert post.publisher.in_flight() == 300
        assert proxy.counts.held >= 1
        began = time.monotonic()
        [late] = post.publish(1, timeout=1.0)
        waited_s = time.monotonic() - began
        assert 0.9 < waited_s < 1.0 + 5.0 + 0.5
        assert isinstance(late.result(10), Spooled)
        assert post.state() == "spooling"
        began = time.monotonic()
        post.publish(200, timeout=1.0)
        assert time.monotonic() - began < 2.0, "later callers waited for the same once more"
        assert post.kinds() == {"Delivered": 20, "Spooled": 501}
        assert said.events("path_spools", topic=topic)
        proxy.heal()
        post.settle()
    Judgement(relayed.direct, topic).check(post)


def test_a_slow_network_presses_back_on_callers_and_times_nothing_out(relayed: Relayed, spool: Path) -> None:
    """Row 41: every answer takes 0.6 s; callers wait for room, nothing is handed over, nothing is repeated."""
    topic, proxy = relayed.new_topic(), relayed.proxy
    with Post(relayed.bootstrap, topic, spool, producer__queue_max_messages=100, spool__write_ahead="off") as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        proxy.delay(0.3)
        most = 0
        with post.load(1_000) as load:
            end = time.monotonic() + 5.0
            while time.monotonic() < end:
                most = max(most, post.publisher.in_flight())
                pause(0.01)
        post.settle()
        handed_in = len(post.receipts)
        assert proxy.counts.delayed_bytes > 10_000
        assert post.service.ledger.latency().longest_s > 0.5
        assert load.longest_call_s > 0.3, "nobody had to wait"
        assert load.longest_call_s < 5.0
        assert 90 <= most <= 101, "the queue's bound, and the one that just asks for room, are the bound of the memory"
        assert handed_in < 2_000, "callers went on at their own pace"
        assert post.kinds() == {"Delivered": handed_in}
        assert post.path().hand_overs == 0
    judgement = Judgement(relayed.direct, topic)
    judgement.check(post)
    assert not judgement.repeated


def test_a_half_open_network_ends_in_the_spool_and_its_end_in_kafka(relayed: Relayed, spool: Path, said: Said) -> None:
    """Row 41: connections stand and nothing passes. Nobody hears of an error; the age of the oldest record tells."""
    topic, proxy = relayed.new_topic(), relayed.proxy
    with Post(relayed.bootstrap, topic, spool) as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        with post.load(200):
            proxy.freeze()
            frozen_at = time.monotonic()
            until(lambda: post.state() == "spooling", f"the path is {post.state()}")
            took_s = time.monotonic() - frozen_at
            pause(1.0)
            held = proxy.counts
            assert held.held >= 1
            proxy.heal()
            until(lambda: post.balance.drained, "nothing was drained")
        post.settle()
        assert proxy.counts.held_bytes > 0
    assert 11 < took_s < 16
    assert said.events("records_given_up")
    judgement = Judgement(relayed.direct, topic)
    judgement.check(post)
    assert post.kinds()["Failed"] == 0
    assert judgement.repeated <= judgement.marked


def test_a_connection_cut_again_and_again_loses_and_repeats_nothing(relayed: Relayed, spool: Path) -> None:
    """Row 41: five cuts under load, each shorter than it takes to hand over."""
    topic, proxy = relayed.new_topic(), relayed.proxy
    with Post(relayed.bootstrap, topic, spool) as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        cut_before = proxy.counts.cut
        with post.load(300):
            for _ in range(5):
                proxy.cut()
                pause(0.3)
                proxy.heal()
                until(lambda: connected(post) and post.publisher.in_flight() < 50, "it does not recover")
        post.settle()
        assert proxy.counts.cut >= cut_before + 5
    judgement = Judgement(relayed.direct, topic)
    judgement.check(post)
    assert post.kinds()["Failed"] == 0
