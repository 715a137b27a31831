"""Event ids are UUIDs of version 7: unique, rising, and never shared with a forked child."""

from __future__ import annotations

import os
import uuid

from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.event import EventIds, is_event_id


@given(st.lists(st.integers(0, 2**47), min_size=1, max_size=200))
def test_ids_are_version_7_unique_and_rise_whatever_the_clock_does(times: list[int]) -> None:
    ids = EventIds()
    made = [ids.next(now) for now in times]
    parsed = [uuid.UUID(one) for one in made]
    assert [str(one) for one in parsed] == made
    assert {(one.version, one.variant) for one in parsed} == {(7, uuid.RFC_4122)}
    assert made == sorted(set(made))
    assert all(is_event_id(one) for one in made)


@given(st.integers(0, 2**47))
def test_the_first_48_bits_are_the_milliseconds(now_ms: int) -> None:
    assert uuid.UUID(EventIds().next(now_ms)).int >> 80 == now_ms


def test_more_ids_than_one_millisecond_holds_borrow_from_the_next() -> None:
    ids = EventIds()
    made = [ids.next(1_000) for _ in range(10_000)]
    assert made == sorted(set(made))
    assert uuid.UUID(made[4_095]).int >> 80 == 1_000
    assert uuid.UUID(made[4_096]).int >> 80 == 1_001


def test_the_random_bits_differ_and_are_drawn_anew() -> None:
    ids = EventIds()
    tails = {ids.next(number)[-17:] for number in range(5_000)}
    assert len(tails) == 5_000


def test_a_forked_child_makes_no_id_of_its_parent() -> None:
    ids = EventIds()
    ids.next(1_000)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(ids.next(1_000) for _ in range(50)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = set(pipe.read().decode().split())
    assert os.waitpid(child, 0)[1] == 0
    ours = {ids.next(1_000) for _ in range(50)}
    assert len(theirs) == 50
    assert not ours & theirs
