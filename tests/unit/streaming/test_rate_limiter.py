"""What the rate limiter promises: the rate, the burst, the order, and a quick no."""

import asyncio
import math
import threading
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.libs.clock import SYSTEM_CLOCK
from postroom.libs.exceptions import ConfigurationError
from postroom.streaming.rate_limiter import RateLimiter
from postroom.testing.manual_clock import ManualClock

rates = st.sampled_from([0.5, 1.0, 3.0, 7.0, 100.0, 1_000.0, 33_333.3])


def assert_within_the_rate(moments: list[float], rate: float, burst: int) -> None:
    """Over every stretch between two grants: at most burst + rate * t of them.

    Grants have moments of their own; a clock of whole nanoseconds may wake one of them a nanosecond late.
    """
    for first in range(len(moments)):
        for last in range(first, len(moments)):
            stretch = moments[last] - moments[first]
            assert last - first + 1 <= burst + rate * (stretch + 1e-9) + 1e-6


def saturated(limiter: RateLimiter) -> RateLimiter:
    """The limiter with its burst used up."""
    while limiter.acquire():
        pass
    return limiter


class TestRateAndBurst:
    def test_without_a_limit_everything_passes_and_nothing_waits(self) -> None:
        limiter = RateLimiter(clock=ManualClock())
        assert all(limiter.acquire() for _ in range(10_000))
        assert all(limiter.acquire(timeout=5.0) for _ in range(10))
        assert asyncio.run(limiter.acquire_async())
        limiter.charge()
        assert limiter.retry_after() == 0.0
        assert (limiter.events_per_second, limiter.burst) == (None, 0)

    def test_of_200_tries_at_100_a_second_100_pass_at_once_and_the_rest_over_one_second(self) -> None:
        clock = ManualClock(0.0)
        limiter = RateLimiter(events_per_second=100, clock=clock)
        assert [limiter.acquire() for _ in range(200)] == [True] * 100 + [False] * 100
        moments = []
        for _ in range(100):
            assert limiter.acquire(timeout=5.0)
            moments.append(clock.monotonic())
        assert moments == pytest.approx([(n + 1) / 100 for n in range(100)])

    def test_the_burst_is_one_seconds_worth_and_at_least_one(self) -> None:
        assert [RateLimiter(rate).burst for rate in (0.1, 1, 2.5, 100, 1e9)] == [1, 1, 2, 100, 10**9]

    def test_after_a_long_pause_no_more_than_the_burst_is_there(self) -> None:
        clock = ManualClock()
        limiter = RateLimiter(10, burst=3, clock=clock)
        clock.advance(86_400)
        assert [limiter.acquire() for _ in range(5)] == [True, True, True, False, False]

    def test_a_token_comes_back_after_one_period_and_not_before(self) -> None:
        clock = ManualClock()
        limiter = saturated(RateLimiter(10, burst=1, clock=clock))
        clock.advance(0.0999)
        assert not limiter.acquire()
        clock.advance(0.0001)
        assert limiter.acquire()
        assert not limiter.acquire()

    def test_jumps_of_the_wall_clock_change_nothing(self) -> None:
        clock = ManualClock()
        limiter = saturated(RateLimiter(10, clock=clock))
        clock.jump_wall_clock(3_600)
        assert not limiter.acquire()
        clock.jump_wall_clock(-7_200)
        assert limiter.retry_after() == pytest.approx(0.1)

    @settings(deadline=None)
    @given(
        rate=rates,
        burst=st.integers(1, 8),
        steps=st.lists(
            st.tuples(st.floats(0, 5), st.sampled_from(["try", "wait", "patient"]), st.floats(0, 3, allow_nan=False)),
            max_size=60,
        ),
    )
    def test_never_more_than_burst_plus_rate_times_time(
        self, rate: float, burst: int, steps: list[tuple[float, str, float]]
    ) -> None:
        """Times are given in periods of the rate, so that every rate is met in its interesting range."""
        clock = ManualClock()
        limiter = RateLimiter(rate, burst, clock)
        moments = []
        for pause, way, patience in steps:
            clock.advance(pause / rate)
            before = clock.monotonic()
            timeout = {"try": 0.0, "wait": patience / rate, "patient": math.inf}[way]
            expected_wait = limiter.retry_after()
            granted = limiter.acquire(timeout)
            assert granted == (expected_wait <= timeout)
            assert clock.monotonic() - before == pytest.approx(expected_wait if granted else 0.0, abs=2e-9)
            if granted:
                moments.append(clock.monotonic())
        assert_within_the_rate(moments, rate, burst)

    @given(rate=rates, burst=st.integers(1, 50), count=st.integers(1, 300))
    def test_whoever_keeps_asking_gets_the_whole_rate(self, rate: float, burst: int, count: int) -> None:
        clock = ManualClock(0.0)
        limiter = RateLimiter(rate, burst, clock)
        for _ in range(count):
            assert limiter.acquire(timeout=math.inf)
        assert clock.monotonic() == pytest.approx(max(0, count - burst) / rate, abs=1e-6)

    def test_a_caller_who_is_woken_late_costs_the_others_nothing(self) -> None:
        """Sleeps that last 0.06 ms too long, as on a real machine, still give 10,000 a second."""

        class LateClock(ManualClock):
            def sleep(self, seconds: float) -> None:
                super().sleep(seconds + 6e-5)

        clock = LateClock(0.0)
        limiter = saturated(RateLimiter(10_000, burst=10, clock=clock))
        for _ in range(5_000):
            assert limiter.acquire(timeout=5.0)
        assert clock.monotonic() == pytest.approx(0.5, abs=1e-3)

    def test_a_sleep_that_ends_too_early_lets_nobody_through_too_early(self) -> None:
        class HastyClock(ManualClock):
            def sleep(self, seconds: float) -> None:
                super().sleep(seconds / 2 if seconds > 1e-6 else seconds)

        clock = HastyClock(0.0)
        limiter = saturated(RateLimiter(10, burst=1, clock=clock))
        assert limiter.acquire(timeout=1.0)
        assert clock.monotonic() >= 0.1


