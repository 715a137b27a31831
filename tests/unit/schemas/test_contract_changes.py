"""A diff tells changes of rules, tags, metadata, tombstones and references: no reader breaks, producers may stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postroom.schemas.contract_diff import Side, breaking, diff
from postroom.schemas.data_contracts import load_contract
from postroom.schemas.registry_protocol import Compatibility

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.schemas.contract_changes import Change

HEAD = """\
name: order
version: {version}
topic: orders
schema:
  type: record
  name: shop.Order
  fields:
    - {{name: id, type: string}}
    - {{name: email, type: string, default: ""{tags}}}
"""
RULES = """\
ruleSet:
  domainRules:
    - {{name: id_is_said, type: CEL, expr: "{expr}"{more}}}
known_bad: {{id_is_said: {{id: ""}}}}
"""


def rules(expr: str = "message.id != ''", more: str = "") -> str:
    return RULES.format(expr=expr, more=more)


def changes(folder: Path, old: str, new: str, *, tags: tuple[str, str] = ("", "")) -> list[Change]:
    sides = []
    for number, (rest, tagged) in enumerate(zip((old, new), tags, strict=True), start=1):
        path = folder / f"{number}.yaml"
        path.write_text(HEAD.format(version=number, tags=tagged) + rest)
        contract = load_contract(path)
        sides.append(Side(str(number), contract.schema, contract))
    found = diff(sides[1], sides[:1])
    assert not breaking(found, Compatibility.FULL_TRANSITIVE)
    return [change for change in found if change.code != "version_raised"]


DEAD = "an event that breaks it becomes a dead letter"
LATER = "events that broke it are published from now on"
CASES = [
    ("", rules(), "rule_added", "rule of type CEL and mode WRITE added", DEAD, ""),
    ("", rules(more=", onFailure: ERROR"), "rule_added", "rule of type CEL and mode WRITE added",
     "an event that breaks it is refused", ""),
    ("", rules(more=", onFailure: NONE"), "rule_added", "rule of type CEL and mode WRITE added", "", ""),
    ("", rules(more=", disabled: true"), "rule_added", "rule of type CEL and mode WRITE added, disabled", "", ""),
    (rules(), "", "rule_removed", "rule removed", "", LATER),
    (rules(), rules(more=", disabled: true"), "rule_disabled", "rule is disabled", "", LATER),
    (rules(more=", disabled: true"), rules(), "rule_enabled", "rule is no longer disabled", DEAD, ""),
    (rules(), rules(expr="message.id.size() > 0"), "rule_changed", "rule changed: expr", DEAD, ""),
    (rules(), rules(more=", doc: Ids."), "rule_changed", "rule changed: doc", "", ""),
    (rules(more=", onFailure: NONE"), rules(), "rule_changed", "rule changed: onFailure from NONE to DLQ", DEAD, ""),
    (rules(), rules(more=", onFailure: NONE"), "rule_changed", "rule changed: onFailure from DLQ to NONE", "", ""),
    (rules(more=", mode: READ"), rules(more=", mode: WRITEREAD"), "rule_changed",
     "rule changed: mode from READ to WRITEREAD, onFailure", DEAD, ""),
    (rules(more=", mode: READ"), rules(expr="message.id.size() > 0", more=", mode: READ"), "rule_changed",
     "rule changed: expr", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "text", "producers", "note"), CASES)
def test_a_rule_that_may_stop_what_passed_is_told_to_producers(
    tmp_path: Path, old: str, new: str, code: str, text: str, producers: str, note: str
) -> None:
    found = {change.code: change for change in changes(tmp_path, old, new)}
    change = found.pop(code)
    assert (change.path, change.text, change.producers, change.note) == (
        "ruleSet.id_is_said", text, producers, note,
    )  # fmt: skip
    assert set(found) <= {"known_bad_changed"}


def test_rules_in_another_order_are_the_same(tmp_path: Path) -> None:
    one, two = "{name: a, type: X, mode: READ}", "{name: b, type: X, mode: READ}"
    old, new = (f"ruleSet: {{domainRules: [{both}]}}\n" for both in (f"{one}, {two}", f"{two}, {one}"))
    assert changes(tmp_path, old, new) == []


def test_tags_are_told_by_field_wherever_they_stand(tmp_path: Path) -> None:
    by_pattern = 'metadata: {tags: {"**.email": [PII]}}\n'
    inline = ', "confluent:tags": [PII]'
    (came,) = changes(tmp_path, "", by_pattern)
    assert (came.path, came.code, came.text) == ("shop.Order.email", "tags_added", "gets the tag PII")
    assert "dead_letters.privacy" in came.note
    assert changes(tmp_path, by_pattern, "", tags=("", inline)) == []
    (went,) = changes(tmp_path, "", "", tags=(inline, ""))
    assert (went.code, went.text) == ("tags_removed", "loses the tag PII")


def test_properties_are_told_without_their_values(tmp_path: Path) -> None:
    old = "metadata: {properties: {team: secret, gone: x}}\n"
    new = "metadata: {properties: {team: other, more: y}, sensitive: [more]}\n"
    assert [(change.path, change.code, change.text) for change in changes(tmp_path, old, new)] == [
        ("metadata.properties.team", "property_changed", "changed"),
        ("metadata.properties.gone", "property_removed", "removed"),
        ("metadata.properties.more", "property_added", "added"),
        ("metadata.sensitive", "sensitive_changed", "changed"),
    ]


def test_tombstones_are_news_for_consumers_and_their_end_for_producers(tmp_path: Path) -> None:
    (came,) = changes(tmp_path, "", "tombstones: true\n")
    assert (came.code, came.note) == ("tombstones_allowed", "consumers have to take records without a value")
    (went,) = changes(tmp_path, "tombstones: true\n", "")
    assert (went.code, went.producers) == ("tombstones_forbidden", "publish_tombstone is refused")


def test_references_are_told_with_their_versions(tmp_path: Path) -> None:
    (tmp_path / "a.avsc").write_text('{"type": "enum", "name": "shop.A", "symbols": ["X"]}')
    one = "references: [{name: shop.A, subject: a, version: 1, file: a.avsc}]\n"
    assert [change.text for change in changes(tmp_path, "", one)] == ["added: a version 1"]
    (change,) = changes(tmp_path, one, one.replace("version: 1", "version: 2"))
    assert (change.path, change.text) == ("references.shop.A", "changed from a version 1 to a version 2")
    assert [change.text for change in changes(tmp_path, one, "")] == ["removed"]
    assert changes(tmp_path, one, one) == []
