"""Files that are replaced so that a power cut leaves the old content or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path


def replace_durably(path: Path, data: bytes, *, prefix: str) -> None:
    """Give `path` this content: written beside under a name with `prefix`, synced, renamed, and the folder synced.

    The file is for its owner only. Of what fails nothing is left behind. Raises OSError.
    """
    handle, temporary = tempfile.mkstemp(prefix=prefix, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # what keeps it from being written may keep it from being removed
            Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder survive a power cut; Windows has no way to ask for that. Raises OSError."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
