"""What every way of publishing gets: the same events, the same ids, the same place, the same client settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from postroom.generators.dummy_data_generator import DummyDataGenerator
from postroom.libs.event import EventIds
from postroom.schemas.data_contracts import packaged_contracts

if TYPE_CHECKING:
    from postroom.schemas.data_contracts import Contract

# So many different events are made beforehand and handed in again and again.
POOL = 10_000
_SEED = 20_261_123


class Place(msgspec.Struct, frozen=True):
    """Where the events go: a broker, a topic that exists there, the registry and its id of the contract's schema."""

    bootstrap: str
    topic: str
    registry: str
    schema_id: int


def contract() -> Contract:
    """Return the packaged contract `user_event`: twelve fields, four of them unions, two enums."""
    return packaged_contracts()["user_event"]


def event_pool(count: int = POOL) -> list[dict[str, Any]]:
    """Return `count` valid events, the same ones each time but for their timestamps."""
    return list(DummyDataGenerator(_SEED).events(count))


def id_pool(count: int = POOL) -> list[list[tuple[str, str | bytes | None]]]:
    """Return the header lists of `count` events: one header, `ce_id`, with 36 characters."""
    ids = EventIds()
    return [[("ce_id", ids.next().encode())] for _ in range(count)]


def peer_settings(place: Place) -> dict[str, object]:
    """Return librdkafka's settings for the other ways: those that postroom has by default and that cost something."""
    return {
        "bootstrap.servers": place.bootstrap,
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 5,
        "partitioner": "murmur2_random",
    }
