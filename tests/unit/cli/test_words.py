"""Numbers as people read them, and texts of others that cannot command a terminal."""

import pytest

from postroom.cli.words import counts, duration, many, printable, size


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (10 * 1024**3, "10.0 GiB"),
        (3 * 1024**5, "3,072.0 TiB"),
    ],
)
def test_sizes_have_a_unit_that_fits(count: int, told: str) -> None:
    assert size(count) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "-"),
        (-1.0, "0.0 s"),
        (0.44, "0.4 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (7205, "2 h"),
        (90_000_000, "1,041 d 16 h"),
    ],
)
def test_times_are_told_in_their_two_largest_units(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told


def test_one_thing_is_told_as_one() -> None:
    assert (many(1, "slot"), many(0, "slot"), many(1200, "slot")) == ("1 slot", "0 slots", "1,200 slots")


def test_names_are_told_with_their_numbers_and_command_nothing() -> None:
    assert counts({"user_events": 1200, "a\x1b[2J": 3}) == "user_events 1,200, a?[2J 3"
    assert printable("tab\tü\x07") == "tab?ü?"
