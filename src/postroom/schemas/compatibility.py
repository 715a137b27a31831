"""Can data written with one schema be read with another? Avro's schema resolution, each reason with path and code.

    for finding in misfits(reader=shape_of(new), writer=shape_of(old)):
        print(finding)         # total: the reader wants this field, the writer did not write it, and it has no default

The rules are those of Avro 1.12, "Schema Resolution", read as registries read them; where the two differ is listed in
docs/design/0008-contract-versions.md. What no registry refuses although readers then fail or take a value for another
(a decimal with another scale) is a misfit too, marked as `silent`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from postroom.libs.exceptions import InvalidSchemaError
from postroom.schemas.registry_protocol import Compatibility
from postroom.schemas.schema_shape import NAMED, Shape, Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROMOTIONS: Final[dict[str, frozenset[str]]] = {
    "long": frozenset(("int",)),
    "float": frozenset(("int", "long")),
    "double": frozenset(("int", "long", "float")),
    "bytes": frozenset(("string",)),
    "string": frozenset(("bytes",)),
}
"""What a reader of each type may also be given, besides its own."""

RULES: Final[dict[str, str]] = {
    "type_mismatch": "It is an error if the two schemas do not match.",
    "name_mismatch": "To match, one of the following must hold: [...] both schemas are records with the same "
    "(unqualified) name",
    "field_without_default": "if the reader's record schema has a field with no default value, and writer's schema "
    "does not have a field with the same name, an error is signalled.",
    "field_ambiguous": "An implementation may optionally use aliases to map a writer's schema to the reader's.",
    "symbols_missing": "if the writer's symbol is not present in the reader's enum and the reader has a default "
    "value, then that value is used, otherwise an error is signalled.",
    "size_mismatch": "both schemas are fixed whose sizes and (unqualified) names match",
    "branch_missing": "If none matches, an error is signalled.",
    "branch_order": "The first schema in the reader's union that matches the writer's schema is recursively resolved "
    "against it.",
    "text_from_bytes": "bytes is promotable to string",
    "decimal_mismatch": "For the purposes of schema resolution, two schemas that are decimal logical types match if "
    "their scales and precisions match.",
    "meaning_mismatch": "A logical type is always serialized using its underlying Avro type so that values are "
    "encoded in exactly the same way as the equivalent Avro type that does not have a logicalType attribute.",
}
"""Every code of a misfit, with the sentence of the specification that it stands on."""

_MOST_FINDINGS: Final = 100
_MOST_OPEN: Final = 150  # a level takes three calls: within Python's limit of 1,000


@dataclass(frozen=True, slots=True)
class Misfit:
    """One reason why a reader cannot use what a writer wrote.

    `silent`: no registry refuses it, and yet some values cannot be read or are taken for others.
    """

    path: str
    code: str
    text: str
    silent: bool = False

    def __str__(self) -> str:
        return f"{self.path or 'schema'}: {self.text}"


@dataclass(frozen=True, slots=True)
class Break:
    """A misfit between a new schema and an earlier one. `backward`: the new one is the reader."""

    earlier: int
    backward: bool
    misfit: Misfit


def misfits(*, reader: Shape, writer: Shape) -> tuple[Misfit, ...]:
    """Every reason why data of `writer` cannot be read with `reader`, in the reader's order; at most 100.

    Raises InvalidSchemaError for schemas that hold each other more than 150 levels deep.
    """
    return _Resolution().between(reader, writer)


def breaks(new: Shape, earlier: Sequence[Shape], level: Compatibility) -> tuple[Break, ...]:
    """What keeps `new` from following the `earlier` schemas, oldest first, under `level`; empty where nothing does.

    A level that is not transitive looks at the last of them only. Silent ones are among them: `for_registry` leaves
    them out.
    """
    found: list[Break] = []
    backward, forward = directions(level)
    start = 0 if level.value.endswith("TRANSITIVE") else max(0, len(earlier) - 1)
    for at in range(start, len(earlier)):
        if backward:
            found += [Break(at, True, misfit) for misfit in misfits(reader=new, writer=earlier[at])]  # noqa: FBT003
        if forward:
            found += [Break(at, False, misfit) for misfit in misfits(reader=earlier[at], writer=new)]  # noqa: FBT003
    return tuple(found)


def for_registry(found: Iterable[Break]) -> tuple[Break, ...]:
    """Those for which a registry refuses a schema."""
    return tuple(one for one in found if not one.misfit.silent)


def directions(level: Compatibility) -> tuple[bool, bool]:
    """Whether a level asks that the new reads the old (backward), and that the old reads the new (forward)."""
    full = level in (Compatibility.FULL, Compatibility.FULL_TRANSITIVE)
    return full or level.value.startswith("BACKWARD"), full or level.value.startswith("FORWARD")


class _Resolution:
    """One comparison. Two schemas may hold each other in circles: a pair that is being looked at is taken to fit.

    What was found to fit on such an assumption is forgotten when the assumption fails; what was found not to fit
    under it does not fit at all.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Misfit, ...]] = {}
        self._open: set[tuple[int, int]] = set()

    def between(self, reader: Shape, writer: Shape) -> tuple[Misfit, ...]:
        pair = (id(reader), id(writer))
        if pair in self._open:
            return ()
        known = self._known.get(pair)
        if known is not None:
            return known
        if len(self._open) >= _MOST_OPEN:
            raise InvalidSchemaError("The schemas hold each other too deeply to be compared", remedy="flatten them")
        self._open.add(pair)
        before = len(self._known)
        found = self._compare(reader, writer)[:_MOST_FINDINGS]
        self._open.remove(pair)
        if _refuses(found):
            for younger in list(self._known)[before:]:
                if not _refuses(self._known[younger]):
                    del self._known[younger]
        self._known[pair] = found
        return found

    def _compare(self, reader: Shape, writer: Shape) -> tuple[Misfit, ...]:
        if writer.kind == "union":
            found: dict[Misfit, None] = {}
            for branch in writer.branches:
                found.update(dict.fromkeys(self.between(reader, branch)))
            return tuple(found)
        if reader.kind == "union":
            return self._branch(reader, writer)
        if reader.kind != writer.kind:
            if writer.kind in PROMOTIONS.get(reader.kind, ()):
                return _promoted(reader, writer)
            return (Misfit("", "type_mismatch", f"the reader wants {reader}, the writer wrote {writer}"),)
        if reader.kind in NAMED and not _same_name(reader, writer):
            text = f"the reader wants {reader}, the writer wrote {writer}, and no alias joins the names"
            return (Misfit("", "name_mismatch", text),)
        return self._same_kind(reader, writer)

    def _same_kind(self, reader: Shape, writer: Shape) -> tuple[Misfit, ...]:
        if reader.kind == "record":
            return tuple(misfit for slot in reader.fields for misfit in self._field(slot, writer))
        if reader.kind in ("array", "map"):
            assert reader.items is not None
            assert writer.items is not None
            return _under("[]" if reader.kind == "array" else "{}", self.between(reader.items, writer.items))
        if reader.kind == "enum":
            return _symbols(reader, writer)
        if reader.size != writer.size:
            text = f"the reader wants {reader.size} bytes, the writer wrote {writer.size}"
            return (Misfit("", "size_mismatch", text),)
        return _logical(reader, writer)

    def _field(self, slot: Slot, writer: Shape) -> tuple[Misfit, ...]:
        written = [found for name in dict.fromkeys((slot.name, *slot.aliases)) if (found := writer.slot(name))]
        if len(written) > 1:
            names = " and ".join(found.name for found in written)
            text = f"the reader's name and aliases stand for several of the writer's fields: {names}"
            return (Misfit(slot.name, "field_ambiguous", text),)
        if written:
            return _under(slot.name, self.between(slot.type, written[0].type))
        if slot.has_default:
            return ()
        text = "the reader wants this field, the writer did not write it, and it has no default"
        return (Misfit(slot.name, "field_without_default", text),)

    def _branch(self, reader: Shape, writer: Shape) -> tuple[Misfit, ...]:
        """What the best branch says: the first that can read it, one without silent misfits before others."""
        tried = [(branch, self.between(branch, writer)) for branch in reader.branches]
        near = [found for branch, found in tried if branch.kind == writer.kind and _same_name(branch, writer)]
        good = [found for _, found in tried if not _refuses(found)]
        if not good:
            return near[0] if near else (_no_branch(reader, writer),)
        if near and _refuses(near[0]):
            text = (
                f"a reader that takes the first branch named {writer.short_name} cannot read it, one of the next could"
            )
            return (Misfit("", "branch_order", text, silent=True),)
        return min(good, key=len)


