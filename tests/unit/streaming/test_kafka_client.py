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
from pathlib import Path
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
from postroom.streaming import producer_life
from postroom.streaming.connection_watch import ConnectionWatch
from postroom.streaming.delivery import Action
from postroom.streaming.kafka_client import KafkaClient
from postroom.streaming.librdkafka_object import free
from postroom.streaming.publisher import Report
from tests.interruption import interrupted_at
from tests.mock_cluster import INIT_PRODUCER_ID, MockCluster, meet_fatal_error

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
    until(lambda: client.condition().connected is False)
    client.publish(record(), reports.of(0))
    client.close(0.1)
    decision = reports.all[0].decision
    assert (decision.reason, decision.may_be_in_kafka) == (FailedReason.KAFKA_UNAVAILABLE, False)
    assert metrics.get_summary()["connection_failures"] > 0


def test_what_was_taken_before_anything_was_known_of_a_connection_may_be_in_kafka(cluster: MockCluster) -> None:
    """Statistics tell of a connection half a second late: by then it may have been up, and be gone again."""
    reports = Reports()
    client = KafkaClient(config_for(cluster.bootstrap), metrics=Metrics())
    cluster.push_errors(20, 20, 20, 20)  # appended, but not by enough replicas: tried again after a second
    client.publish(record(0), reports.of(0))
    assert client.flush(0.25) == 1
    cluster.down()
    until(lambda: client.condition().connected is False)
    client.close(0)
    assert reports.by_record[0][0].decision.may_be_in_kafka


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


class HardToFree:
    """A producer whose threads do not end, so that freeing it waits for them, until `threads_end` is set."""

    threads_end = threading.Event()
    is_freed = threading.Event()

    def __init__(self, _settings: dict[str, Any], **_: object) -> None: ...

    def __del__(self) -> None:
        self.threads_end.wait(20)
        self.is_freed.set()

    def poll(self, seconds: float) -> int:
        threading.Event().wait(seconds)
        return 0


def test_closing_does_not_wait_for_threads_of_the_library_that_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_life, "_FREED_S", 0.01)
    client = KafkaClient(config_for("127.0.0.1:1"), metrics=Metrics(), make_producer=HardToFree)
    client.start()
    client.close()
    assert not HardToFree.is_freed.is_set()
    HardToFree.threads_end.set()
    assert HardToFree.is_freed.wait(20)


def test_what_no_thread_can_free_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very end of the interpreter, or where the system has no thread left, nobody waits either."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    freed: list[str] = []

    class Held:
        def __del__(self) -> None:
            freed.append("held")

    let_go: list[Any] = [Held()]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not free(let_go, 0.0)
    assert let_go == []
    assert freed == []


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
            client._shutter.emptying = True
            let_in: list[bool] = []
            waiting = threading.Thread(target=lambda: let_in.append(client.wait_for_room(20)))
            waiting.start()
            client._shutter.emptying = False
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
        assert client._life.producer is None

    def test_one_that_is_cut_short_anywhere_leaves_no_lock_behind(self) -> None:
        """A lock that was just had, with a time limit, was kept for ever: nobody let go of it, no report came again."""
        for number in range(1, 200):
            reports = Reports()
            client = KafkaClient(config_for("127.0.0.1:1"), metrics=Metrics())
            client.publish(record(), reports.of(0))
            files = ("kafka_client.py", "polling.py")
            is_hit = interrupted_at(number, files, lambda: client.flush(0.01))  # noqa: B023 - called at once
            for lock in (client._polling.lock, client._shutter.gate):
                assert lock.acquire(timeout=5), number
                lock.release()
            client.close(0)
            assert len(reports.all) == 1
            if not is_hit:
                assert number > 5
                return
        pytest.fail("a flush has fewer places")


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

    def test_one_that_never_returns_keeps_no_flush_beyond_its_time(self, cluster: MockCluster) -> None:
        is_over = threading.Event()

        def waits(_: Report) -> None:
            is_over.wait(20)

        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics()) as client:
            client.publish(record(), waits)
            until(lambda: client.in_flight() == 0)
            began = time.monotonic()
            assert client.flush(0.1) == 1
            assert time.monotonic() - began < 5
            is_over.set()
            assert client.flush(20) == 0


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
            client._shutter.fatal = True
            assert client._thread is not None
            client._thread.wake()
            until(lambda: len(made) == 4 and not client._shutter.fatal)
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


