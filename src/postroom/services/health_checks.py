"""How the parts of a producer service are: what `/readyz`, `/status` and the commands show.

Ready is who can make an event safe now. With a spool that takes records that is so although Kafka is away; it is not
so, spool or no spool, while something keeps records of a topic from Kafka that only a person can mend. Without a spool
that is known from records that failed, and forgotten a minute after the last one: nobody probes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.event import FailedReason
from postroom.observability.health import CheckResult, HealthCheck, Role, State
from postroom.services.spool_view import PathView, SpoolSummary, paths_of, spool_of

if TYPE_CHECKING:
    from postroom.services.ledger import Balance
    from postroom.services.producer_service import ProducerService

REMEDIES = {
    FailedReason.TOPIC_MISSING.value: "create it: postroom topics create",
    FailedReason.NOT_AUTHORIZED.value: "check user, password and ACLs",
}
"""Why Kafka does not take records of a topic, as far as only a person can mend it, and what that person can do."""

_TOLD_PATHS = 3
_SHARE_TO_LOOK_AT = 0.5


@runtime_checkable
class _HasThread(Protocol):
    def alive(self) -> bool: ...


def health_of(service: ProducerService, clock: Clock = SYSTEM_CLOCK) -> HealthCheck:
    """Return the checks of a running service, one for each of its parts and one for its books.

    The status document of the result holds the ledger, the paths and the spool too, see `status_of`. `clock` is the
    service's.
    """
    health = HealthCheck()
    health.add("poll_thread", lambda: _poll_thread(service), Role.LIVENESS)
    health.add("kafka_client", lambda: _kafka_client(service, clock))
    health.add("schema_validator", lambda: _schema_validator(service))
    health.add("spool", lambda: _spool(service, clock))
    health.add("paths", lambda: _paths(service, clock))
    health.add("schema_registry", lambda: _schema_registry(service), Role.INFORMATION)
    health.add("topics", lambda: _topics(service), Role.INFORMATION)
    health.add("rate_limiter", lambda: _rate_limiter(service), Role.INFORMATION)
    health.add("dead_letters", lambda: _dead_letters(service), Role.INFORMATION)
    health.add("ledger", lambda: _ledger(service), Role.INFORMATION)
    health.tell(lambda: status_of(service, clock))
    return health


def status_of(service: ProducerService, clock: Clock = SYSTEM_CLOCK) -> dict[str, object]:
    """Return what `/status` shows beside the health: the process, its books, the paths, and the spool or null.

    Holds names, numbers and states, and nothing of any event.
    """
    parts, ledger = service.parts, service.ledger
    books = ledger.by_topic()
    dead_letters, refused, failed = ledger.reasons()
    spool = spool_of(parts, clock)
    return {
        "pid": os.getpid(),
        "ledger": {
            "total": _told(ledger.total()),
            "topics": {topic or "none": _told(balance) for topic, balance in books.items()},
            "dead_letters_by_reason": dead_letters,
            "refused_by_reason": refused,
            "failed_by_reason": failed,
        },
        "paths": msgspec.to_builtins(paths_of(parts, clock)),
        "spool": None if spool is None else _told_spool(spool),
        "schema_ids": msgspec.to_builtins(parts.schema_ids.views()),
    }


def _told(balance: Balance) -> object:
    return msgspec.to_builtins(balance)


def _told_spool(spool: SpoolSummary) -> dict[str, object]:
    told: dict[str, object] = msgspec.to_builtins(spool)
    return told | {"takes": spool.takes, "fullness": round(spool.fullness, 4), "oldest_s": spool.oldest_s}


def _poll_thread(service: ProducerService) -> CheckResult:
    publisher = service.parts.publisher
    if isinstance(publisher, _HasThread) and not publisher.alive():
        return CheckResult(State.DOWN, "the thread that serves Kafka has ended")
    return CheckResult(State.OK)


def _kafka_client(service: ProducerService, clock: Clock) -> CheckResult:
    publisher = service.parts.publisher
    condition = publisher.condition()
    if condition.connected:
        return CheckResult(State.OK, f"{publisher.in_flight()} records unacknowledged")
    detail = condition.problem or "no broker has answered yet"
    if condition.connected is False:
        detail = f"no broker connection: {condition.problem or 'unknown reason'}"
    spool = spool_of(service.parts, clock)
    if spool is not None and spool.takes:
        return CheckResult(State.DEGRADED, f"{detail}; events go to the spool")
    return CheckResult(State.STARTING if condition.connected is None else State.DOWN, detail)


def _spool(service: ProducerService, clock: Clock) -> CheckResult:
    spool = spool_of(service.parts, clock)
    if spool is None:
        return CheckResult(State.OK, "none: what Kafka does not take fails")
    detail = _spool_detail(spool)
    if spool.takes:
        is_worth_a_look = spool.quarantined or spool.newer_slots or spool.rejected
        is_filling = spool.fullness >= _SHARE_TO_LOOK_AT
        return CheckResult(State.DEGRADED if is_worth_a_look or is_filling else State.OK, detail)
    if service.parts.config.spool.write_ahead == "fsync":
        return CheckResult(State.DOWN, f"{detail}; every event is written there first")
    if _kafka_takes(service, clock):
        return CheckResult(State.DEGRADED, f"{detail}; Kafka takes events")
    return CheckResult(State.DOWN, f"{detail}; Kafka takes none either")


def _spool_detail(spool: SpoolSummary) -> str:
    parts = []
    if not spool.slots:
        parts.append("not running")
    elif spool.refusing_for_s is not None:
        parts.append(f"the disk takes nothing for {spool.refusing_for_s:.0f} s")
    elif spool.is_full:
        parts.append("full")
    parts.append(f"{spool.waiting} waiting, {spool.fullness:.0%} full")
    if spool.oldest_s is not None:
        parts.append(f"oldest waits {spool.oldest_s:.0f} s")
    for count, what in (
        (spool.rejected, "dead letters refused by the broker"),
        (spool.quarantined, "files in quarantine"),
        (len(spool.newer_slots), "slots of a newer version"),
    ):
        if count:
            parts.append(f"{count} {what}")
    return ", ".join(parts)


def _kafka_takes(service: ProducerService, clock: Clock) -> bool:
    """True unless no broker is connected, or some topic's records would go to the spool now."""
    if service.parts.publisher.condition().connected is not True:
        return False
    return all(path.state in {"direct", "draining"} for path in paths_of(service.parts, clock))


