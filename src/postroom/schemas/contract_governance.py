"""The keys of a contract file that govern its versions: `compatibility`, `examples` and `lint_ignore`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postroom.libs.safe_yaml import Node, kind_of
from postroom.schemas.registry_protocol import Compatibility

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.schemas.contract_file import ContractText

KEYS: Final = ("compatibility", "examples", "lint_ignore")
MAX_EXAMPLES: Final = 1000


@dataclass(frozen=True, slots=True)
class Governance:
    """What a contract says about its own versions.

    `compatibility` is None where the file does not say it. `examples` are good events in their JSON form.
    `lint_ignore` holds codes of `contract_lint`, each alone or with a space and the path it is ignored at.
    """

    compatibility: Compatibility | None = None
    examples: tuple[dict[str, Any], ...] = ()
    lint_ignore: tuple[str, ...] = ()


def read_governance(text: ContractText, root: Mapping[str, Node]) -> Governance:
    """These keys of a file; what is wrong with them is noted in `text`."""
    return Governance(_compatibility(text, root), _examples(text, root), _lint_ignore(text, root))


def _compatibility(text: ContractText, root: Mapping[str, Node]) -> Compatibility | None:
    node = root.get("compatibility")
    if node is None or node.value is None:
        return None
    words = [level.value for level in Compatibility]
    if node.value in words:
        return Compatibility(node.value)
    near = difflib.get_close_matches(str(node.value).upper(), words, n=1) if isinstance(node.value, str) else []
    remedy = f"did you mean {near[0]}?" if near else f"write one of {', '.join(words)}"
    text.wrong("compatibility", "is none of Confluent's words", remedy, ("compatibility",))
    return None


def _examples(text: ContractText, root: Mapping[str, Node]) -> tuple[dict[str, Any], ...]:
    found = []
    for at, node in _listed(text, root, "examples", "a list of events"):
        value = node.unwrap()
        if isinstance(value, dict):
            found.append(value)
        else:
            text.wrong(f"examples[{at}]", f"is {kind_of(value)}", "write an event", ("examples", at))
    if len(found) > MAX_EXAMPLES:
        text.wrong("examples", f"holds more than {MAX_EXAMPLES} events", "keep the telling ones", ("examples",))
    return tuple(found)


def _lint_ignore(text: ContractText, root: Mapping[str, Node]) -> tuple[str, ...]:
    found = []
    for at, node in _listed(text, root, "lint_ignore", "a list of codes"):
        if isinstance(node.value, str) and 1 <= len(node.value.split()) <= 2:
            found.append(" ".join(node.value.split()))
        else:
            remedy = "write a code, or a code and a path: doc_missing, doc_missing device"
            text.wrong(f"lint_ignore[{at}]", "is no code of contracts lint", remedy, ("lint_ignore", at))
    return tuple(found)


def _listed(text: ContractText, root: Mapping[str, Node], key: str, what: str) -> list[tuple[int, Node]]:
    node = root.get(key)
    if node is None or node.value is None:
        return []
    if not isinstance(node.value, tuple):
        text.wrong(key, f"is {kind_of(node.value)}", f"write {what}", (key,))
        return []
    return list(enumerate(node.value))