class Raises:
    """A producer of which one call raises, once."""

    def __init__(self, call: str, error: BaseException, settings: dict[str, Any], **more: Any) -> None:
        self._inner = confluent_kafka.Producer(settings, **more)
        self._call = call
        self._error = error
        self.has_raised = False

    def _raise_in(self, call: str) -> None:
        if call == self._call and not self.has_raised:
            self.has_raised = True
            raise self._error

    def produce(self, *args: Any, **named: Any) -> None:
        self._raise_in("produce")
        self._inner.produce(*args, **named)

    def poll(self, seconds: float) -> int:
        self._raise_in("poll")
        return self._inner.poll(seconds)

    def flush(self, seconds: float) -> int:
        self._raise_in("flush")
        return self._inner.flush(seconds)

    def purge(self, **named: Any) -> None:
        self._raise_in("purge")
        self._inner.purge(**named)


class Raising:
    """Makes the producers of a client, the first of which raises."""

    def __init__(self, call: str, error: BaseException) -> None:
        self._call = call
        self._error = error
        self.made: list[Any] = []

    def __call__(self, settings: dict[str, Any], **more: Any) -> Any:
        first = not self.made
        self.made.append(
            Raises(self._call, self._error, settings, **more) if first else confluent_kafka.Producer(settings, **more)
        )
        return self.made[-1]


def kafka_exception(code: int, *, fatal: bool = False) -> confluent_kafka.KafkaException:
    return confluent_kafka.KafkaException(confluent_kafka.KafkaError(code, fatal=fatal))


