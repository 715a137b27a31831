"""What surrounds a service: users' callbacks, the machine's clock, the registry, who scrapes it."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from postroom.libs.clock import SystemClock
from postroom.libs.config_loader import load_config
from postroom.libs.event import Delivered, Refused, RefusedReason, Spooled
from postroom.observability.http_endpoint import serve
from postroom.observability.metrics import Metrics
from postroom.services.health_checks import health_of
from postroom.services.producer_service import ProducerService
from postroom.streaming.dead_letter_queue import rebuild
from postroom.streaming.kafka_reader import KafkaReader
from postroom.streaming.librdkafka_settings import client_settings
from tests.faults.conftest import new_topic
from tests.faults.post import Judgement, Post, Said, pause, until

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.services.receipt import Receipt
    from postroom.testing.local_stack import LocalStack
    from tests.faults.conftest import Relayed


def test_a_callback_that_raises_hurts_no_event_and_no_other_callback(
    stack: LocalStack, topic: str, spool: Path, said: Said
) -> None:
    """Row 21: every second one raises, some of them what ends programs."""
    called: Counter[str] = Counter()

    def good(receipt: Receipt) -> None:
        called[receipt.event_id] += 1

    def bad(_: Receipt) -> None:
        called["bad"] += 1
        raise RuntimeError("user code") if called["bad"] % 2 else SystemExit(3)

    with Post(stack.bootstrap, topic, spool) as post:
        for _ in range(50):
            [receipt] = post.publish(1)
            receipt.add_done_callback(bad)
            receipt.add_done_callback(good)
        post.settle()
        until(lambda: called["bad"] == 50 and len(called) == 51, f"{called}")
        assert post.kinds(post.publish(50)) == {"Delivered": 50}
    assert [line for line in said.loud() if "callback" in line["event"]], said.text()
    Judgement(stack.bootstrap, topic).check(post)


def test_a_callback_may_publish_and_wait_and_nothing_stands_still(stack: LocalStack, topic: str, spool: Path) -> None:
    """Row 22: it runs on a thread of its own, never inside a poll; each one hands in the next, serves and waits."""
    threads: set[str] = set()
    ended = threading.Event()

    with Post(stack.bootstrap, topic, spool, keys=1) as post:

        def go_on(receipt: Receipt) -> None:
            threads.add(threading.current_thread().name)
            assert isinstance(receipt.result(1), Delivered)
            post.service.parts.publisher.serve()
            if len(post.receipts) >= 60:
                ended.set()
                return
            [following] = post.publish(1)
            following.add_done_callback(go_on)

        [first] = post.publish(1)
        first.add_done_callback(go_on)
        assert ended.wait(40), f"it stands still after {len(post.receipts)}"
        post.settle()
    assert not any("poll" in name for name in threads), threads
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert len(judgement.entries) == 60


class JumpingClock(SystemClock):
    """The machine's clock, which somebody sets while the service runs."""

    def __init__(self) -> None:
        self.ahead_ms = 0
        self.jumps = 0

    def jump(self, milliseconds: int) -> None:
        self.ahead_ms += milliseconds
        self.jumps += 1

    def time_ms(self) -> int:
        return super().time_ms() + self.ahead_ms


@pytest.mark.kafka
def test_a_clock_that_jumps_changes_no_id_no_order_and_no_timer(relayed: Relayed, spool: Path) -> None:
    """Row 40: forwards and back, with Kafka there and with records in the spool. Ids are the service's own here."""
    topic, clock = relayed.new_topic(partitions=1), JumpingClock()
    hours_ms = (50 * 60_000, -100 * 60_000, 70 * 60_000, -20 * 60_000)
    receipts: list[Receipt] = []
    with Post(relayed.bootstrap, topic, spool, clock=clock) as post:

        def hand_in(count: int) -> None:
            for _ in range(count):
                event = {"user_id": "u", "timestamp": len(receipts)}
                receipts.append(post.service.publish_event(event, timeout=30))

        hand_in(50)
        for jump in hours_ms[:2]:
            clock.jump(jump)
            hand_in(50)
        assert set(map(type, post.outcomes(receipts))) == {Delivered}
        relayed.proxy.cut()
        hand_in(20)
        clock.jump(hours_ms[2])
        began = time.monotonic()
        until(lambda: post.state() == "spooling", f"it is {post.state()}")
        assert 1 < time.monotonic() - began < 6, "a timer followed the wall clock"
        clock.jump(hours_ms[3])
        hand_in(20)
        relayed.proxy.heal()
        post.settle()
        assert clock.jumps == 4
        assert post.balance.unaccounted == 0
        assert post.balance.delivered == len(receipts) == 190
    judgement = Judgement(relayed.direct, topic)
    ids = [receipt.event_id for receipt in receipts]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids), "ids that rise show the order in which they were made"
    judgement.check_marks()
    first_occurrences = list(dict.fromkeys(entry.event_id for entry in judgement.entries))
    assert first_occurrences == ids


