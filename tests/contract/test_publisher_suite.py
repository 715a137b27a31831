"""One behaviour, three publishers: in memory, on the embedded broker, on a real Kafka."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import Record
from postroom.libs.exceptions import LifecycleError, QueueFullError
from postroom.observability.metrics import Metrics
from postroom.streaming.delivery import Action
from postroom.streaming.embedded_broker import EmbeddedBroker
from postroom.streaming.kafka_client import KafkaClient
from postroom.testing.local_stack import LocalStack
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.stack_install import install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.streaming.publisher import Publisher, Report

PATIENCE_S = 30.0


class Bench:
    """A publisher under test, a topic, and every report by the number of its record."""

    def __init__(self, publisher: Publisher, topic: str) -> None:
        self.publisher = publisher
        self.topic = topic
        self.reports: dict[int, list[Report]] = {}

    def record(self, number: int, key: int | None = 0, value: bytes = b"value") -> Record:
        headers = (("ce_id", b"%d" % number),)
        key_bytes = None if key is None else b"key-%d" % key
        return Record(self.topic, key_bytes, value, headers, str(number), 1_795_416_182_091)

    def heard(self, number: int) -> Callable[[Report], None]:
        return lambda report: self.reports.setdefault(number, []).append(report)

    def publish(self, number: int, key: int = 0) -> None:
        self.publisher.publish(self.record(number, key), self.heard(number))

    def every_one_is_delivered(self, count: int) -> None:
        assert self.publisher.flush(PATIENCE_S) == 0
        assert self.publisher.in_flight() == 0
        assert sorted(self.reports) == list(range(count))
        assert [len(reports) for reports in self.reports.values()] == [1] * count
        assert {reports[0].decision.action for reports in self.reports.values()} == {Action.DELIVERED}


def _client(bootstrap: str, **settings: object) -> KafkaClient:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return KafkaClient(load_config(overrides={"broker": bootstrap, **dotted}, environ={}), metrics=Metrics())


@pytest.fixture(params=["memory", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "memory":
        yield Bench(MemoryPublisher(), "clicks")
        return
    if request.param == "embedded":
        with EmbeddedBroker() as broker:
            broker.create_topic("clicks")
            made = Bench(_client(broker.bootstrap), "clicks")
            yield made
            made.publisher.close(0.0)
        return
    made = Bench(
        _client(request.getfixturevalue("postroom_stack").bootstrap), request.getfixturevalue("postroom_topic")
    )
    yield made
    made.publisher.close(0.0)


class TestReports:
    def test_every_record_gets_exactly_one_report_with_a_place_of_its_own(self, bench: Bench) -> None:
        for number in range(500):
            bench.publish(number, key=number % 100)
        bench.every_one_is_delivered(500)
        assert len({(one.partition, one.offset) for (one,) in bench.reports.values()}) == 500

    def test_records_of_a_key_stand_in_the_order_of_the_calls(self, bench: Bench) -> None:
        for number in range(1_000):
            bench.publish(number, key=number % 100)
        bench.every_one_is_delivered(1_000)
        for key in range(100):
            places = [bench.reports[number][0] for number in range(key, 1_000, 100)]
            assert len({place.partition for place in places}) == 1
            assert [place.offset for place in places] == sorted(place.offset for place in places)

    def test_threads_together_lose_and_repeat_nothing(self, bench: Bench) -> None:
        def work(first: int) -> None:
            for number in range(first, first + 200):
                bench.publish(number, key=first)

        threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 1_600, 200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        bench.every_one_is_delivered(1_600)

    def test_when_flush_says_0_every_handler_has_returned(self, bench: Bench) -> None:
        returned: list[int] = []

        def slow(number: int) -> Callable[[Report], None]:
            def handler(report: Report) -> None:
                threading.Event().wait(0.002)
                bench.heard(number)(report)
                returned.append(number)

            return handler

        for number in range(50):
            bench.publisher.publish(bench.record(number), slow(number))
        assert bench.publisher.flush(PATIENCE_S) == 0
        assert sorted(returned) == list(range(50))

    def test_a_handler_may_publish(self, bench: Bench) -> None:
        def handler(report: Report) -> None:
            bench.heard(0)(report)
            bench.publish(1)

        bench.publisher.publish(bench.record(0), handler)
        assert bench.publisher.flush(PATIENCE_S) == 0  # 0 only when the second record is reported too
        bench.every_one_is_delivered(2)


class TestRoom:
    def test_with_room_there_is_no_waiting_for_it(self, bench: Bench) -> None:
        bench.publisher.start()
        assert bench.publisher.wait_for_room(0.0)

    def test_serving_without_any_report_does_nothing(self, bench: Bench) -> None:
        bench.publisher.start()
        bench.publisher.serve()
        assert bench.publisher.in_flight() == 0


class TestCondition:
    def test_it_can_be_asked_before_the_start_and_after_the_end(self, bench: Bench) -> None:
        assert bench.publisher.condition().oldest_s is None
        bench.publisher.start()
        bench.publisher.close(0.0)
        assert bench.publisher.condition().oldest_s is None

    def test_once_connected_it_says_so_and_names_no_problem(self, bench: Bench) -> None:
        bench.publisher.start()
        end = time.monotonic() + PATIENCE_S
        while not (condition := bench.publisher.condition()).connected:
            assert time.monotonic() < end
            threading.Event().wait(0.01)
        assert condition.problem == ""
        assert condition.since_s >= 0

    def test_what_is_reported_has_no_age(self, bench: Bench) -> None:
        bench.publish(0)
        bench.every_one_is_delivered(1)
        assert bench.publisher.condition().oldest_s is None


class TestGivingUp:
    def test_after_a_purge_every_record_has_its_one_report_and_the_publisher_goes_on(self, bench: Bench) -> None:
        for number in range(200):
            bench.publish(number, key=number % 10)
        bench.publisher.purge()
        assert bench.publisher.in_flight() == 0
        assert [len(bench.reports[number]) for number in range(200)] == [1] * 200
        given = {one.decision.action for (one,) in bench.reports.values()}
        assert given <= {Action.DELIVERED, Action.HOLD}
        for number in range(200, 300):
            bench.publish(number)
        assert bench.publisher.flush(PATIENCE_S) == 0
        assert {bench.reports[number][0].decision.action for number in range(200, 300)} == {Action.DELIVERED}

    def test_a_purge_of_nothing_is_nothing(self, bench: Bench) -> None:
        bench.publisher.purge()
        bench.publisher.start()
        bench.publisher.purge()
        bench.publish(0)
        bench.every_one_is_delivered(1)


class TestLife:
    def test_starting_and_closing_twice_is_like_once(self, bench: Bench) -> None:
        bench.publisher.start()
        bench.publisher.start()
        bench.publish(0)
        bench.publisher.close(PATIENCE_S)
        bench.publisher.close(PATIENCE_S)
        assert len(bench.reports[0]) == 1

    def test_one_that_never_started_can_be_closed(self, bench: Bench) -> None:
        bench.publisher.close(0.0)

    def test_closing_reports_everything(self, bench: Bench) -> None:
        for number in range(300):
            bench.publish(number, key=number)
        bench.publisher.close(0.0)
        assert [len(bench.reports[number]) for number in range(300)] == [1] * 300

    def test_a_closed_one_takes_nothing_and_says_so(self, bench: Bench) -> None:
        bench.publisher.start()
        bench.publisher.close(0.0)
        with pytest.raises(LifecycleError):
            bench.publish(0)
        assert bench.reports == {}

    def test_closing_while_others_publish_leaves_no_record_without_a_report(self, bench: Bench) -> None:
        taken: list[int] = []
        going = threading.Barrier(5)

        def work(first: int) -> None:
            going.wait()
            for number in range(first, first + 100_000):
                try:
                    bench.publish(number, key=first)
                except QueueFullError:
                    continue
                except LifecycleError:
                    return
                taken.append(number)

        threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 400_000, 100_000)]
        for thread in threads:
            thread.start()
        going.wait()
        while len(taken) < 200:
            threading.Event().wait(0.001)
        bench.publisher.close(0.01)
        for thread in threads:
            thread.join()
        assert sorted(bench.reports) == sorted(taken)
        assert {len(reports) for reports in bench.reports.values()} == {1}


@pytest.mark.kafka
class TestWhatOnlyARealBrokerSays:
    """The mock cluster refuses whole requests at random; here a broker judges the records."""

    @pytest.mark.parametrize("bad", [{50}, {50, 51}])
    def test_a_record_that_it_refuses_takes_none_of_its_batch_with_it(
        self, postroom_stack: LocalStack, request: pytest.FixtureRequest, bad: set[int]
    ) -> None:
        """A compacted topic takes no record without a key. A single one is not told apart from its batch (0006)."""
        topic = f"compacted-{len(bad)}-{os.getpid()}"
        postroom_stack.create_topic(topic, partitions=1, config={"cleanup.policy": "compact"})
        bench = Bench(_client(postroom_stack.bootstrap, producer__linger_ms=100), topic)
        request.addfinalizer(lambda: bench.publisher.close(0.0))
        for number in range(100):
            bench.publisher.publish(bench.record(number, None if number in bad else 0), bench.heard(number))
        assert bench.publisher.flush(PATIENCE_S) == 0
        assert [len(bench.reports[number]) for number in range(100)] == [1] * 100
        refused = {n for n in range(100) if bench.reports[n][0].decision.action is Action.DEAD_LETTER}
        assert refused == bad
        taken = sorted(set(range(100)) - bad)
        assert {bench.reports[number][0].decision.action for number in taken} == {Action.DELIVERED}
        assert sorted(taken, key=lambda number: bench.reports[number][0].offset) == taken

    def test_records_that_fit_one_by_one_go_through_though_their_batch_does_not(
        self, postroom_stack: LocalStack, request: pytest.FixtureRequest
    ) -> None:
        topic = f"small-batches-{os.getpid()}"
        postroom_stack.create_topic(topic, partitions=1, config={"max.message.bytes": "10000"})
        bench = Bench(_client(postroom_stack.bootstrap, producer__linger_ms=100), topic)
        request.addfinalizer(lambda: bench.publisher.close(0.0))
        for number in range(50):
            value = os.urandom(20_000 if number == 20 else 500)
            bench.publisher.publish(bench.record(number, 0, value), bench.heard(number))
        assert bench.publisher.flush(PATIENCE_S) == 0
        actions = [bench.reports[number][0].decision.action for number in range(50)]
        assert actions.index(Action.DEAD_LETTER) == 20
        assert actions.count(Action.DELIVERED) == 49

    def test_a_quota_makes_records_wait_and_is_no_outage(
        self, postroom_stack: LocalStack, postroom_topic: str, request: pytest.FixtureRequest
    ) -> None:
        """Longer than our patience: the broker says that it makes us wait, so nothing is given up."""
        name = f"throttled-{os.getpid()}"
        _limit(postroom_stack, name, bytes_per_second=40_000)
        settings = {"producer__client_id": name, "producer__compression": "none", "delivery__hand_over_after_s": 12}
        bench = Bench(_client(postroom_stack.bootstrap, **settings), postroom_topic)
        request.addfinalizer(lambda: bench.publisher.close(0.0))
        bench.publish(0)
        assert bench.publisher.flush(PATIENCE_S) == 0
        for number in range(1, 1_000):
            bench.publisher.publish(bench.record(number, number, os.urandom(1_000)), bench.heard(number))
        oldest_s, tick = 0.0, threading.Event()
        end = time.monotonic() + 4 * PATIENCE_S
        while bench.publisher.in_flight():
            assert time.monotonic() < end
            condition = bench.publisher.condition()
            assert condition.connected is not False
            oldest_s = max(oldest_s, condition.oldest_s or 0.0)
            tick.wait(0.05)
        assert oldest_s > 12
        bench.every_one_is_delivered(1_000)


def _limit(stack: LocalStack, client_id: str, bytes_per_second: int) -> None:
    """Give the client a quota. The client library's admin knows none, so Kafka's own tool does it."""
    tools = install(registry=False)
    class_path = os.pathsep.join(str(jar) for jar in tools.kafka)
    subprocess.run(
        [
            str(tools.java), "-cp", class_path, "kafka.admin.ConfigCommand", "--bootstrap-server", stack.bootstrap,
            "--alter", "--add-config", f"producer_byte_rate={bytes_per_second}",
            "--entity-type", "clients", "--entity-name", client_id,
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip


@pytest.mark.kafka
def test_five_seconds_after_the_return_of_kafka_records_are_acknowledged(
    postroom_stack: LocalStack, postroom_topic: str, request: pytest.FixtureRequest
) -> None:
    """Killed without a word, away for longer than any pause between two tries: one that waited and one that is new."""
    request.addfinalizer(postroom_stack.restore)
    waiting = Bench(_client(postroom_stack.bootstrap, delivery__hand_over_after_s=600), postroom_topic)
    new = Bench(_client(postroom_stack.bootstrap), postroom_topic)
    for bench in (waiting, new):
        bench.publish(0)
        assert bench.publisher.flush(PATIENCE_S) == 0
    postroom_stack.broker(1).kill()
    waiting.publish(1)
    away_until = time.monotonic() + 5
    while time.monotonic() < away_until:
        threading.Event().wait(0.1)
    assert new.publisher.condition().connected is False
    postroom_stack.broker(1).start()
    back = time.monotonic()
    while not new.publisher.condition().connected:
        assert time.monotonic() < back + 5
        threading.Event().wait(0.01)
    new.publish(1)
    for bench in (waiting, new):
        assert bench.publisher.flush(back + 5 - time.monotonic()) == 0
        assert bench.reports[1][0].decision.action is Action.DELIVERED
        bench.publisher.close(0.0)
