"""The pipeline keeps its word when it is closed, interrupted, misused or starts badly: every event has one outcome."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLetterReason, Delivered, Failed, FailedReason, Refused, RefusedReason
from postroom.libs.exceptions import ConfigurationError, LifecycleError, RegistryUnavailableError
from postroom.observability.metric_table import RATE_LIMIT_WAITS, RECEIVED
from postroom.observability.metrics import Metrics
from postroom.services import producer_service as module
from postroom.services import settlement as settlement_module
from postroom.services.producer_service import ProducerService, get_service
from postroom.services.receipt import Receipt
from postroom.services.settlement import Settlement
from postroom.streaming.rate_limiter import RateLimiter
from postroom.testing.manual_clock import ManualClock
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.recording_service import MemoryRegistry, RecordingService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.libs.event import Record
    from postroom.schemas.registration import Registration
    from postroom.streaming.publisher import OnDone, Report

GOOD = {"user_id": "u1", "timestamp": 1}


def service_with(**parts: Any) -> ProducerService:
    """A service of memory parts; some may be replaced."""
    named: dict[str, Any] = {
        "publisher": MemoryPublisher(),
        "registry": MemoryRegistry(),
        "metrics": Metrics(),
        **parts,
    }
    config = named.pop("config", None) or load_config(overrides={}, environ={})
    return ProducerService(config, **named)


class TestArguments:
    """Misuse is told by an exception before anything is counted."""

    @pytest.mark.parametrize(
        "named",
        [
            {"event": 7}, {"event": None}, {"event": [1]}, {"event": bytearray(b"{}")},
            {"event_type": 5}, {"event_id": b"x"}, {"key": 5}, {"timestamp": 1.5}, {"timestamp": True},
            {"timeout": None}, {"timeout": "5"}, {"timeout": 1j}, {"headers": 5}, {"headers": {"a": 5}},
            {"headers": [("a",)]}, {"headers": ["abc"]}, {"headers": {"ce_type": 5}}, {"headers": {"ce_id": None}},
        ],
        ids=str,
    )  # fmt: skip
    def test_a_wrong_kind_is_a_type_error_and_nothing_is_counted(self, named: dict[str, Any]) -> None:
        with RecordingService() as service:
            with pytest.raises(TypeError):
                service.publish_event(**{"event": GOOD, **named})
            assert service.ledger.total().received == 0
            assert isinstance(service.publish_event(GOOD).result(0), Delivered)

    @pytest.mark.parametrize(
        "timeout", [0, -1, -math.inf, math.nan, math.inf, 10**400, True], ids=lambda one: str(one)[:8]
    )
    def test_any_number_is_a_timeout(self, timeout: float) -> None:
        limiter = RateLimiter(1, 1, clock := ManualClock())
        with service_with(limiter=limiter, clock=clock) as service:
            assert isinstance(service.publish_event(GOOD, timeout=timeout).result(0), Delivered)
            later = service.publish_event(GOOD, timeout=timeout).result(0)
            assert isinstance(later, Delivered if timeout > 0.5 else Refused)

    @pytest.mark.parametrize("timeout", [0, -1, math.nan, 0.01])
    def test_a_full_queue_is_waited_for_no_longer_than_said(self, timeout: float) -> None:
        with RecordingService() as service:
            service.fail_next(RefusedReason.QUEUE_FULL)
            outcome = service.publish_event(GOOD, timeout=timeout).result(0)
        assert isinstance(outcome, Refused)
        assert outcome.reason is RefusedReason.QUEUE_FULL

    def test_pace_and_room_share_one_timeout(self) -> None:
        """Ten seconds for both: what the pace has taken is not there for the queue."""
        clock = ManualClock()
        waited: list[float] = []

        class Full(MemoryPublisher):
            def wait_for_room(self, timeout_s: float) -> bool:
                waited.append(timeout_s)
                return False

        publisher = Full()
        with service_with(limiter=RateLimiter(0.125, 1, clock), clock=clock, publisher=publisher) as service:
            service.publish_event(GOOD)
            publisher.script.append(None)
            service.publish_event(GOOD, timeout=10)
        assert waited == [pytest.approx(2.0)]


class TestPace:
    def test_only_events_that_had_to_wait_are_counted_as_waits(self) -> None:
        clock, metrics = ManualClock(), Metrics()
        with service_with(limiter=RateLimiter(10, 5, clock), clock=clock, metrics=metrics) as service:
            for _ in range(8):
                service.publish_event(GOOD)
            service.publish_event(GOOD, timeout=0)
        summary = metrics.get_summary()
        assert summary["rate_limit_waits"] == 3
        assert summary["rate_limit_wait_s"] == pytest.approx(0.3)
        assert metrics.snapshot().total(RATE_LIMIT_WAITS) == 3

    def test_a_dead_letter_takes_a_token_too_and_a_repaired_record_owes_one(self) -> None:
        clock = ManualClock()
        limiter = RateLimiter(1, 10, clock)
        with service_with(limiter=limiter, clock=clock, publisher=(publisher := MemoryPublisher())) as service:
            service.publish_event({"user_id": 1})
            assert limiter.retry_after() == 0
            publisher.script.append(rejected())
            receipt = service.publish_event(GOOD)
            receipt.result(20)
            taken = 0
            while limiter.acquire():
                taken += 1
        assert taken == 7  # 10, less the dead letter, the record, and its dead letter


def rejected() -> Report:
    from postroom.streaming.delivery import decide
    from postroom.streaming.publisher import Report

    return Report(decide(87), code=87, detail="INVALID_RECORD")


class TestSequence:
    """Numbers are given with the record, and only to records that were taken."""

    def test_refused_events_get_no_number(self) -> None:
        class Journal:
            def __init__(self) -> None:
                self.numbers: list[int] = []

            def accepted(self, *, sequence: int, **_: object) -> None:
                self.numbers.append(sequence)

        journal = Journal()
        publisher = MemoryPublisher()
        with service_with(publisher=publisher, journal=journal) as service:
            for number in range(6):
                if number % 2:
                    publisher.script.append(None)
                service.publish_event(GOOD, timeout=0)
        assert journal.numbers == [1, 2, 3]


class TestStart:
    def test_what_goes_wrong_at_the_start_is_raised_and_the_next_start_may_succeed(self) -> None:
        class Registry(MemoryRegistry):
            broken = True

            def lookup(self, subject: str, schema: Registration) -> int:
                if self.broken:
                    raise ConfigurationError("no such subject")
                return super().lookup(subject, schema)

        registry = Registry()
        service = service_with(registry=registry)
        for _ in range(2):
            with pytest.raises(ConfigurationError):
                service.publish_event(GOOD)
            assert not service.running
        registry.broken = False
        assert isinstance(service.publish_event(GOOD).result(0), Delivered)
        service.close()
        assert service.ledger.total().received == 1

    def test_a_service_whose_start_failed_can_be_closed(self) -> None:
        service = service_with(contracts={}, config=None)
        service.start()
        service.close()
        failing = service_with(publisher=None, config=load_config(overrides={"contracts.path": "/nowhere"}, environ={}))
        with pytest.raises(Exception, match="nowhere"):
            failing.start()
        failing.close()
        with pytest.raises(LifecycleError):
            failing.start()

    def test_threads_that_publish_first_start_it_once(self) -> None:
        starts: list[None] = []

        class Counted(MemoryPublisher):
            def start(self) -> None:
                starts.append(None)
                threading.Event().wait(0.02)

        service = service_with(publisher=Counted())
        threads = [threading.Thread(target=service.publish_event, args=(GOOD,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        service.close()
        assert len(starts) == 1
        assert service.ledger.total().delivered == 8

    def test_a_registry_that_answers_later_opens_the_lanes_then(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from postroom.services import schema_ids

        monkeypatch.setattr(schema_ids, "CLOSED_PAUSES_S", (0.001,))
        answers = threading.Event()

        class Registry(MemoryRegistry):
            def lookup(self, subject: str, schema: Registration) -> int:
                if not answers.is_set():
                    raise RegistryUnavailableError("no answer")
                return super().lookup(subject, schema)

        with service_with(registry=Registry()) as service:
            outcome = service.publish_event(GOOD).result(0)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.CONTRACT_UNAVAILABLE
            assert service.parts.schema_ids.problem == "registry_unavailable"
            answers.set()
            until(lambda: service.parts.lanes["user_event"].schema_id is not None)
            assert isinstance(service.publish_event(GOOD).result(0), Delivered)
            until(lambda: service.parts.schema_ids.problem == "")


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it did not come true in time")


class TestClose:
    def test_twice_is_like_once_and_before_the_start_it_is_for_good(self) -> None:
        service = RecordingService()
        service.close()
        service.close()
        with pytest.raises(LifecycleError):
            service.publish_event(GOOD)

    @pytest.mark.parametrize("timeout_s", [0, -3, math.nan, None])
    def test_what_is_still_on_its_way_then_gets_its_outcome(self, timeout_s: float | None) -> None:
        service = RecordingService().start()
        service.publisher.holding = True
        receipt = service.publish_event(GOOD)
        service.close(timeout_s)
        assert isinstance(receipt.result(0), Failed)
        assert (service.ledger.total().failed, service.ledger.total().unaccounted) == (1, 0)

    def test_who_waits_for_pace_is_told_at_once_and_not_called_lost(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = ManualClock(blocking=True)
        limiter = RateLimiter(1, 1, clock)
        service = service_with(limiter=limiter).start()
        service.publish_event(GOOD)
        receipts: list[Receipt] = []
        waiting = threading.Thread(target=lambda: receipts.append(service.publish_event(GOOD, timeout=1_000)))
        waiting.start()
        clock.wait_for_sleepers(1)
        service.close()
        balance = service.ledger.total()
        assert (balance.pending, balance.failed, balance.unaccounted) == (0, 1, 0)
        clock.advance(10)
        waiting.join()
        outcome = receipts[0].result(0)
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.may_be_in_kafka) == (FailedReason.CLOSED, False)
        assert service.ledger.total() == balance
        assert "unaccounted" not in caplog.text

    def test_a_callback_may_close_the_service(self) -> None:
        service = RecordingService().start()
        closed = threading.Event()

        def close(_: Receipt) -> None:
            service.close()
            closed.set()

        service.publish_event(GOOD).add_done_callback(close)
        assert closed.wait(20)
        assert not service.running

    def test_a_callback_that_is_waited_for_may_call_the_service(self) -> None:
        said: list[str] = []
        service = RecordingService(clock=ManualClock()).start()
        service.publisher.holding = True

        def publish_again(_: Receipt) -> None:
            try:
                service.publish_event(GOOD)
            except LifecycleError:
                service.close()
                said.append("closed")

        service.publish_event(GOOD).add_done_callback(publish_again)
        service.close(20)
        until(lambda: said == ["closed"])

    def test_ctrl_c_while_it_waits_still_gives_every_event_its_outcome(self, monkeypatch: pytest.MonkeyPatch) -> None:
        service = RecordingService().start()
        service.publisher.holding = True
        receipt = service.publish_event(GOOD)

        def interrupted(_: float) -> int:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(service.publisher, "flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            service.close(20)
        assert isinstance(receipt.result(0), Failed)
        service.close()
        assert service.ledger.total().unaccounted == 0

    def test_a_closing_that_was_cut_short_anywhere_goes_on_the_second_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = RecordingService().start()
        service.publisher.holding = True
        receipt = service.publish_event(GOOD)

        def interrupted(_: float) -> None:
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(service.publisher, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            service.close(0)
        service.close(0)
        assert receipt.done()
        assert service._ended

    def test_its_numbers_stay_in_the_metrics(self) -> None:
        metrics = Metrics()
        with service_with(metrics=metrics) as service:
            service.publish_event(GOOD)
        assert metrics.snapshot().total(RECEIVED) == 1


class TestInterruptions:
    """Ctrl-C and other signals raise anywhere in the main thread; the event in hand gets an outcome all the same."""

    @pytest.mark.parametrize(
        ("owner", "name"),
        [
            (RateLimiter, "acquire"),
            (MemoryPublisher, "publish"),
            (MemoryPublisher, "wait_for_room"),
            (Settlement, "make_dead_letter"),
        ],
        ids=lambda one: getattr(one, "__name__", one),
    )
    def test_the_exception_goes_up_and_the_event_has_an_outcome(
        self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
    ) -> None:
        with RecordingService() as service:
            service.publish_event(GOOD)
            if name == "wait_for_room":
                service.fail_next(RefusedReason.QUEUE_FULL)

            def interrupted(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            with monkeypatch.context() as patched:
                patched.setattr(owner, name, interrupted)
                with pytest.raises(KeyboardInterrupt):
                    service.publish_event(GOOD if name != "make_dead_letter" else {})
            balance = service.ledger.total()
            assert (balance.received, balance.pending, balance.unaccounted) == (2, 0, 0)
            assert isinstance(service.publish_event(GOOD).result(0), Delivered)
        assert service.ledger.total().unaccounted == 0

    def test_an_event_that_was_taken_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_SERVE_EVERY", 1)

        class Interrupted(MemoryPublisher):
            def serve(self) -> None:
                raise KeyboardInterrupt

        with service_with(publisher=Interrupted()) as service:
            with pytest.raises(KeyboardInterrupt):
                service.publish_event(GOOD)
            assert service.ledger.total().delivered == 1


class TestDefects:
    """What should never happen becomes an outcome too, and the next event goes through."""

    def test_a_publisher_that_raises_something_unknown_fails_that_event(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(MemoryPublisher):
            broken = True

            def publish(self, record: Record, on_done: OnDone) -> None:
                if self.broken:
                    raise ZeroDivisionError("payload")
                super().publish(record, on_done)

        publisher = Broken()
        with service_with(publisher=publisher) as service:
            outcome = service.publish_event(GOOD).result(0)
            assert isinstance(outcome, Failed)
            assert (outcome.reason, outcome.detail) == (FailedReason.INTERNAL, "ZeroDivisionError")
            publisher.broken = False
            assert isinstance(service.publish_event(GOOD).result(0), Delivered)
        assert "pipeline_defect" in caplog.text
        assert "payload" not in caplog.text
        assert service.ledger.total().unaccounted == 0

    def test_an_event_whose_methods_raise_hurts_nobody(self) -> None:
        class Hostile(dict[str, object]):
            def __getitem__(self, key: str) -> object:
                raise SystemError("gotcha")

            def get(self, *_: object) -> object:
                raise MemoryError("gotcha")

            def items(self) -> Any:
                raise RecursionError("gotcha")

        with RecordingService() as service:
            receipt = service.publish_event(Hostile(GOOD))
            assert receipt.done()
            assert isinstance(service.publish_event(GOOD).result(0), Delivered)
        assert service.ledger.total().unaccounted == 0

    def test_where_no_thread_can_start_a_rejected_record_fails_and_closing_does_not_wait(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At the end of the interpreter, from Python 3.12 on, no thread can start any more."""

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        with RecordingService() as service:
            service.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
            monkeypatch.setattr(threading.Thread, "start", refuse)
            receipt = service.publish_event(GOOD)
        assert isinstance(receipt.result(0), Failed)
        assert service.ledger.total().unaccounted == 0

    def test_the_repair_of_a_rejected_record_does_not_wait_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(settlement_module, "_EMPTYING_S", 0.0)
        with RecordingService() as service:
            service.publisher.script.extend([rejected(), None])
            outcome = service.publish_event(GOOD).result(20)
        assert isinstance(outcome, Refused)
        assert outcome.reason is RefusedReason.QUEUE_FULL
        assert service.ledger.total().unaccounted == 0


class TestWhoHoldsIt:
    def test_a_service_that_never_started_is_freed(self) -> None:
        service = weakref.ref(RecordingService())
        gc.collect()
        assert service() is None

    def test_a_closed_one_is_freed(self) -> None:
        metrics = Metrics()
        service = service_with(metrics=metrics)
        with service:
            service.publish_event(GOOD)
        gone = weakref.ref(service)
        del service
        gc.collect()
        assert gone() is None

    def test_a_started_one_stays_until_it_is_closed(self) -> None:
        """`ProducerService().publish_event(event)`: nobody else holds it, and the end of the program must find it."""
        metrics = Metrics()
        service = service_with(metrics=metrics).start()
        held = weakref.ref(service)
        del service
        gc.collect()
        alive = held()
        assert alive is not None
        alive.close()


class TestSharedService:
    def test_it_is_the_same_until_it_is_closed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(module, "_shared", None)
        first = get_service()
        assert get_service() is first
        first.close()
        second = get_service()
        assert second is not first
        second.close()
