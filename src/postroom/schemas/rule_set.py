"""The rules of a contract in Confluent's form (`ruleSet.domainRules`), read strictly. `rules.py` runs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from postroom.schemas.contract_parts import whole_file

if TYPE_CHECKING:
    from postroom.schemas.contract_file import ContractText
    from postroom.schemas.contract_parts import Part

_KEYS: Final = (
    "name", "doc", "kind", "mode", "type", "tags", "params", "expr", "onSuccess", "onFailure", "disabled",
)  # fmt: skip
_KINDS: Final = ("CONDITION", "TRANSFORM")
_MODES: Final = ("WRITE", "READ", "WRITEREAD")
_TYPES: Final = ("CEL", "CEL_FIELD")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


class RuleAction(StrEnum):
    """What becomes of an event that breaks a rule, the strictest first."""

    ERROR = "ERROR"
    DLQ = "DLQ"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as the contract says it. `place` is its number in the file, from 0."""

    name: str
    type: str
    expr: str = ""
    kind: str = "CONDITION"
    mode: str = "WRITE"
    doc: str = ""
    tags: tuple[str, ...] = ()
    params: tuple[tuple[str, str], ...] = ()
    on_success: str = ""
    on_failure: str = ""
    disabled: bool = False
    place: int = 0

    @property
    def runs_here(self) -> bool:
        """True for a rule that every event must pass when it is written."""
        return self.mode in {"WRITE", "WRITEREAD"} and not self.disabled

    @property
    def action(self) -> RuleAction:
        """What becomes of an event that breaks it. Of two actions in one text the first is that of writing."""
        return RuleAction(_first(self.on_failure) or RuleAction.DLQ)

    def as_json(self) -> dict[str, Any]:
        """The same in the form of the registry's REST API; what was not said is left out, the action never."""
        said: dict[str, Any] = {"name": self.name, "kind": self.kind, "mode": self.mode, "type": self.type}
        said |= {"doc": self.doc, "tags": list(self.tags), "params": dict(self.params), "expr": self.expr}
        said |= {"onSuccess": self.on_success, "onFailure": self.on_failure, "disabled": self.disabled}
        if self.runs_here and not self.on_failure:
            said["onFailure"] = self.action.value  # elsewhere nothing said means ERROR
        return {name: value for name, value in said.items() if value}


def read_rule_set(contract: ContractText) -> None:
    """Take `ruleSet` and `known_bad` out of the contract's file; what is wrong with them is noted there."""
    whole = whole_file(contract)
    part = whole.part("ruleSet")
    if part is not None:
        part.check_keys(("domainRules",), "ruleSet (other rules are not supported)")
        contract.rules = tuple(_rule(rule) for rule in part.parts("domainRules"))
        _check_names(contract)
    known_bad = whole.part("known_bad")
    if known_bad is not None:
        contract.known_bad = {
            name: known_bad.nodes[name].unwrap() for name in known_bad.nodes if known_bad.get(name, dict) is not None
        }
        names = {rule.name for rule in contract.rules}
        for name in known_bad.nodes:
            if name not in names:
                known_bad.wrong(name, "is no rule of this contract", "name a rule of ruleSet.domainRules")
    nodes = {} if known_bad is None else known_bad.nodes
    said = {name for name, node in nodes.items() if node.value is not None}
    for rule in contract.rules:
        if rule.runs_here and rule.name not in said:
            remedy = f"add {rule.name}: and an event that breaks this rule and no other"
            whole.wrong("known_bad", f"has no event for the rule {rule.name}", remedy)


def _check_names(contract: ContractText) -> None:
    seen: set[str] = set()
    for rule in contract.rules:
        if rule.name in seen:
            path = ("ruleSet", "domainRules", rule.place, "name")
            contract.wrong(rule_path(rule, "name"), "is there a second time", "give each rule its own name", path)
        seen.add(rule.name)


def rule_path(rule: Rule, key: str) -> str:
    """How the key of a rule is called in messages: by number, and by name where it has one."""
    return f"ruleSet.domainRules[{rule.place}].{key}{f' (rule {rule.name})' if rule.name else ''}"


def _rule(part: Part) -> Rule:
    part.check_keys(_KEYS, "a rule")
    name = part.get("name", str, required=True)
    if name is not None and not _NAME.fullmatch(name):
        part.wrong("name", "is no name of a rule", "write letters, digits, _ and -, at most 64, no digit first")
        name = None
    place = part.path[-1]
    assert isinstance(place, int)
    rule = Rule(
        name=name or "",
        type=part.get("type", str, required=True) or "",
        expr=part.get("expr", str) or "",
        kind=part.choice("kind", _KINDS, "CONDITION"),
        mode=part.choice("mode", _MODES, "WRITE"),
        doc=part.get("doc", str) or "",
        tags=part.texts("tags"),
        params=part.texts_by_name("params"),
        on_success=part.get("onSuccess", str) or "",
        on_failure=part.get("onFailure", str) or "",
        disabled=bool(part.get("disabled", bool)),
        place=place,
    )
    if rule.runs_here:
        _check_runnable(part, rule)
    return rule


def _check_runnable(part: Part, rule: Rule) -> None:
    """What would have to run here and cannot is an error, never skipped."""
    other = "give it mode READ if it is for consumers, or disabled: true"
    if rule.type and rule.type not in _TYPES:
        part.wrong("type", f"is none of {', '.join(_TYPES)}, and other types do not run here", other)
    if rule.kind != "CONDITION":
        part.wrong("kind", f"is {rule.kind}, and only conditions run here", other)
    if not rule.expr.strip():
        part.wrong("expr", "is missing", "add expr: and the condition")
    if rule.tags and rule.type == "CEL":
        part.wrong("tags", "chooses fields, but a rule of type CEL sees the whole event", "write type: CEL_FIELD")
    if _first(rule.on_failure) not in ("", *RuleAction):
        part.wrong("onFailure", f"is none of {', '.join(RuleAction)}", "write one of them")
    if _first(rule.on_success) not in {"", "NONE"}:
        part.wrong("onSuccess", "is not NONE, and nothing else is done here for a rule that is met", "remove it")


def _first(actions: str) -> str:
    return actions.partition(",")[0].strip()
