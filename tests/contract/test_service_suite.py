"""One set of outcomes, three backends: recorded in memory, the embedded broker, a real Kafka with a real registry."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import (
    DeadLettered,
    Delivered,
    Failed,
    FailedReason,
    Refused,
    RefusedReason,
)
from postroom.libs.exceptions import LifecycleError
from postroom.observability.metrics import Metrics
from postroom.schemas.avro_codec import unframe
from postroom.services.async_service import AsyncProducerService
from postroom.services.producer_service import ProducerService
from postroom.streaming.dead_letter_queue import DeadLetter, rebuild
from postroom.streaming.kafka_client import KafkaClient
from postroom.streaming.kafka_reader import KafkaReader
from postroom.streaming.librdkafka_settings import client_settings
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.recording_service import MemoryRegistry, RecordingService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.libs.event import Outcome
    from postroom.services.ledger import Balance
    from postroom.services.receipt import Receipt
    from postroom.services.registry_asking import Registry

PATIENCE_S = 30.0
EVENT = {"user_id": "u1", "timestamp": 1_795_416_182_091, "action": "start", "country": "DE"}
Kwargs = dict[str, Any]


class Backend:
    """Makes services of one kind, and shows what stands in their topics."""

    def __init__(self, config: Config, *, away: str = "127.0.0.1:1") -> None:
        self.config = config
        self.away = away
        self.topic = config.topic("user_events")

    @contextmanager
    def service(self, **settings: object) -> Iterator[ProducerService]:
        """A running service; settings like `producer__queue_max_messages=1`."""
        with ProducerService(self.with_settings(settings), metrics=Metrics()) as service:
            yield service

    def with_settings(self, settings: Kwargs) -> Config:
        config = self.config
        for name, value in settings.items():
            section, _, key = name.partition("__")
            part = getattr(config, section).model_copy(update={key: value})
            config = config.model_copy(update={section: part})
        return config

    def events(self, service: ProducerService) -> list[dict[str, object]]:
        lane = service.parts.lanes["user_event"]
        return [
            lane.contract.codec.decode(unframe(record.value or b"")[1]) for record in self._read(service, lane.topic)
        ]

    def letters(self, service: ProducerService) -> list[DeadLetter]:
        return [rebuild(record) for record in self._read(service, f"{self.topic}.dlq")]

    def _read(self, service: ProducerService, topic: str) -> list[Any]:
        return list(KafkaReader(client_settings(service.parts.config)).read([topic]))

    @contextmanager
    def without_broker(self) -> Iterator[ProducerService]:
        """A service whose publisher finds no broker, with a queue that is full before anybody's patience ends."""
        producer = self.config.producer.model_copy(update={"queue_max_messages": 1_000})
        config = self.config.model_copy(update={"broker": self.away, "producer": producer})
        publisher = KafkaClient(config, metrics=Metrics())
        with ProducerService(config, publisher=publisher, registry=self.registry(), metrics=Metrics()) as service:
            yield service

    def registry(self) -> Registry:
        return MemoryRegistry()


class Recording(Backend):
    """No Kafka at all."""

    def __init__(self) -> None:
        super().__init__(load_config(overrides={}, environ={}))

    @contextmanager
    def service(self, **settings: object) -> Iterator[ProducerService]:
        with RecordingService(config=self.with_settings(settings)) as service:
            yield service

    def events(self, service: ProducerService) -> list[dict[str, object]]:
        assert isinstance(service, RecordingService)
        return [published.event for published in service.published]

    def letters(self, service: ProducerService) -> list[DeadLetter]:
        assert isinstance(service, RecordingService)
        return service.dead_letters

    @contextmanager
    def without_broker(self) -> Iterator[ProducerService]:
        with RecordingService() as service:
            service.publisher.holding = True
            yield service


