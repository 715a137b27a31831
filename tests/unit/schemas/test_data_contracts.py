"""Contract files: what they may say, and that everything wrong is told at once with its line and a remedy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from postroom.libs.exceptions import ContractNotFoundError, InvalidContractError, ValidationError
from postroom.schemas.avro_codec import Codec
from postroom.schemas.data_contracts import (
    contract_from_short_form,
    find_contract,
    load_contract,
    load_contracts,
    packaged_contracts,
)
from postroom.schemas.schema_validator import SchemaValidator, validate, validate_user_event

ORDER = """\
name: order
version: 3
description: An order, as the shop takes it.
owner: shop
topic: {name: orders, partitions: 12, replication: 3, retention: 14d}
dead_letter_topic: {name: orders-broken, partitions: 2, replication: 2, retention: forever}
key: order_id
headers: cloudevents
schema:
  type: record
  name: Order
  namespace: shop
  fields:
    - {name: order_id, type: {type: string, logicalType: uuid}}
    - {name: total, type: {type: bytes, logicalType: decimal, precision: 9, scale: 2}}
"""


def write(folder: Path, text: str, name: str = "order.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(InvalidContractError) as caught:
        load_contract(path)
    return str(caught.value).splitlines()


def test_a_contract_file_says_everything_about_a_type_of_event(tmp_path: Path) -> None:
    path = write(tmp_path, ORDER)
    contract = load_contract(path)
    assert (contract.name, contract.version, contract.owner) == ("order", 3, "shop")
    assert (contract.topic, contract.partitions, contract.replication) == ("orders", 12, 3)
    assert contract.retention_ms == 14 * 24 * 3600 * 1000
    assert (contract.dead_letter_topic, contract.dead_letter_partitions) == ("orders-broken", 2)
    assert (contract.dead_letter_replication, contract.dead_letter_retention_ms) == (2, -1)
    assert (contract.key_field, contract.headers, contract.record_name) == ("order_id", "cloudevents", "shop.Order")
    assert contract.source == path
    assert json.loads(contract.schema_json) == contract.schema
    assert contract.codec is contract.codec
    assert contract == load_contract(path)
    assert len({contract, load_contract(path)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        contract.name = "x"  # type: ignore[misc]  # that it cannot be set is what is tested


def test_what_a_contract_leaves_out_is_left_to_the_cluster_and_the_settings(tmp_path: Path) -> None:
    contract = load_contract(write(tmp_path, "name: a\nversion: 1\ntopic: things\nschema: {id: string}\n"))
    assert (contract.topic, contract.partitions, contract.replication, contract.retention_ms) == (
        "things",
        -1,
        -1,
        None,
    )
    assert (contract.dead_letter_topic, contract.key_field, contract.headers) == (None, None, "minimal")


def test_a_contract_may_be_json_and_its_schema_may_stand_beside_it(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "A", "fields": [{"name": "id", "type": "string"}]}
    write(tmp_path, json.dumps(schema), "a.avsc")
    path = write(tmp_path, json.dumps({"name": "a", "version": 1, "topic": "t", "schema_file": "a.avsc"}), "a.json")
    contract = load_contract(path)
    assert contract.schema == schema
    assert list(load_contracts([tmp_path])) == ["a"]  # the .avsc is no contract


def test_the_guides_short_form_is_required_fields_in_order(tmp_path: Path) -> None:
    contract = contract_from_short_form("user_event", {"user_id": "string", "timestamp": "long"})
    assert contract.schema["fields"] == [{"name": "user_id", "type": "string"}, {"name": "timestamp", "type": "long"}]
    assert contract.codec.encode({"user_id": "u1", "timestamp": 1}) == b"\x04u1\x02"
    assert contract.codec.encode({"user_id": "u1"}) is None
    text = 'name: user_event\nversion: 1\ntopic: user_event\nschema: {"user_id": "string", "timestamp": "long"}\n'
    assert load_contract(write(tmp_path, text)).schema == contract.schema
    odd = contract_from_short_form(
        "orders.created-v1", {"type": "string", "name": "string"}, topic="o", key_field="type"
    )
    assert (odd.record_name, odd.topic, odd.key_field) == ("orders.created_v1", "o", "type")
    with pytest.raises(InvalidContractError, match="strin is no type"):
        contract_from_short_form("a", {"x": "strin"})


def test_everything_wrong_is_told_at_once_with_line_key_and_remedy(tmp_path: Path) -> None:
    text = """\