class TestRefusedBatches:
    """A broker refuses batches. What it says is said of a record only when that record was sent alone."""

    @pytest.mark.parametrize(
        ("code", "spool"), [(4, False), (10, True), (18, False), (32, True), (44, False), (87, True), (87, False)]
    )
    def test_the_record_at_fault_is_found_and_the_others_go_through(
        self, cluster: MockCluster, tmp_path: Path, code: int, spool: bool
    ) -> None:
        reports = Reports()
        config = config_for(cluster.bootstrap, producer__linger_ms=100, **spool_in(tmp_path, wanted=spool))
        with KafkaClient(config, metrics=Metrics()) as client:
            client.publish(record(0), reports.of(0))
            assert client.flush(20) == 0
            cluster.push_errors(code, code)  # the batch, and then the first record of it that is sent alone
            for number in range(1, 6):
                client.publish(record(number), reports.of(number))
            assert client.flush(20) == 0
            assert client.wait_for_room(1)
            client.publish(record(6), reports.of(6))
            assert client.flush(20) == 0
        assert [len(reports.by_record[number]) for number in range(7)] == [1] * 7
        ends = [reports.by_record[number][0].decision.action for number in range(7)]
        assert ends == [Action.DELIVERED, Action.DEAD_LETTER] + [Action.DELIVERED] * 5
        offsets = {number: reports.by_record[number][0].offset for number in (0, 2, 3, 4, 5, 6)}
        assert sorted(offsets, key=lambda number: offsets[number]) == [0, 2, 3, 4, 5, 6]

    def test_two_of_them_at_once_are_told_apart(self, cluster: MockCluster) -> None:
        reports = Reports()
        cluster.create_topic("others")
        config = config_for(cluster.bootstrap, producer__linger_ms=100)
        with KafkaClient(config, metrics=Metrics()) as client:
            client.publish(record(0), reports.of(0))
            client.publish(record(1, topic="others"), reports.of(1))
            assert client.flush(20) == 0
            cluster.push_errors(87, 10)  # two batches, of two topics
            for number in range(2, 8):
                client.publish(record(number, topic=(TOPIC, "others")[number % 2]), reports.of(number))
            assert client.flush(20) == 0
        assert [report.decision.action for report in reports.all] == [Action.DELIVERED] * 8

    def test_nothing_is_taken_while_they_are_sent_alone(self, cluster: MockCluster) -> None:
        reports = Reports()
        config = config_for(cluster.bootstrap, producer__linger_ms=100)
        with KafkaClient(config, metrics=Metrics(), make_producer=silent_after_the_first) as client:
            refuse_a_batch(client, cluster, reports)
            until(lambda: client._life.other is not None)
            with pytest.raises(QueueFullError):
                client.publish(record(9), reports.of(9))
            assert not client.wait_for_room(0)
            client.purge()
            assert client.wait_for_room(0)
        assert 9 not in reports.by_record

    @pytest.mark.parametrize("asked", [False, True])
    def test_when_no_answer_comes_they_are_given_up_and_reported_once(self, cluster: MockCluster, asked: bool) -> None:
        reports = Reports()
        clock = FastClock(times=1 if asked else 5)
        config = config_for(cluster.bootstrap, producer__linger_ms=100)
        with KafkaClient(config, metrics=Metrics(), make_producer=silent_after_the_first, clock=clock) as client:
            refuse_a_batch(client, cluster, reports)
            if asked:
                until(lambda: client._life.other is not None)
                client.purge()
            until(lambda: client.in_flight() == 0, 5)
        assert [len(reports.by_record[number]) for number in range(4)] == [1] * 4
        assert [reports.by_record[number][0].decision.action for number in range(1, 4)] == [Action.HOLD] * 3

    def test_when_they_cannot_be_sent_alone_now_it_is_tried_again(self, cluster: MockCluster) -> None:
        made: list[object] = []

        def make_producer(settings: dict[str, Any], **more: Any) -> object:
            made.append(settings)
            if len(made) == 2:
                raise OSError(24, "Too many open files")
            return confluent_kafka.Producer(settings, **more)

        reports = Reports()
        config = config_for(cluster.bootstrap, producer__linger_ms=100)
        with KafkaClient(config, metrics=Metrics(), make_producer=make_producer) as client:
            refuse_a_batch(client, cluster, reports)
            until(lambda: client.in_flight() == 0)
        assert len(made) == 3
        assert [report.decision.action for report in reports.all] == [Action.DELIVERED] * 4

    @pytest.mark.parametrize(
        ("error", "action"),
        [(BufferError("queue full"), Action.HOLD), (kafka_exception(10), Action.DEAD_LETTER)],
    )
    def test_what_the_library_refuses_to_send_alone_is_reported(
        self, cluster: MockCluster, error: Exception, action: Action
    ) -> None:
        def make_producer(settings: dict[str, Any], **more: Any) -> object:
            alone = settings.get("batch.num.messages") == 1
            return Raises("produce", error, settings, **more) if alone else confluent_kafka.Producer(settings, **more)

        reports = Reports()
        config = config_for(cluster.bootstrap, producer__linger_ms=100)
        with KafkaClient(config, metrics=Metrics(), make_producer=make_producer) as client:
            refuse_a_batch(client, cluster, reports)
            until(lambda: client.in_flight() == 0)
        ends = [reports.by_record[number][0].decision.action for number in range(1, 4)]
        assert ends == [action, Action.DELIVERED, Action.DELIVERED]

    def test_a_purge_before_they_are_sent_again_says_that_nothing_was_written(self, cluster: MockCluster) -> None:
        def make_producer(settings: dict[str, Any], **more: Any) -> object:
            if settings.get("batch.num.messages") == 1:
                raise OSError(24, "Too many open files")
            return confluent_kafka.Producer(settings, **more)

        reports = Reports()
        config = config_for(cluster.bootstrap, producer__linger_ms=100)
        with KafkaClient(config, metrics=Metrics(), make_producer=make_producer) as client:
            refuse_a_batch(client, cluster, reports)
            until(lambda: client._shutter.suspects)
            client.purge()
            assert client.in_flight() == 0
        decision = reports.by_record[1][0].decision
        assert (decision.action, decision.may_be_in_kafka) == (Action.HOLD, False)
        assert reports.by_record[1][0].detail == "INVALID_RECORD for a batch"


