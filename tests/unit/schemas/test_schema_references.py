"""Types under subjects of their own: read from files beside the contract, written out for the check, sent by name."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from postroom.libs.exceptions import InvalidContractError, SchemaRegistryError, SubjectNotFoundError
from postroom.schemas.avro_schema import try_schema
from postroom.schemas.contract_metadata import Metadata
from postroom.schemas.data_contracts import Contract, load_contract
from postroom.schemas.registration import Registration, dropped_parts, registration_of
from postroom.schemas.registry_protocol import RegisteredSchema
from postroom.schemas.rule_set import Rule
from postroom.schemas.schema_references import MOST_REFERENCES, Reference, parsing_form, with_references
from postroom.schemas.schema_registry_client import SchemaRegistryClient
from tests.unit.schemas.avro_strategies import schemas

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.schemas.avro_schema import AvroSchema

ADDRESS = {
    "type": "record",
    "name": "Address",
    "namespace": "com.example",
    "fields": [{"name": "street", "type": "string"}, {"name": "country", "type": "Country"}],
}
COUNTRY = {"type": "enum", "name": "com.example.Country", "symbols": ["DE", "FR"]}
ORDER = """\
name: order
version: 1
topic: orders
references:
  - {name: com.example.Address, subject: address, version: 3, file: address.avsc}
  - {name: com.example.Country, subject: country, version: 1, file: country.avsc}
schema:
  type: record
  name: Order
  fields:
    - {name: to, type: com.example.Address}
    - {name: from, type: ["null", com.example.Address]}
