"""What a spool does for a service: one suite, on the double, on librdkafka's mock cluster, and on a real Kafka."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import pytest

from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import Delivered, Spooled
from postroom.observability.metrics import Metrics
from postroom.services.paths import State
from postroom.services.producer_service import ProducerService
from postroom.streaming.kafka_reader import KafkaReader
from postroom.streaming.librdkafka_settings import client_settings
from postroom.testing.fault_script import FaultScript
from postroom.testing.local_stack import LocalStack
from postroom.testing.recording_service import MemoryRegistry, RecordingService
from tests.mock_cluster import MockCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postroom.libs.event import Headers, Record
    from postroom.services.receipt import Receipt

PATIENCE_S = 60.0
BOTH_WAYS = pytest.mark.parametrize("write_ahead", ["off", "fsync"])


class Kafka(Protocol):
    """One kind of Kafka that can go away and come back."""

    def service(self, folder: Path, write_ahead: str) -> ProducerService: ...

    def away(self) -> None: ...

    def back(self) -> None: ...

    def records(self, service: ProducerService) -> list[tuple[bytes | None, str, Headers]]: ...


class Double:
    def __init__(self) -> None:
        self.faults = FaultScript()
        self.before: list[Record] = []

    def service(self, folder: Path, write_ahead: str) -> ProducerService:
        service = RecordingService(
            faults=self.faults,
            spool_dir=folder,
            write_ahead=write_ahead,  # type: ignore[arg-type]  # one of the two
            records=self.before,
        )
        self.before = service.publisher.records
        return service

    def away(self) -> None:
        self.faults.away()

    def back(self) -> None:
        self.faults.back()

    def records(self, service: ProducerService) -> list[tuple[bytes | None, str, Headers]]:
        assert isinstance(service, RecordingService)
        return [(record.key, record.event_id, record.headers) for record in service.publisher.records]


class Served:
    """A Kafka that other programs see: reading back goes over the wire."""

    def __init__(self, bootstrap: str, topic: str, away: Callable[[], object], back: Callable[[], object]) -> None:
        self.bootstrap, self.topic, self._away, self._back = bootstrap, topic, away, back

    def config(self, folder: Path, write_ahead: str) -> Config:
        overrides = {
            "broker": self.bootstrap,
            "topics.user_events": self.topic,
            "spool.dir": str(folder),
            "spool.write_ahead": write_ahead,
        }
        return load_config(environ={}, overrides=overrides)

    def service(self, folder: Path, write_ahead: str) -> ProducerService:
        return ProducerService(self.config(folder, write_ahead), registry=MemoryRegistry(), metrics=Metrics())

    def away(self) -> None:
        self._away()

    def back(self) -> None:
        self._back()

    def records(self, service: ProducerService) -> list[tuple[bytes | None, str, Headers]]:
        reader = KafkaReader(client_settings(service.parts.config))
        return [
            (record.key, (dict(record.headers)["ce_id"] or b"").decode(), record.headers)  # type: ignore[misc]  # ours have values
            for record in reader.read([self.topic])
        ]


@pytest.fixture(scope="module")
def one_broker() -> Iterator[LocalStack]:
    with LocalStack(brokers=1, registry=False) as stack:
        yield stack


@contextmanager
def _mock() -> Iterator[Kafka]:
    with MockCluster() as cluster:
        cluster.create_topic("events", 3)
        yield Served(cluster.bootstrap, "events", cluster.down, cluster.up)


@pytest.fixture(params=["double", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    if request.param == "double":
        yield Double()
    elif request.param == "embedded":
        with _mock() as cluster:
            yield cluster
    else:
        stack: LocalStack = request.getfixturevalue("one_broker")
        stack.restore()
        topic = f"events-{time.time_ns()}"
        stack.create_topic(topic, partitions=3)
        yield Served(stack.bootstrap, topic, stack.broker(1).kill, stack.restore)


def publish(service: ProducerService, numbers: range) -> list[Receipt]:
    return [
        service.publish_event({"user_id": f"u{number % 5}", "timestamp": number}, event_id=f"id-{number}")
        for number in numbers
    ]


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def is_empty(service: ProducerService) -> bool:
    spooling = service.parts.spooling
    assert spooling is not None
    return spooling.spool.is_empty


def assert_all_there_in_order(found: list[tuple[bytes | None, str, Headers]], count: int) -> None:
    ids = Counter(event_id for _, event_id, _ in found)
    assert set(ids) == {f"id-{number}" for number in range(count)}
    last: dict[bytes | None, int] = {}
    seen: set[str] = set()
    for key, event_id, headers in found:
        if event_id in seen:
            assert "x-attempt" in dict(headers), f"an unmarked repeat of {event_id}"
            continue
        seen.add(event_id)
        number = int(event_id.removeprefix("id-"))
        assert last.get(key, -1) < number, f"{event_id} is out of order"
        last[key] = number


@BOTH_WAYS
def test_what_kafka_cannot_take_is_safe_here_and_sent_in_order_when_it_is_back(
    kafka: Kafka, write_ahead: str, tmp_path: Path
) -> None:
    with kafka.service(tmp_path, write_ahead) as service:
        assert {type(receipt.result(PATIENCE_S)) for receipt in publish(service, range(10))} == {Delivered}
        kafka.away()
        receipts = publish(service, range(10, 500))
        assert {type(receipt.result(PATIENCE_S)) for receipt in receipts} == {Spooled}
        kafka.back()
        wait_until(lambda: is_empty(service))
        wait_until(lambda: all(path.state is State.DIRECT for path in service.parts.dispatcher.paths()))
        assert {type(receipt.result(PATIENCE_S)) for receipt in publish(service, range(500, 510))} == {Delivered}
        assert_all_there_in_order(kafka.records(service), 510)
    balance = service.ledger.total()
    assert (balance.received, balance.accepted, balance.delivered, balance.unaccounted) == (510, 510, 510, 0)


@BOTH_WAYS
def test_closed_while_kafka_is_away_everything_is_kept_and_the_next_service_sends_it(
    kafka: Kafka, write_ahead: str, tmp_path: Path
) -> None:
    with kafka.service(tmp_path, write_ahead) as service:
        publish(service, range(1))[0].result(PATIENCE_S)
        kafka.away()
        receipts = publish(service, range(1, 300))
    assert {type(receipt.result(0)) for receipt in receipts} == {Spooled}
    kafka.back()
    with kafka.service(tmp_path, write_ahead) as following:
        publish(following, range(300, 320))
        wait_until(lambda: is_empty(following) and not following.ledger.total().pending)
        assert_all_there_in_order(kafka.records(following), 320)
    balance = following.ledger.total()
    assert (balance.received, balance.delivered, balance.unaccounted) == (319, 319, 0)