class TestTimeout:
    def test_a_wait_that_cannot_succeed_fails_at_once_and_takes_nothing(self) -> None:
        clock = ManualClock()
        limiter = saturated(RateLimiter(10, burst=1, clock=clock))
        before = clock.monotonic()
        for _ in range(100):
            assert not limiter.acquire(timeout=0.0999)
        assert clock.monotonic() == before
        assert limiter.retry_after() == pytest.approx(0.1)

    @pytest.mark.parametrize("timeout", [0.0, -1.0, -math.inf, math.nan])
    def test_no_time_to_wait_means_no_wait(self, timeout: float) -> None:
        clock = ManualClock()
        limiter = saturated(RateLimiter(10, clock=clock))
        assert not limiter.acquire(timeout)

    def test_retry_after_is_the_wait_of_a_newcomer_who_tries_then(self) -> None:
        clock = ManualClock()
        limiter = saturated(RateLimiter(3, burst=1, clock=clock))
        clock.advance(limiter.retry_after())
        assert limiter.retry_after() == 0.0
        assert limiter.acquire()

    def test_an_interrupted_wait_gives_its_place_back(self) -> None:
        class Interrupted(ManualClock):
            def sleep(self, seconds: float) -> None:
                raise KeyboardInterrupt

        limiter = saturated(RateLimiter(10, burst=1, clock=Interrupted()))
        with pytest.raises(KeyboardInterrupt):
            limiter.acquire(timeout=1.0)
        assert limiter.retry_after() == pytest.approx(0.1)


class TestCharge:
    def test_a_charge_passes_at_once_and_delays_the_next(self) -> None:
        clock = ManualClock()
        limiter = saturated(RateLimiter(10, clock=clock))
        limiter.charge()
        limiter.charge()
        assert limiter.retry_after() == pytest.approx(0.3)

    def test_a_charge_uses_a_token_that_is_there(self) -> None:
        limiter = RateLimiter(10, clock=ManualClock())
        for _ in range(10):
            limiter.charge()
        assert not limiter.acquire()
        assert limiter.retry_after() == pytest.approx(0.1)

    def test_a_flood_of_charges_delays_others_by_one_burst_at_most(self) -> None:
        limiter = RateLimiter(10, burst=5, clock=ManualClock())
        for _ in range(1_000):
            limiter.charge()
        assert limiter.retry_after() == pytest.approx(0.6)

    def test_charges_never_shorten_the_queue_of_those_who_wait(self) -> None:
        """Twenty tasks wait, far below the end of the debt: a charge must not lift the level."""

        async def scenario() -> None:
            clock = ManualClock(blocking=True)
            limiter = saturated(RateLimiter(10, burst=5, clock=clock, sleep_async=clock.sleep_async))
            tasks = [asyncio.create_task(limiter.acquire_async()) for _ in range(20)]
            await asyncio.sleep(0)
            assert clock.sleepers == 20
            limiter.charge()
            assert limiter.retry_after() == pytest.approx(2.1)
            clock.advance(2.0)
            assert all(await asyncio.gather(*tasks))

        asyncio.run(scenario())