"""


def contract_in(folder: Path, text: str = ORDER) -> Contract:
    (folder / "address.avsc").write_text(json.dumps(ADDRESS))
    (folder / "country.avsc").write_text(json.dumps(COUNTRY))
    (folder / "order.yaml").write_text(text)
    return load_contract(folder / "order.yaml")


class TestTheKey:
    def test_events_are_checked_and_encoded_with_the_files(self, tmp_path: Path) -> None:
        contract = contract_in(tmp_path)
        good = {"to": {"street": "Rue 1", "country": "FR"}, "from": None}
        assert contract.codec.encode(good, b"") is not None
        assert contract.codec.encode({"to": {"street": "Rue 1", "country": "XX"}, "from": None}, b"") is None

    def test_the_registry_gets_the_names_and_not_the_types(self, tmp_path: Path) -> None:
        body = registration_of(contract_in(tmp_path)).body()
        assert json.loads(body["schema"])["fields"][0]["type"] == "com.example.Address"
        assert body["references"] == [
            {"name": "com.example.Address", "subject": "address", "version": 3},
            {"name": "com.example.Country", "subject": "country", "version": 1},
        ]
        assert set(body) == {"schema", "references"}

    def test_another_schema_in_a_file_is_another_fingerprint(self, tmp_path: Path) -> None:
        before = registration_of(contract_in(tmp_path)).fingerprint
        assert registration_of(load_contract(tmp_path / "order.yaml")).fingerprint == before
        (tmp_path / "country.avsc").write_text(json.dumps(COUNTRY | {"symbols": ["DE", "FR", "IT"]}))
        assert registration_of(load_contract(tmp_path / "order.yaml")).fingerprint != before

    @pytest.mark.parametrize(
        ("listed", "told"),
        [
            ("7", "references is a whole number"),
            ("[7]", r"references\[0\] is a whole number"),
            ("[{name: a, subject: b, version: 1}]", r"references\[0\]\.file is missing"),
            ("[{name: a, subject: b, version: '1', file: country.avsc}]", r"references\[0\]\.version is missing or of"),
            ("[{name: a, subject: b, version: 0, file: country.avsc}]", r"references\[0\]\.version is no version"),
            ("[{name: a, subject: b, version: 1, file: country.avsc}]", r"references\[0\]\.file does not define a"),
            ("[{name: a, subject: b, version: 1, file: order.yaml}]", r"references\[0\]\.file is not JSON"),
            ("[{name: a, subject: b, version: 1, file: nowhere}]", r"references\[0\]\.file cannot be read: No such"),
            ("[{name: a, subject: b, version: 1, file: country.avsc, more: 1}]", r"\.more is no key of a reference"),
            (
                "[" + 2 * "{name: com.example.Country, subject: b, version: 1, file: country.avsc}," + "]",
                r"references\[1\]\.name is com\.example\.Country, as in another",
            ),
            ("[" + (MOST_REFERENCES + 1) * "{}," + "]", "references lists more than 64"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, tmp_path: Path, listed: str, told: str) -> None:
        head, _, rest = ORDER.partition("references:")
        with pytest.raises(InvalidContractError, match=told) as caught:
            contract_in(tmp_path, f"{head}references: {listed}\nschema:{rest.partition('schema:')[2]}")
        assert "order.yaml:4" in str(caught.value)

    def test_a_type_that_no_reference_defines_is_no_type(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidContractError, match="nowhere"):
            contract_in(tmp_path, ORDER.replace('["null", com.example.Address]', "nowhere.Address"))


class TestWritingOut:
    def test_a_type_is_written_out_where_it_stands_first(self) -> None:
        raw = {"type": "record", "name": "R", "fields": [{"name": n, "type": "a.E"} for n in ("one", "two")]}
        reference = Reference("a.E", "e", 1, json.dumps({"type": "enum", "name": "a.E", "symbols": ["X"]}))
        whole = with_references(raw, [reference])
        assert isinstance(whole["fields"][0]["type"], dict)
        assert whole["fields"][1]["type"] == "a.E"
        assert try_schema(whole)[1] == ()

    def test_a_type_without_a_namespace_does_not_take_the_one_around_it(self) -> None:
        raw = {"type": "record", "name": "a.R", "fields": [{"name": "one", "type": {"type": "array", "items": "E"}}]}
        reference = Reference("E", "e", 1, json.dumps({"type": "enum", "name": "E", "symbols": ["X"]}))
        assert parsing_form(with_references(raw, [reference]))["fields"][0]["type"]["items"]["name"] == "E"

    def test_types_that_name_each_other_end(self) -> None:
        a = {"type": "record", "name": "A", "fields": [{"name": "b", "type": ["null", "B"]}]}
        b = {"type": "record", "name": "B", "fields": [{"name": "a", "type": ["null", "A"]}]}
        references = [Reference("A", "a", 1, json.dumps(a)), Reference("B", "b", 1, json.dumps(b))]
        raw = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "A"}]}
        assert try_schema(with_references(raw, references))[1] == ()


class TestTheSame:
    @given(made=schemas())
    def test_every_schema_is_the_same_as_itself_with_other_spaces_and_docs(self, made: tuple[Any, AvroSchema]) -> None:
        raw, _ = made
        Registration(json.dumps(raw)).check_is(json.dumps(raw, indent=3))
        if isinstance(raw, dict):
            Registration(json.dumps(raw)).check_is(json.dumps({**raw, "doc": "told anew"}))

    @pytest.mark.parametrize(
        "other",
        [
            '"string"',
            '{"type": "record", "name": "R", "fields": []}',
            '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}',
            '{"type": "record", "name": "S", "fields": [{"name": "a", "type": "int"}]}',
            '{"type": "record", "name": "n.R", "fields": [{"name": "a", "type": "int"}]}',
            '{"type": "record", "name": "R", "fields": [{"name": "b", "type": "int"}]}',
            "{}", "[]", "null", "17", "", "{", "[" * 3_000,
            '{"type": "record", "name": "R", "fields": 7}',
        ],
    )  # fmt: skip
    def test_another_one_is_refused(self, other: str) -> None:
        ours = '{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "int"}}]}'
        Registration(ours).check_is('{"name": "R", "type": "record", "fields": [{"type": "int", "name": "a"}]}')
        with pytest.raises(SchemaRegistryError, match="another schema"):
            Registration(ours).check_is(other)


class TestMetadataAndRules:
    def test_they_go_along_in_confluent_s_form_and_do_not_change_what_an_id_stands_for(self, tmp_path: Path) -> None:
        plain = contract_in(tmp_path)
        metadata = Metadata(properties=(("team", "shop"),), tags=(("Order.to", ("PII",)),))
        rule = Rule(name="never", type="CEL", expr="false", mode="READ")
        contract = dataclasses.replace(plain, metadata=metadata, rules=(rule,))
        sent = registration_of(contract)
        body = sent.body()
        assert body["metadata"] == {"properties": {"team": "shop"}, "tags": {"Order.to": ["PII"]}}
        assert body["ruleSet"]["domainRules"][0]["name"] == "never"
        assert sent.question() == registration_of(plain).body()
        assert sent.fingerprint == registration_of(plain).fingerprint


class TestDropped:
    SENT = Registration(
        '"string"',
        metadata={"properties": {"owner": "team"}, "tags": {"R.a": ["PII", "GDPR"]}},
        rule_set={"domainRules": [{"name": "positive", "type": "CEL", "expr": "true"}]},
    )

    def kept(self, metadata: Any, rule_set: Any) -> tuple[str, ...]:
        return dropped_parts(self.SENT, RegisteredSchema("s", 1, 1, '"string"', metadata, rule_set))

    def test_what_is_there_is_not_missed_whatever_the_registry_adds(self) -> None:
        metadata = {"properties": {"owner": "team", "confluent:version": "1"}, "tags": {"R.a": ["GDPR", "PII"]}}
        rules = {"domainRules": [{"name": "positive", "type": "CEL", "expr": "true", "disabled": False}], "x": []}
        assert self.kept(metadata, rules) == ()

    def test_what_is_not_there_or_otherwise_is_named(self) -> None:
        everything = ("metadata.properties", "metadata.tags", "ruleSet.domainRules")
        assert self.kept(None, None) == everything
        assert self.kept({"properties": 7, "tags": []}, {"domainRules": [{"name": "positive"}]}) == everything
        assert self.kept(self.SENT.metadata, {"domainRules": []}) == everything[2:]


class TestInAFolder:
    def test_a_reference_has_to_be_there_and_to_be_the_same(self, tmp_path: Path) -> None:
        registration = registration_of(contract_in(tmp_path))
        with SchemaRegistryClient(tmp_path / "registry") as client:
            with pytest.raises(SubjectNotFoundError, match="no subject address"):
                client.register("orders-value", registration)
            client.register("country", json.dumps(COUNTRY))
            client.register("address", json.dumps(COUNTRY))
            with pytest.raises(SubjectNotFoundError, match="no version 3"):
                client.register("orders-value", registration)
            client.register("address", json.dumps(COUNTRY | {"doc": "another"}))
            client.register("address", json.dumps(COUNTRY | {"doc": "yet another"}))
            with pytest.raises(SchemaRegistryError, match="another schema"):
                client.register("orders-value", registration)

    def test_the_id_shows_the_whole_schema(self, tmp_path: Path) -> None:
        contract = contract_in(tmp_path, ORDER.replace("version: 3", "version: 1"))
        with SchemaRegistryClient(tmp_path / "registry") as client:
            client.register("country", json.dumps(COUNTRY))
            client.register("address", json.dumps(contract.schema["fields"][0]["type"]))
            schema_id = client.register("orders-value", registration_of(contract))
            assert client.lookup("orders-value", registration_of(contract)) == schema_id
            assert try_schema(json.loads(client.by_id(schema_id)))[1] == ()
