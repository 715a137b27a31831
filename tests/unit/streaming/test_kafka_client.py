"""The Kafka client reports every record exactly once, whatever the broker answers.

The broker here is librdkafka's mock cluster, because it can be told what to answer; delivery, order and loss are
judged elsewhere, by a real Kafka.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
import pytest

from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import DeadLetterReason, Delivered, FailedReason, Record
from postroom.libs.exceptions import (
    ConfigurationError,
    KafkaConnectionError,
    LifecycleError,
    NotRepresentableError,
    QueueFullError,
    RecordTooLargeError,
)
from postroom.libs.logger import get_logger
from postroom.observability.metric_table import CLIENT_QUEUE_BYTES, CLIENT_QUEUE_MESSAGES
from postroom.observability.metrics import Metrics
from postroom.streaming.connection_watch import ConnectionWatch
from postroom.streaming.delivery import Action
from postroom.streaming.kafka_client import KafkaClient
from postroom.streaming.publisher import Report
from tests.mock_cluster import MockCluster

TOPIC = "user_events"


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        cluster.create_topic(TOPIC)
        yield cluster


def config_for(bootstrap: str, **overrides: object) -> Config:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(overrides={"broker": bootstrap, **dotted}, environ={})


def record(number: int = 0, topic: str = TOPIC, value: bytes = b"value", key: bytes | None = b"key") -> Record:
    return Record(topic, key, value, (("ce_id", b"%d" % number),), str(number), 1_795_416_182_091)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition, within a bound."""
    end = time.monotonic() + seconds
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        tick.wait(0.01)


class Reports:
    """Gathers reports by record."""

    def __init__(self) -> None:
        self.by_record: dict[int, list[Report]] = {}

    def of(self, number: int) -> Callable[[Report], None]:
        return lambda report: self.by_record.setdefault(number, []).append(report)

    @property
    def all(self) -> list[Report]:
        return [report for reports in self.by_record.values() for report in reports]


def test_every_record_is_reported_once_with_its_place(cluster: MockCluster) -> None:
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
        for number in range(1_000):
            client.publish(record(number, key=b"%d" % (number % 100)), reports.of(number))
        assert client.flush(20) == 0
    assert len(reports.by_record) == 1_000
    assert all(len(once) == 1 for once in reports.by_record.values())
    places = {(report.partition, report.offset) for report in reports.all}
    assert len(places) == 1_000
    assert all(report.decision.action is Action.DELIVERED for report in reports.all)


def test_a_single_record_on_an_idle_client_needs_nobody_who_polls(cluster: MockCluster) -> None:
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
        client.publish(record(), reports.of(0))
        until(lambda: reports.by_record)
    assert reports.all[0].decision.action is Action.DELIVERED


@pytest.mark.parametrize(
    ("code", "action", "reason"),
    [
        (10, Action.DEAD_LETTER, DeadLetterReason.MESSAGE_TOO_LARGE),
        (18, Action.DEAD_LETTER, DeadLetterReason.MESSAGE_TOO_LARGE),
        (87, Action.DEAD_LETTER, DeadLetterReason.REJECTED_BY_BROKER),
        (32, Action.DEAD_LETTER, DeadLetterReason.REJECTED_BY_BROKER),
        (29, Action.HOLD, FailedReason.NOT_AUTHORIZED),
        (31, Action.HOLD, FailedReason.NOT_AUTHORIZED),
    ],
)
def test_what_the_broker_refuses_is_reported_with_its_meaning(
    cluster: MockCluster, code: int, action: Action, reason: object
) -> None:
    reports = Reports()
    metrics = Metrics()
    with KafkaClient(config_for(cluster.bootstrap), metrics=metrics) as client:
        cluster.push_errors(code)
        client.publish(record(), reports.of(0))
        assert client.flush(20) == 0
        decision = reports.all[0].decision
        assert (decision.action, decision.reason) == (action, reason)
        if code != 29:  # the client library remembers that it may not write to a topic and says so at once
            client.publish(record(1), reports.of(1))
            assert client.flush(20) == 0
            assert reports.by_record[1][0].decision.action is Action.DELIVERED
    assert sum(metrics.get_summary()["publish_errors_by_code"].values()) == 1


