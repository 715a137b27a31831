"""Makes the rules of a contract ready to run: compiled, type-checked against the schema, tried on known-bad events.

The library that evaluates them, `cel-expr-python`, is loaded only here, and only when a contract has rules.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postroom.libs.exceptions import RulesUnavailableError
from postroom.schemas.avro_nodes import Record
from postroom.schemas.event_checker import find_violations
from postroom.schemas.json_reader import from_json
from postroom.schemas.rule_fields import Case, Chosen, NotOneExpressionError, Place
from postroom.schemas.rule_set import Rule, rule_path
from postroom.schemas.rule_types import RecordTypes, only_branch
from postroom.schemas.rules import NOT_MET, CompiledRule, Conditions, result_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.schemas.avro_nodes import Leaf, Node
    from postroom.schemas.avro_schema import AvroSchema
    from postroom.schemas.contract_file import ContractText
    from postroom.schemas.contract_metadata import FieldTags

_FIELD_TEXTS: Final = ("fullName", "name", "typeName")
_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_READ: Final = re.compile(r"\bmessage((?:\.[A-Za-z_][A-Za-z0-9_]*)+)")


def checked_rules(text: ContractText, avro: AvroSchema, tags: FieldTags) -> Conditions | None:
    """The rules of a contract that run here, None if it has none; what is wrong is added to the text's problems.

    Every expression is compiled against the schema, and every known-bad event is tried. Raises RulesUnavailableError
    where the library for rules is not installed.
    """
    rules = [rule for rule in text.rules if rule.runs_here]
    if not rules or text.problems:
        return None
    cel = _Cel(avro.root)
    compiled = [_compile(text, rule, avro.root, tags, cel) for rule in rules]
    if text.problems:
        return None
    ready = [rule for rule in compiled if rule is not None]
    conditions = Conditions(avro.root, ready, cel.compile)
    for rule in rules:
        _try_known_bad(text, rule, avro, conditions)
    return conditions


def _try_known_bad(text: ContractText, rule: Rule, avro: AvroSchema, conditions: Conditions) -> None:
    def wrong(what: str, remedy: str) -> None:
        text.wrong(f"known_bad.{rule.name}", what, remedy, ("known_bad", rule.name))

    event = from_json(avro, text.known_bad[rule.name])
    violations = find_violations(avro.root, event)
    if violations:
        wrong(f"breaks the schema: {violations[0]}", "write an event that breaks only the rule")
        return
    failures = conditions.failures(event)
    broken = list(dict.fromkeys(failure.rule.name for failure in failures))
    found = [failure.violation.found for failure in failures if failure.rule.name == rule.name]
    others = [name for name in broken if name != rule.name]
    if rule.name not in broken:
        wrong("meets the rule", "write an event that breaks it, or mend the rule")
    elif others:
        wrong(f"breaks {', '.join(others)} too", "write an event that breaks only this rule")
    elif NOT_MET not in found:  # a condition that always ends in an error would pass, and refuse every event
        wrong(f"does not show the rule at work: {found[0]}", "mend the rule, or write an event that it can judge")


class _Cel:
    """The two environments of one contract: one that knows the schema, to check, and one for dicts, to evaluate."""

    def __init__(self, root: Node) -> None:
        library = _library()
        self.types = RecordTypes(root)
        self._cel = library.cel
        self._extensions = library.extensions
        self._environments: dict[tuple[tuple[str, str], ...], Any] = {}
        self.dynamic = self._cel.Type.DYN
        self._dicts = self.environment(
            {"message": self._cel.Type.Map(self._cel.Type.STRING, self.dynamic), "value": self.dynamic}
            | self.field_variables()
        )

    def environment(self, variables: Mapping[str, Any]) -> Any:
        """An environment with these variables, the same for the same ones: making one takes 14 ms."""
        key = tuple((name, variable.name()) for name, variable in variables.items())
        found = self._environments.get(key)
        if found is None:
            found = self._cel.NewEnv(self.types.pool, variables=dict(variables), extensions=self._extensions)
            self._environments[key] = found
        return found

    def compile(self, expression: str) -> Any:
        """The expression, ready to be evaluated over dicts.

        Its types were checked against the schema; over dicts the library's own check refuses what is right
        (`message.tags["a"].all(...)`), and is left out.
        """
        return self._dicts.compile(expression, disable_check=True)

    def field_variables(self) -> dict[str, Any]:
        text = self._cel.Type.STRING
        return {**dict.fromkeys(_FIELD_TEXTS, text), "tags": self._cel.Type.List(text)}

    def record(self, record: Record) -> Any:
        return self._cel.Type(self.types.record(record))

    def value(self, case: Case, *, exactly: bool) -> Any:
        """The type of a value: that of its case, or, where it is not known which case it is, one for all of them."""
        if exactly or case.alone:
            return self._type(self.types.leaf(case.leaf))
        return self.dynamic if case.nullable is None else self._type(self.types.leaf(case.nullable, nullable=True))

    def _type(self, name: str) -> Any:
        return getattr(self._cel.Type, name, None) or self._cel.Type(name)


@dataclass(frozen=True, slots=True)
class _Library:
    cel: Any
    extensions: list[Any]


@functools.cache
def _library() -> _Library:
    try:
        from cel_expr_python import cel
        from cel_expr_python.ext import ext_bindings, ext_math, ext_strings
        from google.protobuf import descriptor_pool  # noqa: F401 - what the checker needs is there, too
    except ImportError as exc:
        raise RulesUnavailableError(
            "a contract has rules, and what runs them is not installed", remedy="pip install postroom[rules]"
        ) from exc
    return _Library(cel, [ext_bindings.ExtBindings(), ext_math.ExtMath(), ext_strings.ExtStrings()])


def _compile(text: ContractText, rule: Rule, root: Node, tags: FieldTags, cel: _Cel) -> CompiledRule | None:
    compiler = _Compiler(text, rule, cel)
    assert isinstance(root, Record)
    if rule.type == "CEL":
        return compiler.message_rule(root)
    return compiler.field_rule(Chosen(rule, root, tags))


class _Compiler:
    """Compiles one rule; its errors go to the contract's problems, with line and column of the expression."""

    def __init__(self, text: ContractText, rule: Rule, cel: _Cel) -> None:
        self._text = text
        self._rule = rule
        self._cel = cel
        guard, semicolon, condition = rule.expr.partition(";")
        self._guard = guard if semicolon and guard.strip() else ""
        # Blanks in the place of the guard: so the library's lines and columns are those of the whole expression.
        blank = re.sub(r"[^\n]", " ", guard + semicolon) if semicolon else ""
        self._condition = blank + condition if semicolon else rule.expr
        self._told: set[str] = set()

    def message_rule(self, root: Record) -> CompiledRule | None:
        env = self._cel.environment({"message": self._cel.record(root)})
        if not self._check_both(env, ""):
            return None
        whole = f"(\n{self._condition}\n)"
        if self._guard:
            whole = f"((\n{self._guard}\n) ? {whole} : true)"
        return self._compiled(whole, _one_path(self._rule.expr, root), None)

    def field_rule(self, chosen: Chosen) -> CompiledRule | None:
        places = list(chosen.places())
        if not places:
            self._wrong("tags", "choose no field", "tag a field whose values a rule can see, or remove the rule")
            return None
        if False in [self._check_case(place, case) for place, cases in places for case in cases]:
            return None
        try:
            whole: str | None = chosen.expression(self._guard, self._condition, self._is_met)
        except NotOneExpressionError:
            whole = None
        return self._compiled(whole, "", chosen)

    def _compiled(self, whole: str | None, path: str, chosen: Chosen | None) -> CompiledRule:
        guard = self._cel.compile(self._guard) if self._guard else None
        condition = self._cel.compile(self._condition)
        return CompiledRule(self._rule, whole, guard, condition, path, chosen)

    def _check_case(self, place: Place, case: Case) -> bool:
        met = self._is_met(place, case.leaf) if self._guard else True
        if met is False:
            return True
        variables = {
            "value": self._cel.value(case, exactly=bool(self._guard) and met is True),
            "message": self._cel.record(place.record),
        }
        env = self._cel.environment(variables | self._cel.field_variables())
        return self._check_both(env, f" for the field {place.field.name}")

    def _is_met(self, place: Place, leaf: Leaf) -> bool | None:
        """Whether the guard is met whatever the value is; None where it asks for the value."""
        try:
            guard = self._cel.environment(self._cel.field_variables()).compile(self._guard)
        except RuntimeError:
            return None
        met = result_of(guard, place.constants(leaf))
        return met if isinstance(met, bool) else None

    def _check_both(self, env: Any, where: str) -> bool:
        """Check guard and condition, so that what is wrong with either is told at once."""
        return False not in [self._check(env, part, where) for part in (self._guard, self._condition) if part]

    def _check(self, env: Any, expression: str, where: str) -> bool:
        try:
            result = env.compile(expression).return_type()
        except RuntimeError as exc:
            errors = _ERROR.findall(str(exc)) or [("1", "1", "cannot be compiled")]
            for line, column, what in errors:
                place = f"line {line}, column {column}"
                self._wrong("expr", f"is no condition{where}: {place}: {what}", "mend the expression")
            return False
        if result.name() not in {"BOOL", "DYN"}:
            self._wrong("expr", f"gives {result.name()}{where}", "write a condition, true or false")
            return False
        return True

    def _wrong(self, key: str, what: str, remedy: str) -> None:
        if what not in self._told:  # once, though several fields may have the same
            self._told.add(what)
            path = ("ruleSet", "domainRules", self._rule.place, key)
            self._text.wrong(rule_path(self._rule, key), what, remedy, path)


def _one_path(expr: str, root: Record) -> str:
    """The field that an expression reads when it reads just one; "" stands for the whole event."""
    paths = {_known_part(match.split(".")[1:], root) for match in _READ.findall(expr)}
    return paths.pop() if len(paths) == 1 else ""


def _known_part(names: list[str], node: Node | None) -> str:
    """The beginning of a path that the schema has: behind it stands a function."""
    path: list[str] = []
    for name in names:
        field = next((item for item in node.fields if item.name == name), None) if isinstance(node, Record) else None
        if field is None:
            break
        path.append(name)
        node, _ = only_branch(field.type)
    return ".".join(path)