def spool_in(folder: Path, *, wanted: bool = True) -> dict[str, object]:
    """The settings of a client that may hand over to a spool."""
    return {"spool__dir": folder / "spool"} if wanted else {}


class Silent:
    """A producer that takes records and says nothing of them."""

    def produce(self, *_: object, **__: object) -> None: ...

    def purge(self, **_: object) -> None: ...

    def poll(self, seconds: float) -> int:
        threading.Event().wait(seconds)
        return 0


def silent_after_the_first(settings: dict[str, Any], **more: Any) -> object:
    """Make a producer; the one for records that are sent alone gets no answers."""
    return Silent() if settings.get("batch.num.messages") == 1 else confluent_kafka.Producer(settings, **more)


def refuse_a_batch(client: KafkaClient, cluster: MockCluster, reports: Reports) -> None:
    """Let the broker refuse records 1 to 3."""
    client.publish(record(0), reports.of(0))
    assert client.flush(20) == 0
    cluster.push_errors(87)
    for number in range(1, 4):
        client.publish(record(number), reports.of(number))


class TestNothingIsOvertaken:
    """What is behind a record that Kafka did not take comes back too, if there is a spool that sends all in order."""

    def test_a_success_without_a_place_is_none(self, cluster: MockCluster) -> None:
        """The library concludes it from a later batch's success: the record is not in the log (0006)."""
        reports = Reports()
        with KafkaClient(one_a_batch(cluster), metrics=Metrics()) as client:
            in_flight_together(client, cluster, reports, 6)
        report = reports.by_record[1][0]
        assert report.decision.action is Action.HOLD
        assert report.decision.may_be_in_kafka
        assert report.detail == "acknowledged_without_offset"
        assert [reports.by_record[n][0].decision.action for n in range(2, 9)] == [Action.DELIVERED] * 7
        assert sorted(reports.by_record[n][0].offset for n in range(2, 9)) == list(range(1, 8))  # nowhere in the log

    def test_a_client_that_asks_for_no_acknowledgement_gets_no_place(self, cluster: MockCluster) -> None:
        reports = Reports()
        config = config_for(cluster.bootstrap, producer__acks="0", producer__idempotent=False)
        with KafkaClient(config, metrics=Metrics()) as client:
            client.publish(record(0), reports.of(0))
            assert client.flush(20) == 0
        assert reports.by_record[0][0].decision.action is Action.DELIVERED

    @pytest.mark.parametrize("code", [6, -1])
    def test_what_waits_behind_comes_back_in_order(self, cluster: MockCluster, tmp_path: Path, code: int) -> None:
        reports = Reports()
        with KafkaClient(one_a_batch(cluster, **spool_in(tmp_path)), metrics=Metrics()) as client:
            in_flight_together(client, cluster, reports, code, last=200)
            assert client.wait_for_room(1)
            client.publish(record(201), reports.of(201))
            assert client.flush(20) == 0
        ends = [reports.by_record[number][0].decision for number in range(1, 201)]
        assert [len(reports.by_record[number]) for number in range(1, 201)] == [1] * 200
        assert ends[0].action is Action.HOLD
        passed = [decision.action is Action.DELIVERED for decision in ends[1:]]
        assert passed == sorted(
            passed, reverse=True
        )  # the mock cluster takes what was on the wire, a real one does not
        assert sum(passed) < 20
        assert all(decision.may_be_in_kafka for decision in ends if decision.action is Action.HOLD)
        assert reports.by_record[201][0].decision.action is Action.DELIVERED

    def test_without_a_spool_the_others_go_on(self, cluster: MockCluster) -> None:
        reports = Reports()
        with KafkaClient(one_a_batch(cluster), metrics=Metrics()) as client:
            in_flight_together(client, cluster, reports, -1, last=50)
        ends = [reports.by_record[number][0].decision.action for number in range(1, 51)]
        assert ends == [Action.HOLD] + [Action.DELIVERED] * 49

    def test_nobody_else_is_called_back_for_a_record_that_alone_is_at_fault(
        self, cluster: MockCluster, tmp_path: Path
    ) -> None:
        reports = Reports()
        with KafkaClient(one_a_batch(cluster, **spool_in(tmp_path)), metrics=Metrics()) as client:
            in_flight_together(client, cluster, reports, 87, last=50)
        ends = [reports.by_record[number][0].decision.action for number in range(1, 51)]
        assert ends == [Action.DEAD_LETTER] + [Action.DELIVERED] * 49

    def test_what_stays_on_the_wire_is_given_up_after_a_moment(self, cluster: MockCluster, tmp_path: Path) -> None:
        reports = Reports()
        with KafkaClient(one_a_batch(cluster, **spool_in(tmp_path)), metrics=Metrics()) as client:
            client.publish(record(0), reports.of(0))
            assert client.flush(20) == 0
            cluster.slow(60_000)
            for number in range(1, 20):
                client.publish(record(number), reports.of(number))
            client._shutter.recalling = True  # as a report of another partition leaves it behind
            until(lambda: client.in_flight() == 0, 5)
            assert client.wait_for_room(1)
        assert {report.decision.action for report in reports.all[1:]} == {Action.HOLD}

    def test_when_its_repeats_are_used_up_what_is_behind_comes_back_too(
        self, cluster: MockCluster, tmp_path: Path
    ) -> None:
        reports = Reports()
        config = one_a_batch(cluster, producer__retries=1, **spool_in(tmp_path))
        with KafkaClient(config, metrics=Metrics()) as client:
            client.publish(record(0), reports.of(0))
            assert client.flush(20) == 0
            cluster.slow(50)
            cluster.push_errors(*[19] * 10)  # the five requests on the wire, twice
            for number in range(1, 101):
                client.publish(record(number), reports.of(number))
            assert client.flush(20) == 0
        ends = [reports.by_record[number][0].decision.action for number in range(1, 101)]
        assert ends[:5] == [Action.HOLD] * 5
        assert ends.count(Action.DELIVERED) <= 5  # the mock cluster takes what was sent in that very moment


