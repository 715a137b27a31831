"""What the health report promises: each part's state and since when, two honest answers, and no leak."""

import json
from datetime import UTC, datetime

import pytest

from postroom.observability.health import CheckResult, HealthCheck, Role, State
from postroom.testing.manual_clock import ManualClock

STATES = list(State)


def health_of(role: Role, state: State) -> HealthCheck:
    health = HealthCheck(ManualClock())
    health.add("kafka_client", lambda: State.OK)
    health.add("part", lambda: state, role)
    return health


@pytest.mark.parametrize(
    ("role", "ready", "live"),
    [
        (Role.READINESS, [False, True, True, False], [True, True, True, True]),
        (Role.LIVENESS, [False, True, True, False], [True, True, True, False]),
        (Role.INFORMATION, [True, True, True, True], [True, True, True, True]),
    ],
)
def test_what_a_state_means_depends_on_the_role(role: Role, ready: list[bool], live: list[bool]) -> None:
    """In the order starting, ok, degraded, down."""
    reports = [health_of(role, state).report() for state in STATES]
    assert [report.ready for report in reports] == ready
    assert [report.live for report in reports] == live


def test_without_any_part_it_is_alive_but_not_ready() -> None:
    report = HealthCheck().report()
    assert (report.live, report.ready) == (True, False)


def test_parts_for_information_alone_make_nothing_ready() -> None:
    health = HealthCheck()
    health.add("version", lambda: State.OK, Role.INFORMATION)
    assert not health.report().ready


def test_since_is_when_the_state_was_first_seen() -> None:
    clock = ManualClock(time_ms=1_000_000)
    state = [State.OK]
    health = HealthCheck(clock)
    health.add("registry", lambda: CheckResult(state[0], "the registry does not answer"))
    clock.advance(5)
    assert health.report().components[0].since == datetime.fromtimestamp(1_005, UTC)
    clock.advance(60)
    component = health.report().components[0]
    assert (component.since, component.for_s) == (datetime.fromtimestamp(1_005, UTC), 60.0)
    state[0] = State.DEGRADED
    component = health.report().components[0]
    assert (component.since, component.for_s) == (datetime.fromtimestamp(1_065, UTC), 0.0)


def test_a_jump_of_the_wall_clock_does_not_change_for_how_long() -> None:
    clock = ManualClock()
    health = HealthCheck(clock)
    health.add("part", lambda: State.OK)
    health.report()
    clock.jump_wall_clock(-86_400)
    clock.advance(3)
    assert health.report().components[0].for_s == 3.0


def test_a_check_that_raises_is_down_and_shows_the_class_of_the_error_only() -> None:
    health = HealthCheck(ManualClock())

    def broken() -> State:
        raise KeyError("password=hunter2")

    health.add("broken", broken)
    health.add("fine", lambda: State.OK)
    broken_one, fine = health.report().components
    assert (broken_one.state, broken_one.detail) == (State.DOWN, "the check raised KeyError")
    assert fine.state is State.OK


@pytest.mark.parametrize("nonsense", [None, "well", 3, ("excellent", ""), ()])
def test_a_check_that_answers_nonsense_is_down(nonsense: object) -> None:
    health = HealthCheck(ManualClock())
    health.add("odd", lambda: nonsense)  # type: ignore[arg-type, return-value]  # wrong on purpose
    assert health.report().components[0].state is State.DOWN


def test_a_detail_is_cut_at_200_characters() -> None:
    health = HealthCheck(ManualClock())
    health.add("chatty", lambda: CheckResult(State.OK, "x" * 10_000))
    assert len(health.report().components[0].detail) == 200


def test_parts_are_reported_in_the_order_in_which_they_came_until_removed() -> None:
    health = HealthCheck(ManualClock())
    for name in ("a", "b", "c"):
        health.add(name, lambda: State.OK)
    health.remove("b")
    health.remove("never there")
    assert [component.name for component in health.report().components] == ["a", "c"]


def test_the_json_form_says_the_same() -> None:
    health = HealthCheck(ManualClock(time_ms=1_767_225_600_000))
    health.add("kafka_client", lambda: CheckResult(State.STARTING, "connecting"))
    assert json.loads(json.dumps(health.report().as_json())) == {
        "live": True,
        "ready": False,
        "components": {
            "kafka_client": {
                "state": "starting",
                "role": "readiness",
                "since": "2026-01-01T00:00:00.000Z",
                "for_s": 0.0,
                "detail": "connecting",
            }
        },
    }


def test_the_status_holds_the_report_and_what_the_sources_know() -> None:
    health = health_of(Role.READINESS, State.DEGRADED)
    health.tell(lambda: {"ledger": {"received": 3}})
    status = health.status()
    assert (status["live"], status["ready"], status["ledger"]) == (True, True, {"received": 3})
    assert set(status["components"]) == {"kafka_client", "part"}  # type: ignore[call-overload]
    assert "problems" not in status


def test_a_source_that_raises_costs_only_its_own_part_of_the_status_and_tells_no_text() -> None:
    health = health_of(Role.READINESS, State.OK)

    def broken() -> dict[str, object]:
        raise ValueError("a secret")

    health.tell(broken)
    health.tell(lambda: {"pid": 1})
    status = health.status()
    assert (status["pid"], status["problems"], status["ready"]) == (1, ["ValueError"], True)
    assert "secret" not in json.dumps(status)
