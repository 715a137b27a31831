"""A receipt gets its outcome exactly once, and whoever waits for it hears of it."""

from __future__ import annotations

import math
import os
import threading

import pytest

from postroom.libs.event import DeadLettered, Delivered, Failed, FailedReason, Outcome, Refused, RefusedReason, Spooled
from postroom.libs.exceptions import (
    DeadLetteredError,
    EventFailedError,
    EventRefusedError,
    OutcomeError,
    ReceiptTimeoutError,
)
from postroom.services.receipt import CallbackThread, Receipt

DELIVERED = Delivered("clicks", 3, 14)


@pytest.fixture
def receipt() -> Receipt:
    return Receipt("id-1")


def wait(event: threading.Event) -> None:
    assert event.wait(20)


class TestOutcome:
    def test_it_is_open_until_it_has_one(self, receipt: Receipt) -> None:
        assert (receipt.done(), receipt.outcome, receipt.safe, repr(receipt)) == (
            False,
            None,
            False,
            "<Receipt id-1 open>",
        )
        receipt.resolve(DELIVERED)
        assert (receipt.done(), receipt.outcome, receipt.safe) == (True, DELIVERED, True)
        assert receipt.result(0) == DELIVERED
        assert repr(receipt) == "<Receipt id-1 Delivered>"

    def test_a_second_outcome_is_a_defect_and_changes_nothing(self, receipt: Receipt) -> None:
        receipt.resolve(DELIVERED)
        with pytest.raises(RuntimeError, match="id-1"):
            receipt.resolve(Spooled())
        assert receipt.outcome == DELIVERED

    @pytest.mark.parametrize(
        ("outcome", "error"),
        [
            (DELIVERED, None),
            (Spooled(), None),
            (DeadLettered("validation_failed", "clicks.dlq", 0, 1), DeadLetteredError),
            (Refused(RefusedReason.RATE_LIMITED, 1.5), EventRefusedError),
            (Failed(FailedReason.KAFKA_UNAVAILABLE, may_be_in_kafka=True), EventFailedError),
        ],
    )
    def test_who_prefers_exceptions_gets_the_fitting_one(
        self, receipt: Receipt, outcome: Outcome, error: type[OutcomeError] | None
    ) -> None:
        receipt.resolve(outcome)
        if error is None:
            assert receipt.raise_for_outcome() == outcome
        else:
            with pytest.raises(error):
                receipt.raise_for_outcome()


class TestWaiting:
    @pytest.mark.parametrize("timeout", [0, 0.001, -5])
    def test_an_outcome_that_does_not_come_in_time_is_a_timeout_that_names_the_event(
        self, receipt: Receipt, timeout: float
    ) -> None:
        with pytest.raises(ReceiptTimeoutError, match="id-1") as told:
            receipt.result(timeout)
        assert isinstance(told.value, TimeoutError)
        assert told.value.retriable

    def test_asking_again_and_again_leaves_nothing_behind(self, receipt: Receipt) -> None:
        for _ in range(100):
            with pytest.raises(ReceiptTimeoutError):
                receipt.result(0)
        assert receipt._listeners == []

    @pytest.mark.parametrize("timeout", [None, 30, math.inf, threading.TIMEOUT_MAX * 2])
    def test_every_thread_that_waits_gets_it(self, receipt: Receipt, timeout: float | None) -> None:
        got: list[Outcome] = []
        threads = [threading.Thread(target=lambda: got.append(receipt.result(timeout))) for _ in range(5)]
        for thread in threads:
            thread.start()
        receipt.resolve(DELIVERED)
        for thread in threads:
            thread.join()
        assert got == [DELIVERED] * 5


class TestCallbacks:
    def test_they_run_on_a_thread_of_their_own_before_and_after_the_outcome(self, receipt: Receipt) -> None:
        called: list[tuple[Receipt, str]] = []
        both = threading.Semaphore(0)

        def callback(one: Receipt) -> None:
            called.append((one, threading.current_thread().name))
            both.release()

        receipt.add_done_callback(callback)
        receipt.resolve(DELIVERED)
        receipt.add_done_callback(callback)
        assert both.acquire(timeout=20)
        assert both.acquire(timeout=20)
        assert called == [(receipt, "postroom-callbacks")] * 2

    @pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
    def test_one_that_raises_anything_hurts_no_other(
        self, receipt: Receipt, error: type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        reached = threading.Event()

        def raising(_: Receipt) -> None:
            raise error("a secret")

        receipt.add_done_callback(raising)
        receipt.add_done_callback(lambda _: reached.set())
        receipt.resolve(DELIVERED)
        wait(reached)
        assert "callback_failed" in caplog.text
        assert "a secret" not in caplog.text


class TestCallbackThread:
    @pytest.fixture
    def calls(self) -> CallbackThread:
        return CallbackThread()

    def test_draining_waits_for_what_was_queued_before(self, calls: CallbackThread) -> None:
        done: list[Receipt] = []
        receipts = [Receipt(str(number)) for number in range(100)]
        for one in receipts:
            calls.call(done.append, one)
        assert calls.drain(20)
        assert done == receipts

    def test_draining_gives_up_on_a_callback_that_takes_its_time(self, calls: CallbackThread, receipt: Receipt) -> None:
        goes_on = threading.Event()
        calls.call(lambda _: wait(goes_on), receipt)
        assert not calls.drain(0.01)
        goes_on.set()
        assert calls.drain(math.inf)

    def test_a_callback_that_drains_does_not_wait_for_itself(self, calls: CallbackThread, receipt: Receipt) -> None:
        said: list[bool] = []
        calls.call(lambda _: said.append(calls.drain(20)), receipt)
        assert calls.drain(20)
        assert said == [True]

    def test_where_no_thread_can_start_draining_makes_the_calls(
        self, calls: CallbackThread, receipt: Receipt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At the end of the interpreter, from Python 3.12 on, no thread can start any more."""

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        done: list[Receipt] = []
        calls.call(done.append, receipt)
        assert done == []
        assert calls.drain(0)
        assert done == [receipt]


def test_in_a_forked_child_nobody_of_the_parent_s_is_told(receipt: Receipt) -> None:
    told: list[Receipt] = []
    receipt.listen(told.append)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            receipt.abandon(Failed(FailedReason.CLOSED, may_be_in_kafka=True))
            code = 0 if isinstance(receipt.result(0), Failed) and told == [] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    receipt.resolve(DELIVERED)
    assert told == [receipt]
