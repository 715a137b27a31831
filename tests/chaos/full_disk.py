"""A disk of eight mebibytes that can be filled to its last byte, and emptied again."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 64 * 1024


class SmallDisk:
    """A mounted file system of its own; `ballast` is what somebody else keeps on it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"

    def fill(self, leave: int = 0) -> int:
        """Let somebody else take all room but `leave` bytes; return how many bytes are free then."""
        with self._ballast.open("ab") as ballast:
            size = _BLOCK
            while size:
                size = min(size, self.free() - leave)
                if size <= 0:
                    break
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, size)
                except OSError as exc:
                    if exc.errno != errno.ENOSPC:
                        raise
                    size //= 2
        return self.free()

    def empty(self) -> None:
        """Let the others go."""
        self._ballast.unlink(missing_ok=True)

    def free(self) -> int:
        """Bytes that are free at this moment."""
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_frsize


class NoMountError(Exception):
    """This process may not mount anything."""


@contextmanager
def small_disk(place: Path) -> Iterator[SmallDisk]:
    """Mount one at `place`. Raises NoMountError where that is not allowed: it takes root."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as exc:
        raise NoMountError(f"mount could not be run: {exc.strerror}") from exc
    if done.returncode:
        raise NoMountError(f"mounting a tmpfs is not allowed here ({done.stderr.strip()}): run the test as root")
    try:
        yield SmallDisk(place)
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)
