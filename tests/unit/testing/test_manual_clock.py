"""What the manual clock promises to the tests that use it."""

import asyncio
import threading

import pytest

from postroom.testing.manual_clock import ManualClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(5.0, time_ms=1_000)
    assert (clock.monotonic(), clock.time_ms()) == (5.0, 1_000)
    clock.advance(1.5)
    assert (clock.monotonic(), clock.time_ms()) == (6.5, 2_500)


def test_a_sleep_moves_the_time_on_by_itself_when_the_clock_does_not_block() -> None:
    clock = ManualClock(0.0)
    clock.sleep(2.25)
    asyncio.run(clock.sleep_async(0.75))
    assert clock.monotonic() == 3.0


def test_a_hundred_steps_of_a_hundredth_are_one_second() -> None:
    clock = ManualClock(0.0)
    for _ in range(100):
        clock.advance(0.01)
    assert clock.monotonic() == 1.0


def test_a_jump_of_the_wall_clock_leaves_the_monotonic_time_alone() -> None:
    clock = ManualClock(7.0, time_ms=10_000)
    clock.jump_wall_clock(-3_600)
    assert (clock.monotonic(), clock.time_ms()) == (7.0, 10_000 - 3_600_000)


def test_a_clock_cannot_be_turned_back() -> None:
    with pytest.raises(ValueError, match="advances"):
        ManualClock().advance(-1)


def test_blocking_sleepers_wake_when_their_time_has_come_and_not_before() -> None:
    clock = ManualClock(blocking=True)
    awake: list[float] = []

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        awake.append(seconds)

    threads = [threading.Thread(target=sleep, args=(seconds,)) for seconds in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(2)
    assert clock.next_due_s == 1.0
    clock.advance(1.0)
    threads[0].join(10)
    assert (awake, clock.sleepers) == ([1.0], 1)
    clock.advance(1.0)
    threads[1].join(10)
    assert awake == [1.0, 2.0]
    assert clock.sleepers == 0
    assert clock.next_due_s is None


def test_a_task_sleeps_without_stopping_its_loop_and_leaves_no_trace_when_cancelled() -> None:
    async def scenario() -> None:
        clock = ManualClock(blocking=True)
        kept = asyncio.create_task(clock.sleep_async(1.0))
        dropped = asyncio.create_task(clock.sleep_async(1.0))
        await asyncio.sleep(0)
        assert clock.sleepers == 2
        dropped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        assert clock.sleepers == 1
        clock.advance(1.0)
        await kept

    asyncio.run(scenario())
