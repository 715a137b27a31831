"""How much the spool may hold: caps, a reserve for others, and a gap between stopping and going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.streaming.spool.file_system import FileSystem

STOP_SHARE = 0.9
RESUME_SHARE = 0.8


class SpaceLimits(msgspec.Struct, frozen=True):
    """The caps of one process: bytes, share of the file system, and what is left free on it for others."""

    max_bytes: int
    max_disk_share: float
    reserve_bytes: int


class Space:
    """Says whether more may be stored. The limit is the smallest of the caps and of what the disk still gives.

    Stops at 90 % of the limit, goes on below 80 %: callers see one clear change instead of a flutter.
    """

    def __init__(self, file_system: FileSystem, path: str, limits: SpaceLimits, used: Callable[[], int]) -> None:
        self._file_system = file_system
        self._path = path
        self._limits = limits
        self._used = used
        self.limit_bytes = limits.max_bytes
        self.is_full = False
        self._room = 0.0

    def sample(self) -> None:
        """Ask the file system again. An answer that does not come leaves the limit as it was."""
        try:
            total, free = self._file_system.space(self._path)
        except OSError:
            return
        limits = self._limits
        reserve = min(limits.reserve_bytes, total // 20)
        reachable = self._used() + max(0, free - reserve)
        self.limit_bytes = min(limits.max_bytes, int(total * limits.max_disk_share), reachable)
        self._look()

    def admits(self, size: int) -> bool:
        """True if `size` more bytes may be stored now."""
        self._room -= size
        if self._room >= 0:
            return True
        self._look()
        if not self.is_full and self._room < size:
            self.is_full, self._room = True, 0.0
        if self.is_full:
            return False
        self._room -= size
        return True

    def _look(self) -> None:
        """Count what is used: too dear to do for every record."""
        used = self._used()
        if self.is_full and used < RESUME_SHARE * self.limit_bytes:
            self.is_full = False
        self._room = 0.0 if self.is_full else STOP_SHARE * self.limit_bytes - used
