"""The producer service on a real Kafka: order, frozen brokers, and one awaited event on an idle service."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import Delivered, Failed, FailedReason, Spooled
from postroom.observability.metrics import Metrics
from postroom.services.async_service import AsyncProducerService
from postroom.services.journal import AcceptedJournal
from postroom.services.producer_service import ProducerService
from postroom.services.verify import verify
from postroom.streaming.kafka_admin import KafkaAdmin
from postroom.streaming.kafka_reader import KafkaReader
from tests.kafka.plain_log import Verdict, judge, read_log
from tests.kafka.programs import until
from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.libs.event import Outcome
    from postroom.services.receipt import Receipt
    from postroom.testing.local_stack import LocalStack

KEYS = 150


def config_for(stack: LocalStack, topic: str, **overrides: object) -> Config:
    named = {key.replace("__", "."): value for key, value in overrides.items()}
    own = {
        "broker": stack.bootstrap,
        "topics.user_events": topic,
        "schema_registry.url": stack.registry_url,
        "schema_registry.auto_register": True,
    }
    return load_config(overrides={**own, **named}, environ={})


def test_per_key_the_log_has_the_order_of_the_numbers_though_threads_and_tasks_publish_at_once(
    postroom_stack: LocalStack, postroom_topic: str, tmp_path: Path
) -> None:
    path = tmp_path / "accepted.ndjson"
    with AcceptedJournal(path) as journal:
        service = ProducerService(config_for(postroom_stack, postroom_topic), journal=journal, metrics=Metrics())

        def work(first: int) -> None:
            for number in range(4_000):
                service.publish_event({"user_id": f"user-{(first + number) % KEYS}", "timestamp": number}, timeout=30)

        async def tasks() -> None:
            post = AsyncProducerService(service)
            for step in range(10):
                events = ({"user_id": f"user-{number % KEYS}", "timestamp": step} for number in range(200))
                await asyncio.gather(*(post.publish_event(event, timeout=30) for event in events))

        with service:
            threads = [threading.Thread(target=work, args=(first,)) for first in range(6)]
            threads.append(threading.Thread(target=asyncio.run, args=(tasks(),)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    balance = service.ledger.total()
    assert (balance.delivered, balance.unaccounted) == (26_000, 0)
    report = verify(path, KafkaReader({"bootstrap.servers": postroom_stack.bootstrap})).topics[0]
    assert (report.found, report.missing, report.duplicated, report.out_of_order) == (26_000, 0, 0, 0)
    assert judge(path, read_log(postroom_stack.bootstrap, postroom_topic), postroom_topic) == Verdict(0, 0, 0, 0)


def test_one_awaited_event_on_an_idle_service_takes_milliseconds(
    postroom_stack: LocalStack, postroom_topic: str, record_property: Callable[[str, object], None]
) -> None:
    """The bound is generous: what it catches is the two to eight seconds of clients that wait for a batch."""

    async def work() -> list[float]:
        config = config_for(postroom_stack, postroom_topic)
        async with AsyncProducerService(ProducerService(config, metrics=Metrics())) as post:
            await post.publish_event({"user_id": "u", "timestamp": 0})
            took: list[float] = []
            for number in range(20):
                await asyncio.sleep(0.05)
                began = time.perf_counter()
                outcome = await post.publish_event({"user_id": "u", "timestamp": number})
                took.append(time.perf_counter() - began)
                assert isinstance(outcome, Delivered)
            return took

    took = sorted(asyncio.run(work()))
    record_property("median_ms", round(1_000 * took[10], 2))
    record_property("longest_ms", round(1_000 * took[-1], 2))
    print([round(1_000 * one, 1) for one in took])  # noqa: T201 - shown with -s
    assert took[-1] < 2.0


class Freeze:
    """Events published before, during and after the brokers stand still."""

    def __init__(self, service: ProducerService) -> None:
        self.service = service
        self.receipts: list[Receipt] = []
        self.number = 0

    def publish(self, count: int, pause_s: float = 0.0) -> None:
        for _ in range(count):
            event = {"user_id": f"user-{self.number % KEYS}", "timestamp": self.number}
            self.receipts.append(self.service.publish_event(event, event_id=f"id-{self.number}", timeout=30))
            self.number += 1
            if pause_s:
                threading.Event().wait(pause_s)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "first_ends_before_the_freeze", [True, False], ids=["idle at the freeze", "busy at the freeze"]
)
def test_brokers_frozen_for_longer_than_the_patience(
    postroom_cluster: LocalStack,
    postroom_new_cluster_topic: Callable[..., str],
    tmp_path: Path,
    first_ends_before_the_freeze: bool,
) -> None:
    """Every event gets an outcome, nothing that was called unsent is in the log, and the same service goes on."""
    topic = postroom_new_cluster_topic("frozen")
    config = config_for(postroom_cluster, topic, delivery__hand_over_after_s=12)
    path = tmp_path / "accepted.ndjson"
    with AcceptedJournal(path) as journal, ProducerService(config, journal=journal, metrics=Metrics()) as service:
        run = Freeze(service)
        run.publish(1_000)
        if first_ends_before_the_freeze:
            assert service.parts.publisher.flush(60) == 0
        for broker in postroom_cluster.brokers:
            broker.pause()
        run.publish(1_000, pause_s=0.001)
        frozen = run.receipts[-1_000:]
        began = time.monotonic()
        late: list[Outcome] = [receipt.result(60) for receipt in frozen]
        waited_s = time.monotonic() - began
        for broker in postroom_cluster.brokers:
            broker.resume()
        first = service.publish_event({"user_id": "user-0", "timestamp": 1}, event_id="after", timeout=60)
        run.receipts.append(first)
        assert isinstance(first.result(60), Delivered)
        run.publish(1_000)
    outcomes = {receipt.event_id: receipt.result(0) for receipt in run.receipts}
    balance = service.ledger.total()
    assert (balance.received, balance.unaccounted, balance.pending) == (3_001, 0, 0)
    assert {type(outcome) for outcome in late} == {Failed}
    assert {one.reason for one in late if isinstance(one, Failed)} == {FailedReason.KAFKA_UNAVAILABLE}
    assert 5 < waited_s < 40

    log = read_log(postroom_cluster.bootstrap, topic)
    in_log = {entry.event_id for entry in log}
    never = {name for name, one in outcomes.items() if isinstance(one, Failed) and not one.may_be_in_kafka}
    delivered = {name for name, one in outcomes.items() if isinstance(one, Delivered)}
    assert delivered <= in_log
    assert not never & in_log
    verdict = judge(path, [entry for entry in log if entry.event_id in delivered], topic)
    assert verdict == Verdict(0, 0, 0, 0)
    measured = {"failed": balance.failed, "never sent": len(never), "maybe, and in the log": len(in_log - delivered)}
    print(measured)  # noqa: T201 - shown with -s


@pytest.mark.timeout(240)
def test_events_handed_in_while_no_broker_is_there_are_known_not_to_be_in_kafka(
    postroom_cluster: LocalStack, postroom_new_cluster_topic: Callable[..., str]
) -> None:
    """All brokers are dead when the events come, so nothing of them can have been sent."""
    topic = postroom_new_cluster_topic("gone")
    config = config_for(postroom_cluster, topic, delivery__hand_over_after_s=12)
    with ProducerService(config, metrics=Metrics()) as service:
        assert isinstance(service.publish_event({"user_id": "a", "timestamp": 1}).result(60), Delivered)
        for broker in postroom_cluster.brokers:
            broker.kill()
        publisher = service.parts.publisher
        end = time.monotonic() + 60
        while publisher.condition().connected is not False:
            assert time.monotonic() < end
            threading.Event().wait(0.05)
        receipts = [service.publish_event({"user_id": "a", "timestamp": n}, event_id=f"id-{n}") for n in range(500)]
        outcomes = [receipt.result(60) for receipt in receipts]
        assert {type(one) for one in outcomes} == {Failed}
        assert {one.may_be_in_kafka for one in outcomes if isinstance(one, Failed)} == {False}
        postroom_cluster.restore()
        again = service.publish_event({"user_id": "a", "timestamp": 2}, event_id="again", timeout=60)
        assert isinstance(again.result(60), Delivered)
    assert len(read_log(postroom_cluster.bootstrap, topic)) == 2
    assert service.ledger.total().unaccounted == 0


def test_with_a_spool_it_starts_without_kafka_and_creates_its_topics_once_that_is_there(
    postroom_stack: LocalStack, postroom_topic: str, tmp_path: Path
) -> None:
    topic = f"{postroom_topic}-new"
    with TcpProxy(0, int(postroom_stack.bootstrap.rpartition(":")[2])) as relay:
        relay.cut()
        config = config_for(
            postroom_stack,
            topic,
            broker=f"127.0.0.1:{relay.port}",
            spool__dir=str(tmp_path / "spool"),
            contracts__create_topics=True,
        )
        with ProducerService(config, metrics=Metrics()) as service:
            topics = service.parts.topics
            assert topics is not None
            assert topics.waiting_for == "broker_unavailable"
            receipt = service.publish_event({"user_id": "u", "timestamp": 1})
            assert isinstance(receipt.result(30), Spooled)
            relay.heal()
            until(lambda: service.ledger.total().delivered == 1, "it is delivered")
            assert not topics.waiting_for
        assert {topic, f"{topic}.dlq"} <= set(KafkaAdmin({"bootstrap.servers": postroom_stack.bootstrap}).list_topics())
        (entry,) = read_log(postroom_stack.bootstrap, topic)
    assert entry.event_id == receipt.event_id
