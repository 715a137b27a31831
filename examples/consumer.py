"""Reads events back with Confluent's client: `python examples/consumer.py BROKER REGISTRY`."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext, SerializationError

if TYPE_CHECKING:
    from collections.abc import Iterator


def events(broker: str, registry: str, topic: str = "user_events", group: str = "reports") -> Iterator[Any]:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": group, "auto.offset.reset": "earliest"})
    with SchemaRegistryClient({"url": registry}) as client, closing(consumer):
        decode = AvroDeserializer(client, conf={"subject.name.strategy": topic_subject_name_strategy})
        consumer.subscribe([topic])
        while True:
            message = consumer.poll(1.0)
            if message is None or message.error() is not None:
                continue
            try:
                event = decode(message.value(), SerializationContext(topic, MessageField.VALUE))
            except SerializationError:
                print(f"not written by a contract: partition {message.partition()}, offset {message.offset()}")
            else:
                yield event


if __name__ == "__main__":
    for event in events(*sys.argv[1:]):
        print(event)
