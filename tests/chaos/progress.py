"""Where a worker stands, readable by another process at any instant, also after the worker was killed."""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = (
    "started",
    "handed",
    "safe",
    "answered",
    "delivered",
    "spooled",
    "dead_lettered",
    "refused",
    "failed",
    "raised",
)
_NUMBER = struct.Struct("<Q")
_BYTES = _NUMBER.size * len(FIELDS)
_PLACE = {name: _NUMBER.size * at for at, name in enumerate(FIELDS)}


class Progress:
    """A row of counters in a file that is mapped into memory: the page outlives the process that wrote it."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        try:
            if create:
                os.ftruncate(descriptor, _BYTES)
            self._map = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """The counters of another process; None as long as there are none."""
        try:
            return cls(path)
        except (FileNotFoundError, ValueError):  # not made yet, or made and still empty
            return None

    def add(self, name: str, count: int = 1) -> None:
        """Count. Each counter has one writing thread at a time."""
        at = _PLACE[name]
        _NUMBER.pack_into(self._map, at, _NUMBER.unpack_from(self._map, at)[0] + count)

    def __getitem__(self, name: str) -> int:
        return int(_NUMBER.unpack_from(self._map, _PLACE[name])[0])

    @property
    def open(self) -> int:
        """Events without an outcome: not acknowledged by Kafka, and not synced by the spool either unless told safe."""
        return self["handed"] - self["answered"]

    def values(self) -> dict[str, int]:
        """All counters."""
        return {name: self[name] for name in FIELDS}

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
