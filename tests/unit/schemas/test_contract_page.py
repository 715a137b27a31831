"""The page and the AsyncAPI document of a contract say what the contract says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postroom.schemas.asyncapi import asyncapi
from postroom.schemas.contract_diff import Side
from postroom.schemas.contract_page import index, page
from postroom.schemas.data_contracts import Contract, load_contract, packaged_contracts

if TYPE_CHECKING:
    from pathlib import Path

ORDER = """\
name: order
version: 2
description: Somebody | ordered.
owner: shop
topic: {name: shop.orders, partitions: 6, replication: 3, retention: 36h}
dead_letter_topic: {name: shop.lost, partitions: 1, retention: forever}
key: id
compatibility: FULL
schema:
  type: record
  name: shop.Order
  fields:
    - {name: id, type: {type: string, logicalType: uuid}, doc: Which <order>.}
    - {name: state, type: {type: enum, name: State, symbols: [NEW, PAID]}, default: NEW}
    - {name: lines, type: {type: array, items: {type: record, name: Line, fields: [{name: price, type: double}]}}}
    - {name: by_day, type: {type: map, values: Line}}
    - {name: parent, type: ["null", Order], default: null}
    - {name: note, type: ["null", {type: record, name: Note, fields: [{name: text, type: string}]}], default: null}
examples: [{id: 00000000-0000-0000-0000-000000000001, lines: [], by_day: {}}]
"""


def contract(tmp_path: Path, text: str = ORDER) -> Contract:
    path = tmp_path / "order.yaml"
    path.write_text(text)
    return load_contract(path)


class TestPage:
    def test_it_says_what_the_contract_says(self, tmp_path: Path) -> None:
        lines = page(contract(tmp_path)).splitlines()
        for line in (
            "# order",
            "Somebody \\| ordered.",
            "| topic | shop.orders, 6 partitions, 3 copies, kept 36 h |",
            "| dead letters | shop.lost, 1 partition, kept for ever |",
            "| key | id |",
            "| compatibility | FULL |",
            "| `id` | uuid | required | Which &lt;order>. |",
            '| `state` | one of NEW, PAID | `"NEW"` | - |',
            "| `lines` | list of record Line | required | - |",
            "| `lines[].price` | double | required | - |",
            "| `parent` | null or record Order | `null` | - |",
            "| `note.text` | string | required | - |",
            '{"id": "00000000-0000-0000-0000-000000000001", "lines": [], "by_day": {}}',
        ):
            assert line in lines, line
        assert "## Versions" not in lines

    def test_every_version_says_what_it_changed_and_broke(self, tmp_path: Path) -> None:
        made = contract(tmp_path)
        first = {**made.schema, "fields": [*made.schema["fields"][:-1], {"name": "gone", "type": "int"}]}
        text = page(made, [Side("shop.orders-value version 1", first)])
        assert (
            "### order version 2 (this contract, not registered)\n\n- note: field of type null or record Note" in text
        )
        assert "- gone: field of type int removed, which had no default. **Breaks FORWARD.**" in text
        assert text.endswith("### shop.orders-value version 1\n\nThe first one.\n")
        assert "this contract" not in page(made, [Side("1", made.schema)])

    def test_the_index_leads_to_each(self, tmp_path: Path) -> None:
        assert "| [order](order.md) | Somebody \\| ordered. | shop.orders | shop |" in index([contract(tmp_path)])


class TestAsyncApi:
    """The document was compared with the published JSON schema of AsyncAPI 3.0.0; here its parts are."""

    def test_channels_messages_and_operations_lead_to_each_other(self, tmp_path: Path) -> None:
        document = asyncapi([contract(tmp_path), *packaged_contracts().values()])
        assert (document["asyncapi"], set(document["channels"])) == ("3.0.0", {"shop.orders", "user_events"})
        for reference in references(document):
            found: Any = document
            for step in reference.removeprefix("#/").split("/"):
                found = found[step]
            assert found
        assert len(list(references(document))) == 6

    def test_topics_and_keys_are_kafka_bindings(self, tmp_path: Path) -> None:
        document = asyncapi([contract(tmp_path)])
        assert document["channels"]["shop.orders"]["bindings"] == {
            "kafka": {
                "topic": "shop.orders",
                "partitions": 6,
                "replicas": 3,
                "topicConfiguration": {"retention.ms": 129_600_000},
                "bindingVersion": "0.5.0",
            }
        }
        message = document["components"]["messages"]["order"]
        assert message["bindings"]["kafka"] == {
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "key": {"type": "string", "format": "uuid", "description": "The field id."},
            "bindingVersion": "0.5.0",
        }
        assert message["payload"]["schema"]["name"] == "shop.Order"
        assert message["examples"] == [{"payload": dict(contract(tmp_path).governance.examples[0])}]

    @pytest.mark.parametrize(
        ("kind", "schema"),
        [
            ('["null", long]', {"type": "integer"}),
            ("{type: enum, name: E, symbols: [A]}", {"type": "string", "enum": ["A"]}),
            ("bytes", {"type": "string"}),
        ],
    )
    def test_a_key_has_the_type_of_its_field(self, tmp_path: Path, kind: str, schema: dict[str, Any]) -> None:
        made = contract(
            tmp_path, f"name: a b\nversion: 1\ntopic: t\nkey: k\nschema: {{k: {kind}}}\n".replace("a b", "ab")
        )
        key = asyncapi([made])["components"]["messages"]["ab"]["bindings"]["kafka"]["key"]
        assert key == {**schema, "description": "The field k."}

    def test_what_is_not_said_is_not_there(self, tmp_path: Path) -> None:
        made = contract(tmp_path, "name: plain\nversion: 1\ntopic: t\nschema: {k: string}\n")
        document = asyncapi([made])
        assert document["channels"]["t"]["bindings"]["kafka"] == {"topic": "t", "bindingVersion": "0.5.0"}
        assert set(document["components"]["messages"]["plain"]) == {
            "name",
            "title",
            "contentType",
            "payload",
            "bindings",
        }

    def test_two_contracts_of_one_topic_share_its_channel(self, tmp_path: Path) -> None:
        one = contract(tmp_path)
        other = contract(tmp_path, ORDER.replace("name: order\n", "name: order.cancelled\n"))
        document = asyncapi([one, other])
        assert set(document["channels"]["shop.orders"]["messages"]) == {"order", "order.cancelled"}


def references(part: Any) -> Any:
    """Every `$ref` of the document that is not inside a payload."""
    if isinstance(part, dict):
        for key, inner in part.items():
            if key == "$ref":
                yield inner
            elif key != "payload":
                yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)
