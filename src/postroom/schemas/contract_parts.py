"""Reading the inner parts of a contract file: what has the right kind is taken, the rest noted with its place."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from postroom.libs.safe_yaml import Node, kind_of, printable
from postroom.schemas.avro_schema import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postroom.schemas.avro_schema import Path
    from postroom.schemas.contract_file import ContractText

_KIND_WORDS: Final[dict[type, str]] = {
    str: "a text (in quotes if need be)",
    bool: "true or false",
    dict: "a mapping",
    tuple: "a list",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A mapping inside a contract file, and the path that leads to it."""

    contract: ContractText
    nodes: Mapping[str, Node]
    path: Path

    def wrong(self, key: str, what: str, remedy: str) -> None:
        """Note that `key` of this part is wrong ("" for the part itself)."""
        path = (*self.path, key) if key else self.path
        self.contract.wrong(dotted(path), what, remedy, path)

    def check_keys(self, known: tuple[str, ...], what: str) -> None:
        """Note every key that is none of the known ones; `what` says whose keys they are."""
        for key in self.nodes:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
                path = (*self.path, key)
                self.contract.wrong(dotted((*self.path, printable(key, 40))), f"is no key of {what}", remedy, path)

    def get(self, key: str, kind: type, *, required: bool = False) -> Any:
        """The plain value of `key` when it has this kind, else None; a missing one is noted where it is required."""
        node = self.nodes.get(key)
        if node is None or node.value is None:
            if required:
                self.wrong(key, "is missing", f"add {key}:")
            return None
        if type(node.value) is not kind:
            self.wrong(key, f"is {kind_of(node.value)}", f"write {_KIND_WORDS[kind]}")
            return None
        return node.value

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        """The text of `key`, which must be one of the allowed ones."""
        text = self.get(key, str)
        if text is None or text in allowed:
            return text or default
        self.wrong(key, f"is none of {', '.join(allowed)}", "write one of them")
        return default

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts in the list at `key`."""
        nodes: tuple[Node, ...] = self.get(key, tuple) or ()
        if all(isinstance(node.value, str) for node in nodes):
            return tuple(cast("str", node.value) for node in nodes)
        self.wrong(key, "holds something that is no text", "write a list of texts")
        return ()

    def texts_by_name(self, key: str) -> tuple[tuple[str, str], ...]:
        """The entries of the mapping at `key`, all of which must be texts."""
        inner: Mapping[str, Node] = self.get(key, dict) or {}
        if all(isinstance(node.value, str) for node in inner.values()):
            return tuple((name, cast("str", node.value)) for name, node in inner.items())
        self.wrong(key, "holds something that is no text", "write texts (in quotes if need be)")
        return ()

    def part(self, key: str) -> Part | None:
        """The mapping at `key` as a part of its own."""
        inner = self.get(key, dict)
        return None if inner is None else Part(self.contract, inner, (*self.path, key))

    def parts(self, key: str) -> Iterator[Part]:
        """The mappings in the list at `key`."""
        nodes: tuple[Node, ...] = self.get(key, tuple) or ()
        for at, node in enumerate(nodes):
            if isinstance(node.value, dict):
                yield Part(self.contract, node.value, (*self.path, key, at))
            else:
                path = (*self.path, key, at)
                self.contract.wrong(dotted(path), f"is {kind_of(node.value)}", "write a mapping", path)


def whole_file(contract: ContractText) -> Part:
    """The file of `contract` as a part; an empty one where it comes from no file."""
    root = contract.root
    return Part(contract, cast("Mapping[str, Node]", root.value) if root is not None else {}, ())