def test_a_passing_broker_error_is_retried_inside_the_client_library(cluster: MockCluster) -> None:
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
        cluster.push_errors(6, 7, 19)  # not the leader, timed out, not enough replicas
        client.publish(record(), reports.of(0))
        assert client.flush(60) == 0
    assert [report.decision.action for report in reports.all] == [Action.DELIVERED]


def test_a_record_that_is_too_large_is_reported_on_the_spot(cluster: MockCluster) -> None:
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
        client.publish(record(value=bytes(1_100_000)), reports.of(0))
        assert reports.all[0].decision.reason is DeadLetterReason.MESSAGE_TOO_LARGE
        assert client.in_flight() == 0


def test_a_full_queue_takes_nothing_and_reports_nothing(cluster: MockCluster) -> None:
    cluster.slow(2_000)
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap, producer__queue_max_messages=10), metrics=Metrics()) as client:
        for number in range(10):
            client.publish(record(number), reports.of(number))
        with pytest.raises(QueueFullError):
            client.publish(record(10), reports.of(10))
        assert client.in_flight() == 10
        assert client.wait_for_room(0.05) is False
        cluster.slow(0)
        assert client.wait_for_room(20) is True
        client.publish(record(11), reports.of(11))
        assert client.flush(20) == 0
    assert sorted(reports.by_record) == [*range(10), 11]


def test_purged_records_may_be_in_kafka_once_a_connection_was_up(cluster: MockCluster) -> None:
    """A record that waits for its second try is purged with the code of the queue; its first may be in the log."""
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
        client.publish(record(0), reports.of(0))
        assert client.flush(20) == 0
        cluster.push_errors(20, 20, 20, 20)  # appended, but not by enough replicas: tried again after a second
        client.publish(record(1), reports.of(1))
        assert client.flush(0.5) == 1
        client.purge()
        assert client.in_flight() == 0
        cluster.clear_errors()
        decision = reports.by_record[1][0].decision
        assert (decision.action, decision.may_be_in_kafka) == (Action.HOLD, True)


def test_records_handed_in_while_no_broker_can_be_reached_were_never_sent() -> None:
    with MockCluster() as gone:
        bootstrap = gone.bootstrap
    reports = Reports()
    metrics = Metrics()
    client = KafkaClient(config_for(bootstrap), metrics=metrics)
    client.start()
    until(lambda: client.connection()[0] is False)
    client.publish(record(), reports.of(0))
    client.close(0.1)
    decision = reports.all[0].decision
    assert (decision.reason, decision.may_be_in_kafka) == (FailedReason.KAFKA_UNAVAILABLE, False)
    assert metrics.get_summary()["connection_failures"] > 0


def test_a_record_that_waits_too_long_is_given_up_without_anybody_asking() -> None:
    """The clock runs twenty times as fast as the wall, so that the 12 seconds of patience pass quickly."""
    with MockCluster() as gone:
        bootstrap = gone.bootstrap
    reports = Reports()
    client = KafkaClient(
        config_for(bootstrap, delivery__hand_over_after_s=12), metrics=Metrics(), clock=FastClock(times=20)
    )
    client.publish(record(), reports.of(0))
    until(lambda: reports.by_record)
    assert reports.all[0].decision.reason is FailedReason.KAFKA_UNAVAILABLE
    client.close(0)


class FastClock:
    """Runs faster than the wall clock."""

    def __init__(self, times: float) -> None:
        self._times = times

    def monotonic(self) -> float:
        return time.monotonic() * self._times

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds / self._times)


