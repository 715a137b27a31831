"""The other ways: what people write around confluent-kafka today, each in its fastest honest form.

They poll as postroom does (once in 128 records, measured to be the cheapest), count every delivery report, and get
their event ids ready-made where they send one.
"""

from __future__ import annotations

from io import BytesIO
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import fastavro
from confluent_kafka import KafkaError, Message, Producer
from fastavro.validation import validate

from benchmarks.workload import Place, contract, event_pool, id_pool, peer_settings
from postroom.schemas.avro_codec import frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Encode = Callable[[dict[str, Any]], bytes | None]

_POLL_EVERY = 128


class _Peer:
    """A producer with a delivery callback; `send` returns when every record is reported."""

    def __init__(self, place: Place, *, with_id: bool) -> None:
        self._topic = place.topic
        self._producer = Producer(peer_settings(place))
        self._headers: Iterator[list[tuple[str, str | bytes | None]] | None] = cycle(id_pool() if with_id else [None])
        self.delivered = 0
        self._problems = 0

    def send(self, count: int) -> None:
        """Produce `count` events and wait for their reports. Raises RuntimeError if one of them was not delivered."""
        self._produce_all(count)
        left = self._producer.flush(60.0)
        if left or self._problems:
            raise RuntimeError(f"{left} records without a report, {self._problems} not delivered")

    def close(self) -> None:
        """Do nothing: everything is reported, and dropping the producer closes it."""

    def _produce_all(self, count: int) -> None:
        raise NotImplementedError

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.delivered += 1
        else:
            self._problems += 1

    def _wait_for_room(self) -> None:
        self._producer.poll(0.01)


class Raw(_Peer):
    """Nothing but the client library: key, value and headers lie there as bytes."""

    def __init__(self, place: Place, *, with_id: bool) -> None:
        super().__init__(place, with_id=with_id)
        encode = _fastavro_encoder(place)
        self._ready = cycle([(encode(event), event["user_id"].encode()) for event in event_pool()])

    def _produce_all(self, count: int) -> None:
        produce, poll, topic, on_delivery = self._producer.produce, self._producer.poll, self._topic, self._on_delivery
        ready = zip(islice(self._ready, count), self._headers, strict=False)  # the headers never end
        for number, ((value, key), headers) in enumerate(ready):
            while True:
                try:
                    produce(topic, value, key, headers=headers, on_delivery=on_delivery)
                    break
                except BufferError:
                    self._wait_for_room()
            if number % _POLL_EVERY == 0:
                poll(0)


class Encoding(_Peer):
    """Encodes each event, then produces it."""

    def __init__(self, place: Place, encode: Encode, *, with_id: bool) -> None:
        super().__init__(place, with_id=with_id)
        self._encode = encode
        self._events: Iterable[dict[str, Any]] = cycle(event_pool())

    def _produce_all(self, count: int) -> None:
        produce, poll, topic, on_delivery = self._producer.produce, self._producer.poll, self._topic, self._on_delivery
        encode = self._encode
        events = zip(islice(self._events, count), self._headers, strict=False)  # the headers never end
        for number, (event, headers) in enumerate(events):
            value = encode(event)
            key = event["user_id"].encode()
            while True:
                try:
                    produce(topic, value, key, headers=headers, on_delivery=on_delivery)
                    break
                except BufferError:
                    self._wait_for_room()
            if number % _POLL_EVERY == 0:
                poll(0)


def raw(place: Place, *, with_id: bool) -> Raw:
    """Produce bytes that are ready."""
    return Raw(place, with_id=with_id)


def fastavro_produce(place: Place, *, with_id: bool) -> Encoding:
    """Encode with fastavro, which checks nothing on purpose, and produce."""
    return Encoding(place, _fastavro_encoder(place), with_id=with_id)


def validate_fastavro_produce(place: Place, *, with_id: bool) -> Encoding:
    """Check with `fastavro.validate`, encode with fastavro, and produce."""
    encode, schema = _fastavro_encoder(place), fastavro.parse_schema(contract().schema)

    def checked(event: dict[str, Any]) -> bytes:
        # Told to raise, it also raises inside, for each branch of a union that does not fit: eight times the price.
        if not validate(event, schema, raise_errors=False):
            raise ValueError("the event breaks its schema")
        return encode(event)

    return Encoding(place, checked, with_id=with_id)


def avro_serializer_produce(place: Place, *, with_id: bool) -> Encoding:
    """Encode with the official AvroSerializer, which knows the schema's id after the first event, and produce."""
    return Encoding(place, _official(place, {"auto.register.schemas": True}), with_id=with_id)


def avro_serializer_latest_produce(place: Place, *, with_id: bool) -> Encoding:
    """Encode with the official AvroSerializer with `use.latest.version`, and produce."""
    settings: dict[str, object] = {"auto.register.schemas": False, "use.latest.version": True}
    return Encoding(place, _official(place, settings), with_id=with_id)


def _fastavro_encoder(place: Place) -> Callable[[dict[str, Any]], bytes]:
    schema, prefix, write = fastavro.parse_schema(contract().schema), frame(place.schema_id), fastavro.schemaless_writer

    def encode(event: dict[str, Any]) -> bytes:
        body = BytesIO()
        body.write(prefix)
        write(body, schema, event)
        return body.getvalue()

    return encode


def _official(place: Place, settings: dict[str, object]) -> Encode:
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    registry = SchemaRegistryClient.new_client({"url": place.registry})
    serializer = AvroSerializer(registry, contract().schema_json, conf=settings)
    context = SerializationContext(place.topic, MessageField.VALUE)

    def encode(event: dict[str, Any]) -> bytes | None:
        value: bytes | None = serializer(event, context)
        return value

    return encode
