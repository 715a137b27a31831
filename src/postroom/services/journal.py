"""The journal of accepted events: one line each, with the operating system before the answer is given.

Format and rules: docs/specs/accepted-journal.md.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from postroom.libs.exceptions import DecodeError, JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_LINE_BYTES = 16 * 1024 * 1024
"""The longest line that is read; one with a key of 1 MB takes less than 2 MB."""

_TAIL_BYTES = 64 * 1024


class Base64(msgspec.Struct, frozen=True):
    """Bytes that are no UTF-8, as they stand in the journal."""

    base64: str


class JournalEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One accepted event. `topic` is where it came to rest; numbers compare within one `run` only."""

    event_id: str
    key: str | Base64 | None
    topic: str
    sequence: int
    run: str = ""
    dead_letter: bool = False

    def key_bytes(self) -> bytes | None:
        """The key as it stands in Kafka. Raises ValueError if the line holds no valid base64."""
        if isinstance(self.key, Base64):
            return base64.b64decode(self.key.base64, validate=True)
        return None if self.key is None else self.key.encode()


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(JournalEntry)


class AcceptedJournal:
    """Appends a line for each accepted event; safe to use from several threads.

    `run` stands for the producer service whose numbers are written down; it is made where none is given. `write`
    and `truncate` are the operating system's, or a test's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        run: str | None = None,
        write: Callable[[int, memoryview], int] = os.write,
        truncate: Callable[[int, int], None] = os.ftruncate,
    ) -> None:
        self._path = Path(path)
        self._run = run if run is not None else os.urandom(4).hex()
        self._write = write
        self._truncate = truncate
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size: int | None = None

    def open(self) -> Self:
        """Create the file, or continue it after its last whole line. Raises `JournalError`."""
        with self._lock:
            if self._descriptor >= 0:
                return self
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as exc:
                raise self._error("opened", exc) from exc
            try:
                self._size = self._cut_torn_line(descriptor)
            except OSError as exc:
                os.close(descriptor)
                raise self._error("read", exc) from exc
            self._descriptor = descriptor
        return self

    def accepted(
        self, event_id: str, key: bytes | None, topic: str, sequence: int, *, dead_letter: bool = False
    ) -> None:
        """Write down one accepted event; on return its line is with the operating system.

        Raises `JournalError` when the line could not be written whole; nothing of it is in the file then.
        """
        entry = JournalEntry(event_id, _written_key(key), topic, sequence, self._run, dead_letter)
        line = _encoder.encode(entry) + b"\n"
        with self._lock:
            if self._descriptor < 0:
                raise JournalError(f"the journal {self._path} is not open")
            self._append(line)

    def close(self) -> None:
        """Close the file. Every line is with the operating system already."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        view = memoryview(line)
        taken = 0
        try:
            while taken < len(line):
                taken += self._write_some(view[taken:])
        except OSError as exc:
            if taken:
                self._cut_back()
            raise self._error("written", exc) from exc
        if self._size is not None:
            self._size += len(line)

    def _write_some(self, left: memoryview) -> int:
        written = self._write(self._descriptor, left)
        if written <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def _cut_back(self) -> None:
        """Take back half a line. If that fails too, the file takes no more: a line glued to it would be lost."""
        if self._size is not None:
            with contextlib.suppress(OSError):
                self._truncate(self._descriptor, self._size)
                return
        os.close(self._descriptor)
        self._descriptor = -1

    def _cut_torn_line(self, descriptor: int) -> int | None:
        """Cut off what stands behind the last line feed and return the size then; None for what is no regular file."""
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        end = status.st_size
        while end > 0:
            start = max(0, end - _TAIL_BYTES)
            os.lseek(descriptor, start, os.SEEK_SET)
            feed = os.read(descriptor, end - start).rfind(b"\n")
            if feed >= 0:
                end = start + feed + 1
                break
            end = start
        if end < status.st_size:
            self._truncate(descriptor, end)
        return end

    def _error(self, what: str, exc: OSError) -> JournalError:
        return JournalError(
            f"the journal {self._path} could not be {what}: {exc.strerror or type(exc).__name__}",
            remedy="make room, or name another file with --accepted",
        )


def _written_key(key: bytes | None) -> str | Base64 | None:
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return Base64(base64.b64encode(key).decode())


def read_journal(path: str | os.PathLike[str]) -> Iterator[JournalEntry]:
    """Yield the accepted events of a journal, line by line.

    A torn last line is ignored. Raises `JournalError` if the file cannot be read and `DecodeError`, with the number
    of the line and without its content, for any other line that is not as specified.
    """
    try:
        with Path(path).open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                try:
                    entry = _decoder.decode(line)
                    entry.key_bytes()
                except (msgspec.MsgspecError, ValueError, RecursionError):
                    if not line.endswith(b"\n") and not file.read(1):
                        return
                    raise DecodeError(f"{path}: line {number} is no line of a journal of accepted events") from None
                yield entry
    except OSError as exc:
        raise JournalError(
            f"the journal {path} could not be read: {exc.strerror or type(exc).__name__}",
            remedy="name the file that postroom run --accepted wrote",
        ) from exc
