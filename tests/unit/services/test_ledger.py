"""The books balance at every moment; and when an event is lost, they say so."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLetterReason, Delivered, Failed, FailedReason, RefusedReason
from postroom.observability.metric_table import ACCEPTED, RECEIVED, UNACCOUNTED
from postroom.observability.metrics import Metrics
from postroom.services.async_service import AsyncProducerService
from postroom.services.dispatcher import Dispatcher
from postroom.services.intake import Intake
from postroom.services.item import Item
from postroom.services.ledger import Balance, Book, Ledger
from postroom.services.producer_service import ProducerService
from postroom.services.receipt import Receipt
from postroom.services.settlement import Settlement
from postroom.streaming.publisher import OnDone, Report
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.event import Record

GOOD = {"user_id": "u1", "timestamp": 1}
BAD = {"user_id": 1, "timestamp": 1}


class TestBook:
    def test_every_way_out_of_the_table_is_counted_once(self) -> None:
        ledger = Ledger()
        book = ledger.book("clicks")
        receipts = [Receipt(str(number)) for number in range(6)]
        for receipt in receipts:
            book.receive(receipt)
        assert ledger.total().pending == 6
        assert book.deliver(receipts[0], 0.1)
        assert book.dead_letter(receipts[1], "validation_failed", 0.1)
        assert book.spool(receipts[2], 0.1)
        assert book.refuse(receipts[3], "rate_limited")
        assert book.fail(receipts[4], "closed")
        assert book.is_open(receipts[5])
        expected = Balance(
            received=6, accepted=3, refused=1, failed=1, pending=1, delivered=1, dead_lettered=1, spooled=1
        )
        assert ledger.total() == expected
        assert ledger.reasons() == ({"validation_failed": 1}, {"rate_limited": 1}, {"closed": 1})
        assert ledger.latency().count == 3

    @pytest.mark.parametrize("way", ["deliver", "dead_letter", "spool", "refuse", "fail"])
    def test_an_event_that_nobody_received_is_no_news_of_an_open_one(self, way: str) -> None:
        ledger = Ledger()
        book = ledger.book("clicks")
        more = {"deliver": (0.1,), "spool": (0.1,), "dead_letter": ("r", 0.1)}.get(way, ("r",))
        assert getattr(book, way)(Receipt("stranger"), *more) is False
        assert ledger.total().unaccounted == (1 if way in ("deliver", "spool", "dead_letter") else 0)

    def test_a_surplus_in_one_topic_does_not_hide_a_loss_in_another(self) -> None:
        ledger = Ledger()
        ledger.book("a").receive(Receipt("lost"))
        ledger.disown()
        ledger.book("b").deliver(Receipt("invented"), 0.1)
        assert {topic: balance.unaccounted for topic, balance in ledger.by_topic().items()} == {"a": 1, "b": 1}
        assert ledger.total().unaccounted == 2

    def test_the_metrics_show_each_topic_s_books(self) -> None:
        ledger, metrics = Ledger(), Metrics()
        metrics.add_source(ledger.readings)
        receipt = Receipt("1")
        ledger.book("").receive(Receipt("0"))
        ledger.book("clicks").receive(receipt)
        ledger.book("clicks").deliver(receipt, 0.1)
        snapshot = metrics.snapshot()
        assert snapshot.series(RECEIVED) == [(("clicks",), 1), (("none",), 1)]
        assert (snapshot.total(ACCEPTED), snapshot.total(UNACCOUNTED)) == (1, 0)


# -- an event is dropped at each stage of its way


def drop(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, answer: object = None) -> None:
    """Let the next call of this method do nothing at all."""
    method = getattr(owner, name)
    dropped: list[str] = []

    def once(*args: Any, **named: Any) -> Any:
        if dropped:
            return method(*args, **named)
        dropped.append(name)
        return answer

    monkeypatch.setattr(owner, name, once)


def lose_a_record(topic: str) -> Callable[[pytest.MonkeyPatch, RecordingService], None]:
    """The publisher takes a record for this topic and never says a word."""

    def prepare(monkeypatch: pytest.MonkeyPatch, service: RecordingService) -> None:
        publish = service.publisher.publish
        lost: list[Record] = []

        def losing(record: Record, on_done: OnDone) -> None:
            if record.topic == topic and not lost:
                lost.append(record)
                return
            publish(record, on_done)

        monkeypatch.setattr(service.publisher, "publish", losing)

    return prepare


def lose_the_letter_of_a_rejected_record(monkeypatch: pytest.MonkeyPatch, service: RecordingService) -> None:
    """It is sent by a thread of its own."""
    service.fail_next(DeadLetterReason.MESSAGE_TOO_LARGE)
    lose_a_record("user_events.dlq")(monkeypatch, service)


def lose_the_report(monkeypatch: pytest.MonkeyPatch, service: RecordingService) -> None:
    """The record stands in its topic, and its report goes astray."""
    publish = service.publisher.publish
    lost: list[Record] = []

    def losing(record: Record, on_done: OnDone) -> None:
        if not lost:
            lost.append(record)
            publish(record, lambda _: None)
        else:
            publish(record, on_done)

    monkeypatch.setattr(service.publisher, "publish", losing)


def lose_the_receipt(monkeypatch: pytest.MonkeyPatch, service: RecordingService) -> None:
    """The report is counted, but the event is not in the table of open ones any more."""
    deliver = Book.deliver
    lost: list[Receipt] = []

    def losing(book: Book, receipt: Receipt, latency_s: float) -> bool:
        if not lost:
            lost.append(receipt)
            book.open.remove(receipt)
        return deliver(book, receipt, latency_s)

    monkeypatch.setattr(Book, "deliver", losing)


def dropping(
    owner: type,
    name: str,
    answer: object = None,
    *,
    trouble: FailedReason | DeadLetterReason | RefusedReason | None = None,
) -> Callable[[pytest.MonkeyPatch, RecordingService], None]:
    def prepare(monkeypatch: pytest.MonkeyPatch, service: RecordingService) -> None:
        if trouble is not None:
            service.fail_next(trouble)
        drop(monkeypatch, owner, name, answer)

    return prepare


STAGES: dict[str, tuple[object, Callable[[pytest.MonkeyPatch, RecordingService], None]]] = {
    "received, then not checked": (GOOD, dropping(Intake, "_make_record")),
    "broken, no dead letter made": (BAD, dropping(Settlement, "make_dead_letter")),
    "admitted, then not handed over": (GOOD, dropping(ProducerService, "try_send", True)),
    "refused, and not said": (GOOD, dropping(Settlement, "refuse", trouble=RefusedReason.QUEUE_FULL)),
    "taken by the publisher, not produced": (GOOD, lose_a_record("user_events")),
    "in its topic, report lost": (GOOD, lose_the_report),
    "report there, not dealt with": (GOOD, dropping(Item, "report")),
    "delivered, not counted": (GOOD, dropping(Settlement, "accept")),
    "report counted, receipt lost": (GOOD, lose_the_receipt),
    "undelivered, not dealt with": (
        GOOD,
        dropping(Dispatcher, "_fail_undelivered", trouble=FailedReason.KAFKA_UNAVAILABLE),
    ),
    "rejected, repair lost": (GOOD, dropping(Settlement, "_bury", trouble=DeadLetterReason.REJECTED_BY_BROKER)),
    "rejected, repair not begun": (GOOD, dropping(Settlement, "repair", trouble=DeadLetterReason.REJECTED_BY_BROKER)),
    "dead letter lost": (BAD, lose_a_record("user_events.dlq")),
    "dead letter of a rejected record lost": (GOOD, lose_the_letter_of_a_rejected_record),
}


@pytest.mark.parametrize("stage", STAGES)
def test_an_event_dropped_at_any_stage_is_missed_by_the_books_and_its_caller_is_told(
    stage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    event, prepare = STAGES[stage]
    with RecordingService() as service:
        receipts = [service.publish_event(GOOD)]
        prepare(monkeypatch, service)
        receipts.append(service.publish_event(event, timeout=0))  # type: ignore[arg-type]  # mappings of the table
        receipts += [service.publish_event(GOOD), service.publish_event(BAD)]
    balance = service.ledger.total()
    assert balance.unaccounted == 1
    assert (balance.received, balance.pending) == (4, 0)
    assert all(receipt.done() for receipt in receipts)
    outcomes = [receipt.result(0) for receipt in receipts]
    told = [one for one in outcomes if isinstance(one, Failed) and one.reason is FailedReason.UNACCOUNTED]
    if stage == "report counted, receipt lost":
        assert told == []
        assert "event_unaccounted" in caplog.text
    else:
        assert [one.may_be_in_kafka for one in told] == [True]
        assert "events_unaccounted" in caplog.text


def test_a_publisher_that_reports_twice_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    class Stutters(MemoryPublisher):
        def publish(self, record: Record, on_done: OnDone) -> None:
            def twice(report: Report) -> None:
                on_done(report)
                on_done(Report(report.decision, report.partition, report.offset))

            super().publish(record, twice)

    config = load_config(environ={}, overrides={})
    registry = RecordingService()._registry
    with ProducerService(config, publisher=Stutters(), registry=registry, metrics=Metrics()) as service:
        receipt = service.publish_event(GOOD)
    assert isinstance(receipt.outcome, Delivered)
    assert service.ledger.total().unaccounted == 1
    assert "event_unaccounted" in caplog.text


# -- nothing is dropped: the books balance at every moment


class AnyOrder(RuleBasedStateMachine):
    """Whatever is handed in, in whatever order things go wrong, both equations hold after every step."""

    @initialize()
    def begin(self) -> None:
        self.service = RecordingService().start()
        self.receipts: list[Receipt] = []

    @rule(event=st.sampled_from([GOOD, BAD, b"{", b'{"user_id":"u","timestamp":2}', {"user_id": object()}, {}]))
    def publish(self, event: Any) -> None:
        self.receipts.append(self.service.publish_event(event, timeout=0))

    @rule(named=st.sampled_from([{"event_type": "unknown"}, {"key": "\ud800"}, {"headers": {"ce_x": "1"}}]))
    def publish_nonsense(self, named: Any) -> None:
        self.receipts.append(self.service.publish_event(GOOD, **named))

    @rule(
        reason=st.sampled_from([
            FailedReason.KAFKA_UNAVAILABLE, FailedReason.TOPIC_MISSING, RefusedReason.QUEUE_FULL,
            DeadLetterReason.MESSAGE_TOO_LARGE, DeadLetterReason.REJECTED_BY_BROKER,
        ]),
        times=st.integers(1, 3),
        maybe=st.booleans(),
    )  # fmt: skip
    def fail_next(self, reason: Any, times: int, maybe: bool) -> None:
        self.service.fail_next(reason, times=times, may_be_in_kafka=maybe)

    @rule()
    def hold(self) -> None:
        self.service.publisher.holding = True

    @rule()
    def release(self) -> None:
        self.service.publisher.holding = False
        self.service.publisher.release()

    @rule()
    def purge(self) -> None:
        self.service.publisher.purge()

    @rule()
    def the_registry_forgets(self) -> None:
        lane = self.service.parts.lanes["user_event"]
        lane.schema_id = None if lane.schema_id is not None else 1

    @invariant()
    def the_books_balance(self) -> None:
        if hasattr(self, "service"):
            balance = self.service.ledger.total()
            assert balance.unaccounted == 0
            assert balance.received == len(self.receipts)
            assert balance.pending >= sum(not receipt.done() for receipt in self.receipts)

    def teardown(self) -> None:
        if hasattr(self, "service"):
            self.service.close()
            balance = self.service.ledger.total()
            assert (balance.unaccounted, balance.pending) == (0, 0)
            assert all(receipt.done() for receipt in self.receipts)
            by_kind = [type(receipt.outcome).__name__ for receipt in self.receipts]
            assert by_kind.count("Delivered") == balance.delivered
            assert by_kind.count("DeadLettered") == balance.dead_lettered
            assert by_kind.count("Refused") == balance.refused
            assert by_kind.count("Failed") == balance.failed


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_eight_threads_and_a_hundred_tasks_keep_the_books_right_at_every_moment() -> None:
    """With broken events, a rate limit, rejected records and a full queue in between."""
    overrides = {"rate_limit.events_per_second": 20_000, "rate_limit.burst": 50}
    service = RecordingService(config=load_config(overrides=overrides, environ={}))
    kinds: list[Any] = [GOOD, BAD, GOOD, b"{", GOOD]
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.extend(balance.unaccounted for balance in service.ledger.by_topic().values())

    def work() -> None:
        for number in range(250):
            service.publish_event(kinds[number % 5], timeout=0.001 if number % 3 else 5)

    async def tasks() -> None:
        post = AsyncProducerService(service)

        async def one(number: int) -> None:
            for step in range(5):
                await post.publish_event(kinds[(number + step) % 5], timeout=0.5)

        await asyncio.gather(*(one(number) for number in range(100)))

    with service:
        service.fail_next(DeadLetterReason.REJECTED_BY_BROKER, times=30)
        service.fail_next(RefusedReason.QUEUE_FULL, times=10)
        service.fail_next(FailedReason.BROKER_ERROR, times=30)
        watcher = threading.Thread(target=watch)
        threads = [
            *(threading.Thread(target=work) for _ in range(8)),
            threading.Thread(target=asyncio.run, args=(tasks(),)),
        ]
        for thread in (watcher, *threads):
            thread.start()
        for thread in threads:
            thread.join()
    done.set()
    watcher.join()
    balance = service.ledger.total()
    assert (balance.received, balance.pending, balance.unaccounted) == (2_500, 0, 0)
    assert set(seen) == {0}
    assert len(seen) > 10