class Tasks:
    """Tasks that wait on one limiter; they write their name and moment down when they are let through."""

    def __init__(self, rate: float, burst: int) -> None:
        self.clock = ManualClock(0.0, blocking=True)
        self.limiter = RateLimiter(rate, burst, self.clock, sleep_async=self.clock.sleep_async)
        self.passed: list[tuple[int, float]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, patience: float | None = None) -> None:
        name = len(self.tasks)

        async def wait() -> None:
            if await self.limiter.acquire_async(patience):
                self.passed.append((name, self.clock.monotonic()))

        self.tasks.append(asyncio.create_task(wait()))
        await self.settle()

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        """Advance sleeper by sleeper, so that everybody wakes exactly at his moment."""
        end = self.clock.monotonic() + seconds
        while (due := self.clock.next_due_s) is not None and self.clock.monotonic() + due <= end:
            self.clock.advance(max(0.0, due))
            await self.settle()
        self.clock.advance(max(0.0, end - self.clock.monotonic()))
        await self.settle()

    async def cancel(self, name: int) -> None:
        self.tasks[name].cancel()
        await self.settle()

    @property
    def names(self) -> list[int]:
        return [name for name, _ in self.passed]

    @property
    def moments(self) -> list[float]:
        return [moment for _, moment in self.passed]


class TestAsync:
    def test_tasks_pass_in_the_order_in_which_they_came(self) -> None:
        async def scenario() -> None:
            tasks = Tasks(rate=10, burst=2)
            for _ in range(12):
                await tasks.come()
            assert tasks.names == [0, 1]
            await tasks.pass_time(1.0)
            assert tasks.names == list(range(12))
            assert tasks.moments == pytest.approx([max(0, n - 1) / 10 for n in range(12)], abs=1e-6)

        asyncio.run(scenario())

    def test_a_task_that_would_wait_too_long_is_told_at_once(self) -> None:
        async def scenario() -> None:
            tasks = Tasks(rate=1, burst=1)
            await tasks.come(patience=0)
            await tasks.come(patience=0.5)
            assert tasks.tasks[1].done()
            assert tasks.names == [0]

        asyncio.run(scenario())

    def test_the_last_in_the_queue_gives_its_token_back(self) -> None:
        async def scenario() -> None:
            tasks = Tasks(rate=1, burst=1)
            for _ in range(4):
                await tasks.come()
            await tasks.cancel(3)
            assert tasks.limiter.retry_after() == pytest.approx(3.0)
            await tasks.cancel(1)
            await tasks.cancel(2)
            assert tasks.limiter.retry_after() == pytest.approx(1.0)

        asyncio.run(scenario())

    def test_a_newcomer_gets_the_place_that_was_given_up_in_the_middle(self) -> None:
        async def scenario() -> None:
            tasks = Tasks(rate=1, burst=1)
            for _ in range(4):
                await tasks.come()
            await tasks.cancel(2)
            assert tasks.limiter.retry_after() == pytest.approx(2.0)
            await tasks.come(patience=2.0)
            await tasks.pass_time(3.0)
            assert tasks.names == [0, 1, 4, 3]
            assert tasks.moments == pytest.approx([0.0, 1.0, 2.0, 3.0])

        asyncio.run(scenario())

    def test_newcomers_get_the_places_given_up_from_the_first_on(self) -> None:
        async def scenario() -> None:
            tasks = Tasks(rate=1, burst=1)
            for _ in range(5):
                await tasks.come()
            await tasks.cancel(3)
            await tasks.cancel(1)
            await tasks.come()
            await tasks.come()
            await tasks.pass_time(4.0)
            assert tasks.names == [0, 5, 2, 6, 4]

        asyncio.run(scenario())

    def test_when_all_have_given_up_it_is_as_if_they_had_never_come(self) -> None:
        async def scenario() -> None:
            tasks = Tasks(rate=1, burst=1)
            for _ in range(4):
                await tasks.come()
            await tasks.cancel(1)
            await tasks.pass_time(1.5)
            await tasks.cancel(2)
            await tasks.cancel(3)
            assert [tasks.limiter.acquire() for _ in range(2)] == [True, False]

        asyncio.run(scenario())

    def test_a_place_whose_moment_is_over_cannot_be_given_back(self) -> None:
        """The task is cancelled a second after its moment, before it woke; somebody else came in between."""
        clock = ManualClock()

        async def cancelled_too_late(seconds: float) -> None:
            clock.advance(seconds + 1.0)
            assert limiter.acquire()
            raise asyncio.CancelledError

        limiter = saturated(RateLimiter(1, burst=1, clock=clock, sleep_async=cancelled_too_late))
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(limiter.acquire_async())
        assert not limiter.acquire()

    def test_a_place_given_up_that_nobody_takes_is_lost(self) -> None:
        async def scenario() -> None:
            tasks = Tasks(rate=1, burst=1)
            for _ in range(3):
                await tasks.come()
            await tasks.cancel(1)
            await tasks.pass_time(1.5)
            assert not tasks.limiter.acquire()
            assert tasks.limiter.retry_after() == pytest.approx(1.5)
            await tasks.pass_time(0.5)

        asyncio.run(scenario())

    @settings(deadline=None)
    @given(
        rate=st.sampled_from([1.0, 3.0, 100.0]),
        burst=st.integers(1, 4),
        steps=st.lists(
            st.one_of(
                st.just(("come", 0.0)),
                st.tuples(st.just("come within"), st.floats(0, 6)),
                st.tuples(st.just("cancel"), st.floats(0, 0.999)),
                st.tuples(st.just("pass"), st.floats(0, 4)),
            ),
            max_size=40,
        ),
    )
    def test_cancelled_tasks_never_let_more_through_than_the_rate(
        self, rate: float, burst: int, steps: list[tuple[str, float]]
    ) -> None:
        async def scenario() -> None:
            tasks = Tasks(rate, burst)
            for what, number in steps:
                if what == "pass":
                    await tasks.pass_time(number / rate)
                elif what == "cancel" and tasks.tasks:
                    await tasks.cancel(int(number * len(tasks.tasks)))
                elif what != "cancel":
                    await tasks.come(None if what == "come" else number / rate)
            await tasks.pass_time(len(steps) / rate)
            assert all(task.done() for task in tasks.tasks)
            assert_within_the_rate(tasks.moments, rate, burst)

        asyncio.run(scenario())

    def test_the_event_loops_own_sleep_serves_when_none_is_given(self) -> None:
        """On the system clock: two tokens at 2,000 a second need a real wait, whose length nobody checks."""
        limiter = RateLimiter(2_000, burst=1, clock=SYSTEM_CLOCK)

        async def scenario() -> list[bool]:
            return [await limiter.acquire_async() for _ in range(2)]

        assert asyncio.run(scenario()) == [True, True]


