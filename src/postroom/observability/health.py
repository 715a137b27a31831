"""The health of each part, looked at when somebody asks: is it alive, can it take an event now, since when."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from postroom.libs.clock import SYSTEM_CLOCK, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postroom.libs.clock import Clock

_DETAIL_LIMIT = 200


class State(StrEnum):
    """How a part is."""

    STARTING = "starting"  # not yet able to work, and nothing is wrong
    OK = "ok"
    DEGRADED = "degraded"  # works, but somebody should look
    DOWN = "down"


class Role(StrEnum):
    """What the state of a part means for the whole."""

    LIVENESS = "liveness"  # down: the process should be restarted; it cannot be ready either
    READINESS = "readiness"  # down or starting: no event can be made safe now
    INFORMATION = "information"  # shown, decides nothing


class CheckResult(NamedTuple):
    """What a check found: the state and, in a few words without any value of an event, why."""

    state: State
    detail: str = ""


Source: TypeAlias = "Callable[[], Mapping[str, object]]"
"""Gives a part of the status document: plain values, as JSON has them. Called by any thread."""

Check: TypeAlias = "Callable[[], CheckResult | State]"
"""Looks at a part and says how it is. Called by any thread. Reads what is known and waits for nothing, because who asks
about one part waits for all of them."""


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """One part as it was found: since when it is in this state (UTC, when that was first seen), and for how long."""

    name: str
    role: Role
    state: State
    detail: str
    since: datetime
    for_s: float


@dataclass(frozen=True, slots=True)
class HealthReport:
    """All parts, in the order in which they were added, and the two answers made of them."""

    components: tuple[ComponentHealth, ...]

    @property
    def live(self) -> bool:
        """The process and its threads run: no part that liveness depends on is down."""
        return not any(c.role is Role.LIVENESS and c.state is State.DOWN for c in self.components)

    @property
    def ready(self) -> bool:
        """An event can be made safe now. False while no part has been added that could say so."""
        deciding = [c for c in self.components if c.role is not Role.INFORMATION]
        return bool(deciding) and all(c.state in {State.OK, State.DEGRADED} for c in deciding)

    def as_json(self) -> dict[str, object]:
        """For a JSON document: `live`, `ready` and, by name, each part's state, role, since, for_s and detail."""
        return {
            "live": self.live,
            "ready": self.ready,
            "components": {
                c.name: {
                    "state": c.state.value,
                    "role": c.role.value,
                    "since": rfc3339(c.since),
                    "for_s": round(c.for_s, 3),
                    "detail": c.detail,
                }
                for c in self.components
            },
        }


class _Component:
    __slots__ = ("check", "role", "since_ms", "since_s", "state")

    def __init__(self, check: Check, role: Role, clock: Clock) -> None:
        self.check = check
        self.role = role
        self.state = State.STARTING
        self.since_ms = clock.time_ms()
        self.since_s = clock.monotonic()


class HealthCheck:
    """Knows the parts and asks them. Every method may be called by any thread."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._components: dict[str, _Component] = {}
        self._sources: list[Source] = []

    def add(self, name: str, check: Check, role: Role = Role.READINESS) -> None:
        """Ask `check` about the part `name` from now on, in the place of an earlier check of that name."""
        with self._lock:
            self._components[name] = _Component(check, role, self._clock)

    def remove(self, name: str) -> None:
        """Forget a part; one that is not there is no error."""
        with self._lock:
            self._components.pop(name, None)

    def tell(self, source: Source) -> None:
        """Have the status document say, beside the parts, what `source` knows."""
        with self._lock:
            self._sources.append(source)

    def status(self) -> dict[str, object]:
        """The report as JSON has it, and what the sources know.

        A source that raises is left out, and `problems` names the class of the error.
        """
        with self._lock:
            sources = list(self._sources)
        document = self.report().as_json()
        problems = []
        for source in sources:
            try:
                document |= source()
            except Exception as exc:  # noqa: BLE001  the rest is worth having, most of all when something is broken
                problems.append(type(exc).__name__)
        return document | ({"problems": problems} if problems else {})

    def report(self) -> HealthReport:
        """Ask every part now.

        A check that raises counts as down, with the class of the error as the detail: its text could hold anything.
        """
        with self._lock:
            components = list(self._components.items())
        # Outside the lock, so that a slow check holds up nobody but who asked.
        found = [(name, component, _ask(component.check)) for name, component in components]
        with self._lock:
            return HealthReport(tuple(self._noted(*one) for one in found))

    def _noted(self, name: str, component: _Component, result: CheckResult) -> ComponentHealth:
        now_s = self._clock.monotonic()
        if result.state is not component.state:
            component.state = result.state
            component.since_s = now_s
            component.since_ms = self._clock.time_ms()
        return ComponentHealth(
            name=name,
            role=component.role,
            state=result.state,
            detail=result.detail[:_DETAIL_LIMIT],
            since=datetime.fromtimestamp(component.since_ms / 1_000, UTC),
            for_s=now_s - component.since_s,
        )


def _ask(check: Check) -> CheckResult:
    try:
        result = check()
        return CheckResult(result) if isinstance(result, State) else CheckResult(State(result[0]), str(result[1]))
    except Exception as exc:  # noqa: BLE001  whatever a check raises, the part is not well
        return CheckResult(State.DOWN, f"the check raised {type(exc).__name__}")
