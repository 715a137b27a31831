"""What is different between two versions of a schema, in the words of who changed it; not whether that breaks anything.

What a change breaks is what schema resolution says of the two schemas (`compatibility`); `contract_diff` joins both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.schemas.compatibility import join
from postroom.schemas.schema_shape import NAMED, Shape, Slot

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN_CHARACTERS = 40
_SHOWN_SYMBOLS = 5


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One difference. `was` is the path in the old schema where it has another there (a field was renamed)."""

    path: str
    code: str
    text: str
    was: str = ""


def schema_changes(old: Shape, new: Shape) -> list[SchemaChange]:
    """Every difference in the order of the new schema; one type that is used in many places is told once."""
    changes = _Changes()
    changes.types("", old, new)
    return changes.found


class _Changes:
    def __init__(self) -> None:
        self.found: list[SchemaChange] = []
        self._seen: set[tuple[int, int]] = set()

    def tell(self, path: str, code: str, text: str, was: str = "") -> None:
        self.found.append(SchemaChange(path, code, text, was))

    def types(self, path: str, old: Shape, new: Shape) -> None:
        if (id(old), id(new)) in self._seen:
            return
        self._seen.add((id(old), id(new)))
        if old.kind == "union" or new.kind == "union":
            self._unions(path, old, new)
        elif old.kind != new.kind:
            self.tell(path, "type_changed", f"type changed from {old} to {new}")
        else:
            self._same_kind(path, old, new)

    def _same_kind(self, path: str, old: Shape, new: Shape) -> None:
        if old.kind in NAMED:
            self._names(path, old, new)
        if old.kind == "record":
            self._fields(path, old, new)
        elif old.kind == "enum":
            self._symbols(path, old, new)
        elif old.kind in ("array", "map"):
            assert old.items is not None
            assert new.items is not None
            self.types(_below(path, "[]" if old.kind == "array" else "{}"), old.items, new.items)
        elif old.size != new.size:
            self.tell(path, "size_changed", f"size changed from {old.size} to {new.size} bytes")
        if (old.logical, old.precision, old.scale) != (new.logical, new.precision, new.scale):
            self.tell(path, "logical_type_changed", f"meaning changed from {_meaning(old)} to {_meaning(new)}")

    def _names(self, path: str, old: Shape, new: Shape) -> None:
        if old.short_name != new.short_name:
            joined = " (with an alias)" if old.name in new.aliases else ""
            self.tell(path, "type_renamed", f"{old.kind} renamed from {old.name} to {new.name}{joined}")
        elif old.name != new.name:
            self.tell(path, "namespace_changed", f"{old.kind} moved from {old.name} to {new.name}")
        if old.name == new.name and set(old.aliases) != set(new.aliases):
            self.tell(path, "aliases_changed", f"aliases of {new.kind} {new.short_name} changed")
        if old.doc != new.doc:
            self.tell(path, "doc_changed", f"doc of {new.kind} {new.short_name} {_how(old.doc, new.doc)}")

    # -- records

    def _fields(self, path: str, old: Shape, new: Shape) -> None:
        pairs = [(slot, _before(slot, old, new)) for slot in new.fields]
        for slot, before in pairs:
            here = _below(path, slot.name)
            if before is None:
                has = f"default {_shown(slot.default)}" if slot.has_default else "no default"
                self.tell(here, "field_added", f"field of type {slot.type} added, {has}")
            else:
                self._field(here, before, slot, path)
        kept = [before.name for _, before in pairs if before]
        for slot in old.fields:
            if slot.name not in kept:
                has = "which had a default" if slot.has_default else "which had no default"
                self.tell(_below(path, slot.name), "field_removed", f"field of type {slot.type} removed, {has}")
        if kept != [slot.name for slot in old.fields if slot.name in kept]:
            self.tell(path, "fields_reordered", "fields stand in another order")

    def _field(self, here: str, old: Slot, new: Slot, path: str) -> None:
        if old.name != new.name:
            text = f"field renamed from {old.name} to {new.name} (with an alias)"
            self.tell(here, "field_renamed", text, was=_below(path, old.name))
        elif set(old.aliases) != set(new.aliases):
            self.tell(here, "aliases_changed", "aliases of the field changed")
        if old.doc != new.doc:
            self.tell(here, "doc_changed", f"doc {_how(old.doc, new.doc)}")
        if old.has_default and not new.has_default:
            self.tell(here, "default_removed", f"default {_shown(old.default)} removed")
        elif new.has_default and not old.has_default:
            self.tell(here, "default_added", f"default {_shown(new.default)} added")
        elif _shown(old.default, whole=True) != _shown(new.default, whole=True):
            text = f"default changed from {_shown(old.default)} to {_shown(new.default)}"
            self.tell(here, "default_changed", text)
        self.types(here, old.type, new.type)

    # -- enums and unions

    def _symbols(self, path: str, old: Shape, new: Shape) -> None:
        gone = [symbol for symbol in old.symbols if symbol not in new.symbols]
        come = [symbol for symbol in new.symbols if symbol not in old.symbols]
        if come:
            self.tell(path, "symbols_added", f"enum gets {_some(come)}")
        if gone:
            self.tell(path, "symbols_removed", f"enum loses {_some(gone)}")
        stay = [symbol for symbol in new.symbols if symbol in old.symbols]
        if stay != [symbol for symbol in old.symbols if symbol in new.symbols]:
            self.tell(path, "symbols_reordered", "symbols stand in another order")
        if old.default != new.default:
            text = f"default of the enum changed from {old.default or 'none'} to {new.default or 'none'}"
            self.tell(path, "enum_default_changed", text)

    def _unions(self, path: str, old: Shape, new: Shape) -> None:
        before, after = list(old.branches or (old,)), list(new.branches or (new,))
        pairs = [(one, two) for two in after for one in before if _is_same_branch(one, two)]
        gone = [one for one in before if not any(one is left for left, _ in pairs)]
        come = [two for two in after if not any(two is right for _, right in pairs)]
        if old.kind != new.kind and not gone and not come:
            self.tell(path, "type_changed", f"type changed from a {old.kind} to a {new.kind}: other bytes")
        if len(gone) == len(come) == 1 and "null" not in (gone[0].kind, come[0].kind):
            self.types(path, gone.pop(), come.pop())
        for one in come:
            text = "null is allowed now" if one.kind == "null" else f"may also be {one} now"
            self.tell(path, "branch_added", text)
        for one in gone:
            text = "null is no longer allowed" if one.kind == "null" else f"can no longer be {one}"
            self.tell(path, "branch_removed", text)
        for one, two in pairs:
            self.types(path, one, two)
        order = [before.index(one) for one, _ in pairs]
        if order != sorted(order):
            self.tell(path, "branches_reordered", "branches of the union stand in another order")


def _before(slot: Slot, old: Shape, new: Shape) -> Slot | None:
    """The field that this one was: of the same name, or of an alias, if no new field took that name over."""
    same = old.slot(slot.name)
    if same is not None:
        return same
    renamed = (old.slot(alias) for alias in slot.aliases if new.slot(alias) is None)
    return next((before for before in renamed if before), None)


def _is_same_branch(one: Shape, two: Shape) -> bool:
    if one.kind in NAMED:
        return one.kind == two.kind and (one.name == two.name or one.name in two.aliases)
    return one.kind == two.kind


def _below(path: str, step: str) -> str:
    return join(path, step) if path else step


def _meaning(shape: Shape) -> str:
    return str(shape) if shape.logical else f"plain {shape.kind}"


def _how(old: str, new: str) -> str:
    return "changed" if old and new else "added" if new else "removed"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN_SYMBOLS]) + (", ..." if len(names) > _SHOWN_SYMBOLS else "")


def _shown(value: object, *, whole: bool = False) -> str:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if whole or len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
