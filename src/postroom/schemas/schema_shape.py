"""An Avro schema as schema resolution looks at it: all names looked up, aliases and defaults of enums kept.

`avro_nodes` holds what writing an event needs; what is asked when two schemas meet stands here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from postroom.schemas.avro_logical import LOGICAL_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

_PRIMITIVES: Final = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))
NAMED: Final = frozenset(("record", "enum", "fixed"))


@dataclass(slots=True, eq=False)
class Slot:
    """A field of a record; `default` is its JSON form, and means something only with `has_default`."""

    name: str
    type: Shape
    aliases: tuple[str, ...] = ()
    has_default: bool = False
    default: object = None
    doc: str = ""


@dataclass(slots=True, eq=False)
class Shape:
    """One type. A named type that is used twice is one object, and a recursive record holds itself.

    `kind` is Avro's word for the type. `name` and `aliases` are full names; `symbols` and `default` belong to an
    enum, `size` to a fixed, `items` to an array or a map, `logical`, `precision` and `scale` to a logical type that
    Avro knows (others are ignored, as it asks).
    """

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    doc: str = ""
    fields: list[Slot] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    default: str | None = None
    size: int = 0
    items: Shape | None = None
    branches: tuple[Shape, ...] = ()
    logical: str = ""
    precision: int = 0
    scale: int = 0

    @property
    def short_name(self) -> str:
        """The name without its namespace: all that schema resolution compares."""
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        if self.kind == "union":
            return " or ".join(str(branch) for branch in self.branches)
        if self.logical == "decimal":
            return f"decimal({self.precision}, {self.scale})"
        if self.kind == "fixed":
            return f"fixed {self.short_name} of {self.size} bytes"
        return self.logical or f"{self.kind} {self.short_name}".rstrip()

    def slot(self, name: str) -> Slot | None:
        """The field of that name."""
        return next((slot for slot in self.fields if slot.name == name), None)


def shape_of(raw: object) -> Shape:
    """The shape of a schema in JSON form that `avro_schema.try_schema` has found to be one."""
    return _Reader().shape(raw, "")


class _Reader:
    def __init__(self) -> None:
        self._named: dict[str, Shape] = {}

    def shape(self, raw: Any, namespace: str) -> Shape:
        if isinstance(raw, str):
            return Shape(raw) if raw in _PRIMITIVES else self._named[_full(raw, namespace)]
        if isinstance(raw, list):
            return Shape("union", branches=tuple(self.shape(branch, namespace) for branch in raw))
        kind = raw["type"]
        if kind in NAMED:
            return self._define(raw, kind, namespace)
        if kind in ("array", "map"):
            return Shape(kind, items=self.shape(raw["items" if kind == "array" else "values"], namespace))
        return _with_logical(Shape(kind), raw) if kind in _PRIMITIVES else self.shape(kind, namespace)

    def _define(self, raw: Mapping[str, Any], kind: str, namespace: str) -> Shape:
        name = _full(raw["name"], raw.get("namespace", namespace))
        own = name.rpartition(".")[0]
        shape = Shape(kind, name, tuple(_full(alias, own) for alias in raw.get("aliases", ())), raw.get("doc", ""))
        self._named[name] = shape  # before its fields: they may hold it
        if kind == "enum":
            shape.symbols, shape.default = tuple(raw["symbols"]), raw.get("default")
        elif kind == "fixed":
            shape.size = raw["size"]
            _with_logical(shape, raw)
        else:
            shape.fields = [self._slot(item, own) for item in raw["fields"]]
        return shape

    def _slot(self, raw: Mapping[str, Any], namespace: str) -> Slot:
        return Slot(
            raw["name"],
            self.shape(raw["type"], namespace),
            tuple(raw.get("aliases", ())),
            "default" in raw,
            raw.get("default"),
            raw.get("doc", ""),
        )


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _with_logical(shape: Shape, raw: Mapping[str, Any]) -> Shape:
    name = raw.get("logicalType")
    if isinstance(name, str) and shape.kind in LOGICAL_TYPES.get(name, ()):
        shape.logical = name
        if name == "decimal":
            shape.precision, shape.scale = raw["precision"], raw.get("scale", 0)
    return shape
