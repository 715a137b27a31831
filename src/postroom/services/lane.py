"""One lane for each contract: everything the pipeline needs to turn an event of that type into a record."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from postroom.libs.clock import rfc3339
from postroom.libs.event import Violation
from postroom.libs.exceptions import DecodeError, NotRepresentableError
from postroom.schemas.avro_codec import frame, unframe
from postroom.schemas.csv_events import CsvEvent
from postroom.schemas.json_reader import from_json, read_json
from postroom.schemas.privacy import LEFT_OUT, mask_of
from postroom.services.item import TOMBSTONE
from postroom.services.marks import CONTRACT_LABEL, TOPIC_LABEL, TYPE_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.libs.config_loader import Config
    from postroom.libs.event import Event, Headers
    from postroom.schemas.data_contracts import Contract
    from postroom.schemas.schema_validator import SchemaValidator
    from postroom.services.item import Tombstone
    from postroom.services.ledger import Book

HeadersInput = Mapping[str, "str | bytes"] | tuple[tuple[str, "str | bytes"], ...] | list[tuple[str, "str | bytes"]]
"""What callers may hand in as headers: a mapping or pairs; text is sent as UTF-8."""

_RESERVED = ("ce_", "dlq.", "__connect.", "x-attempt", "content-type")
_MAX_HEADERS = 100
_ABOUT_DATA = ("ce_dataschema", "content-type")


class MetadataError(Exception):
    """A key, id or header that no record can carry; becomes the outcome Refused(invalid_metadata)."""


def dead_letter_topic(contract: Contract, config: Config) -> str:
    """Return the actual name of the topic that keeps the dead letters of `contract`.

    It is the one that the contract names, else the contract's topic with `dead_letters.suffix` behind its actual name.
    """
    if contract.dead_letter_topic is not None:
        return config.topic(contract.dead_letter_topic)
    return config.topic(contract.topic) + config.dead_letters.suffix


class Lane:
    """The way of the events of one contract: check, encode, address.

    `shares_topic` says that the topic holds other types too: then every record names its own.
    `schema_id` is None until the registry has named it, and when it is too old; then nothing passes, and
    `closed_because` says why.
    """

    __slots__ = (
        "_codec",
        "_fixed_headers",
        "_prefix",
        "_source",
        "_validator",
        "book",
        "closed_because",
        "conditions",
        "contract",
        "dead_letter_topic",
        "is_cloudevent",
        "key_field",
        "labels",
        "mask",
        "name",
        "schema_id",
        "topic",
    )

    def __init__(
        self, contract: Contract, config: Config, *, validator: SchemaValidator, book: Book, shares_topic: bool = False
    ) -> None:
        self.contract = contract
        self.name = contract.name
        self.topic = config.topic(contract.topic)
        self.dead_letter_topic = dead_letter_topic(contract, config)
        self.key_field = contract.key_field
        self.conditions = contract.conditions
        self.mask = mask_of(contract, config.dead_letters.privacy, config.dead_letters.hash_key)
        self.book = book
        self.labels: Headers = (
            (TYPE_LABEL, self.name.encode()),
            (CONTRACT_LABEL, f"{self.name}:{contract.version}".encode()),
            (TOPIC_LABEL, contract.topic.encode()),
        )
        self.schema_id: int | None = None
        self.closed_because = f"the registry has not named the schema of {self.name} yet"
        self._validator = validator
        self._codec = contract.codec
        self._prefix = b""
        self._source = config.producer.client_id
        self.is_cloudevent = contract.headers == "cloudevents"
        self._fixed_headers: Headers = (("ce_type", self.name.encode()),) if shares_topic else ()

    def use_schema_id(self, schema_id: int, registry_url: str = "") -> None:
        """Open the lane: from now on records carry this schema id; `registry_url` says where it can be looked up."""
        self._prefix = frame(schema_id)
        if self.is_cloudevent:
            self._fixed_headers = (
                ("ce_specversion", b"1.0"),
                ("ce_type", self.name.encode()),
                ("ce_source", f"/postroom/{self._source}".encode()),
                ("ce_dataschema", f"{registry_url.rstrip('/')}/schemas/ids/{schema_id}".encode()),
                ("content-type", b"application/avro"),
            )
        self.schema_id = schema_id

    def close(self, why: str) -> None:
        """Let nothing pass until there is a schema id again."""
        self.closed_because = why
        self.schema_id = None

    def headers(self, event_id: str, timestamp_ms: int, attempt: int) -> Headers:
        """Return postroom's own headers of a record: `ce_id` always, the rest of CloudEvents where the contract asks.

        `ce_type` also where the topic holds several types. CloudEvents 1.0, Kafka protocol binding, binary mode. Each
        header costs about 0.5 us inside the client library.
        """
        own: Headers = (("ce_id", event_id.encode()),)
        if self._fixed_headers:
            own = (*own, *self._fixed_headers)
        if self.is_cloudevent:
            moment = rfc3339(datetime.fromtimestamp(timestamp_ms / 1000, UTC))
            own = (*own, ("ce_time", moment.encode()))
        return own if attempt == 1 else (*own, ("x-attempt", str(attempt).encode()))

    def tombstone_headers(self, event_id: str, timestamp_ms: int, attempt: int) -> Headers:
        """Return postroom's own headers of a record without a value: those of any record that do not describe data."""
        return tuple(pair for pair in self.headers(event_id, timestamp_ms, attempt) if pair[0] not in _ABOUT_DATA)

    def read(self, event: Event | bytes) -> object:
        """Return what is to be checked: a mapping as a dict, JSON or a row of CSV read by the contract.

        Raises DecodeError for what is none of these, NotRepresentableError for a mapping that cannot be read.
        """
        if isinstance(event, bytes):
            if type(event) is CsvEvent:
                return event.read(self.contract)
            return from_json(self.contract, read_json(event))
        # The check takes exactly dicts, inside an event as well; only its own container may be any mapping.
        if type(event) is dict:
            return event
        try:
            return dict(event)
        except Exception as exc:
            raise NotRepresentableError(f"the mapping raised {type(exc).__name__} when it was read") from exc

    def problems(self, event: Event | bytes | Tombstone) -> list[Violation]:
        """Return every reason why the event cannot be published as it is; none for an event that can."""
        if event is TOMBSTONE:
            allowed = self.contract.tombstones
            return [] if allowed else [Violation("", "tombstone_not_allowed", "tombstones: true", "no value")]
        try:
            read = self.read(event)
        except DecodeError as exc:
            expected = "a row of CSV" if type(event) is CsvEvent else "the JSON of one event"
            return [Violation("", exc.reason, expected, exc.message)]
        return self.violations(read, event)

    def encode(self, event: object) -> bytes | None:
        """Return the record's value (schema id and Avro body), or None for an event that breaks the contract."""
        return self._codec.encode(event, self._prefix)

    def decode(self, value: bytes) -> dict[str, object]:
        """Return the event that `encode` wrote, under whatever schema id. Raises DecodeError."""
        event: dict[str, object] = self._codec.decode(unframe(value)[1])
        return event

    def violations(self, event: object, handed_in: object = None) -> list[Violation]:
        """Return every way in which the event breaks the contract, its rules included.

        If it was a row of CSV, each with line and column.
        """
        found = self._validator.validate(self.name, event)
        return handed_in.located(found) if type(handed_in) is CsvEvent else found

    def to_keep(self, event: Event | bytes | None) -> tuple[Event | bytes | None, str]:
        """Return what of the event may stand in a dead letter, and what was done to it: "" for nothing.

        None is a tombstone, which has nothing to hide.
        """
        if self.mask is None or event is None:
            return event, ""
        if type(event) is CsvEvent:
            try:
                event = event.read(self.contract)
            except DecodeError:
                return b"", LEFT_OUT
        masked = self.mask.masked(event)
        return (b"", LEFT_OUT) if masked is None else (masked, self.mask.privacy)

    def key_of(self, event: object) -> bytes | None:
        """Return the key that the contract names, as far as the event has one that can be a key."""
        if self.key_field is None or (type(event) is not dict and not isinstance(event, Mapping)):
            return None
        try:
            value = event.get(self.key_field)
            if type(value) is str:
                return value.encode()
            if type(value) is bytes:
                return value
            return str(value).encode() if type(value) in {int, uuid.UUID} else None
        except Exception:  # noqa: BLE001 - a hostile mapping may raise anything; its violations say the rest
            return None