def test_a_record_taken_right_after_a_purge_is_not_purged_with_the_others(cluster: MockCluster) -> None:
    """The purge of the client library goes on for a moment after its call has returned."""
    for _ in range(8):
        reports = Reports()
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            client.publish(record(0), reports.of(0))
            client.purge()
            client.publish(record(1), reports.of(1))
            assert client.flush(20) == 0
        assert reports.by_record[1][0].decision.action is Action.DELIVERED


def test_a_fatal_error_gives_the_client_a_new_producer(cluster: MockCluster) -> None:
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
        client.publish(record(0), reports.of(0))
        assert client.flush(20) == 0
        first = client._producer
        cluster.push_errors(47, 47, 47)  # an old producer epoch: fatal for an idempotent producer without transactions
        client.publish(record(1), reports.of(1))
        until(lambda: 1 in reports.by_record)
        cluster.clear_errors()
        client._fatal = True  # whatever the library made of those codes: this is what a fatal error leaves behind
        assert client._thread is not None
        client._thread.wake()
        until(lambda: client._producer is not first)
        client.publish(record(2), reports.of(2))
        assert client.flush(20) == 0
    assert reports.by_record[2][0].decision.action is Action.DELIVERED


def test_a_handler_that_raises_hurts_no_other_record(cluster: MockCluster) -> None:
    reports = Reports()
    metrics = Metrics()

    def raising(_: Report) -> None:
        raise RuntimeError("from a handler")

    with KafkaClient(config_for(cluster.bootstrap), metrics=metrics) as client:
        client.publish(record(0), raising)
        client.publish(record(1), reports.of(1))
        assert client.flush(20) == 0
    assert reports.by_record[1][0].decision.action is Action.DELIVERED
    assert metrics.get_summary()["publish_errors_by_code"] == {"report_handler": 1}


def test_a_closed_client_says_so(cluster: MockCluster) -> None:
    client = KafkaClient(config_for(cluster.bootstrap), metrics=Metrics())
    client.start()
    client.close()
    client.close()
    with pytest.raises(LifecycleError):
        client.publish(record(), lambda _: None)


def test_closing_reports_what_could_not_be_sent() -> None:
    with MockCluster() as gone:
        bootstrap = gone.bootstrap
    reports = Reports()
    client = KafkaClient(config_for(bootstrap), metrics=Metrics())
    for number in range(100):
        client.publish(record(number), reports.of(number))
    client.close(0.2)
    assert len(reports.all) == 100
    assert {report.decision.action for report in reports.all} == {Action.HOLD}


def test_a_forked_child_gets_a_connection_of_its_own(cluster: MockCluster) -> None:
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
        client.publish(record(0), reports.of(0))
        assert client.flush(20) == 0
        child = os.fork()
        if child == 0:
            code = 1
            try:
                own = Reports()
                client.publish(record(1), own.of(1))
                left = client.flush(20)
                code = 0 if left == 0 and own.all[0].decision.action is Action.DELIVERED else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.publish(record(2), reports.of(2))
        assert client.flush(20) == 0
    assert len(reports.all) == 2


def test_a_mapping_goes_out_as_json_and_is_acknowledged_on_return(cluster: MockCluster) -> None:
    with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
        outcome = client.publish({"user_id": "u1", "timestamp": 1})
        assert isinstance(outcome, Delivered)
        assert outcome.topic == TOPIC
        with pytest.raises(NotRepresentableError):
            client.publish({"user_id": object()})
        with pytest.raises(RecordTooLargeError):
            client.publish({"user_id": "x" * 1_100_000})


def test_a_mapping_that_cannot_be_sent_raises_what_went_wrong() -> None:
    with MockCluster() as gone:
        bootstrap = gone.bootstrap
    client = KafkaClient(
        config_for(bootstrap, delivery__hand_over_after_s=12), metrics=Metrics(), clock=FastClock(times=20)
    )
    with pytest.raises(KafkaConnectionError):
        client.publish({"user_id": "u1"})
    client.close(0)


