"""The schema of a contract as types of CEL, so that rules are checked against it when the contract is loaded.

CEL knows named fields only in Protobuf messages: each Avro record becomes one. They serve the checker alone; events
are never turned into messages.
"""

from __future__ import annotations

from typing import Any, Final

from postroom.schemas.avro_graph import walk
from postroom.schemas.avro_nodes import Array, Leaf, Map, Node, Record, Union

_PACKAGE: Final = "record"
_ANYTHING: Final = "google.protobuf.Value"
_CONTAINERS: Final = {Array: "google.protobuf.ListValue", Map: "google.protobuf.Struct"}  # of anything
_ROWS: Final = {
    "boolean": "BOOL",
    "float": "DOUBLE",
    "double": "DOUBLE",
    "decimal": "DOUBLE",
    "bytes": "BYTES",
    "fixed": "BYTES",
    "string": "STRING",
    "enum": "STRING",
    "uuid": "STRING",
}  # the rest is INT64, but for timestamps and null
_WRAPPERS: Final = {"BOOL": "Bool", "DOUBLE": "Double", "BYTES": "Bytes", "STRING": "String", "INT64": "Int64"}


class RecordTypes:
    """The types of CEL for the records of one schema, and the pool of descriptors in which they are defined."""

    def __init__(self, root: Node) -> None:
        from google.protobuf import descriptor_pb2, descriptor_pool, struct_pb2, timestamp_pb2, wrappers_pb2

        file = descriptor_pb2.FileDescriptorProto(name="contract.proto", package=_PACKAGE, syntax="proto2")
        self.pool = descriptor_pool.DescriptorPool()
        for module in (wrappers_pb2, timestamp_pb2, struct_pb2):
            self.pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
            file.dependency.append(module.DESCRIPTOR.name)
        self._names: dict[str, str] = {}
        records = [node for node in walk(root) if isinstance(node, Record)]
        for record in records:
            self._names[record.name] = self._free_name(record.name.replace(".", "_"))
        for record in records:
            self._define(file.message_type.add(name=self._names[record.name]), record)
        self.pool.AddSerializedFile(file.SerializeToString())

    def _free_name(self, wanted: str) -> str:
        taken = set(self._names.values())
        return wanted if wanted not in taken else self._free_name(wanted + "_")

    def record(self, record: Record) -> str:
        """The name of the type of a record."""
        return f"{_PACKAGE}.{self._names[record.name]}"

    def leaf(self, leaf: Leaf, *, nullable: bool = False) -> str:
        """The name of CEL's type of a leaf, `null` beside it or not: one of Protobuf's, or a word such as INT."""
        kind = _kind(leaf)
        if kind is None:
            return "NULL" if leaf.row == "null" else "google.protobuf.Timestamp"
        if nullable:
            return f"google.protobuf.{_WRAPPERS[kind]}Value"
        return "INT" if kind == "INT64" else kind

    def _define(self, message: Any, record: Record) -> None:
        message.options.deprecated_legacy_json_field_conflicts = True  # else C++ complains of default names on stderr
        for at, field in enumerate(record.fields, 1):
            number = at + (1000 if at >= 19_000 else 0)  # 19000 to 19999 are Protobuf's own
            # A name in JSON of our own, since those made from `a_b` and `aB` would be the same.
            proto = message.field.add(name=field.name, json_name=f"f{number}", number=number, label=1)
            self._fill(message, proto, field.type)

    def _fill(self, message: Any, proto: Any, node: Node) -> None:
        if isinstance(node, Array) and not isinstance(node.items, (Array, Map)):
            self._fill(message, proto, node.items)
            proto.label = 3  # LABEL_REPEATED
        elif isinstance(node, Map) and _entry_name(proto.name) not in {entry.name for entry in message.nested_type}:
            entry = message.nested_type.add(name=_entry_name(proto.name))
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=9, label=1)  # TYPE_STRING
            value = entry.field.add(name="value", number=2, label=1)
            self._fill(entry, value, Union((node.values,)) if isinstance(node.values, (Array, Map)) else node.values)
            proto.type_name = f".{_PACKAGE}.{message.name}.{entry.name}"
            proto.type, proto.label = 11, 3  # TYPE_MESSAGE, LABEL_REPEATED
        else:
            self._fill_one(proto, node)

    def _fill_one(self, proto: Any, node: Node) -> None:
        only, nullable = only_branch(node)
        if isinstance(only, Record):
            name = self.record(only)
        elif isinstance(only, Leaf):
            kind = _kind(only)
            if kind is not None and not nullable:
                proto.type = proto.Type.Value(f"TYPE_{kind}")
                return
            name = _ANYTHING if only.row == "null" else self.leaf(only, nullable=nullable)
        else:
            name = _ANYTHING if nullable else _CONTAINERS.get(type(only), _ANYTHING)
        proto.type, proto.type_name = 11, f".{name}"  # TYPE_MESSAGE


def only_branch(node: Node) -> tuple[Node | None, bool]:
    """What a value is when it is not null, and whether it may be null; None where there are several possibilities."""
    if not isinstance(node, Union):
        return node, False
    rest = [branch for branch in node.branches if not is_null(branch)]
    nullable = len(rest) < len(node.branches)
    if len(rest) == 1 and not isinstance(rest[0], Union):
        return rest[0], nullable
    return None, nullable


def is_null(node: Node) -> bool:
    """True for the branch of a union that says that there is nothing."""
    return isinstance(node, Leaf) and node.row == "null"


def _entry_name(field: str) -> str:
    """How Protobuf calls the type of the entries of a map field; two fields may have one name for theirs."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"


def _kind(leaf: Leaf) -> str | None:
    if leaf.row == "null" or leaf.row.startswith(("timestamp", "local-timestamp")):
        return None
    return _ROWS.get(leaf.row, "INT64")
