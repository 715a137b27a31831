"""What governs events beyond their schema, as sections of a contract's page: tags, rules, references, metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from postroom.schemas.markdown_text import code, fenced, paragraph, plain
from postroom.schemas.privacy import FULL, HASHED, REDACTED, strictest
from postroom.schemas.rule_set import RuleAction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postroom.schemas.data_contracts import Contract
    from postroom.schemas.rule_set import Rule

_IN_DEAD_LETTERS: Final = {
    FULL: "kept as it is",
    REDACTED: "replaced by `redacted`; such a dead letter cannot be replayed",
    HASHED: "replaced by a keyed hash; such a dead letter cannot be replayed",
}
_ON_FAILURE: Final = {
    RuleAction.ERROR: "the event is refused, and its caller told why",
    RuleAction.DLQ: "the event becomes a dead letter",
    RuleAction.NONE: "the event is published, and counted",
}
_RUNS: Final = {
    "WRITE": "when an event is published",
    "READ": "by consumers; postroom only carries it along",
    "WRITEREAD": "when an event is published, and by consumers",
}


def governed(
    contract: Contract, paths: Mapping[tuple[str, str], str], privacy: Mapping[str, str] | None
) -> Iterator[str]:
    """The sections that the contract has something for. `paths` leads from record and field to the field's path."""
    if contract.field_tags:
        yield from _tagged(contract, paths, privacy)
    if contract.rules:
        yield from ("", "## Rules")
        for rule in contract.rules:
            yield from _rule(contract, rule)
    if contract.references:
        yield from ("", "## References", "", "| type | subject | version |", "|---|---|---|")
        for one in contract.references:
            yield f"| {plain(one.name)} | {plain(one.subject)} | {one.version} |"
    if contract.metadata.properties:
        yield from ("", "## Properties", "", "| property | value |", "|---|---|")
        for name, value in contract.metadata.properties:
            shown = (
                "not shown: the contract calls it sensitive" if name in contract.metadata.sensitive else plain(value)
            )
            yield f"| {plain(name)} | {shown} |"


def _tagged(
    contract: Contract, paths: Mapping[tuple[str, str], str], privacy: Mapping[str, str] | None
) -> Iterator[str]:
    yield from ("", "## Tagged fields", "", "| field | tags | in dead letters |", "|---|---|---|")
    for place in sorted(contract.field_tags, key=lambda one: paths.get(one, "")):
        tags = sorted(contract.field_tags[place])
        if privacy is None:
            done = "as `dead_letters.privacy` says where it runs"
        else:
            done = _IN_DEAD_LETTERS[strictest(tags, privacy)]
        yield f"| {code(paths.get(place, '.'.join(place)))} | {plain(', '.join(tags))} | {done} |"
    yield from ("", "No value of any field stands in logs, metrics, headers or error messages.")


def _rule(contract: Contract, rule: Rule) -> Iterator[str]:
    yield from ("", f"### {plain(rule.name)}", "")
    if rule.doc:
        yield from (paragraph(rule.doc), "")
    yield from ("| | |", "|---|---|")
    yield f"| tried | {'not at all: it is disabled' if rule.disabled else _RUNS[rule.mode]} |"
    if rule.type == "CEL_FIELD":
        tagged = f"each field tagged {plain(' or '.join(rule.tags))}" if rule.tags else "each field"
        yield f"| looks at | {tagged} |"
    elif rule.type != "CEL":
        yield f"| type | {plain(rule.type)} |"
    if rule.runs_here:
        yield f"| when it is broken | {_ON_FAILURE[rule.action]} ({rule.action}) |"
    if rule.expr:
        yield from ("", fenced(rule.expr, "cel"))
    if rule.name in contract.known_bad:
        event = json.dumps(contract.known_bad[rule.name], ensure_ascii=False)
        yield from ("", "An event that breaks it:", "", fenced(event, "json"))
