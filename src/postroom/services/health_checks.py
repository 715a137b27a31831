"""How the parts of a producer service are: what `/readyz` and `postroom run` show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from postroom.observability.health import CheckResult, HealthCheck, Role, State

if TYPE_CHECKING:
    from postroom.services.producer_service import ProducerService


@runtime_checkable
class _Connected(Protocol):
    def connection(self) -> tuple[bool | None, float, str]: ...

    def alive(self) -> bool: ...


def health_of(service: ProducerService) -> HealthCheck:
    """Return the checks of a running service, one for each of its parts and one for its books."""
    health = HealthCheck()
    health.add("poll_thread", lambda: _poll_thread(service), Role.LIVENESS)
    health.add("kafka_client", lambda: _kafka_client(service))
    health.add("schema_validator", lambda: _schema_validator(service))
    health.add("schema_registry", lambda: _schema_registry(service), Role.INFORMATION)
    health.add("rate_limiter", lambda: _rate_limiter(service), Role.INFORMATION)
    health.add("dead_letters", lambda: _dead_letters(service), Role.INFORMATION)
    health.add("ledger", lambda: _ledger(service), Role.INFORMATION)
    return health


def _poll_thread(service: ProducerService) -> CheckResult:
    publisher = service.parts.publisher
    if isinstance(publisher, _Connected) and not publisher.alive():
        return CheckResult(State.DOWN, "the thread that serves Kafka has ended")
    return CheckResult(State.OK)


def _kafka_client(service: ProducerService) -> CheckResult:
    publisher = service.parts.publisher
    if not isinstance(publisher, _Connected):
        return CheckResult(State.OK)
    connected, _, problem = publisher.connection()
    if connected is None:
        return CheckResult(State.STARTING, problem or "no broker has answered yet")
    if not connected:
        return CheckResult(State.DOWN, f"no broker connection: {problem or 'unknown reason'}")
    return CheckResult(State.OK, f"{service.parts.publisher.in_flight()} records unacknowledged")


def _schema_validator(service: ProducerService) -> CheckResult:
    lanes = service.parts.lanes
    ready = [name for name, lane in lanes.items() if lane.schema_id is not None]
    if not ready:
        return CheckResult(State.DOWN, "no contract has a schema id")
    if len(ready) < len(lanes):
        return CheckResult(State.DEGRADED, f"{len(lanes) - len(ready)} of {len(lanes)} contracts wait for the registry")
    return CheckResult(State.OK, f"{len(lanes)} contracts")


def _schema_registry(service: ProducerService) -> CheckResult:
    problem = service.parts.registry_problem
    return CheckResult(State.DOWN, problem) if problem else CheckResult(State.OK)


def _rate_limiter(service: ProducerService) -> CheckResult:
    limiter = service.parts.limiter
    rate = limiter.events_per_second
    if rate is None:
        return CheckResult(State.OK, "no limit")
    wait_s = limiter.retry_after()
    return CheckResult(State.OK, f"{rate:g} events/s, next in {wait_s:.3g} s")


def _dead_letters(service: ProducerService) -> CheckResult:
    count = service.ledger.total().dead_lettered
    return CheckResult(State.DEGRADED if count else State.OK, f"{count} since the start")


def _ledger(service: ProducerService) -> CheckResult:
    balance = service.ledger.total()
    if balance.unaccounted:
        return CheckResult(State.DOWN, f"{balance.unaccounted} events unaccounted")
    return CheckResult(State.OK, f"{balance.received} received, {balance.pending} pending")
