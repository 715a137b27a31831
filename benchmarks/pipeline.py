"""postroom's own ways: everything it does for an event, with its packaged settings.

Contract, strict check, Avro, event id, pace (no limit set), sequence, header `ce_id`, receipt, outcome, ledger,
latency histogram. Nothing is switched off for the measurement.
"""

from __future__ import annotations

import asyncio
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from benchmarks.workload import Place, event_pool
from postroom.libs.config_loader import load_config
from postroom.services.async_service import AsyncProducerService
from postroom.services.producer_service import ProducerService

if TYPE_CHECKING:
    from collections.abc import Iterator

_TASKS = 1_000
_PATIENCE_S = 60.0


class _Pipeline:
    """A producer service; `send` returns when every event has its outcome."""

    def __init__(self, place: Place) -> None:
        overrides = {
            "broker": place.bootstrap,
            "topics.user_events": place.topic,
            "schema_registry.url": place.registry,
            "schema_registry.auto_register": True,
        }
        self._service = ProducerService(load_config(overrides=overrides, environ={})).start()
        self._events: Iterator[dict[str, Any]] = cycle(event_pool())

    def send(self, count: int) -> None:
        """Hand in `count` events and wait for their outcomes. Raises RuntimeError if one was not delivered."""
        before = self.delivered
        self._publish_all(count)
        balance = self._service.ledger.total()
        if balance.delivered - before != count or balance.unaccounted:
            raise RuntimeError(f"not every event was delivered: {balance}")

    @property
    def delivered(self) -> int:
        """How many events the ledger counts as delivered."""
        return self._service.ledger.total().delivered

    def close(self) -> None:
        """Close the service."""
        self._service.close()

    def _publish_all(self, count: int) -> None:
        raise NotImplementedError


class PublishEvent(_Pipeline):
    """`publish_event` in a loop; the receipts are let go of, the ledger says that all were delivered."""

    def _publish_all(self, count: int) -> None:
        publish_event = self._service.publish_event
        for event in islice(self._events, count):
            publish_event(event, timeout=_PATIENCE_S)
        self._service.parts.publisher.flush(_PATIENCE_S)


class PublishMany(_Pipeline):
    """`publish_many`: every receipt is read and counted."""

    def _publish_all(self, count: int) -> None:
        result = self._service.publish_many(islice(self._events, count))
        if not result.ok:
            raise RuntimeError(f"{result.received - result.delivered} events were not delivered")


class AsyncTasks(_Pipeline):
    """`await AsyncProducerService.publish_event(...)` in a thousand tasks, each with one event at a time."""

    def _publish_all(self, count: int) -> None:
        asyncio.run(self._all_tasks(count))

    async def _all_tasks(self, count: int) -> None:
        post = AsyncProducerService(self._service)
        events = islice(self._events, count)

        async def one_task() -> None:
            for event in events:
                await post.publish_event(event, timeout=_PATIENCE_S)

        await asyncio.gather(*(one_task() for _ in range(min(_TASKS, count))))
