"""The table of all ways, and the measurement of one of them in this process."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workload import Place

WARM_UP = 5_000


class Sender(Protocol):
    """One way of publishing, connected and ready."""

    @property
    def delivered(self) -> int:
        """How many events were acknowledged since the beginning."""
        ...

    def send(self, count: int) -> None:
        """Publish `count` events and return when each is acknowledged."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Way(NamedTuple):
    """A way in the table. `with_id`: each record carries the header `ce_id`."""

    family: str
    with_id: bool
    title: str

    @property
    def name(self) -> str:
        """`family`, and `+ce_id` for a way of others that sends the header."""
        return f"{self.family}+ce_id" if self.with_id and self.family in _PEERS else self.family

    @property
    def ours(self) -> bool:
        """Whether this is postroom."""
        return self.family not in _PEERS


class Figures(msgspec.Struct, frozen=True):
    """What one process measured: CPU time of all its threads (user and system) and wall time, for one event."""

    cpu_us: float
    wall_us: float


_PEERS = {
    "raw": "raw: bytes ready, produce + callback",
    "fastavro": "fastavro + produce + callback",
    "validate": "fastavro.validate + fastavro + produce + callback",
    "serializer": "official AvroSerializer + produce + callback",
    "serializer-latest": "official AvroSerializer, use.latest.version, + produce + callback",
}
_OURS = {
    "publish_event": "postroom publish_event",
    "publish_many": "postroom publish_many",
    "async": "postroom async publish_event, 1,000 tasks",
}
WAYS: tuple[Way, ...] = (
    *(Way(family, with_id, title) for family, title in _PEERS.items() for with_id in (False, True)),
    *(Way(family, with_id=True, title=title) for family, title in _OURS.items()),
)


def connect(way: Way, place: Place) -> Sender:
    """Make the way ready to send; this is where its libraries are imported."""
    if way.ours:
        from benchmarks import pipeline

        ours: dict[str, Callable[[Place], Sender]] = {
            "publish_event": pipeline.PublishEvent,
            "publish_many": pipeline.PublishMany,
            "async": pipeline.AsyncTasks,
        }
        return ours[way.family](place)
    from benchmarks import peers

    theirs = {
        "raw": peers.raw,
        "fastavro": peers.fastavro_produce,
        "validate": peers.validate_fastavro_produce,
        "serializer": peers.avro_serializer_produce,
        "serializer-latest": peers.avro_serializer_latest_produce,
    }
    return theirs[way.family](place, with_id=way.with_id)


def measure(way: Way, place: Place, count: int, warm_up: int = WARM_UP) -> Figures:
    """Publish `count` events by this way; the clock runs from the first event to the last acknowledgement.

    `warm_up` events go before: connections, caches, the registry. Raises RuntimeError when one event was not
    delivered.
    """
    sender = connect(way, place)
    try:
        sender.send(warm_up)
        gc.collect()
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        sender.send(count)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        if sender.delivered != warm_up + count:
            raise RuntimeError(f"{sender.delivered} of {warm_up + count} events were delivered")
    finally:
        sender.close()
    return Figures(cpu / count / 1_000, wall / count / 1_000)