@pytest.fixture(params=["recording", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "recording":
        return Recording()
    if request.param == "embedded":
        return Backend(load_config(overrides={"broker": "embedded"}, environ={}))
    stack = request.getfixturevalue("postroom_stack")
    topic = request.getfixturevalue("postroom_topic")
    stack.create_topic(f"{topic}.dlq", partitions=1)
    overrides = {
        "broker": stack.bootstrap,
        "topics.user_events": topic,
        "schema_registry.url": stack.registry_url,
        "schema_registry.auto_register": True,
    }
    config = load_config(overrides=overrides, environ={})
    return Backend(config.model_copy(update={"topics": {**config.topics, "user_events.dlq": f"{topic}.dlq"}}))


def balance_of(service: ProducerService) -> Balance:
    balance = service.ledger.total()
    assert balance.unaccounted == 0
    return balance


class TestDelivered:
    def test_a_good_event_is_in_kafka_as_it_was_handed_in(self, backend: Backend) -> None:
        with backend.service() as service:
            receipt = service.publish_event(EVENT, event_id="id-1", key="k", headers={"tenant": "a"})
            outcome = receipt.result(PATIENCE_S)
            assert isinstance(outcome, Delivered)
            assert (outcome.topic, outcome.offset, receipt.safe) == (backend.topic, 0, True)
            (event,) = backend.events(service)
            assert {name: event[name] for name in EVENT} == EVENT
        assert balance_of(service).delivered == 1

    def test_json_in_bytes_or_text_is_an_event_too(self, backend: Backend) -> None:
        with backend.service() as service:
            receipts = [
                service.publish_event(one)
                for one in (b'{"user_id":"a","timestamp":1}', '{"user_id":"b","timestamp":2}')
            ]
            assert [type(receipt.result(PATIENCE_S)) for receipt in receipts] == [Delivered, Delivered]
            assert sorted(str(event["user_id"]) for event in backend.events(service)) == ["a", "b"]

    def test_a_thousand_awaits_at_once_are_all_delivered(self, backend: Backend) -> None:
        async def work(service: ProducerService) -> list[Outcome]:
            post = AsyncProducerService(service)
            return await asyncio.gather(
                *(post.publish_event({"user_id": f"u{n % 100}", "timestamp": n}) for n in range(1_000))
            )

        with backend.service() as service:
            outcomes = asyncio.run(work(service))
            assert {type(outcome) for outcome in outcomes} == {Delivered}
        assert balance_of(service).delivered == 1_000

    def test_many_events_have_one_result_and_the_problems_by_number(self, backend: Backend) -> None:
        events = [EVENT if n % 10 else {"user_id": n, "timestamp": 1} for n in range(100)]
        with backend.service() as service:
            result = service.publish_many(events)
        assert (result.received, result.delivered, result.dead_lettered, result.ok) == (100, 90, 10, False)
        assert [problem.index for problem in result.problems] == list(range(0, 100, 10))
        assert balance_of(service).accepted == 100


class TestDeadLettered:
    def _letter(self, backend: Backend, handed_in: object, reason: str, **settings: object) -> DeadLetter:
        with backend.service(**settings) as service:
            outcome = service.publish_event(handed_in, key="k", headers={"tenant": "a"}).result(PATIENCE_S)  # type: ignore[arg-type]  # anything a table says
            assert isinstance(outcome, DeadLettered)
            assert (outcome.reason, outcome.topic) == (reason, f"{backend.topic}.dlq")
            (letter,) = backend.letters(service)
            assert backend.events(service) == []
        assert (letter.reason, letter.event, letter.key) == (reason, handed_in, b"k")
        assert letter.headers == (("tenant", b"a"),)
        balance = balance_of(service)
        assert (balance.accepted, balance.dead_lettered, balance.delivered) == (1, 1, 0)
        return letter

    def test_an_event_that_breaks_its_contract_is_kept_with_every_violation(self, backend: Backend) -> None:
        letter = self._letter(backend, {"user_id": 7, "extra": True}, "validation_failed")
        assert sorted(violation.rule for violation in letter.violations) == [
            "missing_field",
            "unknown_field",
            "wrong_type",
        ]

    def test_bytes_that_are_no_json_are_kept_as_they_are(self, backend: Backend) -> None:
        self._letter(backend, b'{"user_id": "u1", "timestamp": ', "decode_failed")

    def test_an_event_too_large_for_a_record_is_kept_beside_the_topic(self, backend: Backend) -> None:
        if isinstance(backend, Recording):
            pytest.skip("memory knows no size")
        large = {"user_id": "u1", "timestamp": 1, "session_id": "again and again " * 70_000}
        with backend.service() as service:
            outcome = service.publish_event(large).result(PATIENCE_S)
            assert isinstance(outcome, DeadLettered)
            assert outcome.reason == "message_too_large"
            (letter,) = backend.letters(service)
        assert isinstance(letter.event, dict)
        assert letter.event["session_id"] == large["session_id"]
        assert balance_of(service).dead_lettered == 1


class TestRefused:
    """Nothing of a refused event is anywhere, and the next good one goes through."""

    def _refused(self, backend: Backend, reason: RefusedReason, event: object = EVENT, **named: object) -> Refused:
        with backend.service() as service:
            outcome = service.publish_event(event, **named).result(PATIENCE_S)  # type: ignore[arg-type]  # anything a table says
            assert isinstance(outcome, Refused)
            assert outcome.reason is reason
            assert isinstance(service.publish_event(EVENT).result(PATIENCE_S), Delivered)
            assert len(backend.events(service)) == 1
        balance = balance_of(service)
        assert (balance.received, balance.refused, balance.delivered) == (2, 1, 1)
        return outcome

    def test_an_unknown_type(self, backend: Backend) -> None:
        self._refused(backend, RefusedReason.UNKNOWN_EVENT_TYPE, event_type="nobody_knows_it")

    @pytest.mark.parametrize(
        "named",
        [
            {"event_id": "has a space"},
            {"event_id": "x" * 257},
            {"timestamp": -1},
            {"timestamp": 10**15},
            {"key": "\ud800"},
            {"headers": {"ce_time": "now"}},
            {"headers": {"": "x"}},
            {"headers": [("ce_id", "a"), ("ce_id", "b")]},
            {"headers": {"n": "\ud800"}},
        ],
        ids=str,
    )
    def test_metadata_that_no_record_can_carry(self, backend: Backend, named: Kwargs) -> None:
        self._refused(backend, RefusedReason.INVALID_METADATA, **named)

    def test_an_event_that_no_dead_letter_can_hold(self, backend: Backend) -> None:
        self._refused(backend, RefusedReason.NOT_REPRESENTABLE, {"user_id": object(), "timestamp": 1})

    def test_an_event_over_the_limit_says_when_to_come_back(self, backend: Backend) -> None:
        with backend.service(rate_limit__events_per_second=0.5, rate_limit__burst=1) as service:
            assert isinstance(service.publish_event(EVENT, timeout=0).result(PATIENCE_S), Delivered)
            outcome = service.publish_event(EVENT, timeout=0).result(0)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.RATE_LIMITED
            assert outcome.retry_after_s is not None
            assert 0 < outcome.retry_after_s <= 2
            letter = service.publish_event({"user_id": 1}, timeout=0).result(0)
            assert isinstance(letter, Refused)  # a dead letter takes a token too
        assert (balance_of(service).refused, balance_of(service).delivered) == (2, 1)

    def test_a_contract_that_the_registry_has_not_named_yet(self, backend: Backend) -> None:
        with backend.service() as service:
            lane = service.parts.lanes["user_event"]
            known, lane.schema_id = lane.schema_id, None
            outcome = service.publish_event(EVENT).result(0)
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.retry_after_s) == (RefusedReason.CONTRACT_UNAVAILABLE, 1.0)
            lane.schema_id = known
            assert isinstance(service.publish_event(EVENT).result(PATIENCE_S), Delivered)
        assert balance_of(service).refused == 1

    def test_a_full_queue(self, backend: Backend) -> None:
        with backend.without_broker() as service:
            publisher = service.parts.publisher
            taken: list[Receipt] = []
            if isinstance(publisher, MemoryPublisher):
                publisher.script.append(None)
            else:
                places = service.parts.config.producer.queue_max_messages
                taken += [service.publish_event(EVENT, timeout=0) for _ in range(places)]
            outcome = service.publish_event(EVENT, timeout=0).result(0)
            assert isinstance(outcome, Refused)
            assert (outcome.reason, outcome.retry_after_s) == (RefusedReason.QUEUE_FULL, 1.0)
            service.close(0)
        assert balance_of(service).refused == 1
        assert balance_of(service).failed == len(taken)


class TestFailed:
    def test_without_a_broker_closing_gives_every_event_its_outcome(self, backend: Backend) -> None:
        with backend.without_broker() as service:
            receipts = [service.publish_event({"user_id": "u", "timestamp": n}) for n in range(200)]
            receipts += [service.publish_event({"user_id": 5}) for _ in range(20)]
            service.close(0.2)
        outcomes = [receipt.result(0) for receipt in receipts]
        assert {type(outcome) for outcome in outcomes} == {Failed}
        assert {outcome.reason for outcome in outcomes if isinstance(outcome, Failed)} == {
            FailedReason.KAFKA_UNAVAILABLE
        }
        assert balance_of(service).failed == 220


class TestLife:
    def test_a_closed_service_takes_nothing(self, backend: Backend) -> None:
        with backend.service() as service:
            service.publish_event(EVENT)
        service.close()
        with pytest.raises(LifecycleError):
            service.publish_event(EVENT)
        with pytest.raises(LifecycleError), service:
            pytest.fail("it started again")
        assert balance_of(service).received == 1

    def test_closing_waits_for_what_is_on_its_way(self, backend: Backend) -> None:
        with backend.service() as service:
            receipts = [service.publish_event({"user_id": f"u{n}", "timestamp": n}) for n in range(1_000)]
        assert {type(receipt.outcome) for receipt in receipts} == {Delivered}
        assert balance_of(service).delivered == 1_000

    def test_closing_while_threads_publish_leaves_no_event_without_an_outcome(self, backend: Backend) -> None:
        receipts: list[Receipt] = []
        going = threading.Barrier(5)

        def work() -> None:
            going.wait()
            try:
                for number in range(1_000_000):
                    event = {"user_id": "u1" if number % 7 else 1, "timestamp": number}
                    receipts.append(service.publish_event(event, timeout=10))
            except LifecycleError:
                return

        with backend.service(rate_limit__events_per_second=5_000, rate_limit__burst=200) as service:
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            going.wait()
            while len(receipts) < 500:
                threading.Event().wait(0.001)
            service.close(PATIENCE_S)
            unresolved = [receipt for receipt in list(receipts) if not receipt.done()]
            for thread in threads:
                thread.join()
        assert unresolved == []
        assert all(receipt.done() for receipt in receipts)
        balance = balance_of(service)
        assert (balance.pending, balance.received) == (0, len(receipts))
        assert {outcome.reason for receipt in receipts if isinstance(outcome := receipt.outcome, Failed)} <= {
            FailedReason.CLOSED
        }