class TestCondition:
    @pytest.mark.parametrize("brokers", [1, 3])
    def test_a_connection_that_ends_or_comes_is_noticed_at_once_by_an_idle_client(self, brokers: int) -> None:
        with MockCluster(brokers) as cluster, KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            assert client.condition().connected is None
            until(lambda: client.condition().connected)
            for _ in range(2):
                cluster.down()
                until(lambda: client.condition().connected is False, 2)
                assert client.condition().since_s < 2
                until(lambda: client.condition().problem)
                cluster.up()
                until(lambda: client.condition().connected, 10)
                assert client.condition().problem == ""

    def test_the_age_is_that_of_the_oldest_record_without_a_report(self, cluster: MockCluster) -> None:
        """A broker that is frozen keeps its connection: nothing but the age tells."""
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            until(lambda: client.condition().connected)
            assert client.condition().oldest_s is None
            cluster.slow(1_500)
            client.publish(record(0), lambda _: None)
            until(lambda: (client.condition().oldest_s or 0) > 1)
            client.publish(record(1), lambda _: None)
            assert client.condition().connected
            assert (client.condition().oldest_s or 0) > 1
            cluster.slow(0)
            assert client.flush(20) == 0
            assert client.condition().oldest_s is None

    def test_it_may_be_asked_while_records_come_and_go(self, cluster: MockCluster) -> None:
        ages: list[float] = []
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            asking = threading.Thread(
                target=lambda: ages.extend(client.condition().oldest_s or 0 for _ in range(3_000))
            )
            asking.start()
            number = 0
            while asking.is_alive():
                with contextlib.suppress(QueueFullError):
                    client.publish(record(number), lambda _: None)
                number += 1
        assert len(ages) == 3_000
        assert min(ages) >= 0


class TestStatistics:
    def test_what_cannot_be_read_of_them_changes_nothing(self) -> None:
        watch = ConnectionWatch(FastClock(1), Metrics(), get_logger("test"), lambda: None)
        watch.on_statistics('{"msg_size": 7, "brokers": {"b": {"state": "UP", "txretries": 2}}, "more": [1]}')
        for text in ("", "null", "{}", '{"msg_size": "7", "brokers": 1}', '{"msg_size": 1, "brokers": {"b": {}}}', "{"):
            watch.on_statistics(text)
        assert watch.connected
        assert watch.queue_bytes == 7


class TestWhileItIsBeingEmptied:
    """A purge takes a while; nobody is kept waiting for it who did not ask to wait."""

    def test_nothing_is_taken_and_nobody_waits(self, cluster: MockCluster) -> None:
        reports = Reports()
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            refused: list[bool] = []

            def on_done(report: Report) -> None:  # runs in the middle of the purge
                try:
                    client.publish(record(1), reports.of(1))
                except QueueFullError:
                    refused.append(client.wait_for_room(0))
                reports.of(0)(report)

            cluster.slow(5_000)
            client.publish(record(0), on_done)
            client.purge()
            assert refused == [False]
            cluster.slow(0)
            assert client.wait_for_room(0)
            client.publish(record(2), reports.of(2))
            assert client.flush(20) == 0
        assert sorted(reports.by_record) == [0, 2]

    def test_who_waits_for_room_is_let_in_afterwards_though_others_were_faster(self, cluster: MockCluster) -> None:
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            client._emptying = True
            let_in: list[bool] = []
            waiting = threading.Thread(target=lambda: let_in.append(client.wait_for_room(20)))
            waiting.start()
            client._emptying = False
            cluster.slow(60_000)
            client.publish(record(), lambda _: None)
            waiting.join()
            client.purge()
        assert let_in == [True]


