"""Tries what a contract says about itself: its examples are good events, and each rule stops its known-bad one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.schemas.event_checker import find_violations
from postroom.schemas.json_reader import from_json

if TYPE_CHECKING:
    from postroom.libs.event import Violation
    from postroom.schemas.data_contracts import Contract
    from postroom.schemas.rule_set import Rule


@dataclass(frozen=True, slots=True)
class Tried:
    """How an example did. `number` counts from 1; without violations it is as good as it says."""

    number: int
    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True)
class TriedRule:
    """A rule and where its known-bad event breaks it; `not_tried` says why, for a rule that does not run here."""

    rule: Rule
    paths: tuple[str, ...] = ()
    not_tried: str = ""


def try_examples(contract: Contract) -> list[Tried]:
    """The outcome of each example, in their order. A good event breaks no rule, not even one that only counts."""
    return [
        Tried(number, _violations(contract, example))
        for number, example in enumerate(contract.governance.examples, start=1)
    ]


def _violations(contract: Contract, example: object) -> tuple[Violation, ...]:
    event = from_json(contract, example)
    found = tuple(find_violations(contract.avro.root, event))
    if found or contract.conditions is None:
        return found
    return tuple(failure.violation for failure in contract.conditions.failures(event))


def try_known_bad(contract: Contract) -> list[TriedRule]:
    """Each rule with what its known-bad event showed, in the contract's order.

    That the event breaks this rule and no other was found when the contract was loaded: else it had not been.
    """
    return [_tried(contract, rule) for rule in contract.rules]


def _tried(contract: Contract, rule: Rule) -> TriedRule:
    if not rule.runs_here or contract.conditions is None:
        return TriedRule(rule, not_tried="disabled" if rule.disabled else "for readers")
    failures = contract.conditions.failures(from_json(contract, contract.known_bad[rule.name]))
    return TriedRule(rule, tuple(dict.fromkeys(failure.violation.path or "event" for failure in failures)))