def one_a_batch(cluster: MockCluster, **overrides: object) -> Config:
    """Settings with which several requests are in flight to one partition as soon as there are several records."""
    return config_for(
        cluster.bootstrap,
        **{
            "producer__librdkafka__batch__num__messages": 1,
            "producer__linger_ms": 0,
            "producer__retry_backoff_ms": 50,
            **overrides,
        },
    )


def in_flight_together(client: KafkaClient, cluster: MockCluster, reports: Reports, code: int, last: int = 8) -> None:
    """Publish records 1 to `last`, of which the first few are in flight together; the first is refused."""
    client.publish(record(0), reports.of(0))
    assert client.flush(20) == 0
    cluster.slow(100)
    cluster.push_errors(code)
    for number in range(1, last + 1):
        client.publish(record(number), reports.of(number))
    until(lambda: 1 in reports.by_record)
    cluster.slow(0)
    assert client.flush(20) == 0


class TestWhatTheLibraryRaises:
    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (kafka_exception(-188), FailedReason.TOPIC_MISSING),
            (kafka_exception(29), FailedReason.NOT_AUTHORIZED),
            (kafka_exception(10), DeadLetterReason.MESSAGE_TOO_LARGE),
            (kafka_exception(-196), FailedReason.KAFKA_UNAVAILABLE),
            (TypeError("a header"), FailedReason.INTERNAL),
            (ValueError("a timestamp"), FailedReason.INTERNAL),
            (RuntimeError("handle closed"), FailedReason.INTERNAL),
            (MemoryError(), FailedReason.INTERNAL),
            (SystemError("returned a result with an exception set"), FailedReason.INTERNAL),
        ],
    )
    def test_what_produce_raises_for_a_record_is_its_report(
        self, cluster: MockCluster, error: Exception, reason: object
    ) -> None:
        reports = Reports()
        raising = Raising("produce", error)
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics(), make_producer=raising) as client:
            client.publish(record(0), reports.of(0))
            client.publish(record(1), reports.of(1))
            assert client.flush(20) == 0
        assert len(raising.made) == 1
        decision = reports.by_record[0][0].decision
        assert (decision.reason, decision.may_be_in_kafka) == (reason, False)
        assert reports.by_record[1][0].decision.action is Action.DELIVERED
        assert [len(reports.by_record[number]) for number in range(2)] == [1, 1]

    @pytest.mark.parametrize(
        ("error", "made"),
        [(BufferError("queue full"), 1), (kafka_exception(-150), 2), (kafka_exception(45, fatal=True), 2)],
    )
    def test_what_produce_raises_for_want_of_room_or_of_a_producer_is_told_to_the_caller(
        self, cluster: MockCluster, error: Exception, made: int
    ) -> None:
        reports = Reports()
        raising = Raising("produce", error)
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics(), make_producer=raising) as client:
            with pytest.raises(QueueFullError):
                client.publish(record(0), reports.of(0))
            until(lambda: client.wait_for_room(0), 2)
            client.publish(record(1), reports.of(1))
            assert client.flush(20) == 0
        assert len(raising.made) == made
        assert sorted(reports.by_record) == [1]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
    def test_what_a_signal_handler_raises_in_produce_goes_to_the_caller(
        self, cluster: MockCluster, error: BaseException
    ) -> None:
        reports = Reports()
        raising = Raising("produce", error)
        with KafkaClient(config_for(cluster.bootstrap), metrics=Metrics(), make_producer=raising) as client:
            with pytest.raises(type(error)):
                client.publish(record(0), reports.of(0))
            assert client.in_flight() == 0
            client.publish(record(1), reports.of(1))
            assert client.flush(20) == 0
        assert sorted(reports.by_record) == [1]

    @pytest.mark.parametrize("call", ["poll", "flush", "purge"])
    @pytest.mark.parametrize(
        "error", [kafka_exception(47, fatal=True), SystemError("returned NULL without setting an exception")]
    )
    def test_what_the_others_raise_is_a_fatal_error(self, cluster: MockCluster, call: str, error: Exception) -> None:
        reports = Reports()
        metrics = Metrics()
        raising = Raising(call, error)
        cluster.slow(200)
        config = config_for(cluster.bootstrap, producer__linger_ms=200 if call == "flush" else 5)
        with KafkaClient(config, metrics=metrics, make_producer=raising) as client:
            client.publish(record(0), reports.of(0))
            if call == "purge":
                client.purge()
            else:
                client.flush(2)
            until(lambda: len(raising.made) == 2, 2)
            cluster.slow(0)
            until(lambda: client.wait_for_room(0), 2)
            client.publish(record(1), reports.of(1))
            assert client.flush(20) == 0
        assert [len(reports.by_record[number]) for number in range(2)] == [1, 1]
        assert reports.by_record[1][0].decision.action is Action.DELIVERED
        assert metrics.get_summary()["publish_errors_by_code"]["producer_fatal"] == 1

    def test_any_other_surprise_of_poll_is_counted_and_polling_goes_on(self, cluster: MockCluster) -> None:
        reports = Reports()
        metrics = Metrics()
        raising = Raising("poll", RuntimeError("a surprise"))
        clock = FastClock(times=20)
        with KafkaClient(config_for(cluster.bootstrap), metrics=metrics, make_producer=raising, clock=clock) as client:
            client.publish(record(0), reports.of(0))
            until(lambda: reports.by_record)
        assert reports.all[0].decision.action is Action.DELIVERED
        assert metrics.get_summary()["publish_errors_by_code"] == {"poll_thread": 1}


