"""Runs the rules of a contract, all at once for an event. `rule_compiler.py` makes them ready when it is loaded.

What a rule means, what it sees and what differs from other clients: docs/design/0007-contract-rules.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from postroom.libs.event import Violation
from postroom.schemas.rule_set import Rule, RuleAction
from postroom.schemas.rule_view import view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from postroom.schemas.avro_nodes import Node
    from postroom.schemas.rule_fields import Chosen

_CODES: Final = {
    "NOT_FOUND": "not_found",
    "OUT_OF_RANGE": "out_of_range",
    "INVALID_ARGUMENT": "invalid_argument",
    "UNKNOWN": "not_applicable",  # a function that cannot take this value, an index beyond the end
    "INTERNAL": "too_many_steps",  # more than 10,000 turns of a macro
}


@dataclass(frozen=True, slots=True)
class RuleFailure:
    """A rule that an event breaks, and where. The violation names the rule, its doc and the path, never a value."""

    rule: Rule
    violation: Violation


def strictest(failures: tuple[RuleFailure, ...]) -> RuleAction:
    """What becomes of an event with these failures, of which there is at least one."""
    return min((failure.rule.action for failure in failures), key=list(RuleAction).index)


NOT_MET: Final = "condition not met"
"""What a violation says of a condition that was judged; anything else says which error kept it from that."""

MAX_FAILURES: Final = 100
"""Of a rule that is broken in more places no further ones are named."""

MAX_VALUES: Final = 10_000
"""A rule that would look at more values of one event fails: the library's own bound for one expression."""


class Conditions:
    """The rules of one contract that run when an event is written. Safe to share between threads."""

    def __init__(self, root: Node, rules: list[CompiledRule], compile_expression: Callable[[str], Any]) -> None:
        self._view = view_of(root)
        self._rules = rules
        self._walked = [rule for rule in rules if rule.whole is None]
        texts = [rule.whole for rule in rules if rule.whole is not None]
        self._all = _one(texts, compile_expression)

    def failures(self, event: Any) -> tuple[RuleFailure, ...]:
        """Every rule that a valid event breaks, in the order of the contract; none for nearly all events.

        Of each rule at most MAX_FAILURES places are named. An error in an evaluation is a failure. Never raises on
        account of the event, and does not change it.
        """
        view = self._view(event)
        if self._all is not None and _holds(self._all, {"message": view}):
            return _first_failures(self._walked, event, view) if self._walked else ()
        return _first_failures(self._rules, event, view)

    def violations(self, event: Any) -> list[Violation]:
        """What keeps a valid event from being published: the failures of rules that do more than count."""
        return [item.violation for item in self.failures(event) if item.rule.action is not RuleAction.NONE]


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule, ready to run: as part of the whole, and alone, for the slow road."""

    rule: Rule
    whole: str | None
    guard: Any
    condition: Any
    path: str
    chosen: Chosen | None

    def failures(self, event: Any, view: Any) -> Iterator[RuleFailure]:
        """Where the event breaks this rule."""
        places: Iterable[tuple[str, dict[str, Any]]]
        places = [(self.path, {"message": view})] if self.chosen is None else self.chosen.values(event)
        for number, (path, seen) in enumerate(places):
            if number == MAX_VALUES:
                yield self._failure("", "error in the evaluation: too_many_steps")
                return
            found = self._found(seen)
            if found:
                yield self._failure(path, found)

    def _found(self, seen: dict[str, Any]) -> str:
        """What is wrong, in words without any value; "" when the rule is met."""
        if self.guard is not None:
            met = result_of(self.guard, seen)
            if met is False:
                return ""
            if met is not True:
                return f"error in the guard: {met}"
        met = result_of(self.condition, seen)
        if met is True:
            return ""
        return NOT_MET if met is False else f"error in the evaluation: {met}"

    def _failure(self, path: str, found: str) -> RuleFailure:
        expected = self.rule.doc or "the condition of the rule"
        return RuleFailure(self.rule, Violation(path, self.rule.name, expected, found))


def _one(texts: list[str], compile_expression: Callable[[str], Any]) -> Any:
    """All conditions as one expression; None where it is longer than the library takes (100,000 characters)."""
    try:
        return compile_expression(" && ".join(texts) or "true")
    except RuntimeError:
        return None


def _first_failures(rules: list[CompiledRule], event: Any, view: Any) -> tuple[RuleFailure, ...]:
    return tuple(failure for rule in rules for failure in islice(rule.failures(event, view), MAX_FAILURES))


def _holds(expression: Any, seen: dict[str, Any]) -> bool:
    try:
        return expression.eval(data=seen).value() is True
    except Exception:  # noqa: BLE001 - the slow road says what it was
        return False


def result_of(expression: Any, seen: dict[str, Any]) -> bool | str:
    """True, false, or the code of the error. The library's own words may hold a value and are dropped."""
    try:
        found = expression.eval(data=seen)
        result, is_error = found.value(), found.type().name() == "ERROR"
    except Exception as exc:  # noqa: BLE001 - whatever it is, the rule was not met
        result, is_error = str(exc), True
    if isinstance(result, bool):
        return result
    return _CODES.get(result.partition(":")[0], "other") if is_error else "no_boolean"
