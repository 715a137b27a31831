"""Pipes and terminals, read so that the waiting for more has an end.

Python goes on with a read that a signal has interrupted: who only sets a flag in its handler would wait for somebody
who may write nothing for hours.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOOK_MS = 100
_BUFFER_BYTES = 256 * 1024


class InputStoppedError(Exception):
    """The reading was stopped; what had been read of an unfinished line is nobody's event."""


def open_stoppable(path: Path, is_stopped: Callable[[], bool]) -> BinaryIO:
    """Open a file to read; the reading of a FIFO ends with InputStoppedError once `is_stopped`. Raises OSError."""
    if sys.platform != "linux" or not stat.S_ISFIFO(path.stat().st_mode):
        return path.open("rb")
    # Else the opening itself waits for a writer. With this flag it does not, and the reading waits for the first one.
    return _stoppable(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), is_stopped, owned=True)


def stoppable_stdin(is_stopped: Callable[[], bool]) -> BinaryIO:
    """Return standard input; the reading ends with InputStoppedError once `is_stopped`, unless it is a file."""
    stream = sys.stdin.buffer
    try:
        descriptor = stream.fileno()
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (OSError, AttributeError):  # somebody has put something else in its place
        return stream
    return stream if is_file else _stoppable(descriptor, is_stopped, owned=False)


def _stoppable(descriptor: int, is_stopped: Callable[[], bool], *, owned: bool) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_Stoppable(descriptor, is_stopped, owned=owned), _BUFFER_BYTES))


class _Stoppable(io.RawIOBase):
    def __init__(self, descriptor: int, is_stopped: Callable[[], bool], *, owned: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._is_stopped = is_stopped
        self._owned = owned
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._is_stopped():
                raise InputStoppedError
            if self._poll.poll(_LOOK_MS):
                try:
                    data = os.read(self._descriptor, len(buffer))
                except BlockingIOError:  # another reader was quicker
                    continue
                buffer[: len(data)] = data
                return len(data)

    def close(self) -> None:
        if not self.closed and self._owned:
            os.close(self._descriptor)
        super().close()