name: two words
versoin: 1
topic:
  name: a/b
  partitions: 0
  retention: 7 days
  replicas: 3
headers: all
owner: [a]
key: order
schema:
  type: record
  name: R
  fields:
    - {name: order_id, type: long, logicalType: timestamp-millis}
    - name: amount
      type: [double, long]
"""
    path = write(tmp_path, text)
    assert [line.removeprefix(f"{path}:") for line in problems(path)] == [
        "2: versoin is no key of a contract. Did you mean version?",
        "1: name is no name of a contract. Use letters, digits, dots, underscores and hyphens, such as user_event.",
        "1: version is missing. Add version:.",
        "9: owner is a list. Write a text (in quotes if need be).",
        "8: headers is neither minimal nor cloudevents. Write one of the two.",
        "7: topic.replicas is no key of a contract. Did you mean replication?",
        (
            "4: topic.name holds a name that no topic can have. "
            "Use 1 to 249 letters, digits, dots, underscores and hyphens."
        ),
        "5: topic.partitions is not between 1 and 100000. Write a number in this range.",
        "6: topic.retention is no time. Write a number and d, h, min or s, such as 7d, or forever.",
        (
            "15: schema.fields[0] Avro ignores a logicalType beside the type of field order_id. "
            "Move it into the type: {type: long, logicalType: timestamp-millis}."
        ),
        (
            "17: schema.fields[1].type leaves a choice open: other libraries take int values for double. "
            "Put double after the branch of the int values."
        ),
        "10: key is no field of the schema. Did you mean order_id?",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", "is a list, not a contract"),
        ("just text\n", "not a contract"),
        ("name: a\nname: b\n", "a second time"),
        ("name: a\nversion: 1\ntopic: t\n", "schema is missing"),
        ("name: a\nversion: 1\ntopic: t\nschema: 5\n", "schema is a whole number"),
        ("name: a\nversion: 1\ntopic: t\nschema: string\n", "schema is a text"),
        ("name: a\nversion: 1\nschema: {id: string}\n", "topic is missing"),
        ("name: a\nversion: 1\ntopic: t\nschema: {type: array, items: int, fields: []}\n", "schema is no record"),
        ("name: a\nversion: 1\ntopic: {}\nschema: {id: string}\n", "topic.name is missing"),
        ("name: a\nversion: one\ntopic: t\nschema: {id: string}\n", "version is a text"),
        ("name: a\nversion: true\ntopic: t\nschema: {id: string}\n", "version is true or false"),
        ("name: a\nversion: 0\ntopic: t\nschema: {id: string}\n", "version is not between 1"),
        ("name: a\nversion: 1\ntopic: __x\nschema: {id: string}\n", "names a topic of Kafka itself"),
        (
            "name: a\nversion: 1\ntopic: t\ndead_letter_topic: t\nschema: {id: string}\n",
            "dead_letter_topic is the topic itself",
        ),
        (
            "name: a\nversion: 1\ntopic: t\nschema: {id: string}\nschema_file: a.avsc\n",
            "schema_file stands beside schema",
        ),
        ("name: a\nversion: 1\ntopic: t\nschema_file: none.avsc\n", "schema_file cannot be read: No such file"),
        ("name: a\nversion: 1\ntopic: t\nschema_file: bad.avsc\n", "schema_file is not JSON: line 1, byte 8"),
        ("name: a\nversion: 1\ntopic: t\nschema_file: list.avsc\n", "schema is a list, not a record"),
        (
            "name: a\nversion: 1\ntopic: t\nkey: x\nschema: {x: double}\n",
            "key names a field of type double, which cannot be a key",
        ),
        ("name: a\nversion: 1\ntopic: t\nkey: x\nschema: {x: ['null', string, int]}\n", "which cannot be a key"),
    ],
)
def test_a_contract_that_is_wrong_is_refused_with_the_reason(tmp_path: Path, text: str, told: str) -> None:
    write(tmp_path, '{"type": secret', "bad.avsc")
    write(tmp_path, "[1]", "list.avsc")
    assert told.replace("byte 8", "byte 9") in "\n".join(problems(write(tmp_path, text)))
    assert "secret" not in "\n".join(problems(write(tmp_path, text)))


def test_a_missing_empty_or_foreign_file_is_told_by_its_name(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", write(tmp_path, "", "empty.yaml"), tmp_path):
        with pytest.raises(InvalidContractError, match=str(path)):
            load_contract(path)


def test_a_path_that_cannot_be_looked_at_is_told_like_any_other_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, "name: a\n", "a.yaml")
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(InvalidContractError) as caught:
        load_contracts([tmp_path / "closed", tmp_path / f"{'x' * 300}.yaml", tmp_path / "a.yaml"])
    text = str(caught.value)
    assert f"{tmp_path / 'closed'}: cannot be read: Permission denied. Check the path and its permissions." in text
    assert ".yaml: cannot be read: File name too long." in text
    assert "a.yaml:1: version is missing" in text


def test_the_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "name: a\n", "a.yaml")
    write(tmp_path, ORDER, "b.yaml")
    write(tmp_path, ORDER, "c.yml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidContractError) as caught:
        load_contracts([tmp_path, tmp_path / "empty"])
    text = str(caught.value)
    assert f"{tmp_path / 'empty'}: holds no contract" in text
    assert "a.yaml:1: topic is missing" in text
    assert f"c.yml: name is order, as in {tmp_path / 'b.yaml'}" in text


def test_the_packaged_contract_is_a_video_play_for_user_events() -> None:
    contract = packaged_contracts()["user_event"]
    assert (contract.topic, contract.partitions, contract.key_field) == ("user_events", 6, "user_id")
    assert contract.dead_letter_topic is None  # so the settings decide, beside the actual topic
    assert contract.avro.doubts == ()
    assert len(contract.schema["fields"]) == 12
    body = contract.codec.encode({"user_id": "u1", "timestamp": 1795416182091})
    assert Codec(json.loads(contract.schema_json)).decode(body or b"")["action"] == "unknown"
    assert packaged_contracts() is not packaged_contracts()


def test_the_guides_examples_of_checking_an_event_work() -> None:
    validator = SchemaValidator()
    assert validator.validate_user_event({"user_id": "u1", "timestamp": 1795416182091}) is True
    assert validate_user_event({"user_id": "u1", "timestamp": 1795416182091}) is True
    with pytest.raises(ValidationError) as caught:
        validate_user_event({"user_id": 5, "speed": "secret"})
    rules = [(violation.path, violation.rule) for violation in caught.value.violations]
    assert rules == [("user_id", "wrong_type"), ("timestamp", "missing_field"), ("speed", "unknown_field")]
    assert "secret" not in str(caught.value)
    assert validate("user_event", {"user_id": "u1", "timestamp": 5}) == []
    assert [violation.rule for violation in validate("user_event", None)] == ["wrong_type"]


@pytest.mark.parametrize("name", ["user_events", "user_evnt", "UserEvent"])
def test_an_unknown_type_is_told_with_the_one_that_may_be_meant(name: str) -> None:
    with pytest.raises(ContractNotFoundError, match="user_event"):
        validate(name, {})
    with pytest.raises(ContractNotFoundError, match="known: none"):
        find_contract({}, None)
