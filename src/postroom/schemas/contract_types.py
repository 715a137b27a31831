"""Python types for the events of contracts: TypedDicts that type checkers accept at `publish_event`.

The types are those of docs/specs/lexical-forms.md. What is left to the validator: ranges, lengths, time zones, and
whole numbers where a float is asked for, which type checkers accept.
"""

from __future__ import annotations

import builtins
import json
import keyword
from typing import TYPE_CHECKING, Final

from postroom.schemas.avro_graph import walk
from postroom.schemas.avro_nodes import Array, Leaf, Map, Node, Record, Union
from postroom.schemas.contract_starter import type_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.schemas.avro_nodes import Field
    from postroom.schemas.data_contracts import Contract

_PYTHON: Final[dict[str, str]] = {
    "null": "None", "boolean": "bool", "int": "int", "long": "int", "float": "float", "double": "float",
    "bytes": "bytes", "string": "str", "fixed": "bytes", "decimal": "decimal.Decimal", "uuid": "uuid.UUID",
    "date": "dt.date", "time-millis": "dt.time", "time-micros": "dt.time", "timestamp-millis": "dt.datetime",
    "timestamp-micros": "dt.datetime", "local-timestamp-millis": "dt.datetime", "local-timestamp-micros": "dt.datetime",
}  # fmt: skip
_MODULES: Final = {"dt": "import datetime as dt", "decimal": "import decimal", "uuid": "import uuid"}
_TAKEN: Final = frozenset(("Literal", "NotRequired", "TypedDict", *_MODULES, *keyword.kwlist, *dir(builtins)))
_IN_ANNOTATIONS: Final = frozenset(
    ("Literal", "NotRequired", "bool", "bytes", "dict", "float", "int", "list", "str", *_MODULES)
)


def types_module(contracts: Sequence[Contract]) -> str:
    """The text of a Python module with a TypedDict for every record of the contracts.

    A contract's own record is called after it. A record that several contracts define is written for each of them:
    one class can't follow two of them. Fields with a default may be left out.
    """
    writer = _Writer()
    for contract in contracts:
        writer.add(contract)
    return writer.text([f"{contract.name} version {contract.version}" for contract in contracts])


class _Writer:
    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._used: set[str] = set()
        self._classes: list[str] = []
        self._needs: set[str] = set()

    def add(self, contract: Contract) -> None:
        root = contract.avro.root
        assert isinstance(root, Record)
        records = [node for node in walk(root) if isinstance(node, Record)]
        for record in records:
            self._names[id(record)] = self._fresh(type_name(contract.name) if record is root else record.name)
        for record in reversed(records):
            told = f"An event of {contract.name}, version {contract.version}." if record is root else f"A {record}."
            self._classes.append(self._class(record, told))

    def text(self, contracts: Sequence[str]) -> str:
        """The module: head, imports that are needed, classes, `__all__`."""
        lines = [f'"""Types of {", ".join(contracts)}. Made by `postroom contracts types`: do not edit."""', ""]
        lines += ["from __future__ import annotations", ""]
        imports = [_MODULES[name] for name in sorted(_MODULES) if name in self._needs]
        names = ", ".join(sorted({"TypedDict"} | (self._needs - set(_MODULES))))
        lines += [*imports, f"from typing import {names}", ""]
        exported = "".join(f"    {json.dumps(name)},\n" for name in sorted(self._names.values()))
        lines += [f"__all__ = [\n{exported}]", "", ""]
        return "\n".join(lines) + "\n\n\n".join(self._classes) + "\n"

    def _fresh(self, record_name: str) -> str:
        """A name for a class: the record's without namespace, with more of it where that is taken."""
        parts = record_name.split(".")
        for count in range(1, len(parts) + 1):
            name = "_".join(parts[-count:])
            if name not in self._used and name not in _TAKEN:
                break
        else:
            name = next(f"{name}_{number}" for number in range(2, 10**6) if f"{name}_{number}" not in self._used)
        self._used.add(name)
        return name

    def _class(self, record: Record, told: str) -> str:
        name = self._names[id(record)]
        if not any(self._needs_call_form(field.name) for field in record.fields):
            body = "".join(f"\n    {field.name}: {self._field(field)}" for field in record.fields)
            return f'class {name}(TypedDict):\n    """{told}"""\n{body}'.rstrip("\n")
        # The call form is looked at by Python itself, and a class may stand further down: its types are texts.
        fields = "".join(f"\n        {field.name!r}: {self._field(field)!r}," for field in record.fields)
        return f'{name} = TypedDict(\n    "{name}",\n    {{{fields}\n    }},\n)\n"""{told}"""'

    def _needs_call_form(self, name: str) -> bool:
        """A keyword, a name that Python changes inside a class, and one that an annotation beside it would mean."""
        hides = name in _IN_ANNOTATIONS or name in self._used
        return keyword.iskeyword(name) or name.startswith("__") or hides

    def _field(self, field: Field) -> str:
        kind = self._type(field.type)
        if not field.has_default:
            return kind
        self._needs.add("NotRequired")
        return f"NotRequired[{kind}]"

    def _type(self, node: Node) -> str:
        if isinstance(node, Record):
            return self._names[id(node)]
        if isinstance(node, Array):
            return f"list[{self._type(node.items)}]"
        if isinstance(node, Map):
            return f"dict[str, {self._type(node.values)}]"
        if isinstance(node, Union):
            kinds = dict.fromkeys(self._type(branch) for branch in node.branches)
            return " | ".join(sorted(kinds, key=lambda kind: kind == "None"))
        return self._leaf(node)

    def _leaf(self, leaf: Leaf) -> str:
        if leaf.row == "enum":
            self._needs.add("Literal")
            return f"Literal[{', '.join(json.dumps(symbol) for symbol in leaf.symbols)}]"
        python = _PYTHON[leaf.row]
        if "." in python:
            self._needs.add(python.partition(".")[0])
        return python