class TestSignalsInTheMiddle:
    """Ctrl-C raises wherever the main thread is, and the main thread polls too."""

    def test_no_report_is_ever_handled_on_the_main_thread(self, cluster: MockCluster) -> None:
        """There an exception could come up in the middle of a callback of the client library, and be lost in it."""
        handled_by: set[threading.Thread] = set()

        def handler(_: Report) -> None:
            handled_by.add(threading.current_thread())

        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            for number in range(1_000):
                client.publish(record(number), handler)
                client.serve()
            assert client.wait_for_room(20)
            assert client.flush(20) == 0
            for number in range(100):
                client.publish(record(number), handler)
            client.purge()
            client.publish(record(), handler)
        assert {thread.name for thread in handled_by} == {"postroom-poll"}

    def test_other_threads_that_publish_much_handle_reports_themselves(self, cluster: MockCluster) -> None:
        handled_by: set[threading.Thread] = set()

        def work() -> None:
            while threading.current_thread() not in handled_by:
                with contextlib.suppress(QueueFullError):
                    client.publish(record(), lambda _: handled_by.add(threading.current_thread()))
                client.serve()

        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            worker = threading.Thread(target=work)
            worker.start()
            worker.join(60)
            assert worker in handled_by

    def test_after_an_interrupted_publish_no_report_follows(self, cluster: MockCluster) -> None:
        class Interrupting:
            """A producer whose call is interrupted after it has taken the record."""

            def __init__(self, settings: dict[str, Any], **more: Any) -> None:
                self._inner = confluent_kafka.Producer(settings, **more)

            def produce(self, *args: Any, **named: Any) -> None:
                self._inner.produce(*args, **named)
                raise KeyboardInterrupt

            def __getattr__(self, name: str) -> object:
                return getattr(self._inner, name)

        reports = Reports()
        metrics = Metrics()
        with KafkaClient(config_for(cluster.bootstrap), metrics=metrics, make_producer=Interrupting) as client:
            with pytest.raises(KeyboardInterrupt):
                client.publish(record(), reports.of(0))
            assert client.in_flight() == 0
            until(lambda: metrics.get_summary()["publish_errors_by_code"].get("second_report"))
        assert reports.by_record == {}

    def test_a_closing_that_was_cut_short_goes_on_the_second_time(self, cluster: MockCluster) -> None:
        reports = Reports()
        client = KafkaClient(config_for(cluster.bootstrap), metrics=Metrics())
        cluster.slow(60_000)
        client.publish(record(), reports.of(0))
        flush, client.flush = client.flush, interrupt  # type: ignore[method-assign, assignment]  # Ctrl-C while it waits
        with pytest.raises(KeyboardInterrupt):
            client.close()
        client.flush = flush  # type: ignore[method-assign]  # as it was
        with pytest.raises(LifecycleError):
            client.publish(record(), reports.of(1))
        client.close(0)
        assert [len(reports.by_record[number]) for number in reports.by_record] == [1]
        assert client._producer is None


def interrupt(_: float) -> int:
    raise KeyboardInterrupt


class TestReportHandlers:
    def test_one_that_waits_for_reports_is_told_so_instead_of_waiting_for_ever(self, cluster: MockCluster) -> None:
        reports = Reports()
        said: list[str] = []

        def waits(report: Report) -> None:
            for wait in (client.purge, client.close, lambda: client.flush(1)):
                with pytest.raises(LifecycleError) as told:
                    wait()
                said.append(str(told.value))
            reports.of(0)(report)

        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            client.publish(record(), waits)
            assert client.flush(20) == 0
        assert len(said) == 3
        assert reports.all[0].decision.action is Action.DELIVERED


