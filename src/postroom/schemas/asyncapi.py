"""Contracts as an AsyncAPI 3.0 document with Kafka bindings (0.5.0): what other tools read to know topics and events.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from postroom.schemas.avro_nodes import Leaf, Record, Union

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from postroom.schemas.avro_nodes import Node
    from postroom.schemas.data_contracts import Contract

_BINDING: Final = "0.5.0"
_AVRO: Final = "application/vnd.apache.avro+json;version=1.9.0"
_KEY_SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    "uuid": {"type": "string", "format": "uuid"}, "int": {"type": "integer"}, "long": {"type": "integer"},
}  # fmt: skip


def asyncapi(contracts: Sequence[Contract], *, title: str = "Events", version: str = "1") -> dict[str, Any]:
    """The document, made of dicts, lists, texts and numbers. Topics are the logical ones that the contracts name."""
    channels: dict[str, dict[str, Any]] = {}
    operations, messages = {}, {}
    for contract in contracts:
        channel = channels.setdefault(_identifier(contract.topic), _channel(contract))
        message = _identifier(contract.name)
        channel["messages"][message] = {"$ref": f"#/components/messages/{message}"}
        messages[message] = _message(contract)
        place = f"#/channels/{_identifier(contract.topic)}"
        operations[f"publish_{message}"] = {
            "action": "send",
            "summary": f"Publish {contract.name}.",
            "channel": {"$ref": place},
            "messages": [{"$ref": f"{place}/messages/{message}"}],
        }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _identifier(name: str) -> str:
    """A name as a key of the document: one that needs no escaping in a reference."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _channel(contract: Contract) -> dict[str, Any]:
    kafka: dict[str, Any] = {"topic": contract.topic}
    if contract.partitions != -1:
        kafka["partitions"] = contract.partitions
    if contract.replication != -1:
        kafka["replicas"] = contract.replication
    if contract.retention_ms is not None:
        kafka["topicConfiguration"] = {"retention.ms": contract.retention_ms}
    bindings = {"kafka": {**kafka, "bindingVersion": _BINDING}}
    return {"address": contract.topic, "messages": {}, "bindings": bindings}


def _message(contract: Contract) -> dict[str, Any]:
    binding: dict[str, Any] = {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent"}
    if contract.key_field is not None:
        binding["key"] = _key(contract)
    message: dict[str, Any] = {
        "name": contract.name,
        "title": f"{contract.name} version {contract.version}",
        "contentType": "application/vnd.apache.avro",
        "payload": {"schemaFormat": _AVRO, "schema": contract.schema},
        "bindings": {"kafka": {**binding, "bindingVersion": _BINDING}},
    }
    if contract.description:
        message["summary"] = contract.description
    if contract.owner:
        message["tags"] = [{"name": f"owner:{contract.owner}"}]
    if contract.governance.examples:
        message["examples"] = [{"payload": example} for example in contract.governance.examples]
    return message


def _key(contract: Contract) -> dict[str, Any]:
    assert isinstance(contract.avro.root, Record)
    field = next(item for item in contract.avro.root.fields if item.name == contract.key_field)
    return {**_key_schema(field.type), "description": f"The field {contract.key_field}."}


def _key_schema(node: Node) -> dict[str, Any]:
    if isinstance(node, Union):
        node = next(branch for branch in node.branches if not (isinstance(branch, Leaf) and branch.row == "null"))
    assert isinstance(node, Leaf)
    if node.row == "enum":
        return {"type": "string", "enum": list(node.symbols)}
    return dict(_KEY_SCHEMAS.get(node.row, {"type": "string"}))