def _paths(service: ProducerService, clock: Clock) -> CheckResult:
    closed = [path for path in paths_of(service.parts, clock) if not path.is_direct]
    broken = [path for path in closed if path.problem in REMEDIES]
    if not closed:
        return CheckResult(State.OK, "all direct")
    told = [_path_detail(path) for path in (broken or closed)[:_TOLD_PATHS]]
    if more := len(broken or closed) - len(told):
        told.append(f"{more} more")
    return CheckResult(State.DOWN if broken else State.DEGRADED, "; ".join(told))


def _path_detail(path: PathView) -> str:
    problem = ""
    if path.problem is not None:
        problem = f", {path.problem}"
        if path.problem in REMEDIES:
            problem += f": {REMEDIES[path.problem]}"
    return f"{path.topic} {path.state} for {path.for_s:.0f} s{problem}"


def _schema_validator(service: ProducerService) -> CheckResult:
    lanes = service.parts.lanes
    ready = [name for name, lane in lanes.items() if lane.schema_id is not None]
    if not ready:
        return CheckResult(State.DOWN, "no contract has a schema id")
    if len(ready) < len(lanes):
        return CheckResult(State.DEGRADED, f"{len(lanes) - len(ready)} of {len(lanes)} contracts wait for the registry")
    return CheckResult(State.OK, f"{len(lanes)} contracts")


def _schema_registry(service: ProducerService) -> CheckResult:
    ids = service.parts.schema_ids
    problem, views = ids.problem, ids.views()
    if not problem:
        return CheckResult(State.OK)
    closed = [view for view in views if view.state == "closed"]
    stale = [view.confirmed for view in views if view.state == "stale" and view.confirmed is not None]
    told = [problem]
    if stale:
        told.append(f"last known schema ids in use: {len(stale)}, stale since {min(stale)}")
    if closed:
        told.append(f"contracts that take no events: {len(closed)}")
    return CheckResult(State.DOWN if closed else State.DEGRADED, "; ".join(told))


def _topics(service: ProducerService) -> CheckResult:
    check = service.parts.topic_check
    if check is None or not check.found:
        return CheckResult(State.OK)
    told = [f"{one.topic}: {one.problem}" for one in check.found[:_TOLD_PATHS]]
    if more := len(check.found) - len(told):
        told.append(f"{more} more")
    return CheckResult(State.DEGRADED, "; ".join(told))


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
