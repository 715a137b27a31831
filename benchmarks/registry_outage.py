"""`python -m benchmarks.registry_outage`: how long publish_event takes while the registry is up, away, slow, mad."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from benchmarks.registry_gateway import SLOW_S, Gateway
from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLettered, Delivered
from postroom.libs.logger import configure_logging
from postroom.observability.metrics import Metrics
from postroom.schemas.data_contracts import Contract, contract_from_short_form
from postroom.schemas.registration import registration_of
from postroom.schemas.schema_registry_client import SchemaRegistryClient
from postroom.services import schema_ids
from postroom.services.producer_service import ProducerService
from postroom.testing.local_stack import LocalStack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.services.receipt import Receipt

CONTRACTS = 5
EVERY_BROKEN = 100
"""One event in so many breaks its contract."""

ASKED_EVERY_SECOND = {"STALE_PAUSES_S": (1.0,), "REFUSED_STALE_S": 1.0}
"""Pauses of `services.schema_ids` for a service that asks as often as it ever may; 5 to 60 s are usual."""

_FIRST_QUESTION_S = 15.0
_FIELDS = {"user_id": "string", "timestamp": "long", "text": "string"}
_TEXT = "x" * 170
_PATIENCE_S = 60.0
PHASES = ("up", "away", "up again", "slow", "hanging", "rubbish", "up at last")


class Phase(msgspec.Struct, frozen=True):
    """One state of the registry: how long `publish_event` took, in microseconds, and what the service asked meanwhile.

    `questions` are the connections that it opened to the registry, `states` those of the schema ids at the end.
    """

    name: str
    events: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    questions: int
    states: dict[str, int]


def contracts(prefix: str) -> dict[str, Contract]:
    """Make the contracts, each with a topic of its own."""
    names = [f"{prefix}{number}" for number in range(CONTRACTS)]
    return {name: contract_from_short_form(name, _FIELDS, topic=name, key_field="user_id") for name in names}


def events(count: int) -> Iterator[dict[str, object]]:
    """Give events, one in a hundred broken."""
    for number in range(count):
        broken = number % EVERY_BROKEN == EVERY_BROKEN - 1
        yield {"user_id": f"user-{number % 1000}", "timestamp": "now" if broken else number, "text": _TEXT}


class Load:
    """Hands events in at a steady rate and measures each call."""

    def __init__(self, service: ProducerService, names: list[str], rate: int) -> None:
        self._service = service
        self._names = names
        self._rate = rate
        self._open: list[Receipt] = []
        self._outcomes: Counter[str] = Counter()
        self.handed_in = 0

    def run(self, seconds: float) -> list[int]:
        """Publish for so long; how many nanoseconds each call took."""
        took: list[int] = []
        names, publish = self._names, self._service.publish_event
        count = round(seconds * self._rate)
        began = time.perf_counter()
        for number, event in enumerate(events(count)):
            due = began + number / self._rate
            if (ahead := due - time.perf_counter()) > 0.001:
                time.sleep(ahead)
            before = time.perf_counter_ns()
            receipt = publish(event, event_type=names[number % len(names)])
            took.append(time.perf_counter_ns() - before)
            self._open.append(receipt)
        self.handed_in += count
        return took

    def outcomes(self) -> Counter[str]:
        """Wait for all outcomes; how many there are of each kind, from the beginning on.

        The receipts are let go: a hundred thousand of them make the collector of garbage stop everything for 0.2 s.
        """
        self._outcomes.update(type(receipt.result(_PATIENCE_S)).__name__ for receipt in self._open)
        self._open.clear()
        return self._outcomes


class World:
    """A real Kafka, a real registry behind a gateway, and services that ask it."""

    def __init__(self, stack: LocalStack, gateway: Gateway, copies: str, prefix: str) -> None:
        self._stack = stack
        self._gateway = gateway
        self.contracts = contracts(prefix)
        self.url = f"http://127.0.0.1:{gateway.port}/apis/ccompat/v7"
        self.ids = {}
        with SchemaRegistryClient(stack.registry_url) as client:
            for one in self.contracts.values():
                self.ids[one.name] = client.register(f"{one.topic}-value", registration_of(one))
        for name in self.contracts:
            stack.create_topic(name, partitions=2)
            stack.create_topic(f"{name}.dlq", partitions=1)
        self.config = load_config(
            environ={},
            overrides={
                "broker": stack.bootstrap,
                "contracts.default": next(iter(self.contracts)),
                "schema_registry.url": self.url,
                "schema_registry.copies_dir": copies,
                "schema_registry.refresh_s": 1,
                "schema_registry.timeout_s": 2 * SLOW_S,
            },
        )

    def service(self) -> ProducerService:
        """Make a service; each has the same copies."""
        return ProducerService(self.config, contracts=self.contracts, metrics=Metrics())

    def enter(self, phase: str) -> None:
        """Bring the registry into the state of this phase; returns when it is there."""
        registry = self._stack.registry
        if phase == "away":
            registry.kill()
        elif not registry.running:
            registry.start()
        modes = {"slow": "slow", "hanging": "hang", "rubbish": "rubbish"}
        self._gateway.tell(modes.get(phase, "relay"))

    def measure(self, load: Load, service: ProducerService, phase: str, seconds: float) -> Phase:
        """Publish for so long in this phase."""
        self.enter(phase)
        end = time.monotonic() + _FIRST_QUESTION_S
        load.run(1.0)  # what the change itself costs is not what is asked
        while not self._gateway.taken() and time.monotonic() < end:  # a question of the phase before may still hang
            load.run(0.5)
        load.outcomes()
        took = sorted(load.run(seconds))
        states = Counter(view.state for view in service.parts.schema_ids.views())

        def at(share: float) -> float:
            return took[min(int(len(took) * share), len(took) - 1)] / 1000

        return Phase(
            name=phase,
            events=len(took),
            p50_us=at(0.5),
            p99_us=at(0.99),
            p999_us=at(0.999),
            max_us=took[-1] / 1000,
            questions=self._gateway.taken(),
            states=dict(states),
        )


def judged(counted: Counter[str], handed_in: int) -> str:
    """Say what became of the events."""
    good, broken = counted[Delivered.__name__], counted[DeadLettered.__name__]
    return f"{handed_in} events: {good} delivered, {broken} dead letters, {handed_in - good - broken} lost or refused"


def measure_all(seconds: float, rate: int, rounds: int) -> tuple[list[list[Phase]], str]:
    """Run the rounds in one service; the phases of each, and what became of the events."""
    with (
        LocalStack(progress=_say) as stack,
        Gateway(stack.registry.port) as gateway,
        tempfile.TemporaryDirectory() as copies,
    ):
        world = World(stack, gateway, copies, "measured")
        with world.service() as service:
            load = Load(service, list(world.contracts), rate)
            load.run(2.0)
            measured = []
            for number in range(rounds):
                _say(f"round {number + 1} of {rounds}")
                measured.append([world.measure(load, service, phase, seconds) for phase in PHASES])
            return measured, judged(load.outcomes(), load.handed_in)


def table(rounds: list[list[Phase]]) -> str:
    """The median of the rounds for each phase, and the range of p99."""
    lines = ["| registry | p50 | p99 | p99 over that of `up` | p99.9 | longest | questions | schema ids at the end |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for phases in zip(*rounds, strict=True):
        more = [phase.p99_us - ones[0].p99_us for phase, ones in zip(phases, rounds, strict=True)]
        states = ", ".join(f"{count} {state}" for state, count in phases[-1].states.items())
        p50, p99, p999 = (median([getattr(p, f"{name}_us") for p in phases]) for name in ("p50", "p99", "p999"))
        lines.append(
            f"| {phases[0].name} | {p50:.0f} us | {p99:.0f} us "
            f"| {median(more):+.0f} us ({min(more):+.0f} to {max(more):+.0f}) | {p999:.0f} us "
            f"| {max(p.max_us for p in phases) / 1000:.1f} ms | {sum(p.questions for p in phases)} | {states} |"
        )
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registry_outage", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each state of the registry lasts (20)")
    parser.add_argument("--rate", type=int, default=1_000, help="events a second (1000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each with every state (3)")
    asked = parser.parse_args()
    configure_logging("critical", "json")
    for name, pauses in ASKED_EVERY_SECOND.items():
        setattr(schema_ids, name, pauses)
    rounds, told = measure_all(asked.seconds, asked.rate, asked.rounds)
    sys.stdout.write(f"{table(rounds)}\n\n{told}\n")


if __name__ == "__main__":
    main()
