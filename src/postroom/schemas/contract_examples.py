"""Tries the examples of a contract: good events, each of which has to be valid and to come back as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.schemas.event_checker import find_violations
from postroom.schemas.json_reader import from_json

if TYPE_CHECKING:
    from postroom.libs.event import Violation
    from postroom.schemas.data_contracts import Contract


@dataclass(frozen=True, slots=True)
class Tried:
    """How an example did. `number` counts from 1; without violations it is as good as it says."""

    number: int
    violations: tuple[Violation, ...]


def try_examples(contract: Contract) -> list[Tried]:
    """The outcome of each example, in their order."""
    return [
        Tried(number, tuple(find_violations(contract.avro.root, from_json(contract, example))))
        for number, example in enumerate(contract.governance.examples, start=1)
    ]
