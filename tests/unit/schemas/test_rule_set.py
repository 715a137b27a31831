"""Metadata and rules in a contract file: what is read, and that everything wrong is told with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.exceptions import InvalidContractError
from postroom.schemas.data_contracts import load_contract, packaged_contracts
from postroom.schemas.rule_set import Rule, RuleAction
from tests.unit.schemas.rule_contracts import EVENT, cel, load

if TYPE_CHECKING:
    from pathlib import Path

RULE = cel("message.id != ''", doc="Has an id.", onFailure="NONE,ERROR", mode="WRITEREAD", params={"a": "b"})
BAD = {"rule": {"id": ""}}


def told(folder: Path, rules: list[dict[str, Any]], known_bad: dict[str, Any], **more: Any) -> str:
    with pytest.raises(InvalidContractError) as caught:
        load(folder, rules, known_bad, **more)
    return str(caught.value)


def test_a_rule_is_read_and_given_to_a_registry_in_the_same_form(tmp_path: Path) -> None:
    contract = load(tmp_path, [RULE], BAD)
    (rule,) = contract.rules
    assert rule.action is RuleAction.NONE
    assert rule.as_json() == {**RULE, "kind": "CONDITION"}
    assert Rule("r", "CEL", "true").as_json()["onFailure"] == "DLQ"  # elsewhere nothing said means ERROR
    assert "onFailure" not in Rule("r", "CEL", "true", mode="READ").as_json()


def test_metadata_is_read_and_tags_meet_fields_by_pattern(tmp_path: Path) -> None:
    metadata = {
        "properties": {"owner": "shop", "contact": "shop@example.com"},
        "sensitive": ["contact"],
        "tags": {"shop.Thing.email": ["MAIL"], "**.street": ["PLACE"], "shop.*.zi?": ["PLACE"], "*.Thing.n*": ["N"]},
    }
    contract = load(tmp_path, [], {}, metadata=metadata)
    assert contract.metadata.as_json() == metadata
    tags = contract.field_tags
    assert tags["shop.Thing", "email"] == {"MAIL", "PII"}
    assert tags["shop.Address", "street"] == {"PLACE", "PII"}
    assert tags["shop.Address", "zip"] == {"PLACE"}
    assert tags["shop.Thing", "names"] == {"N", "PII"}
    assert ("shop.Thing", "count") not in tags


def test_what_is_wrong_with_metadata_is_told_with_its_line(tmp_path: Path) -> None:
    metadata = {"properties": {"owner": 3}, "tags": {"**.nothing": ["PII"]}, "sensitive": ["nobody"], "tag": {}}
    text = told(tmp_path, [], {}, metadata=metadata)
    assert "metadata.properties holds something that is no text" in text
    assert "metadata.tags has a pattern that meets no field" in text
    assert "metadata.sensitive names a property that there is not" in text
    assert "metadata.tag is no key of metadata. Did you mean tags?" in text
    assert all(line.startswith(f"{tmp_path / 'thing.yaml'}:") for line in text.splitlines())


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ({**RULE, "type": "ENCRYPT"}, "type is none of CEL, CEL_FIELD, and other types do not run here"),
        ({**RULE, "type": "JSONATA"}, "Give it mode READ if it is for consumers, or disabled: true"),
        ({**RULE, "kind": "TRANSFORM"}, "kind is TRANSFORM, and only conditions run here"),
        ({**RULE, "kind": "CHECK"}, "kind is none of CONDITION, TRANSFORM"),
        ({**RULE, "mode": "UPGRADE"}, "mode is none of WRITE, READ, WRITEREAD"),
        ({**RULE, "expr": " "}, "expr is missing"),
        ({**RULE, "tags": ["PII"]}, "a rule of type CEL sees the whole event"),
        ({**RULE, "onFailure": "ALERT"}, "onFailure is none of ERROR, DLQ, NONE"),
        ({**RULE, "onSuccess": "ERROR"}, "onSuccess is not NONE"),
        ({**RULE, "name": "a rule"}, "name is no name of a rule"),
        ({**RULE, "disabled": "yes"}, "disabled is a text. Write true or false"),
        ({**RULE, "exp": "true"}, "exp is no key of a rule. Did you mean expr?"),
        ({"name": "rule", "expr": "true"}, "type is missing"),
    ],
)
def test_a_rule_that_could_not_run_is_refused_and_never_skipped(
    tmp_path: Path, rule: dict[str, Any], what: str
) -> None:
    text = told(tmp_path, [rule], BAD)
    assert f"ruleSet.domainRules[0].{what}" in text or what in text


def test_rules_for_readers_and_disabled_ones_are_carried_along(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [
        {"name": "decrypt", "kind": "TRANSFORM", "mode": "READ", "type": "ENCRYPT", "tags": ["PII"]},
        {"name": "later", "type": "CEL", "expr": "not CEL at all", "disabled": True},
    ]
    contract = load(tmp_path, rules, {})
    assert [rule.name for rule in contract.rules] == ["decrypt", "later"]
    assert contract.conditions is None


def test_each_rule_has_one_name_and_a_known_bad_event(tmp_path: Path) -> None:
    text = told(tmp_path, [RULE, RULE, {**RULE, "name": "other"}], {"rule": EVENT, "nobody": EVENT})
    assert "domainRules[1].name (rule rule) is there a second time" in text
    assert "known_bad.nobody is no rule of this contract" in text
    assert "known_bad has no event for the rule other" in text
    assert "ruleSet (other rules are not supported)" in told(tmp_path, [], {}, ruleSet={"migrationRules": []})
    assert "ruleSet.domainRules[0] is a text. Write a mapping" in told(tmp_path, [], {}, ruleSet={"domainRules": ["a"]})


def test_a_known_bad_event_that_is_still_to_be_written_is_asked_for(tmp_path: Path) -> None:
    assert "thing.yaml:" in told(tmp_path, [RULE], {"rule": None})
    assert "known_bad has no event for the rule rule. Add rule:" in told(tmp_path, [RULE], {"rule": None})


def test_tags_of_the_schema_must_be_texts(tmp_path: Path) -> None:
    field = {"name": "id", "type": "string", "confluent:tags": "PII"}
    text = told(tmp_path, [], {}, schema={"type": "record", "name": "T", "fields": [field]})
    assert "schema.fields[0].confluent:tags is no list of texts" in text


def test_the_packaged_contract_needs_no_extra_and_the_example_has_five_rules() -> None:
    assert packaged_contracts()["user_event"].rules == ()
    contract = load_contract("examples/contracts/user_event_with_rules.yaml")
    assert len(contract.rules) == 5
    assert contract.field_tags["postroom.example.UserEvent", "email"] == {"PII"}
