"""What the generator promises: events that fit the contract, sessions that make sense, and breaks that are known."""

import itertools
import math
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.generators.dummy_data_generator import DummyDataGenerator, InvalidKind, generate_event
from postroom.libs.event import Violation
from postroom.libs.exceptions import ConfigurationError
from postroom.schemas.avro_schema import parse_schema
from postroom.schemas.data_contracts import packaged_contracts
from postroom.schemas.event_checker import find_violations
from postroom.testing.manual_clock import ManualClock

SCHEMA = parse_schema(packaged_contracts()["user_event"].schema)


def violations(event: object) -> list[Violation]:
    return find_violations(SCHEMA.root, event)


def made(count: int, **settings: Any) -> list[dict[str, Any]]:
    settings.setdefault("clock", ManualClock())
    return list(DummyDataGenerator(**settings).events(count))


class TestEvents:
    def test_every_event_fits_the_contract(self) -> None:
        for event in made(3_000, seed=1):
            assert violations(event) == []

    def test_generate_event_gives_one_that_fits_and_another_each_time(self) -> None:
        events = [generate_event() for _ in range(50)]
        assert all(violations(event) == [] for event in events)
        assert len({event["session_id"] for event in events}) > 1

    def test_the_timestamp_is_the_clocks_and_moves_on_with_the_pace(self) -> None:
        clock = ManualClock(time_ms=1_767_225_600_000)
        generator = DummyDataGenerator(seed=1, clock=clock)
        stamps = []
        for event in generator.events(5):
            stamps.append(event["timestamp"])
            clock.advance(0.25)
        assert stamps == [1_767_225_600_000 + 250 * step for step in range(5)]

    def test_events_are_made_only_when_they_are_asked_for(self) -> None:
        events = DummyDataGenerator(seed=1).events()
        first = list(itertools.islice(events, 3))
        assert first[0]["session_id"]
        assert len(first) == 3

    def test_changing_an_event_changes_no_later_one(self) -> None:
        changed = DummyDataGenerator(seed=3, users=1, sessions=1, clock=ManualClock())
        for event in changed.events(50):
            event.clear()
        assert all(violations(event) == [] for event in changed.events(50))


class TestSessions:
    def test_a_session_starts_pauses_resumes_and_stops_in_an_order_that_makes_sense(self) -> None:
        goes_on = {"pause", "seek", "stop", "complete"}
        follows = {
            None: {"start"},
            "start": goes_on,
            "seek": goes_on,
            "resume": goes_on,
            "pause": {"resume", "stop"},
        }
        last: dict[str, str | None] = defaultdict(lambda: None)
        for event in made(20_000, seed=2):
            session = event["session_id"]
            assert event["action"] in follows[last[session]]
            last[session] = event["action"]
        assert {"stop", "complete"} <= set(last.values())

    def test_one_session_is_one_user_one_device_and_one_video(self) -> None:
        who: dict[str, tuple[object, ...]] = {}
        for event in made(20_000, seed=3):
            what = tuple(
                event[name]
                for name in ("user_id", "video_id", "duration_ms", "device", "country", "app_version", "is_live")
            )
            assert who.setdefault(event["session_id"], what) == what

    def test_the_position_stays_inside_the_video_and_moves_on_unless_somebody_seeks(self) -> None:
        at: dict[str, int] = {}
        for event in made(20_000, seed=4):
            position, session = event["position_ms"], event["session_id"]
            assert 0 <= position <= (event["duration_ms"] or math.inf)
            if event["action"] != "seek":
                assert position >= at.get(session, 0)
            assert (event["action"] == "complete") == (position == event["duration_ms"])
            at[session] = position

    def test_a_live_stream_has_no_length_and_cannot_be_sought_in(self) -> None:
        live = [event for event in made(20_000, seed=16) if event["is_live"]]
        assert live
        assert {event["duration_ms"] for event in live} == {None}
        assert {event["action"] for event in live} == {"start", "pause", "resume", "stop"}

    def test_many_sessions_go_on_at_once_so_that_keys_interleave(self) -> None:
        users = [event["user_id"] for event in made(5_000, seed=5)]
        repeats = sum(one == another for one, another in itertools.pairwise(users))
        assert repeats < 0.05 * len(users)