class TestThreads:
    def test_threads_and_tasks_stand_in_one_queue(self) -> None:
        clock = ManualClock(0.0, blocking=True)
        limiter = saturated(RateLimiter(1, burst=1, clock=clock, sleep_async=clock.sleep_async))
        passed: list[int] = []
        loop = asyncio.new_event_loop()
        runner = threading.Thread(target=loop.run_forever)
        runner.start()

        async def as_task(name: int) -> None:
            assert await limiter.acquire_async()
            passed.append(name)

        def as_thread(name: int, done: Future[None]) -> None:
            assert limiter.acquire(timeout=math.inf)
            passed.append(name)
            done.set_result(None)

        finished: list[Future[None]] = []
        threads = []
        try:
            for name in range(8):
                if name % 2:
                    finished.append(asyncio.run_coroutine_threadsafe(as_task(name), loop))
                else:
                    finished.append(Future())
                    threads.append(threading.Thread(target=as_thread, args=(name, finished[-1])))
                    threads[-1].start()
                clock.wait_for_sleepers(name + 1)
            for done in finished:
                clock.advance(1.0)
                done.result(timeout=10)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            runner.join(10)
            loop.close()
            for thread in threads:
                thread.join(10)
        assert passed == list(range(8))

    def test_threads_together_get_exactly_the_burst(self) -> None:
        limiter = RateLimiter(1_000, burst=500, clock=ManualClock())
        granted = []

        def grab() -> None:
            granted.append(sum(limiter.acquire() for _ in range(400)))

        threads = [threading.Thread(target=grab) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sum(granted) == 500


class TestSettings:
    @pytest.mark.parametrize(
        "rate", [0, -1, math.nan, math.inf, 1e-7, 2e9, True, "100", [1], pytest.param(10**400, id="huge")]
    )
    def test_a_rate_that_cannot_be_one_is_refused_with_a_remedy(self, rate: object) -> None:
        with pytest.raises(ConfigurationError) as caught:
            RateLimiter(rate)  # type: ignore[arg-type]  # wrong on purpose
        assert "events_per_second" in caught.value.message
        assert caught.value.remedy

    @pytest.mark.parametrize("burst", [0, -5, 1.5, True, "3", 10**10])
    def test_a_burst_that_cannot_be_one_is_refused_with_a_remedy(self, burst: object) -> None:
        with pytest.raises(ConfigurationError) as caught:
            RateLimiter(100, burst)  # type: ignore[arg-type]  # wrong on purpose
        assert "burst" in caught.value.message
        assert caught.value.remedy

    def test_a_burst_without_a_rate_is_a_contradiction(self) -> None:
        with pytest.raises(ConfigurationError, match="without a limit"):
            RateLimiter(None, burst=5)

    @pytest.mark.parametrize("rate", [1e-6, 1e9, 1, 0.5])
    def test_the_ends_of_the_range_are_inside(self, rate: float) -> None:
        assert RateLimiter(rate).acquire()
