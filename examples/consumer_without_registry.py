"""Reads events back with the contract alone and shows repeats once: `python examples/consumer_without_registry.py`."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer

from postroom.schemas.avro_codec import unframe
from postroom.schemas.data_contracts import packaged_contracts

if TYPE_CHECKING:
    from collections.abc import Iterator

contract = packaged_contracts()["user_event"]  # of your own: load_contract("contracts/order.yaml")


def events(broker: str, topic: str = "user_events", group: str = "reports") -> Iterator[tuple[str, dict[str, Any]]]:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": group, "auto.offset.reset": "earliest"})
    with closing(consumer):
        consumer.subscribe([topic])
        while True:
            message = consumer.poll(1.0)
            value = None if message is None or message.error() is not None else message.value()
            if message is None or value is None:
                continue
            headers: dict[str, Any] = dict(message.headers() or [])
            _schema_id, body = unframe(value)
            yield headers["ce_id"].decode(), contract.codec.decode(body)


if __name__ == "__main__":
    seen: set[str] = set()  # of a real service: a table of its database
    for event_id, event in events(*sys.argv[1:] or ["localhost:9092"]):
        if event_id not in seen:
            seen.add(event_id)
            print(event_id, event)