class TestPeople:
    def test_some_users_and_videos_are_far_more_busy_than_others(self) -> None:
        events = made(50_000, seed=6)
        for field, known in (("user_id", 10_000), ("video_id", 2_000)):
            numbers = [number for _, number in Counter(event[field] for event in events).most_common()]
            assert sum(numbers[: known // 10]) > 0.25 * len(events)
            assert len(numbers) > known // 4

    def test_a_user_has_a_country_and_one_to_three_devices_that_stay_the_same(self) -> None:
        countries: dict[str, set[str]] = defaultdict(set)
        devices: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for seed in (7, 8):
            seen: dict[str, set[tuple[str, str]]] = defaultdict(set)
            for event in made(20_000, seed=seed, users=50):
                countries[event["user_id"]].add(event["country"])
                seen[event["user_id"]].add((event["device"], event["app_version"]))
            assert devices in ({}, seen)
            devices = seen
        assert {len(of_one) for of_one in countries.values()} == {1}
        assert {len(of_one) for of_one in devices.values()} == {1, 2, 3}


class TestSeed:
    @given(st.integers())
    def test_the_same_seed_gives_the_same_events(self, seed: int) -> None:
        assert made(30, seed=seed, invalid_ratio=0.3) == made(30, seed=seed, invalid_ratio=0.3)

    def test_another_seed_gives_other_events(self) -> None:
        assert made(30, seed=1) != made(30, seed=2)
        assert made(30) != made(30)

    def test_the_valid_events_do_not_depend_on_the_share_of_broken_ones(self) -> None:
        whole = made(1_000, seed=9)
        generator = DummyDataGenerator(seed=9, invalid_ratio=0.2, clock=ManualClock())
        pairs = [(generator.generate(), event) for event in whole]
        assert all(generated.event == event for generated, event in pairs if generated.broken is None)
        assert 100 < sum(generated.broken is not None for generated, _ in pairs) < 300


class TestBrokenEvents:
    @pytest.mark.parametrize(
        ("kind", "rules"),
        [
            (InvalidKind.MISSING_FIELD, {"missing_field"}),
            (InvalidKind.UNKNOWN_FIELD, {"unknown_field"}),
            (InvalidKind.UNEXPECTED_NULL, {"wrong_type"}),
            (InvalidKind.WRONG_TYPE, {"wrong_type"}),
            (InvalidKind.NUMBER_AS_TEXT, {"wrong_type"}),
            (InvalidKind.BOOLEAN_AS_NUMBER, {"wrong_type"}),
            (InvalidKind.OUT_OF_RANGE, {"out_of_range"}),
            (InvalidKind.NOT_FINITE, {"not_finite"}),
            (InvalidKind.NOT_IN_ENUM, {"not_in_enum"}),
        ],
    )
    def test_each_kind_breaks_the_contract_in_exactly_one_place(self, kind: InvalidKind, rules: set[str]) -> None:
        for event in made(300, seed=10, invalid_ratio=1.0, invalid_kinds=[kind]):
            found = violations(event)
            assert len(found) == 1
            assert {violation.rule for violation in found} == rules

    def test_the_generator_says_which_event_is_broken_and_counts(self) -> None:
        generator = DummyDataGenerator(seed=11, invalid_ratio=0.1)
        seen: Counter[InvalidKind] = Counter()
        for _ in range(5_000):
            event, broken = generator.generate()
            assert bool(violations(event)) == (broken is not None)
            if broken is not None:
                seen[broken] += 1
        assert generator.broken == seen
        assert set(seen) == set(InvalidKind)

    def test_the_share_is_the_one_that_was_asked_for(self) -> None:
        """Within four standard deviations; the seed is fixed, so this does not flicker."""
        generator = DummyDataGenerator(seed=12, invalid_ratio=0.02)
        for _ in generator.events(50_000):
            pass
        assert sum(generator.broken.values()) == pytest.approx(1_000, abs=4 * 31.3)

    def test_only_the_named_kinds_are_used(self) -> None:
        kinds = [InvalidKind.NOT_IN_ENUM, InvalidKind.MISSING_FIELD]
        generator = DummyDataGenerator(seed=13, invalid_ratio=0.5, invalid_kinds=kinds)
        for _ in generator.events(200):
            pass
        assert set(generator.broken) == set(kinds)

    def test_without_a_share_nothing_is_broken_and_with_all_everything(self) -> None:
        for ratio, broken in ((0.0, 0), (1.0, 500)):
            generator = DummyDataGenerator(seed=14, invalid_ratio=ratio)
            for _ in generator.events(500):
                pass
            assert sum(generator.broken.values()) == broken


class TestSettings:
    @pytest.mark.parametrize(
        "settings",
        [
            {"users": 0},
            {"videos": -1},
            {"sessions": 0},
            {"invalid_ratio": -0.1},
            {"invalid_ratio": 1.1},
            {"invalid_ratio": float("nan")},
            {"invalid_kinds": []},
        ],
    )
    def test_what_cannot_be_is_refused_with_a_remedy(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError) as caught:
            DummyDataGenerator(**settings)
        assert next(iter(settings)) in caught.value.message
        assert caught.value.remedy

    def test_the_smallest_world_works(self) -> None:
        assert len(made(100, seed=15, users=1, videos=1, sessions=1)) == 100
