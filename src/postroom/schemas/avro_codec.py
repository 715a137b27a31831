"""Events to Avro bytes and back, and the five bytes that Confluent's wire format puts in front of them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from postroom.libs.exceptions import DecodeError
from postroom.schemas.avro_decoder import build_decoder
from postroom.schemas.avro_encoder import build_encoder
from postroom.schemas.avro_schema import AvroSchema, parse_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_PREFIX = struct.Struct(">bI")


def frame(schema_id: int) -> bytes:
    """The five bytes in front of an Avro body: a zero and the schema id, big endian (Confluent wire format)."""
    return _PREFIX.pack(0, schema_id)


def unframe(value: bytes) -> tuple[int, bytes]:
    """The schema id and the Avro body of a record's value; DecodeError for whatever has not these five bytes."""
    if len(value) < _PREFIX.size:
        raise DecodeError(
            f"no schema id: {len(value)} bytes, and the wire format begins with five",
            reason="truncated",
            position=len(value),
        )
    magic, schema_id = _PREFIX.unpack_from(value)
    if magic != 0:
        raise DecodeError("the first byte is not the zero of the wire format", reason="bad_magic", position=0)
    return schema_id, value[_PREFIX.size :]


class Codec:
    """Encodes and decodes events of one schema. The two functions are made when the codec is made (about 1 ms)."""

    __slots__ = ("decode", "encode", "schema")

    encode: Callable[..., bytes | None]
    """`encode(event, prefix=b"")`: prefix and Avro bytes of a valid event, None for anything else.

    None means: ask the slow road (`event_checker.find_violations`) why. Missing fields are written with their default.
    Never raises on account of the event, and does not change it.
    """

    decode: Callable[[bytes], Any]
    """`decode(body)`: the value of an Avro body without prefix; DecodeError for every body that is not exactly one.

    Fields come in the schema's order, datetimes in UTC. Memory and time are bounded by the length of the body.
    """

    def __init__(self, schema: AvroSchema | Mapping[str, Any] | Sequence[Any] | str) -> None:
        """Of a parsed schema or of its JSON form; InvalidContractError where that is no Avro schema."""
        self.schema = schema if isinstance(schema, AvroSchema) else parse_schema(schema)
        self.encode = build_encoder(self.schema.root, recursive=self.schema.recursive)
        self.decode = build_decoder(self.schema.root)