class TestFatalErrors:
    @pytest.mark.parametrize(
        "codes",
        [
            (45,),  # OUT_OF_ORDER_SEQUENCE_NUMBER of the oldest request
            (47,),  # INVALID_PRODUCER_EPOCH: the library could go on, we do not
            (7, 59),  # UNKNOWN_PRODUCER_ID of a request that was sent before
        ],
    )
    def test_one_that_a_broker_causes_gives_the_client_a_new_producer_within_two_seconds(
        self, cluster: MockCluster, codes: tuple[int, ...]
    ) -> None:
        reports = Reports()
        metrics = Metrics()
        config = config_for(cluster.bootstrap, producer__retry_backoff_ms=50)
        with KafkaClient(config, metrics=metrics) as client:
            client.publish(record(0), reports.of(0))
            assert client.flush(20) == 0
            first = client._life.producer
            cluster.push_errors(*codes)
            client.publish(record(1), reports.of(1))
            until(lambda: client._life.producer is not first, 2)
            assert client.wait_for_room(0.1)
            client.publish(record(2), reports.of(2))
            assert client.flush(20) == 0
        assert [len(reports.by_record[number]) for number in range(3)] == [1, 1, 1]
        decision = reports.by_record[1][0].decision
        assert (decision.action, decision.reason) == (Action.HOLD, FailedReason.PRODUCER_FATAL)
        assert reports.by_record[2][0].decision.action is Action.DELIVERED
        assert metrics.get_summary()["publish_errors_by_code"]["producer_fatal"] == 1

    @pytest.mark.parametrize("flushing", [False, True])
    def test_what_is_on_the_wire_is_answered_and_what_waits_is_reported(
        self, cluster: MockCluster, flushing: bool
    ) -> None:
        reports = Reports()
        metrics = Metrics()
        config = config_for(cluster.bootstrap, producer__librdkafka__batch__num__messages=1, producer__linger_ms=0)
        with KafkaClient(config, metrics=metrics) as client:
            client.publish(record(0), reports.of(0))
            assert client.flush(20) == 0
            first = client._life.producer
            cluster.slow(300)
            for number in range(1, 51):
                client.publish(record(number), reports.of(number))
            until(lambda: client.flush(0.2) < 50, 5)  # the first five are, or were, on the wire
            if flushing:
                flush = threading.Thread(target=client.flush, args=(20,))
                flush.start()
            meet_fatal_error(first, 47)
            until(lambda: client._life.producer is not first, 2)
            cluster.slow(0)
            if flushing:
                flush.join(20)
            assert client.in_flight() == 0
        assert [len(reports.by_record[number]) for number in range(51)] == [1] * 51
        ends = [reports.by_record[number][0].decision for number in range(51)]
        delivered = [decision.action is Action.DELIVERED for decision in ends]
        assert 2 < sum(delivered) < 50
        assert delivered == sorted(delivered, reverse=True)
        assert {decision.reason for decision in ends} == {None, FailedReason.PRODUCER_FATAL}
        assert metrics.get_summary()["publish_errors_by_code"]["producer_fatal"] == 1

    def test_a_flush_that_meets_one_loses_no_report(self, cluster: MockCluster) -> None:
        """The library goes on calling callbacks with an exception pending; their first call into it raises that."""

        def make_producer(settings: dict[str, Any], **more: Any) -> object:
            return confluent_kafka.Producer({**settings, "enable.gapless.guarantee": True}, **more)

        config = one_a_batch(cluster, producer__linger_ms=200)  # for which the client flushes, and does not only poll
        for _ in range(3):
            reports = Reports()
            with KafkaClient(config, metrics=Metrics(), make_producer=make_producer) as client:
                client.publish(record(0), reports.of(0))
                assert client.flush(20) == 0
                first = client._life.producer
                cluster.slow(100)
                cluster.push_errors(-1)  # fatal, because of that setting
                for number in range(1, 21):
                    client.publish(record(number), reports.of(number))
                assert client.flush(20) == 0
                until(lambda: client._life.producer is not first, 2)  # noqa: B023 - called in this round only
                assert client.alive()
                cluster.slow(0)
            assert [len(reports.by_record[number]) for number in range(21)] == [1] * 21

    def test_one_that_comes_again_and_again_is_met_with_growing_pauses(self, cluster: MockCluster) -> None:
        """Without the right to be idempotent each new producer meets its fatal error at once."""
        made: list[float] = []

        def make_producer(settings: dict[str, Any], **more: Any) -> object:
            made.append(time.monotonic())
            return confluent_kafka.Producer(settings, **more)

        reports = Reports()
        config = config_for(cluster.bootstrap)
        with KafkaClient(config, metrics=Metrics(), make_producer=make_producer) as client:
            note_rebuild, began = client._life.note_rebuild, []

            def note(at: float) -> None:  # from here a pause counts
                began.append(at)
                note_rebuild(at)

            client._life.note_rebuild = note  # type: ignore[method-assign]
            cluster.push_errors(*[31] * 100, api=INIT_PRODUCER_ID)
            for number in range(3):
                until(lambda: client.wait_for_room(0))
                client.publish(record(number), reports.of(number))
                until(lambda: number in reports.by_record)  # noqa: B023 - called in this round only
            until(lambda: len(made) == 4)
            cluster.clear_errors(api=INIT_PRODUCER_ID)
            until(lambda: client.wait_for_room(0))
            until(lambda: client.condition().connected)
            client.publish(record(3), reports.of(3))
            assert client.flush(20) == 0
        pauses = [after - before for before, after in zip(began, made[2:], strict=False)]
        assert len(pauses) >= 2
        assert all(pause >= wait for pause, wait in zip(pauses, (0.5, 1.0), strict=False))
        assert [reports.by_record[number][0].decision.action for number in range(4)] == [Action.HOLD] * 3 + [
            Action.DELIVERED
        ]

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


