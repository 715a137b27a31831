"""The asyncio face gives each event's outcome, never blocks the loop, and loses nothing when it is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLettered, Delivered, Failed, FailedReason, Refused, RefusedReason
from postroom.libs.exceptions import LifecycleError
from postroom.observability.metrics import Metrics
from postroom.services.async_service import AsyncProducerService
from postroom.services.producer_service import ProducerService
from postroom.streaming.rate_limiter import RateLimiter
from postroom.testing.manual_clock import ManualClock
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.recording_service import MemoryRegistry, RecordingService

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from postroom.libs.event import Outcome

GOOD = {"user_id": "u1", "timestamp": 1}


def paced(per_second: float, burst: int) -> tuple[ProducerService, ManualClock]:
    """A service whose limit lives on a clock that the test moves."""
    clock = ManualClock(blocking=True)
    limiter = RateLimiter(per_second, burst, clock, sleep_async=clock.sleep_async)
    config = load_config(overrides={}, environ={})
    parts: dict[str, Any] = {"publisher": MemoryPublisher(), "registry": MemoryRegistry(), "metrics": Metrics()}
    return ProducerService(config, limiter=limiter, **parts), clock


def run(work: Callable[[AsyncProducerService], Coroutine[Any, Any, None]], service: ProducerService) -> None:
    """Run a coroutine with a started service; afterwards the books balance."""

    async def main() -> None:
        async with AsyncProducerService(service) as post:
            await work(post)

    asyncio.run(main())
    assert service.ledger.total().unaccounted == 0
    assert service.ledger.total().pending == 0


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it did not come true in time")


class TestOutcomes:
    def test_the_await_gives_what_became_of_the_event(self) -> None:
        async def work(post: AsyncProducerService) -> None:
            assert isinstance(await post.publish_event(GOOD), Delivered)
            assert isinstance(await post.publish_event({}), DeadLettered)
            refused = await post.publish_event(GOOD, event_type="unknown")
            assert isinstance(refused, Refused)
            service.fail_next(FailedReason.BROKER_ERROR)
            assert isinstance(await post.publish_event(GOOD), Failed)

        service = RecordingService()
        run(work, service)

    def test_the_first_event_starts_the_service(self) -> None:
        service = RecordingService()

        async def work() -> None:
            post = AsyncProducerService(service)
            outcomes = await asyncio.gather(*(post.publish_event(GOOD) for _ in range(50)))
            assert {type(outcome) for outcome in outcomes} == {Delivered}
            await post.close()
            with pytest.raises(LifecycleError):
                await post.publish_event(GOOD)

        asyncio.run(work())
        assert service.ledger.total().delivered == 50

    @pytest.mark.parametrize("named", [{"timeout": None}, {"event": 5}, {"key": 5}], ids=str)
    def test_misuse_raises_and_counts_nothing(self, named: dict[str, Any]) -> None:
        service = RecordingService()

        async def work(post: AsyncProducerService) -> None:
            with pytest.raises(TypeError):
                await post.publish_event(**{"event": GOOD, **named})

        run(work, service)
        assert service.ledger.total().received == 0

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), 0.02])
    def test_a_full_queue_is_waited_for_no_longer_than_said(self, timeout: float) -> None:
        service = RecordingService()

        async def work(post: AsyncProducerService) -> None:
            service.fail_next(RefusedReason.QUEUE_FULL)
            outcome = await post.publish_event(GOOD, timeout=timeout)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.QUEUE_FULL

        run(work, service)

    def test_from_several_loops_at_once(self) -> None:
        service = RecordingService()

        async def work() -> None:
            post = AsyncProducerService(service)
            for _ in range(100):
                assert isinstance(await post.publish_event(GOOD), Delivered)

        with service:
            threads = [threading.Thread(target=lambda: asyncio.run(work())) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert service.ledger.total().delivered == 400


class TestPace:
    def test_while_one_waits_for_its_pace_the_loop_goes_on(self) -> None:
        service, clock = paced(0.1, 1)

        async def work(post: AsyncProducerService) -> None:
            await post.publish_event(GOOD)
            waiting = asyncio.create_task(post.publish_event(GOOD, timeout=100))
            ticks = 0
            while clock.sleepers < 1 or ticks < 50:
                await asyncio.sleep(0)
                ticks += 1
            assert not waiting.done()
            clock.advance(10)
            assert isinstance(await waiting, Delivered)

        run(work, service)

    def test_nobody_is_overtaken_by_who_came_later(self) -> None:
        service, clock = paced(1, 1)
        order: list[int] = []

        async def work(post: AsyncProducerService) -> None:
            async def one(number: int) -> None:
                assert isinstance(await post.publish_event(GOOD, timeout=100), Delivered)
                order.append(number)

            first = [asyncio.create_task(one(number)) for number in range(5)]
            await until(lambda: clock.sleepers == 4)
            clock.advance(0.9)  # a newcomer finds no token that is not promised to somebody
            late = asyncio.create_task(one(5))
            await until(lambda: clock.sleepers == 5)
            for _ in range(5):
                clock.advance(1)
                await asyncio.sleep(0.01)
            await asyncio.gather(*first, late)

        run(work, service)
        assert order == [0, 1, 2, 3, 4, 5]

    def test_who_would_wait_too_long_is_told_when_to_come_back(self) -> None:
        service, _ = paced(0.1, 1)

        async def work(post: AsyncProducerService) -> None:
            await post.publish_event(GOOD)
            outcome = await post.publish_event(GOOD, timeout=3)
            assert isinstance(outcome, Refused)
            assert outcome.reason is RefusedReason.RATE_LIMITED
            assert outcome.retry_after_s == pytest.approx(10)

        run(work, service)

    def test_closing_ends_the_wait_with_an_outcome_for_the_books(self) -> None:
        service, clock = paced(0.1, 1)

        async def work(post: AsyncProducerService) -> None:
            await post.publish_event(GOOD)
            waiting = asyncio.create_task(post.publish_event(GOOD, timeout=100))
            await until(lambda: clock.sleepers == 1)
            await post.close(0)
            assert (service.ledger.total().failed, service.ledger.total().pending) == (1, 0)
            clock.advance(10)
            outcome = await waiting
            assert isinstance(outcome, Failed)
            assert outcome.reason is FailedReason.CLOSED

        run(work, service)


class TestCancellation:
    def test_before_its_pace_comes_the_event_is_refused_and_never_sent(self) -> None:
        service, clock = paced(0.1, 1)

        async def work(post: AsyncProducerService) -> None:
            await post.publish_event(GOOD)
            waiting = asyncio.create_task(post.publish_event(GOOD, timeout=100))
            await until(lambda: clock.sleepers == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            balance = service.ledger.total()
            assert (balance.refused, balance.delivered, balance.pending) == (1, 1, 0)

        run(work, service)

    def test_while_it_waits_for_room_the_event_is_refused_and_never_sent(self) -> None:
        service = RecordingService()

        async def work(post: AsyncProducerService) -> None:
            service.fail_next(RefusedReason.QUEUE_FULL)
            waiting = asyncio.create_task(post.publish_event(GOOD, timeout=100))
            await until(lambda: not service.publisher.script)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert service.publisher.records == []

        run(work, service)
        assert service.ledger.total().refused == 1

    def test_once_it_is_on_its_way_it_goes_on(self) -> None:
        service = RecordingService()

        async def work(post: AsyncProducerService) -> None:
            service.publisher.holding = True
            waiting = asyncio.create_task(post.publish_event(GOOD))
            await until(lambda: service.publisher.in_flight() == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            service.publisher.release()
            assert service.ledger.total().delivered == 1

        run(work, service)

    def test_before_the_service_has_started_nothing_is_counted(self) -> None:
        goes_on = threading.Event()

        class Slow(MemoryPublisher):
            def start(self) -> None:
                goes_on.wait(20)

        service = ProducerService(
            load_config(overrides={}, environ={}), publisher=Slow(), registry=MemoryRegistry(), metrics=Metrics()
        )

        async def work() -> None:
            post = AsyncProducerService(service)
            waiting = asyncio.create_task(post.publish_event(GOOD))
            await asyncio.sleep(0.02)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            goes_on.set()
            assert isinstance(await post.publish_event(GOOD), Delivered)
            await post.close()

        asyncio.run(work())
        assert service.ledger.total().received == 1

    def test_a_timeout_around_the_await_is_a_cancellation_like_any_other(self) -> None:
        service = RecordingService()

        async def work(post: AsyncProducerService) -> None:
            service.publisher.holding = True
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(post.publish_event(GOOD), 0.01)
            assert service.publisher.in_flight() == 1
            service.publisher.release()

        run(work, service)
        assert service.ledger.total().delivered == 1

    def test_an_outcome_that_comes_after_the_loop_has_ended_hurts_nobody(self) -> None:
        service = RecordingService().start()
        service.publisher.holding = True

        async def work() -> Outcome:
            return await asyncio.wait_for(AsyncProducerService(service).publish_event(GOOD), 0.01)

        with pytest.raises(TimeoutError):
            asyncio.run(work())
        service.publisher.release()
        service.close()
        assert service.ledger.total().delivered == 1
