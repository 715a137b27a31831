"""Makes `schema_pairs.json`: pairs of schemas that meet every rule of Avro's schema resolution.

    python -m tests.contract.make_schema_pairs

The file is what the test reads, so that a pair keeps its number; this program only says where it came from.
"""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroom.schemas.avro_schema import try_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).with_name("schema_pairs.json")
SEED = 5
GENERATED = 260

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
DEFAULTS: dict[str, Any] = {
    "null": None, "boolean": True, "int": 1, "long": 2, "float": 1.5, "double": 2.5, "bytes": "\u00ff", "string": "x",
}  # fmt: skip
LOGICAL = (
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
)


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def record(*fields: dict[str, Any], name: str = "Order", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def enum(*symbols: str, name: str = "E", **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F", **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size, **more}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def values(kind: Any) -> dict[str, Any]:
    return {"type": "map", "values": kind}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def linked(value: Any, name: str = "Node", **more: Any) -> dict[str, Any]:
    """A list: each has a value and perhaps a next one."""
    return record(field("value", value), field("next", ["null", name], default=None), name=name, **more)


def by_hand() -> Iterator[tuple[str, Any, Any]]:
    """Name, old, new; each pair is one rule."""
    for old in PRIMITIVES:
        for new in PRIMITIVES:
            yield f"{old} becomes {new}", record(field("a", old)), record(field("a", new))
    yield from _fields()
    yield from _names()
    yield from _enums_and_fixed()
    yield from _containers()
    yield from _unions()
    yield from _recursive()
    yield from _logical()


def _fields() -> Iterator[tuple[str, Any, Any]]:
    one, two = field("a", "int"), field("b", "string", default="x")
    yield "nothing changes", record(one), record(one)
    yield "a field with a default comes", record(one), record(one, two)
    yield "a field without a default comes", record(one), record(one, field("b", "string"))
    yield "a nullable field without a default comes", record(one), record(one, field("b", ["null", "string"]))
    yield "a nullable field with null comes", record(one), record(one, field("b", ["null", "int"], default=None))
    yield "a required field goes", record(one, field("b", "string")), record(one)
    yield "all fields go", record(one, two), record()
    yield "an enum with a default of its own comes", record(one), record(one, field("b", enum("A", default="A")))
    yield "the order of fields changes", record(one, two), record(two, one)
    yield "a default comes", record(one), record(field("a", "int", default=1))
    yield "a default changes", record(two), record(field("b", "string", default="y"))
    yield "a doc changes", record(one, doc="old"), record(field("a", "int", doc="new"), doc="new")
    yield "a field is renamed", record(one), record(field("z", "int"))
    yield "a field is renamed with an alias", record(one), record(field("z", "int", aliases=["a"]))
    yield "a field is renamed and promoted", record(one), record(field("z", "long", aliases=["a"]))
    yield "a field is renamed to another type", record(one), record(field("z", "string", aliases=["a"]))
    yield "an alias names nothing", record(one), record(one, field("z", "int", aliases=["y"], default=0))
    yield "an alias in the old schema", record(field("a", "int", aliases=["z"])), record(field("z", "int"))
    yield (
        "two aliases name two fields",
        record(one, field("b", "int")),
        record(field("z", "int", aliases=["a", "b"])),
    )
    yield (
        "a name and an alias name two fields",
        record(one, field("b", "int")),
        record(field("a", "int", aliases=["b"])),
    )
    yield (
        "two fields change names",
        record(one, field("b", "string")),
        record(field("a", "string", aliases=["b"]), field("b", "int", aliases=["a"])),
    )
    inner = record(field("x", "int"), name="Inner")
    wider = record(field("x", "int"), field("y", "int"), name="Inner")
    yield "a field of an inner record comes", record(field("i", inner)), record(field("i", wider))
    yield (
        "an inner record is used twice",
        record(field("i", inner), field("j", "Inner")),
        record(field("i", wider), field("j", "Inner")),
    )


def _names() -> Iterator[tuple[str, Any, Any]]:
    one = field("a", "int")
    yield "the record is renamed", record(one), record(one, name="Bill")
    yield "the record is renamed with an alias", record(one), record(one, name="Bill", aliases=["Order"])
    yield "the namespace changes", record(one, namespace="shop"), record(one, namespace="sales")
    yield "a namespace comes", record(one), record(one, namespace="sales")
    yield "both change", record(one, namespace="shop"), record(one, name="Bill", namespace="sales")
    yield (
        "both change, with a full alias",
        record(one, namespace="shop"),
        record(one, name="Bill", namespace="sales", aliases=["shop.Order"]),
    )
    yield (
        "both change, with a short alias",
        record(one, namespace="shop"),
        record(one, name="Bill", namespace="sales", aliases=["Order"]),
    )
    for name, kind in (
        ("record", record(one, name="Old")),
        ("enum", enum("A", name="Old")),
        ("fixed", fixed(4, "Old")),
    ):
        renamed = {**kind, "name": "New"}
        yield f"an inner {name} is renamed", record(field("i", kind)), record(field("i", renamed))
        joined = {**renamed, "aliases": ["Old"]}
        yield f"an inner {name} is renamed with an alias", record(field("i", kind)), record(field("i", joined))
        moved = {**kind, "namespace": "elsewhere"}
        yield f"an inner {name} moves", record(field("i", kind)), record(field("i", moved))


def _enums_and_fixed() -> Iterator[tuple[str, Any, Any]]:
    def pair(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
        return name, record(field("e", old)), record(field("e", new))

    yield pair("a symbol comes", enum("A"), enum("A", "B"))
    yield pair("a symbol comes, the old has a default", enum("A", default="A"), enum("A", "B", default="A"))
    yield pair("a symbol goes", enum("A", "B"), enum("A"))
    yield pair("a symbol goes, the new has a default", enum("A", "B"), enum("A", default="A"))
    yield pair("symbols change their order", enum("A", "B"), enum("B", "A"))
    yield pair("no symbol stays", enum("A", "B"), enum("C"))
    yield pair("the default of an enum goes", enum("A", "B", default="A"), enum("A", "B"))
    yield pair("an enum becomes a string", enum("A"), "string")
    yield pair("a fixed grows", fixed(4), fixed(8))
    yield pair("a fixed stays", fixed(4), fixed(4))
    yield pair("a fixed becomes bytes", fixed(4), "bytes")
    yield pair("a fixed becomes an enum", fixed(4), enum("A", name="F"))
    yield (
        "a field's default is no enum's default",
        record(field("e", enum("A", "B"))),
        record(field("e", enum("A"), default="A")),
    )


def _containers() -> Iterator[tuple[str, Any, Any]]:
    for name, wrap in (("array", array), ("map", values)):
        for old, new in (("int", "long"), ("long", "int"), ("string", "bytes"), ("int", "string"), ("int", "int")):
            yield f"{name} of {old} becomes one of {new}", record(field("c", wrap(old))), record(field("c", wrap(new)))
        inner, wider = record(field("x", "int"), name="I"), record(field("x", "int"), field("y", "int"), name="I")
        yield f"{name} of records, a field comes", record(field("c", wrap(inner))), record(field("c", wrap(wider)))
        yield f"{name} of {name}", record(field("c", wrap(wrap("int")))), record(field("c", wrap(wrap("double"))))
        yield f"{name} becomes a union", record(field("c", wrap("int"))), record(field("c", ["null", wrap("long")]))
    yield "an array becomes a map", record(field("c", array("int"))), record(field("c", values("int")))
    yield "an array becomes its item", record(field("c", array("int"))), record(field("c", "int"))


def _unions() -> Iterator[tuple[str, Any, Any]]:
    def pair(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
        return name, record(field("u", old)), record(field("u", new))

    yield pair("null comes", "int", ["null", "int"])
    yield pair("null comes, with a promotion", "int", ["null", "long"])
    yield pair("null goes", ["null", "int"], "int")
    yield pair("a union of one", ["int"], "int")
    yield pair("a union of one, promoted", ["int"], "long")
    yield pair("a branch comes", ["null", "int"], ["null", "int", "string"])
    yield pair("a branch goes", ["null", "int", "string"], ["null", "int"])
    yield pair("branches change their order", ["null", "int"], ["int", "null"])
    yield pair("a branch is promoted", ["null", "int"], ["null", "double"])
    yield pair("a branch is narrowed", ["null", "double"], ["null", "int"])
    yield pair("int finds long before string", "int", ["string", "long"])
    yield pair("int finds nothing", "int", ["string", "boolean"])
    yield pair("string finds bytes", "string", ["null", "bytes"])
    yield pair("all branches are numbers", ["int", "long", "float"], "double")
    yield pair("one branch is none", ["int", "string"], "double")
    inner = record(field("x", "int"), name="I")
    wider = record(field("x", "int"), field("y", "int"), name="I")
    renamed = {**inner, "name": "J"}
    other = record(field("z", "string"), name="K")
    yield pair("a record in a union, a field comes", ["null", inner], ["null", wider])
    yield pair("a record in a union is renamed", ["null", inner], ["null", renamed])
    yield pair("a record in a union is renamed with an alias", ["null", inner], ["null", {**renamed, "aliases": ["I"]}])
    yield pair("a record comes beside another", ["null", inner], ["null", inner, other])
    yield pair("a record becomes one of two", inner, [other, inner])
    yield pair("of two with one short name the second fits", inner, [
        {**wider, "namespace": "one"}, {**inner, "namespace": "two"}
    ])  # fmt: skip
    yield pair("a symbol comes in a union", ["null", enum("A")], ["null", enum("A", "B")])
    yield pair("a fixed in a union grows", ["null", fixed(2)], ["null", fixed(3)])
    yield pair("an array in a union", ["null", array("int")], ["null", array("long")])
    yield pair("an array in a union, narrowed", ["null", array("long")], ["null", array("int")])
    yield pair("two enums meet a string", [enum("A"), enum("B", name="G")], "string")
    yield "the whole schema becomes a union", record(field("a", "int")), ["null", record(field("a", "int"))]
    yield "the whole schema is a union", ["null", "int"], ["null", "long"]
    yield (
        "null goes from a default",
        record(field("u", ["null", "int"], default=None)),
        record(field("u", "int", default=0)),
    )


def _recursive() -> Iterator[tuple[str, Any, Any]]:
    yield "a list stays", linked("int"), linked("int")
    yield "a list is promoted", linked("int"), linked("long")
    yield "a list is narrowed", linked("long"), linked("int")
    yield "a list is renamed", linked("int"), linked("int", "Link")
    yield "a list is renamed with an alias", linked("int"), linked("int", "Link", aliases=["Node"])
    tree = record(field("children", array("Tree")), name="Tree")
    yield "a tree gets a name", tree, record(*tree["fields"], field("name", "string", default=""), name="Tree")
    yield "a tree gets a name without default", tree, record(*tree["fields"], field("name", "string"), name="Tree")
    leaves = record(field("children", values("Tree")), name="Tree")
    yield "a tree becomes one of maps", tree, leaves
    twice = record(field("a", linked("int")), field("b", ["null", "Node"], default=None))
    yield "a list used twice is narrowed", record(field("a", linked("long")), *twice["fields"][1:]), twice


def _logical() -> Iterator[tuple[str, Any, Any]]:
    def pair(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
        return name, record(field("l", old)), record(field("l", new))

    for kind in LOGICAL:
        yield pair(f"{kind['logicalType']} comes", kind["type"], kind)
    yield pair("millis become micros", LOGICAL[3], LOGICAL[4])
    yield pair("a date becomes a time", LOGICAL[0], LOGICAL[1])
    yield pair("a date becomes a timestamp", LOGICAL[0], LOGICAL[3])
    yield pair("a time stamp loses its zone", LOGICAL[3], LOGICAL[5])
    yield pair("a decimal's scale changes", decimal(9, 2), decimal(9, 3))
    yield pair("a decimal's precision grows", decimal(9, 2), decimal(12, 2))
    yield pair("a decimal's precision shrinks", decimal(12, 2), decimal(9, 2))
    yield pair("a decimal stays", decimal(9, 2), decimal(9, 2))
    fixed_decimal: dict[str, Any] = {"logicalType": "decimal", "precision": 9, "scale": 2}
    yield pair("a fixed decimal's scale changes", fixed(6, **fixed_decimal), fixed(6, **{**fixed_decimal, "scale": 4}))
    yield pair("a decimal in bytes becomes one in a fixed", decimal(9, 2), fixed(6, **fixed_decimal))
    yield pair("an unknown logical type", "long", {"type": "long", "logicalType": "unheard-of"})
    yield pair("a uuid becomes a string", LOGICAL[6], "string")
    yield pair("a uuid becomes bytes", LOGICAL[6], "bytes")


# -- generated: a random schema and a few random changes of it


class Maker:
    """Random schemas and random changes, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = 0

    def name(self) -> str:
        self.names += 1
        return f"T{self.names}"

    def kind(self, depth: int) -> Any:  # noqa: PLR0911 - a table
        choices = ["primitive"] * 4 + ["logical", "enum", "fixed"] + (["record", "array", "map", "union"] * (depth < 3))
        choice = self.random.choice(choices)
        if choice == "primitive":
            return self.random.choice(PRIMITIVES)
        if choice == "logical":
            return dict(self.random.choice(LOGICAL))
        if choice == "enum":
            more = {"default": "A"} if self.random.random() < 0.3 else {}
            return enum(*"ABCD"[: self.random.randint(1, 4)], name=self.name(), **more)
        if choice == "fixed":
            return fixed(self.random.randint(1, 4), self.name())
        if choice == "record":
            return self.record(depth + 1)
        if choice == "union":
            return self.union(depth + 1)
        return array(self.kind(depth + 1)) if choice == "array" else values(self.kind(depth + 1))

    def union(self, depth: int) -> Any:
        branches: dict[str, Any] = {}
        for _ in range(self.random.randint(2, 4)):
            branch = self.kind(depth)
            if not isinstance(branch, list):
                branches.setdefault(branch if isinstance(branch, str) else branch.get("name", branch["type"]), branch)
        return list(branches.values()) or "null"

    def record(self, depth: int) -> dict[str, Any]:
        return record(*(self.field(depth, name) for name in "abcde"[: self.random.randint(1, 4)]), name=self.name())

    def field(self, depth: int, name: str) -> dict[str, Any]:
        made = field(name, self.kind(depth))
        if isinstance(made["type"], str) and self.random.random() < 0.5:
            made["default"] = DEFAULTS[made["type"]]
        return made

    def change(self, schema: Any) -> None:
        """One change somewhere in the schema, in place."""
        places = [part for part in parts(schema) if part.get("type") in ("record", "enum", "fixed", "array", "map")]
        part = self.random.choice(places)
        if part["type"] == "record":
            self.change_record(part)
        elif part["type"] == "enum":
            part["symbols"] = self.random.sample("ABCDE", self.random.randint(1, 5))
            part.pop("default", None)
            if self.random.random() < 0.5:
                part["default"] = part["symbols"][0]
        elif part["type"] == "fixed":
            part["size"] = self.random.randint(1, 4)
        else:
            key = "items" if part["type"] == "array" else "values"
            part[key] = self.other(part[key])

    def change_record(self, part: dict[str, Any]) -> None:
        fields = part["fields"]
        choice = self.random.choice(["add", "drop", "retype", "retype", "rename", "default", "name"])
        if choice == "add" or not fields:
            fields.insert(self.random.randint(0, len(fields)), self.field(3, f"new{len(fields)}"))
        elif choice == "drop":
            fields.pop(self.random.randrange(len(fields)))
        elif choice == "name":
            part["aliases"] = [part["name"]] if self.random.random() < 0.5 else []
            part["name"] += "x"
        else:
            chosen = self.random.choice(fields)
            if choice == "retype":
                chosen.pop("default", None)
                chosen["type"] = self.other(chosen["type"])
            elif choice == "default":
                chosen.pop("default", None)
            else:
                chosen["aliases"] = [chosen["name"]] if self.random.random() < 0.6 else []
                chosen["name"] += "_x"

    def other(self, kind: Any) -> Any:
        """A type near the given one, or any."""
        if isinstance(kind, list):
            choice = self.random.randrange(3)
            if choice == 0 and len(kind) > 1:
                return self.random.sample(kind, len(kind) - 1)
            return self.random.sample(kind, len(kind)) if choice == 1 else kind[0]
        near = {"int": "long", "long": "double", "string": "bytes", "bytes": "string", "float": "double"}
        chance = self.random.random()
        if chance < 0.3 and kind != "null":
            return ["null", kind]
        if chance < 0.7 and isinstance(kind, str):
            return near.get(kind, "string")
        return self.kind(3)


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object of a schema that has a type."""
    if isinstance(schema, list):
        for branch in schema:
            yield from parts(branch)
    elif isinstance(schema, dict):
        yield schema
        for item in schema.get("fields", ()):
            yield from parts(item["type"])
        for key in ("items", "values"):
            if key in schema:
                yield from parts(schema[key])


def generated() -> Iterator[tuple[str, Any, Any]]:
    maker = Maker(SEED)
    made = 0
    while made < GENERATED:
        old = maker.record(0)
        new = copy.deepcopy(old)
        for _ in range(maker.random.randint(1, 3)):
            maker.change(new)
        if old != new and not try_schema(old)[1] and not try_schema(new)[1]:
            made += 1
            yield f"generated {made}", old, new


if __name__ == "__main__":
    lines = [
        json.dumps({"name": n, "old": o, "new": w}, separators=(",", ":")) for n, o, w in [*by_hand(), *generated()]
    ]
    FILE.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
