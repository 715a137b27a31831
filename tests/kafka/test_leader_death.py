"""The leader of three brokers dies by -9 in the middle of a run: nothing is missing, repeated or out of order."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import Delivered
from postroom.observability.metrics import Metrics
from postroom.services.journal import AcceptedJournal
from postroom.services.producer_service import ProducerService
from postroom.services.verify import verify
from postroom.streaming.kafka_reader import KafkaReader
from tests.kafka.plain_log import Verdict, judge, read_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.services.receipt import Receipt
    from postroom.testing.local_stack import LocalStack

KEYS = 120
THREADS = 4
BEFORE_S = 4.0
AFTER_S = 20.0
RATE = 4_000
UNACKNOWLEDGED = 100


class Watch:
    """Notes when events of the dead broker's partitions were delivered after its death."""

    def __init__(self) -> None:
        self.killed_at = float("inf")
        self.orphaned: set[int] = set()
        self.first_after: float | None = None

    def see(self, receipt: Receipt) -> None:
        outcome = receipt.outcome
        if self.first_after is None and isinstance(outcome, Delivered) and outcome.partition in self.orphaned:
            self.first_after = time.monotonic() - self.killed_at


@pytest.mark.timeout(240)
def test_nothing_is_lost_repeated_or_swapped_when_the_leader_is_killed(
    postroom_cluster: LocalStack,
    postroom_new_cluster_topic: Callable[..., str],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    cluster = postroom_cluster
    topic = postroom_new_cluster_topic("leader-death")
    journal = tmp_path / "accepted.ndjson"
    overrides = {
        "broker": cluster.bootstrap,
        "topics.user_events": topic,
        "schema_registry.url": cluster.registry_url,
        "schema_registry.auto_register": True,
        "rate_limit.events_per_second": RATE,
        "rate_limit.burst": 400,
    }
    metrics, watch, ending = Metrics(), Watch(), threading.Event()
    receipts: list[list[Receipt]] = [[] for _ in range(THREADS)]

    def work(mine: list[Receipt], first: int) -> None:
        number = first
        while not ending.is_set():
            event = {"user_id": f"user-{number % KEYS}", "timestamp": number}
            receipt = post.publish_event(event, timeout=60)
            if watch.orphaned and watch.first_after is None:
                receipt.add_done_callback(watch.see)
            mine.append(receipt)
            number += 1

    with AcceptedJournal(journal) as written:
        config = load_config(overrides=overrides, environ={})
        with ProducerService(config, journal=written, metrics=metrics) as post:
            threads = [threading.Thread(target=work, args=(mine, 7 * n)) for n, mine in enumerate(receipts)]
            for thread in threads:
                thread.start()
            ending.wait(BEFORE_S)
            leader = cluster.leader(topic, 0)
            orphaned = {number for number in range(6) if cluster.leader(topic, number) is leader}
            publisher = post.parts.publisher
            while (unacknowledged := publisher.in_flight()) < UNACKNOWLEDGED:
                ending.wait(0.0005)
            leader.kill()
            watch.killed_at = time.monotonic()
            watch.orphaned = orphaned
            assert not leader.running
            ending.wait(AFTER_S)
            ending.set()
            for thread in threads:
                thread.join()
        balance = post.ledger.total()
        latency = post.ledger.latency()

    # The kill happened in the middle, and it hurt: the partitions have another leader now.
    assert not leader.running
    assert orphaned
    assert all(cluster.leader(topic, number) is not leader for number in orphaned)
    assert unacknowledged >= UNACKNOWLEDGED
    assert watch.first_after is not None
    assert watch.first_after < 60

    outcomes = [receipt.result(0) for mine in receipts for receipt in mine]
    assert {type(outcome) for outcome in outcomes} == {Delivered}
    assert balance.received == balance.delivered == len(outcomes)
    assert (balance.unaccounted, balance.pending) == (0, 0)

    report = verify(journal, KafkaReader({"bootstrap.servers": cluster.bootstrap})).topics[0]
    assert (report.accepted, report.found) == (len(outcomes), len(outcomes))
    assert (report.missing, report.duplicated, report.out_of_order, report.foreign) == (0, 0, 0, 0)
    assert judge(journal, read_log(cluster.bootstrap, topic), topic) == Verdict(0, 0, 0, 0)

    measured = {
        "events": len(outcomes),
        "unacknowledged_at_the_kill": unacknowledged,
        "orphaned_partitions": len(orphaned),
        "publishing_again_after_s": round(watch.first_after, 2),
        "p50_ms": round(1_000 * (latency.percentile(0.5) or 0), 1),
        "p99_ms": round(1_000 * (latency.percentile(0.99) or 0), 1),
        "longest_s": round(latency.longest_s, 2),
        "retries": metrics.get_summary()["retries"],
        "connection_failures": metrics.get_summary()["connection_failures"],
    }
    for name, value in measured.items():
        record_property(name, value)
    print(measured)  # noqa: T201 - shown with -s, and when the test fails
