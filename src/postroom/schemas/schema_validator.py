"""Checks events against their contracts before anything is sent: strict, no coercion, every violation at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.exceptions import ValidationError
from postroom.schemas.data_contracts import find_contract, packaged_contracts
from postroom.schemas.event_checker import find_violations

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.libs.event import Violation
    from postroom.schemas.data_contracts import Contract

_USER_EVENT = "user_event"


class SchemaValidator:
    """Checks events of the given contracts, by default of the packaged ones. Safe to share between threads."""

    def __init__(self, contracts: Mapping[str, Contract] | None = None) -> None:
        self._contracts = packaged_contracts() if contracts is None else dict(contracts)

    def validate(self, event_type: str, event: object) -> list[Violation]:
        """Every way in which the event breaks the contract of its type, in the order of the schema; empty when valid.

        Rules are tried on an event that keeps the schema; those that only count (`onFailure: NONE`) are not told.
        Raises ContractNotFoundError for an unknown type, and nothing on account of the event, whatever it is.
        """
        contract = find_contract(self._contracts, event_type)
        if contract.codec.encode(event) is not None:
            return [] if contract.conditions is None else contract.conditions.violations(event)
        return find_violations(contract.avro.root, event)

    def validate_user_event(self, event: object) -> bool:
        """True for a valid `user_event`; raises ValidationError with every violation for any other."""
        violations = self.validate(_USER_EVENT, event)
        if violations:
            raise ValidationError(_USER_EVENT, violations)
        return True


def validate(event_type: str, event: object) -> list[Violation]:
    """As `SchemaValidator.validate`, by the packaged contracts."""
    return SchemaValidator().validate(event_type, event)


def validate_user_event(event: object) -> bool:
    """As `SchemaValidator.validate_user_event`, by the packaged contract."""
    return SchemaValidator().validate_user_event(event)
