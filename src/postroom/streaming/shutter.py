"""Whether a Kafka client takes records now: what every part of it may close, and the lock of the one who hands in."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.streaming.open_records import Refused


class Shutter:
    """Nothing is taken while one of these is so.

    `emptying`: the queue is just being purged. `fatal`: the producer is of no more use. `recalling`: what waits behind
    a record that was not taken is called back. `suspects`: records of refused batches that have to be sent alone.
    `gate` is held while a record is taken.
    """

    __slots__ = ("emptying", "fatal", "gate", "recalling", "suspects")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.emptying = False
        self.fatal = False
        self.recalling = False
        self.suspects: list[Refused] = []

    def is_shut(self) -> bool:
        """Return whether nothing is taken at the moment."""
        return self.emptying or self.fatal or self.recalling or bool(self.suspects)
