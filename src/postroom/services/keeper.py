"""Watches over the paths: closes them when Kafka is away, hands over what comes back, takes over what others left."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom.libs.exceptions import PostroomError
from postroom.libs.logger import get_logger, limited
from postroom.services.paths import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.clock import Clock
    from postroom.services.dispatcher import Dispatcher
    from postroom.streaming.publisher import Condition, Publisher

AWAY_AFTER_S = 2.0
"""So long no connection is up before Kafka counts as away, in seconds."""

TAKE_OVER_EVERY_S = 60.0

_TICK_S = 0.1
_AFTER_ERROR_S = 1.0
_JOIN_S = 5.0


def is_away(condition: Condition) -> bool:
    """True when waiting for Kafka is of no use: no connection for two seconds, or none yet and a record as old."""
    if condition.connected is True or condition.since_s < AWAY_AFTER_S:
        return False
    return condition.connected is False or (condition.oldest_s or 0.0) >= AWAY_AFTER_S


class Keeper:
    """A thread that looks ten times a second, and whenever it is woken. For services with a spool.

    `read_books` is called at each look: whoever reads the books notices when they stop balancing.
    """

    def __init__(
        self,
        *,
        publisher: Publisher,
        dispatcher: Dispatcher,
        take_over: Callable[[], object],
        read_books: Callable[[], object],
        clock: Clock,
    ) -> None:
        self._publisher = publisher
        self._dispatcher = dispatcher
        self._take_over = take_over
        self._read_books = read_books
        self._clock = clock
        self._next_take_over = clock.monotonic() + TAKE_OVER_EVERY_S
        self._wake = threading.Event()
        self._stopping = False
        self._log = limited(get_logger("postroom.keeper"))
        self._thread = threading.Thread(target=self._run, name="postroom-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; `tick` can be called by others from then on."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def wake(self) -> None:
        """Have it look now."""
        self._wake.set()

    def tick(self) -> None:
        """Look once: close, purge, hand over."""
        if is_away(self._publisher.condition()):
            open_paths = (State.DIRECT, State.DRAINING)
            self._dispatcher.close_paths([path for path in self._dispatcher.paths() if path.state in open_paths])
            if self._publisher.in_flight():
                self._publisher.purge()
        elif self._dispatcher.must_purge():
            self._publisher.purge()
        self._dispatcher.hand_over()

    def _run(self) -> None:
        while not self._stopping:
            pause_s = _TICK_S
            try:
                self.tick()
                self._read_books()
                if self._clock.monotonic() >= self._next_take_over:
                    self._next_take_over = self._clock.monotonic() + TAKE_OVER_EVERY_S
                    self._take_over()
            except PostroomError as exc:
                self._log.error("keeper_failed", operation="keep", error=exc.code, detail=exc.message)
                pause_s = _AFTER_ERROR_S
            except Exception as exc:  # noqa: BLE001 - without the thread nothing would ever be handed over
                self._log.error("keeper_failed", operation="keep", error=type(exc).__name__)
                pause_s = _AFTER_ERROR_S
            self._wake.wait(pause_s)
            self._wake.clear()
