"""The spool of a producer service with all that works on it: built, started, stopped and asked as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.logger import get_logger
from postroom.services.carried import Carried
from postroom.services.drain import Drain
from postroom.services.keeper import Keeper
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool

if TYPE_CHECKING:
    import threading

    from postroom.libs.clock import Clock
    from postroom.libs.config_loader import Config
    from postroom.services.components import Components
    from postroom.services.dispatcher import Dispatcher
    from postroom.services.ledger import Ledger
    from postroom.services.settlement import Settlement
    from postroom.streaming.publisher import Publisher
    from postroom.streaming.spool.file_system import FileSystem

# The drain has so much of the client library's queue at most: new traffic always finds room beside it.
_SHARE_OF_QUEUE = 0.1
_LARGEST_WINDOW = 10_000


class Spooling:
    """Inert until `start`. `spool` is what the dispatcher appends to, `drains` what empties it (from `connect` on)."""

    def __init__(self, config: Config, *, clock: Clock, files: FileSystem | None) -> None:
        assert config.spool.dir is not None
        self._clock = clock
        self.spool = Spool(
            config.spool.dir,
            file_system=files,
            clock=clock,
            max_bytes=config.spool.max_bytes,
        )
        self._window = max(100, min(_LARGEST_WINDOW, int(config.producer.queue_max_messages * _SHARE_OF_QUEUE)))
        self._dispatcher: Dispatcher | None = None
        self._order_lock: threading.RLock | None = None
        self._keeper: Keeper | None = None
        self.drains: dict[Kind, Drain] = {}
        self._is_sending = False

    def connect(
        self,
        parts: Components,
        order_lock: threading.RLock,
        *,
        publisher: Publisher,
        dispatcher: Dispatcher,
        ledger: Ledger,
        settlement: Settlement,
    ) -> None:
        """Say who works with whom."""
        clock = self._clock
        carried = Carried(parts, self.spool, ledger=ledger, settlement=settlement, clock=clock)
        self._order_lock, self._dispatcher = order_lock, dispatcher
        self._keeper = Keeper(
            publisher=publisher,
            dispatcher=dispatcher,
            take_over=self._take_over,
            read_books=ledger.total,
            clock=clock,
        )
        for kind in Kind:
            self.drains[kind] = Drain(
                kind,
                order_lock,
                spool=self.spool,
                publisher=publisher,
                dispatcher=dispatcher,
                carried=carried,
                clock=clock,
                window=self._window,
            )
        dispatcher.wake_keeper = self._keeper.wake
        dispatcher.wake_drain = lambda kind: self.drains[kind].wake()
        dispatcher.ask_rewind = lambda kind: self.drains[kind].ask_rewind()

    def start(self) -> None:
        """Claim a slot, take over what others left, and begin to drain.

        Raises SpoolUnavailableError or SpoolFullError when no slot can be had; `stop` ends what was started by then.
        """
        assert self._keeper is not None
        self.spool.start()
        self._take_over()
        self._is_sending = True
        for drain in self.drains.values():
            drain.start()
        self._keeper.start()

    def stop_sending(self) -> None:
        """Let nothing more leave the spool, and leave the handing over to the caller; what is on its way goes on."""
        if not self._is_sending:
            return
        assert self._keeper is not None
        for drain in self.drains.values():
            drain.stop()
        self._keeper.stop()
        self._is_sending = False  # at last: closing that was cut short here begins here again

    def stop(self) -> None:
        """Write what waits for the disk, and let go of the slots."""
        self.stop_sending()
        self.spool.stop()

    def _take_over(self) -> None:
        assert self._order_lock is not None
        assert self._dispatcher is not None
        with self._order_lock:  # no event of a key may pass between a slot's coming and its being asked
            slots = self.spool.take_over_unclaimed()
            if slots:
                self._dispatcher.found()
        if slots:
            get_logger("postroom.spool").info("slots_taken_over", operation="spool", count=slots)
        for drain in self.drains.values():
            drain.wake()
