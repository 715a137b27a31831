"""Every signal of librdkafka has one meaning, and the table says which."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLetterReason, FailedReason, Record
from postroom.libs.exceptions import QueueFullError
from postroom.observability.metrics import Metrics
from postroom.streaming.delivery import (
    BLAMES_THE_BATCH,
    REFUSED_TOGETHER,
    TABLE,
    Action,
    decide,
    lets_others_pass,
    was_never_sent,
)
from postroom.streaming.kafka_client import KafkaClient
from tests.mock_cluster import MockCluster, meet_fatal_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.streaming.publisher import Report


def _codes() -> dict[str, int]:
    return {
        name: value
        for name in dir(KafkaError)
        if name.upper() == name and isinstance(value := getattr(KafkaError, name), int)
    }


CODES = _codes()


def test_the_client_library_still_has_the_codes_that_this_test_walks() -> None:
    assert len(CODES) > 150
    assert CODES["_MSG_TIMED_OUT"] == -192


@pytest.mark.parametrize("name", sorted(CODES))
def test_every_code_of_the_client_library_has_a_row_of_its_own(name: str) -> None:
    assert CODES[name] in TABLE


@pytest.mark.parametrize("code", sorted(TABLE))
def test_every_row_says_why_unless_the_record_was_delivered(code: int) -> None:
    decision = decide(code)
    if decision.action is Action.DELIVERED:
        assert code == 0
        assert decision.reason is None
    elif decision.action is Action.HOLD:
        assert isinstance(decision.reason, FailedReason)
    else:
        assert isinstance(decision.reason, DeadLetterReason)
        assert not decision.may_be_in_kafka


@pytest.mark.parametrize(
    ("name", "action", "maybe", "reason"),
    [
        ("NO_ERROR", Action.DELIVERED, False, None),
        ("_MSG_TIMED_OUT", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("_PURGE_INFLIGHT", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("_PURGE_QUEUE", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("NOT_ENOUGH_REPLICAS", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("NOT_ENOUGH_REPLICAS_AFTER_APPEND", Action.HOLD, True, FailedReason.KAFKA_UNAVAILABLE),
        ("_UNKNOWN_TOPIC", Action.HOLD, False, FailedReason.TOPIC_MISSING),
        ("UNKNOWN_TOPIC_OR_PART", Action.HOLD, True, FailedReason.TOPIC_MISSING),
        ("TOPIC_AUTHORIZATION_FAILED", Action.HOLD, True, FailedReason.NOT_AUTHORIZED),
        ("MSG_SIZE_TOO_LARGE", Action.DEAD_LETTER, False, DeadLetterReason.MESSAGE_TOO_LARGE),
        ("INVALID_RECORD", Action.DEAD_LETTER, False, DeadLetterReason.REJECTED_BY_BROKER),
        ("_INVALID_DIFFERENT_RECORD", Action.HOLD, False, FailedReason.BROKER_ERROR),
    ],
)
def test_the_signals_that_matter_most_mean_what_they_should(
    name: str, action: Action, maybe: bool, reason: object
) -> None:
    decision = decide(CODES[name])
    assert (decision.action, decision.may_be_in_kafka, decision.reason) == (action, maybe, reason)


def test_a_fatal_error_asks_for_a_new_producer_whatever_its_code() -> None:
    for code in (CODES["_FATAL"], CODES["OUT_OF_ORDER_SEQUENCE_NUMBER"]):
        assert decide(code).rebuild
    assert decide(CODES["INVALID_MSG"], fatal=True).rebuild


def test_a_code_from_the_future_is_held_and_nothing_is_assumed_about_the_log() -> None:
    decision = decide(32_000)
    assert decision.action is Action.HOLD
    assert decision.may_be_in_kafka


def test_only_a_held_record_can_turn_out_never_to_have_been_sent() -> None:
    held = was_never_sent(decide(CODES["_PURGE_QUEUE"]))
    assert held.action is Action.HOLD
    assert not held.may_be_in_kafka
    assert was_never_sent(decide(0)) is decide(0)


def test_a_batch_is_blamed_only_by_codes_that_mean_one_record() -> None:
    """What such a code says of a single record is a dead letter, or that another one is at fault."""
    for code in BLAMES_THE_BATCH - {CODES["_INVALID_DIFFERENT_RECORD"]}:
        assert decide(code).action is Action.DEAD_LETTER
    assert {code for code in TABLE if decide(code).action is Action.DEAD_LETTER} <= BLAMES_THE_BATCH
    assert REFUSED_TOGETHER.action is Action.HOLD
    assert not REFUSED_TOGETHER.may_be_in_kafka


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("NO_ERROR", False),
        ("INVALID_RECORD", False),  # a dead letter leaves the order
        ("_PURGE_QUEUE", False),
        ("TOPIC_AUTHORIZATION_FAILED", False),  # the library sends no more to that topic by itself
        ("_UNKNOWN_TOPIC", False),
        ("NOT_ENOUGH_REPLICAS", True),
        ("UNKNOWN", True),
        ("_MSG_TIMED_OUT", True),
        ("_INVALID_DIFFERENT_RECORD", True),
    ],
)
def test_after_some_codes_the_library_goes_on_with_what_is_behind(name: str, passes: bool) -> None:
    assert lets_others_pass(CODES[name]) is passes


# -- every code, provoked

_ASKS_AGAIN = "the library asks who leads and sends again, without end"
COMES_OUT_OTHERWISE = {
    3: _ASKS_AGAIN,
    5: _ASKS_AGAIN,
    6: _ASKS_AGAIN,
    8: _ASKS_AGAIN,
    9: _ASKS_AGAIN,
    15: _ASKS_AGAIN,
    16: _ASKS_AGAIN,
    46: "taken for a success, without an offset",
    59: "a new epoch, if the request was sent for the first time; else a fatal error (test_kafka_client.py)",
}
"""What brokers say that does not come out as what they said, and why."""


class Bench:
    """A client of a mock cluster whose patience with errors is short."""

    def __init__(self, cluster: MockCluster, make_producer: Callable[..., Any] = confluent_kafka.Producer) -> None:
        self.cluster = cluster
        config = load_config(
            overrides={
                "broker": cluster.bootstrap,
                "producer.retries": 1,
                "producer.retry_backoff_ms": 10,
                "producer.retry_backoff_max_ms": 10,
                "producer.queue_max_messages": 10,
            },
            environ={},
        )
        self.client = KafkaClient(config, metrics=Metrics(), make_producer=make_producer)
        self.reports: list[Report] = []

    def publish(self, topic: str = "t", **fields: Any) -> None:
        assert self.client.wait_for_room(10)
        record = Record(topic, fields.get("key", b"k"), fields.get("value", b"v"), fields.get("headers", ()), "1", 1)
        self.client.publish(record, self.reports.append)

    def only_report(self) -> Report:
        until(lambda: self.reports)
        assert self.client.flush(10) == 0
        (report,) = self.reports
        return report


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        threading.Event().wait(0.005)


@pytest.fixture(scope="module")
def harsh() -> Iterator[Bench]:
    with MockCluster() as cluster:
        bench = Bench(cluster)
        yield bench
        bench.client.close(0)


@pytest.mark.parametrize("code", sorted(code for code in TABLE if code > 0 or code == CODES["UNKNOWN"]))
def test_each_word_of_a_broker_means_what_the_table_says(harsh: Bench, code: int) -> None:
    topic = f"t{code}"
    harsh.cluster.create_topic(topic, 1)
    harsh.reports.clear()
    harsh.cluster.push_errors(code, code) if code not in COMES_OUT_OTHERWISE else harsh.cluster.push_errors(code)
    harsh.publish(topic)
    report = harsh.only_report()
    harsh.cluster.clear_errors()
    if code not in COMES_OUT_OTHERWISE:
        assert (report.code, report.decision) == (code, decide(code))
    elif code == CODES["DUPLICATE_SEQUENCE_NUMBER"]:
        assert (report.decision.action, report.detail) == (Action.HOLD, "acknowledged_without_offset")
    else:
        assert report.decision.action is Action.DELIVERED


def _queue_full(cluster: MockCluster, bench: Bench) -> Report | None:
    cluster.slow(60_000)
    with pytest.raises(QueueFullError):
        for _ in range(11):
            bench.client.publish(Record("t", b"k", b"v", (), "1", 1), lambda _: None)
    bench.client.purge()
    return None


def _invalid_argument(_: MockCluster, bench: Bench) -> Report | None:
    bench.publish(headers=(("name", object()),))
    return bench.only_report()


def _purged_in_flight(cluster: MockCluster, bench: Bench) -> Report | None:
    bench.publish()
    assert bench.client.flush(10) == 0
    bench.reports.clear()
    cluster.slow(60_000)
    bench.publish()
    assert bench.client.flush(0.3) == 1
    bench.client.purge()
    return bench.only_report()


def _purged_in_queue(_: MockCluster, bench: Bench) -> Report | None:
    bench.cluster.down()
    bench.publish()
    bench.client.purge()
    return bench.only_report()


def _topic_that_does_not_exist(cluster: MockCluster, bench: Bench) -> Report | None:
    """The first record is told what the broker said; once the library knows, it refuses on the spot."""
    cluster.deny_topic("missing", CODES["UNKNOWN_TOPIC_OR_PART"])
    bench.publish("missing")
    assert bench.only_report().detail == "UNKNOWN_TOPIC_OR_PART"
    bench.reports.clear()
    bench.publish("missing")
    return bench.only_report()


def _timed_out(cluster: MockCluster, bench: Bench) -> Report | None:
    cluster.slow(60_000)
    bench.publish()
    return bench.only_report()


def _connection_lost(cluster: MockCluster, bench: Bench) -> Report | None:
    """Lost twice with the request on the wire: once more than it is repeated."""
    cluster.push_errors(CODES["_TRANSPORT"], CODES["_TRANSPORT"])  # the mock cluster ends the connection
    bench.publish()
    return bench.only_report()


def _fatal(_: MockCluster, bench: Bench) -> Report | None:
    """After a fatal error `produce` refuses: that record was not taken, and gets no report."""
    bench.publish()
    assert bench.client.flush(10) == 0
    bench.reports.clear()
    first = bench.client._life.producer
    assert bench.client._thread is not None
    bench.client._thread.stop(5)  # nobody hears of it but by the next produce
    meet_fatal_error(first, CODES["INVALID_PRODUCER_EPOCH"])
    with pytest.raises(QueueFullError):
        bench.client.publish(Record("t", b"k", b"v", (), "1", 1), bench.reports.append)
    return None


PROVOKED: dict[str, Callable[[MockCluster, Bench], Report | None]] = {
    "_QUEUE_FULL": _queue_full,
    "_INVALID_ARG": _invalid_argument,
    "_PURGE_INFLIGHT": _purged_in_flight,
    "_PURGE_QUEUE": _purged_in_queue,
    "_UNKNOWN_TOPIC": _topic_that_does_not_exist,
    "_MSG_TIMED_OUT": _timed_out,
    "_TRANSPORT": _connection_lost,
    "_FATAL": _fatal,
}

_OF_CONNECTIONS = "said of a connection, not of a record"
_OF_CONSUMERS = "said to consumers"
_OF_TRANSACTIONS = "said to transactional producers"
_INSIDE = "used inside the library, and not said of a record"
_OF_FUNCTIONS = "an answer of functions that are not called here"
NOT_PROVOKED = {
    "_INVALID_DIFFERENT_RECORD": "needs a real broker: test_publisher_suite.py",
    "_DESTROY": "needs a real broker that refuses a topic with more on the wire; seen, with TOPIC_AUTHORIZATION_FAILED",
    "_GAPLESS_GUARANTEE": "the setting it belongs to is off (docs/design/0006)",
    "_INCONSISTENT": "a defect of the library's books; ours uses the code for a success without an offset",
    "_UNKNOWN_PARTITION": "partitions are never chosen by us, and a topic does not shrink",
    "_BAD_MSG": "a broker that answers nonsense",
    "_BAD_COMPRESSION": "a library without the compression that it was asked for",
    "_TIMED_OUT_QUEUE": "comes out as _MSG_TIMED_OUT",
    "_TIMED_OUT": "comes out as _MSG_TIMED_OUT",
    "_RETRY": _INSIDE,
    "_DESTROY_BROKER": _INSIDE,
    "_FAIL": _INSIDE,
    "_NODE_UPDATE": _INSIDE,
    "_WAIT_COORD": _INSIDE,
    "_WAIT_CACHE": _INSIDE,
    "_IN_PROGRESS": _INSIDE,
    "_PREV_IN_PROGRESS": _INSIDE,
    "_OUTDATED": _INSIDE,
    "_INTR": _INSIDE,
    "_UNDERFLOW": _INSIDE,
    "_PARTIAL": _INSIDE,
    "_NOOP": _INSIDE,
    "_ISR_INSUFF": _INSIDE,
    "_CRIT_SYS_RESOURCE": "no thread or memory left inside the library",
    "_RESOLVE": _OF_CONNECTIONS,
    "_ALL_BROKERS_DOWN": _OF_CONNECTIONS,
    "_SSL": _OF_CONNECTIONS,
    "_AUTHENTICATION": _OF_CONNECTIONS,
    "_UNKNOWN_BROKER": _OF_CONNECTIONS,
    "_UNSUPPORTED_FEATURE": "a broker older than 0.11, which knows no headers",
    "_FS": _OF_CONSUMERS,
    "_PARTITION_EOF": _OF_CONSUMERS,
    "_UNKNOWN_GROUP": _OF_CONSUMERS,
    "_EXISTING_SUBSCRIPTION": _OF_CONSUMERS,
    "_ASSIGN_PARTITIONS": _OF_CONSUMERS,
    "_REVOKE_PARTITIONS": _OF_CONSUMERS,
    "_NO_OFFSET": _OF_CONSUMERS,
    "_MAX_POLL_EXCEEDED": _OF_CONSUMERS,
    "_ASSIGNMENT_LOST": _OF_CONSUMERS,
    "_AUTO_OFFSET_RESET": _OF_CONSUMERS,
    "_LOG_TRUNCATION": _OF_CONSUMERS,
    "_UNKNOWN_PROTOCOL": _OF_CONSUMERS,
    "_FENCED": _OF_TRANSACTIONS,
    "_NOT_CONFIGURED": _OF_TRANSACTIONS,
    "_STATE": _OF_TRANSACTIONS,
    "_CONFLICT": _OF_FUNCTIONS,
    "_NOT_IMPLEMENTED": _OF_FUNCTIONS,
    "_READ_ONLY": _OF_FUNCTIONS,
    "_NOENT": _OF_FUNCTIONS,
    "_INVALID_TYPE": _OF_FUNCTIONS,
    "_KEY_SERIALIZATION": _OF_FUNCTIONS,
    "_VALUE_SERIALIZATION": _OF_FUNCTIONS,
    "_KEY_DESERIALIZATION": _OF_FUNCTIONS,
    "_VALUE_DESERIALIZATION": _OF_FUNCTIONS,
    "_APPLICATION": _OF_FUNCTIONS,
}
"""The library's own codes that no test provokes, and why."""


def test_every_code_of_the_library_itself_is_provoked_or_there_is_a_reason() -> None:
    own = {name for name, code in CODES.items() if code < CODES["UNKNOWN"]}
    assert PROVOKED.keys() | NOT_PROVOKED.keys() == own
    assert not PROVOKED.keys() & NOT_PROVOKED.keys()


@pytest.mark.parametrize("name", sorted(PROVOKED))
def test_each_word_of_the_library_itself_means_what_the_table_says(name: str) -> None:
    def make_producer(settings: dict[str, Any], **more: Any) -> Any:
        short = {"topic.metadata.propagation.max.ms": 100, "message.timeout.ms": 60_000}
        if name == "_MSG_TIMED_OUT":
            short["message.timeout.ms"] = 500
        return confluent_kafka.Producer(settings | short, **more)

    with MockCluster() as cluster:
        cluster.create_topic("t", 1)
        bench = Bench(cluster, make_producer)
        report = PROVOKED[name](cluster, bench)
        bench.client.close(0)
    if report is not None:
        assert report.detail.split(" ")[0] in {name, "TypeError"}
        assert report.code == CODES[name]
        decision = decide(CODES[name])
        assert (report.decision.action, report.decision.reason) == (decision.action, decision.reason)