@pytest.mark.kafka
@pytest.mark.parametrize("restarted", [False, True])
def test_once_a_clock_that_was_hours_ahead_is_right_again_no_dead_letter_is_stuck(
    stack: LocalStack, topic: str, spool: Path, said: Said, restarted: bool
) -> None:
    """Row 40: brokers refuse timestamps of more than an hour ahead, those of dead letters too."""
    clock, hours_ms = JumpingClock(), 2 * 3_600_000
    with ExitStack() as posts:
        post = first = posts.enter_context(Post(stack.bootstrap, topic, spool, clock=clock))
        first.publish(3)
        clock.jump(hours_ms)
        ahead = first.publish(30)
        assert set(map(type, first.outcomes(ahead))) == {Spooled}
        assert first.errors()["invalid_timestamp"], first.errors()
        until(lambda: said.events("probe_failed", error="INVALID_TIMESTAMP"), "nobody tries")
        assert first.balance.spooled == 30
        if restarted:
            first.service.close()
            post = posts.enter_context(Post(stack.bootstrap, topic, spool, clock=clock))
            said.lines.clear()
            until(lambda: said.events("path_closed", detail="INVALID_TIMESTAMP"), "nobody tries")
        clock.jump(-hours_ms)
        post.settle(20)
        judgement = Judgement(stack.bootstrap, topic)
        judgement.check_marks()
        assert judgement.dead_ids.keys() == {receipt.event_id for receipt in ahead}
        letters = list(KafkaReader(client_settings(post.config)).read([f"{topic}.dlq"]))
        now_ms = time.time_ns() // 1_000_000
        assert max(abs(letter.timestamp_ms - now_ms) for letter in letters) < 60_000
        # Each says when it failed, by the clock of then; records behind the refused batch failed later, one by one.
        failed_ms = [rebuild(letter).failed_at_ms or 0 for letter in letters]
        assert max(failed_ms) - now_ms > hours_ms - 60_000
    assert first.balance.unaccounted == post.balance.unaccounted == 0


@pytest.mark.timeout(240)
def test_a_registry_that_dies_stops_no_event_whose_contract_is_known_and_lets_no_other_pass(
    stack: LocalStack, spool: Path
) -> None:
    """Row 42: killed while the service runs; a service that starts then refuses until it is back."""
    topic = new_topic(stack)
    overrides = {
        "broker": stack.bootstrap,
        "topics.user_events": topic,
        "schema_registry.url": stack.registry_url,
        "schema_registry.auto_register": True,
        "schema_registry.timeout_s": 1,
        "schema_registry.retries": 0,
    }
    config = load_config(overrides={**overrides, "spool.dir": str(spool)}, environ={})
    with ProducerService(config, metrics=Metrics()) as service:
        event = {"user_id": "u", "timestamp": 1}
        until(lambda: isinstance(service.publish_event(event).result(30), Delivered), "the registry is not there")
        stack.registry.kill()
        assert not stack.registry.running
        known = [service.publish_event(event) for _ in range(20)]
        assert {type(receipt.result(30)) for receipt in known} == {Delivered}
        unknown = service.publish_event(event, event_type="nobody_knows").result(5)
        assert isinstance(unknown, Refused)
        assert unknown.reason is RefusedReason.UNKNOWN_EVENT_TYPE

        late_config = load_config(overrides=overrides, environ={})
        with ProducerService(late_config, metrics=Metrics()) as late:
            refused = late.publish_event(event).result(10)
            assert isinstance(refused, Refused)
            assert refused.reason is RefusedReason.CONTRACT_UNAVAILABLE
            assert not health_of(late).report().ready
            stack.registry.start()
            until(lambda: isinstance(late.publish_event(event).result(30), Delivered), "it does not recover", 60)
        assert late.ledger.total().unaccounted == 0
    assert service.ledger.total().unaccounted == 0
    assert not [entry for entry in Judgement(stack.bootstrap, topic).entries if entry.value is None]


def test_a_scrape_takes_little_time_while_events_are_spooled_and_drained(
    stack: LocalStack, topic: str, spool: Path
) -> None:
    """Row 43: with a spool at work, paths to show, and somebody else's scrape that hangs."""
    with Post(stack.bootstrap, topic, spool) as post, ExitStack() as ends:
        endpoint = serve(post.metrics, health_of(post.service), port=0)
        ends.callback(endpoint.stop)
        url = f"http://127.0.0.1:{endpoint.port}/metrics"
        assert post.kinds(post.publish(50)) == {"Delivered": 50}
        with post.load(500), socket.create_connection(("127.0.0.1", endpoint.port)) as hanging:
            hanging.sendall(b"GET /metrics HTTP/1.1\r\n")  # and nothing more
            stack.broker(1).pause()
            took: list[float] = []
            end = time.monotonic() + 6.0
            while time.monotonic() < end:
                began = time.monotonic()
                with urllib.request.urlopen(url, timeout=10) as answer:
                    text = answer.read().decode()
                took.append(time.monotonic() - began)
                pause(0.1)
            stack.broker(1).resume()
        post.settle()
    took.sort()
    print({"scrapes": len(took), "median, ms": round(1_000 * took[len(took) // 2], 1),  # noqa: T201
           "longest, ms": round(1_000 * took[-1], 1)})  # fmt: skip
    assert "postroom_spool_records" in text
    assert "postroom_path_state{" in text
    assert took[len(took) // 2] < 0.05
    assert len(text.splitlines()) < 1_000
    Judgement(stack.bootstrap, topic).check(post)
