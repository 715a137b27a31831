"""What a record of the spool holds, for `postroom spool inspect`: its contract, the names of its fields, or all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from postroom.cli.words import printable
from postroom.services.marks import CONTRACT_LABEL, REASON_LABEL
from postroom.services.record_view import RecordView
from postroom.streaming.kafka_reader import ReadRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postroom.services.record_view import Schemas
    from postroom.streaming.spool.record_format import StoredRecord

_NOT_SAID_AGAIN = frozenset({"topic", "partition", "offset", "timestamp", "event_id", "contract", "reason"})


def told_labels(stored: StoredRecord) -> dict[str, str]:
    """The contract with its version, and why a dead letter is one, as far as they stand beside the record."""
    labels = dict(stored.labels)
    names = {"contract": CONTRACT_LABEL, "reason": REASON_LABEL}
    return {name: labels[label].decode(errors="replace") for name, label in names.items() if label in labels}


class SpoolContent:
    """Decodes records of the spool with the schemas of a registry, which is asked once for each schema."""

    def __init__(self, schemas: Schemas, *, with_values: bool) -> None:
        self._view = RecordView(schemas)
        self._with_values = with_values

    def tell(self, stored: StoredRecord) -> dict[str, Any]:
        """What is in the record, as JSON has it. Never raises for what a record holds.

        Without values: `schema_id` and `fields`, the names in the schema, of an event; `problem` for what has none or
        cannot be decoded. A dead letter's names are its caller's, and content: nothing is told of them. With values:
        all that `RecordView.describe` says.
        """
        record = stored.record
        described = self._view.describe(
            ReadRecord(record.topic, -1, -1, record.key, record.value, record.headers, record.timestamp_ms)
        )
        if self._with_values:
            return {name: value for name, value in described.items() if name not in _NOT_SAID_AGAIN}
        match described["kind"]:
            case "event" if isinstance(described["event"], dict):
                return {"schema_id": described["schema_id"], "fields": list(described["event"])}
            case "bytes":
                return {"problem": described["problem"]}
            case _:
                return {}


def content_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """The content of a record of `postroom spool inspect` for people, below its own line."""
    if "fields" in told:
        yield f"    schema {told['schema_id']}: {printable(', '.join(told['fields']))}"
    if "problem" in told:
        yield f"    not decoded: {printable(told['problem'])}"
    for name in ("key", "headers", "violations", "event"):
        if told.get(name):
            yield f"    {name}: {printable(json.dumps(told[name], ensure_ascii=False))}"