def _no_branch(reader: Shape, writer: Shape) -> Misfit:
    return Misfit("", "branch_missing", f"the reader takes {reader}, the writer wrote {writer}")


def _refuses(found: tuple[Misfit, ...]) -> bool:
    return any(not misfit.silent for misfit in found)


def _same_name(reader: Shape, writer: Shape) -> bool:
    return reader.short_name == writer.short_name or writer.name in reader.aliases


def _symbols(reader: Shape, writer: Shape) -> tuple[Misfit, ...]:
    missing = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
    if not missing or reader.default is not None:
        return ()
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    text = f"the reader's enum has no {shown}, and no default to take instead"
    return (Misfit("", "symbols_missing", text),)


def _promoted(reader: Shape, writer: Shape) -> tuple[Misfit, ...]:
    if reader.kind == "string":
        return (Misfit("", "text_from_bytes", "the reader fails on bytes that are no UTF-8", silent=True),)
    return _logical(reader, writer)


def _logical(reader: Shape, writer: Shape) -> tuple[Misfit, ...]:
    """Two logical types stop no registry, but a reader may take the value for another. One beside none is fine."""
    if not reader.logical or not writer.logical:
        return ()
    if reader.logical == writer.logical == "decimal":
        fits = reader.scale == writer.scale and reader.precision >= writer.precision
        code = "decimal_mismatch"
    else:
        fits, code = reader.logical == writer.logical, "meaning_mismatch"
    if fits:
        return ()
    return (Misfit("", code, f"the reader takes it for {reader}, the writer meant {writer}", silent=True),)


def _under(step: str, found: tuple[Misfit, ...]) -> tuple[Misfit, ...]:
    return tuple(replace(misfit, path=join(step, misfit.path)) for misfit in found)


def join(step: str, path: str) -> str:
    """A path that begins with `step`: `items`, `[]` and `price` make `items[].price`."""
    return f"{step}{'' if not path or path[0] in '[{' else '.'}{path}"
