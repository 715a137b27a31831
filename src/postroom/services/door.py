"""Who stands between the admission of an event and its sending: closing must know them, to turn them away.

An event that was admitted waits for pace or for room, for seconds perhaps, in the hands of its caller. When the service
closes meanwhile, that event gets its outcome at once, and is not taken for one that was lost.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.libs.clock import Clock
    from postroom.services.item import Item


class Door:
    """Callers who are being admitted, and the items that wait to be sent. Safe with threads, and takes no lock."""

    __slots__ = ("_entering", "_waiting")

    def __init__(self) -> None:
        self._entering: set[int] = set()
        self._waiting: set[Item] = set()

    def enter(self) -> None:
        """Say that this thread begins to admit an event."""
        self._entering.add(threading.get_ident())

    def entered(self) -> None:
        """Say that this thread has admitted it, or given up."""
        self._entering.discard(threading.get_ident())

    def wait(self, item: Item) -> None:
        """Let the item stand at the door until it leaves."""
        self._waiting.add(item)

    def leave(self, item: Item) -> None:
        """Say that the item was sent or has its outcome."""
        self._waiting.discard(item)

    def waiting(self, clock: Clock, patience_s: float) -> list[Item]:
        """Return the items at the door, once nobody is being admitted any more, or after `patience_s` seconds."""
        end = clock.monotonic() + patience_s
        while self._entering and clock.monotonic() < end:
            clock.sleep(0.001)
        return list(self._waiting)