class TestThePollThread:
    def test_it_survives_what_goes_wrong_and_tries_again(self, cluster: MockCluster) -> None:
        """A producer that cannot be made anew (no more file handles, say) is asked for until it can."""
        reports = Reports()
        made: list[object] = []

        def make_producer(settings: dict[str, Any], **more: Any) -> object:
            made.append(settings)
            if len(made) in (2, 3):
                raise OSError(24, "Too many open files")
            return confluent_kafka.Producer(settings, **more)

        client = KafkaClient(
            config_for(cluster.bootstrap), metrics=Metrics(), make_producer=make_producer, clock=FastClock(times=20)
        )
        with client:
            client._fatal = True
            assert client._thread is not None
            client._thread.wake()
            until(lambda: len(made) == 4 and not client._fatal)
            assert client.alive()
            client.publish(record(), reports.of(0))
            assert client.flush(400) == 0
        assert reports.all[0].decision.action is Action.DELIVERED

    def test_without_it_nothing_is_taken(self, cluster: MockCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_more_threads(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        client = KafkaClient(config_for(cluster.bootstrap), metrics=Metrics())
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_more_threads)
            with pytest.raises(RuntimeError):
                client.publish(record(), lambda _: None)
        reports = Reports()
        with client:
            client.publish(record(), reports.of(0))
            assert client.flush(20) == 0
        assert len(reports.all) == 1

    def test_a_caller_who_flushes_for_long_does_not_keep_it_from_giving_up_the_old(self) -> None:
        with MockCluster() as gone:
            bootstrap = gone.bootstrap
        reports = Reports()
        clock = FastClock(times=20)
        client = KafkaClient(config_for(bootstrap, delivery__hand_over_after_s=12), metrics=Metrics(), clock=clock)
        client.publish(record(), reports.of(0))
        assert client.flush(10_000) == 0
        client.close(0)
        assert reports.all[0].decision.reason is FailedReason.KAFKA_UNAVAILABLE


class TestFatalErrors:
    def test_what_produce_refuses_for_one_waits_for_the_new_producer(self, cluster: MockCluster) -> None:
        class Fatal:
            """A producer that met a fatal error: nothing says so but its next produce."""

            def produce(self, *_: object, **__: object) -> None:
                raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._FATAL))

            def poll(self, _: float) -> int:
                threading.Event().wait(0.02)
                return 0

            def purge(self, **_: object) -> None: ...

        made: list[object] = []

        def make_producer(settings: dict[str, Any], **more: Any) -> object:
            made.append(Fatal() if not made else confluent_kafka.Producer(settings, **more))
            return made[-1]

        reports = Reports()
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics(), make_producer=make_producer) as client:
            with pytest.raises(QueueFullError):
                client.publish(record(0), reports.of(0))
            assert client.wait_for_room(20)
            client.publish(record(1), reports.of(1))
            assert client.flush(20) == 0
        assert len(made) == 2
        assert [reports.by_record[1][0].decision.action] == [Action.DELIVERED]
        assert 0 not in reports.by_record


def test_settings_that_the_client_library_refuses_are_a_configuration_error() -> None:
    config = load_config(overrides={"broker": "127.0.0.1:1", "producer.librdkafka.batch.size": -5}, environ={})
    client = KafkaClient(config, metrics=Metrics())
    with pytest.raises(ConfigurationError, match=r"batch\.size"):
        client.start()


def test_its_queue_is_shown_while_it_lives(cluster: MockCluster) -> None:
    metrics = Metrics()
    cluster.slow(3_000)
    with KafkaClient(config_for(cluster.bootstrap), metrics=metrics) as client:
        for number in range(7):
            client.publish(record(number, value=bytes(1_000)), lambda _: None)
        assert metrics.snapshot().total(CLIENT_QUEUE_MESSAGES) == 7
        until(lambda: metrics.snapshot().total(CLIENT_QUEUE_BYTES) >= 7_000)
        cluster.slow(0)
    assert metrics.snapshot().total(CLIENT_QUEUE_MESSAGES) == 0


def test_a_mapping_needs_a_topic(cluster: MockCluster) -> None:
    config = config_for(cluster.bootstrap)
    without = config.model_copy(update={"topics": {}})
    with KafkaClient(without, metrics=Metrics()) as client, pytest.raises(ConfigurationError):
        client.publish({"user_id": "u1"})
