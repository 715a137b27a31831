"""The counters of waiting keys: never a wrong no, and exact again once nothing waits."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from postroom.streaming.spool.key_counts import KeyCounts

HASHES = st.integers(0, 2**32 - 1)


@given(
    st.lists(st.tuples(HASHES, st.integers(1, 400)), max_size=30), st.lists(HASHES | st.none(), max_size=50), st.data()
)
def test_a_key_that_waits_is_never_denied_and_nothing_is_held_when_nothing_waits(
    found: list[tuple[int, int]], appended: list[int | None], draw: st.DataObject
) -> None:
    keys, waiting = KeyCounts(16), Counter[int]()
    for key_hash, count in found:
        keys.add(key_hash, count)
        waiting[key_hash] += count
    keys.add_each(appended)
    waiting.update(key_hash for key_hash in appended if key_hash is not None)
    order = list(waiting.elements())
    Random(draw.draw(st.integers())).shuffle(order)
    for key_hash in order:
        assert keys.holds(key_hash)
        keys.remove(key_hash)
        waiting[key_hash] -= 1
    assert not any(keys.holds(number) for number in range(16))


def test_a_counter_that_is_full_says_yes_until_nothing_waits() -> None:
    keys = KeyCounts(16)
    keys.add_each([3] * 300)
    keys.add(4)
    for _ in range(300):
        keys.remove(3)
    assert keys.holds(3), "how many there were is not known any more"
    keys.remove(4)
    assert not keys.holds(3)
    keys.add(3, 254)
    keys.remove(3, 254)
    assert not keys.holds(3)