def key_bytes(key: str | bytes) -> bytes:
    """Return a caller's key as bytes: text as UTF-8, bytes as they are. Raises MetadataError for lone surrogates."""
    if isinstance(key, bytes):
        return key
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise MetadataError("the key is not valid text") from None


def checked_headers(headers: HeadersInput, max_bytes: int, beside: Headers = ()) -> Headers:
    """Return the caller's headers as Kafka takes them; those that go `beside` them count for number and size.

    Raises TypeError for a wrong type, MetadataError for more than 100 headers or `max_bytes` bytes of names and values
    (a dead letter must have room for them beside its own), an empty, long or reserved name
    (`ce_`, `dlq.`, `__connect.`, `x-attempt`, `content-type` are postroom's), or text that is not valid UTF-8.
    """
    pairs: Iterable[tuple[object, object]] = headers.items() if isinstance(headers, Mapping) else headers
    checked: list[tuple[str, bytes]] = []
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str | bytes):
            raise TypeError("headers must be names (str) with values (str or bytes)")
        try:
            if not name or len(name.encode()) > 256:
                raise MetadataError("a header's name must have 1 to 256 bytes")
            if name.startswith(_RESERVED):
                raise MetadataError("headers named ce_*, dlq.*, __connect.*, x-attempt, content-type are postroom's")
            checked.append((name, value.encode() if isinstance(value, str) else value))
        except UnicodeEncodeError:
            raise MetadataError("a header is not valid text") from None
    if len(checked) + len(beside) > _MAX_HEADERS:
        raise MetadataError(f"more than {_MAX_HEADERS} headers")
    if sum(len(name.encode()) + len(value) for name, value in (*beside, *checked)) > max_bytes:
        raise MetadataError(f"headers of more than {max_bytes} bytes, see dead_letters.max_header_bytes")
    return tuple(checked)
