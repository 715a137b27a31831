"""`python -m benchmarks.rules`: what five rules cost for each event, beside the official AvroSerializer with the same.

CPU time of one process, several rounds, the two taking turns; each round's figures are compared with each other. The
official client needs a registry that keeps rules: a small stand-in, asked once and silent afterwards, speaks as much of
Confluent's API as it takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.rules.cel.cel_executor import CelExecutor
from confluent_kafka.schema_registry.rules.cel.cel_field_executor import CelFieldExecutor
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError

from benchmarks.workload import event_pool
from postroom.schemas.avro_codec import frame
from postroom.schemas.data_contracts import load_contract

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.schemas.data_contracts import Contract

CONTRACT = Path(__file__).parent.parent / "examples" / "contracts" / "user_event_with_rules.yaml"
_SCHEMA_ID = 1
_SUBJECT = "user_events-value"


class Figures(msgspec.Struct, frozen=True):
    """CPU microseconds for one event: the medians of the rounds, and what the rounds' own ratios came to."""

    rules: float
    encoding: float
    checked: float
    official: float
    official_without_rules: float
    times_cheaper: float
    times_cheaper_least: float


def ruled_contract() -> Contract:
    """Return the example contract: thirteen fields, five rules, one of them over a tagged field."""
    return load_contract(CONTRACT)


def ruled_events(count: int) -> list[dict[str, Any]]:
    """Return events of that contract that keep every rule, with a value for each rule to look at.

    All are live: version 2.16 of the official client takes a boolean field that is false for a failed rule of type
    CEL_FIELD, also when the rule does not choose that field.
    """
    return [{**event, "is_live": True, "email": "somebody@example.com"} for event in event_pool(count)]


class StandIn:
    """A registry with one schema and its rules; for the official client in this benchmark only."""

    def __init__(self, contract: Contract, *, with_rules: bool) -> None:
        answer: dict[str, Any] = {
            "subject": _SUBJECT,
            "version": 1,
            "id": _SCHEMA_ID,
            "schemaType": "AVRO",
            "schema": contract.schema_json,
        }
        if with_rules:
            # What a failure leads to is the caller's there: ERROR for all, and no event of this benchmark fails.
            rules = [{**rule.as_json(), "onFailure": "ERROR"} for rule in contract.rules]
            # Without metadata: version 2.16 fails on its tags (lists cannot be hashed). The rule's is in the schema.
            answer |= {"ruleSet": {"domainRules": rules}}
        body = json.dumps(answer).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_known = self.path.startswith(("/subjects/", "/schemas/"))
                told = body if is_known else b'{"error_code": 404, "message": "not here"}'
                self.send_response(200 if is_known else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def official(url: str) -> Callable[[dict[str, Any]], object]:
    """Return the official serializer as a function of an event; it asks the registry at its first event."""
    CelExecutor.register()  # type: ignore[no-untyped-call]
    CelFieldExecutor.register()  # type: ignore[no-untyped-call]
    settings = {
        "auto.register.schemas": False,
        "use.latest.version": True,
        "subject.name.strategy": topic_subject_name_strategy,
    }
    serializer = AvroSerializer(SchemaRegistryClient({"url": url}), conf=settings)
    context = SerializationContext("user_events", MessageField.VALUE)
    return lambda event: serializer(event, context)


def filled(contract: Contract, event: dict[str, Any]) -> dict[str, Any]:
    """Return the event with its defaults: the official client's rules do not know them."""
    return {field["name"]: event.get(field["name"], field.get("default")) for field in contract.schema["fields"]}


def check_verdicts(contract: Contract, serialize: Callable[[dict[str, Any]], object]) -> None:
    """Raise unless both reject exactly the same events: a peer that skips its rules would be cheap."""
    assert contract.conditions is not None
    good = ruled_events(1)[0]
    broken: list[dict[str, Any]] = [
        {"user_id": ""}, {"timestamp": 12}, {"position_ms": 2, "duration_ms": 1}, {"country": "Germany"},
        {"email": "nobody"},
    ]  # fmt: skip
    for change in ({}, *broken):
        event = filled(contract, {**good, **change})
        try:
            serialize(event)
            says_no = False
        except SerializationError:
            says_no = True
        if says_no != bool(contract.conditions.failures(event)) or says_no != bool(change):
            raise AssertionError(f"the two disagree about an event with another {', '.join(change) or 'nothing'}")


def _per_event(step: Callable[[dict[str, Any]], object], events: Sequence[dict[str, Any]]) -> float:
    for event in events[:50]:
        step(event)
    began = time.process_time_ns()
    for event in events:
        step(event)
    return (time.process_time_ns() - began) / len(events) / 1_000


def measure(events: int, rounds: int) -> Figures:
    """Return the figures over `rounds` rounds of `events` events; the official client takes a tenth of them."""
    contract = ruled_contract()
    conditions, encode, prefix = contract.conditions, contract.codec.encode, frame(_SCHEMA_ID)
    assert conditions is not None
    failures = conditions.failures

    def checked(event: dict[str, Any]) -> bytes | None:
        value = encode(event, prefix)
        return value if value is None or not failures(event) else None

    pool = [filled(contract, event) for event in ruled_events(events)]
    few = pool[: max(events // 10, 50)]
    registries = [StandIn(contract, with_rules=True), StandIn(contract, with_rules=False)]
    try:
        with_rules, without = (official(registry.url) for registry in registries)
        check_verdicts(contract, with_rules)
        assert all(checked(event) is not None for event in few)
        taken = [
            (
                _per_event(failures, pool),
                _per_event(lambda event: encode(event, prefix), pool),
                _per_event(checked, pool),
                _per_event(with_rules, few),
                _per_event(without, few),
            )
            for _ in range(rounds)
        ]
    finally:
        for registry in registries:
            registry.close()
    ratios = [theirs / ours for _, _, ours, theirs, _ in taken]
    rules, encoding, ours, theirs, plain = (statistics.median(column) for column in zip(*taken, strict=True))
    return Figures(rules, encoding, ours, theirs, plain, statistics.median(ratios), min(ratios))


def main(given: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, metavar="N", help="events a round (20000)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds (7)")
    asked = parser.parse_args(given)
    figures = measure(asked.events, asked.rounds)
    print("| step | CPU us an event |\n|---|---|")
    print(f"| postroom: five rules | {figures.rules:.1f} |")
    print(f"| postroom: strict check and Avro | {figures.encoding:.1f} |")
    print(f"| postroom: check, Avro and five rules | {figures.checked:.1f} |")
    print(f"| official AvroSerializer, the same five rules | {figures.official:.0f} |")
    print(f"| official AvroSerializer, no rules | {figures.official_without_rules:.1f} |")
    print(f"\n{figures.times_cheaper:.0f} times cheaper (in the closest round {figures.times_cheaper_least:.0f} times)")


if __name__ == "__main__":
    main(sys.argv[1:])
