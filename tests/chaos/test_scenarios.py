"""The plan of a run: made from its seed alone, with as much of everything as was asked for."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.chaos.scenarios import MIX, MODES, Kind, amounts, plan


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert plan("1", kills=20, bounces=10) == plan("1", kills=20, bounces=10)
    assert plan("1", kills=20, bounces=10) != plan("2", kills=20, bounces=10)


def test_as_many_faults_of_each_kind_happen_as_were_asked_for() -> None:
    rounds = plan("1", kills=200, bounces=50)
    wanted = amounts(200, 50)
    alone = Counter(fault.kind for one in rounds for fault in one.faults if not (fault.kill_inside and one.name != MIX))
    assert alone == wanted
    assert wanted[Kind.KILL] == 200
    assert wanted[Kind.BOUNCE_CLEAN] + wanted[Kind.BOUNCE_HARD] == 50
    assert [one.number for one in rounds] == list(range(len(rounds)))


def test_a_round_has_one_kind_of_fault_or_is_a_mix() -> None:
    for one in plan("1", kills=200, bounces=50):
        assert one.faults
        assert one.name == MIX or {fault.row for fault in one.faults} == {one.name}


def test_every_kind_happens_alone_in_both_modes_and_in_a_mix() -> None:
    modes: defaultdict[tuple[Kind, bool], set[str]] = defaultdict(set)
    for one in plan("1", kills=200, bounces=50):
        for fault in one.faults:
            modes[fault.kind, one.name == MIX].add(one.write_ahead)
    assert set(modes) == {(kind, is_mix) for kind in Kind for is_mix in (True, False)}
    assert all(found == set(MODES) for (_, is_mix), found in modes.items() if not is_mix)


def test_some_faults_are_shorter_and_some_longer_than_the_patience_of_fifteen_seconds() -> None:
    lasting = [
        fault.seconds for one in plan("1", kills=0, bounces=50) for fault in one.faults if fault.kind is Kind.HALF_OPEN
    ]
    assert min(lasting) < 15 < max(lasting)


def test_a_small_plan_has_no_empty_round() -> None:
    assert all(one.faults for one in plan("1", kills=1, bounces=1))
