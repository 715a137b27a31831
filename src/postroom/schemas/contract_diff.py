"""Two versions of a contract side by side: every change, and what it breaks under which level of compatibility."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postroom.schemas.compatibility import breaks
from postroom.schemas.contract_changes import Change, contract_changes, version_change
from postroom.schemas.registry_protocol import Compatibility
from postroom.schemas.schema_changes import SchemaChange, schema_changes
from postroom.schemas.schema_shape import shape_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.schemas.compatibility import Break
    from postroom.schemas.data_contracts import Contract

_EXPLAINED_BY: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "type_mismatch": (("type_changed", "branch_removed"), ("type_changed", "branch_added")),
    "name_mismatch": (("type_renamed", "branch_removed"), ("type_renamed", "branch_added")),
    "field_without_default": (("field_added", "field_renamed"), ("field_removed", "field_renamed")),
    "field_ambiguous": (("aliases_changed", "field_renamed"), ("aliases_changed", "field_removed")),
    "symbols_missing": (("symbols_removed",), ("symbols_added",)),
    "size_mismatch": (("size_changed",), ("size_changed",)),
    "branch_missing": (
        ("branch_removed", "type_changed", "type_renamed"),
        ("branch_added", "type_changed", "type_renamed"),
    ),
    "branch_order": (("branches_reordered", "branch_added"), ("branches_reordered", "branch_removed")),
    "text_from_bytes": (("type_changed", "branch_removed"), ("type_changed", "branch_added")),
    "decimal_mismatch": (("logical_type_changed",), ("logical_type_changed",)),
    "meaning_mismatch": (("logical_type_changed", "type_changed"), ("logical_type_changed", "type_changed")),
}
"""Which changes at the path of a misfit explain it: when the new schema reads, and when the old one does."""


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared: a contract, or only a schema of a registry. `label` is what people call it."""

    label: str
    schema: object
    contract: Contract | None = None


def diff(new: Side, earlier: Sequence[Side]) -> list[Change]:
    """Every change from the last of the `earlier` to `new`, and after them what breaks in comparison with older ones.

    The schemas are ones that `avro_schema.try_schema` has found right; `earlier` is not empty.
    """
    old = earlier[-1]
    found: list[Change] = []
    if old.contract is not None and new.contract is not None:
        found += contract_changes(old.contract, new.contract)
    shapes, shape = [shape_of(side.schema) for side in earlier], shape_of(new.schema)
    broken = breaks(shape, shapes, Compatibility.FULL_TRANSITIVE)
    last = len(earlier) - 1
    found += _joined(schema_changes(shapes[-1], shape), [one for one in broken if one.earlier == last])
    if old.contract is not None and new.contract is not None and found:
        found += version_change(old.contract.version, new.contract.version)
    for one in broken:
        if one.earlier != last:
            found.append(_alone(one, earlier[one.earlier].label))
    return found


def breaking(changes: Sequence[Change], level: Compatibility) -> list[Change]:
    """Those that break what the level asks for."""
    return [change for change in changes if change.is_breaking(level)]


def _joined(changes: Sequence[SchemaChange], broken: Sequence[Break]) -> list[Change]:
    """The changes with their misfits; a misfit that no change explains stands alone."""
    caused: dict[int, list[Break]] = {at: [] for at in range(len(changes))}
    alone = []
    for one in broken:
        at = _cause(changes, one)
        if at is None:
            alone.append(_alone(one, ""))
        else:
            caused[at].append(one)
    return [_with_breaks(change, caused[at]) for at, change in enumerate(changes)] + alone


def _cause(changes: Sequence[SchemaChange], one: Break) -> int | None:
    backward, forward = _EXPLAINED_BY[one.misfit.code]
    for code in backward if one.backward else forward:
        for at, change in enumerate(changes):
            if change.code == code and one.misfit.path in (change.path, change.was or change.path):
                return at
    return None


def _with_breaks(change: SchemaChange, broken: Sequence[Break]) -> Change:
    return Change(
        change.path,
        change.code,
        change.text,
        tuple(one.misfit.text for one in broken if one.backward),
        tuple(one.misfit.text for one in broken if not one.backward),
        bool(broken) and all(one.misfit.silent for one in broken),
    )


def _alone(one: Break, against: str) -> Change:
    misfit, why = one.misfit, (one.misfit.text,)
    backward, forward = (why, ()) if one.backward else ((), why)
    return Change(misfit.path, misfit.code, misfit.text, backward, forward, misfit.silent, against=against)
