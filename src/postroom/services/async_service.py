"""The asyncio face of the pipeline: the same steps, waited for without blocking the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from postroom.libs.event import RefusedReason
from postroom.services.item import TOMBSTONE
from postroom.services.producer_service import OVERFLOW_S, ProducerService, checked_timeout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from postroom.libs.event import Event, Outcome
    from postroom.services.item import Item, Tombstone
    from postroom.services.lane import HeadersInput
    from postroom.services.receipt import Receipt

# How often a task looks for room in a full queue; while the queue is full, room comes in batches anyway.
_ROOM_CHECK_S = 0.005


class AsyncProducerService:
    """`await post.publish_event(event)` gives the event's outcome; the event loop is never blocked.

    Wraps a `ProducerService` (by default a new one with the settings found by `load_config()`), which may be used from
    threads at the same time. Any number of tasks may await at once: what they hand in travels in common batches.
    """

    def __init__(self, service: ProducerService | None = None) -> None:
        self.service = service or ProducerService()

    @classmethod
    def from_config(
        cls, path: str | Path | None = None, *, env: str | None = None, overrides: Mapping[str, object] | None = None
    ) -> Self:
        """Make a service from a settings file. Raises ConfigurationError with file, line, key and remedy."""
        return cls(ProducerService.from_config(path, env=env, overrides=overrides))

    async def start(self) -> Self:
        """Start as `ProducerService.start` does, in a thread: it asks the registry."""
        await asyncio.to_thread(self.service.start)
        return self

    async def close(self, timeout_s: float | None = None) -> None:
        """Close as `ProducerService.close` does, in a thread: it waits for what is on its way."""
        await asyncio.to_thread(self.service.close, timeout_s)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def publish_event(
        self,
        event: Event | bytes | str,
        *,
        event_type: str | None = None,
        key: str | bytes | None = None,
        event_id: str | None = None,
        timestamp: int | None = None,
        headers: HeadersInput | None = None,
        timeout: float = 5.0,  # noqa: ASYNC109 - bounds the wait for pace and room only, never the one for the outcome
    ) -> Outcome:
        """Hand in one event and wait for its outcome. Arguments and errors as of `ProducerService.publish_event`.

        `timeout` bounds the waiting for pace and room only. An event that is on its way stays on its way when the
        await is cancelled; cancelled while it waits for its pace, it is refused and never sent.
        """
        return await self._publish(event, event_type, key, event_id, timestamp, headers, checked_timeout(timeout))

    async def publish_tombstone(
        self,
        key: str | bytes,
        *,
        event_type: str | None = None,
        event_id: str | None = None,
        timestamp: int | None = None,
        headers: HeadersInput | None = None,
        timeout: float = 5.0,  # noqa: ASYNC109 - as in publish_event
    ) -> Outcome:
        """Hand in a record without a value and wait for its outcome; see `ProducerService.publish_tombstone`."""
        return await self._publish(TOMBSTONE, event_type, key, event_id, timestamp, headers, checked_timeout(timeout))

    async def _publish(
        self,
        event: Event | bytes | str | Tombstone,
        event_type: str | None,
        key: str | bytes | None,
        event_id: str | None,
        timestamp: int | None,
        headers: HeadersInput | None,
        patience_s: float,
    ) -> Outcome:
        service = self.service
        if not service.running:
            await self.start()
        item = service.admit(event, event_type, key, event_id, timestamp, headers)
        if item.record is not None:
            await self._send(item, patience_s)
        return await _outcome(item.receipt)

    async def _send(self, item: Item, timeout_s: float) -> None:
        service = self.service
        loop = asyncio.get_running_loop()
        try:
            # Nobody is overtaken: a token is there at once only when nobody waits for one.
            paced = service.parts.limiter.acquire()
            if paced and service.try_send(item):
                return
            end = loop.time() + timeout_s
            if not paced and not await self._wait_for_pace(item, timeout_s):
                return
            may_overflow = timeout_s > 0  # who does not want to wait at all is told at once
            while not service.try_send(item):
                if not loop.time() < end:
                    if not (may_overflow and service.overflow(item)):
                        service.turn_back(item)
                        return
                    may_overflow, end = False, loop.time() + OVERFLOW_S
                await asyncio.sleep(_ROOM_CHECK_S)
        except BaseException:  # cancelled, or cut short by a signal handler
            service.cut_short(item)
            raise
        finally:
            service.door.leave(item)

    async def _wait_for_pace(self, item: Item, timeout_s: float) -> bool:
        service, loop = self.service, asyncio.get_running_loop()
        limiter, began = service.parts.limiter, loop.time()
        if not await limiter.acquire_async(timeout_s):
            service.refuse(item, RefusedReason.RATE_LIMITED, limiter.retry_after())
            return False
        service.count_pace_wait(loop.time() - began)
        return True


async def _outcome(receipt: Receipt) -> Outcome:
    """Wait for the outcome; a cancelled wait changes nothing for the event."""
    if receipt.done():
        return receipt.result(0)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def arrived() -> None:
        if not future.done():
            future.set_result(None)

    def listener(_: Receipt) -> None:
        try:
            loop.call_soon_threadsafe(arrived)
        except RuntimeError:  # the loop was closed meanwhile: nobody waits there any more
            return

    receipt.listen(listener)
    await future
    return receipt.result(0)