def test_while_a_broker_makes_us_wait_nothing_is_given_up(cluster: MockCluster) -> None:
    """A quota: for that time the broker reads no requests. It is there, and answers after it."""
    reports = Reports()
    clock = FastClock(times=10)
    config = config_for(cluster.bootstrap, delivery__hand_over_after_s=12)
    with KafkaClient(config, metrics=Metrics(), clock=clock) as client:
        client.publish(record(0), reports.of(0))
        assert client.flush(200) == 0
        cluster.slow(60_000)
        client.publish(record(1), reports.of(1))
        client._life.watch.on_throttle(confluent_kafka.ThrottleEvent("broker", 1, 15.0))
        until(lambda: (client.condition().oldest_s or 0) > 18)
        assert client.in_flight() == 1
        until(lambda: client.in_flight() == 0)
    assert reports.by_record[1][0].detail == "_PURGE_INFLIGHT"


def test_a_flush_lets_nothing_linger(cluster: MockCluster) -> None:
    reports = Reports()
    with KafkaClient(config_for(cluster.bootstrap, producer__linger_ms=20_000), metrics=Metrics()) as client:
        for number in range(10):
            client.publish(record(number), reports.of(number))
        assert client.flush(10) == 0
    assert {report.decision.action for report in reports.all} == {Action.DELIVERED}


def test_a_mapping_needs_a_topic(cluster: MockCluster) -> None:
    config = config_for(cluster.bootstrap)
    without = config.model_copy(update={"topics": {}})
    with KafkaClient(without, metrics=Metrics()) as client, pytest.raises(ConfigurationError):
        client.publish({"user_id": "u1"})
