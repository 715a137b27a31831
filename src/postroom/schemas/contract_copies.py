"""The last good answers of a Schema Registry on this disk, so that a service can start while the registry is away.

The format is fixed in docs/specs/contract-copies.md. What is wrong with a file or the disk is told in a log line and
costs the copy, never more: a copy is an aid.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postroom.libs.durable_files import replace_durably, sync_folder
from postroom.libs.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.libs.settings import Config

_FIRST_LINE: Final = re.compile(rb"postroom contract copy ([1-9][0-9]{0,8}) sha256 ([0-9a-f]{64})")
_FORMAT: Final = b"1"
_MAX_BYTES: Final = 65_536
# A pipe under the name of a copy must not hold the start up. (Windows knows neither.)
_OPEN: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Ignored(StrEnum):
    """Why a file is not used as a copy."""

    NEWER = "newer"
    FOREIGN = "foreign"
    TORN = "torn"
    DAMAGED = "damaged"
    OTHER = "other"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Copy:
    """One answer: at `confirmed_ms` the registry said that `subject` has the schema of this fingerprint as that id."""

    registry: str
    subject: str
    fingerprint: str
    schema_id: int
    confirmed_ms: int
    contract: str
    version: int

    @property
    def key(self) -> tuple[str, str, str]:
        """What was asked: each has a file of its own."""
        return self.registry, self.subject, self.fingerprint


def encode(copy: Copy) -> bytes:
    """The bytes of a copy's file."""
    body = json.dumps(asdict(copy), ensure_ascii=False, separators=(",", ":")).encode()
    return b"postroom contract copy 1 sha256 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"


def decode(data: bytes) -> Copy | Ignored:
    """The copy in the bytes of a file, or why there is none in it. Raises nothing."""
    head, _, rest = data.partition(b"\n")
    match = _FIRST_LINE.fullmatch(head)
    if match is None:
        return Ignored.FOREIGN
    if match[1] != _FORMAT:
        return Ignored.NEWER
    body, end, behind = rest.partition(b"\n")
    if not end or behind:
        return Ignored.TORN
    if hashlib.sha256(body).hexdigest().encode() != match[2]:
        return Ignored.DAMAGED
    return _copy_of(body) or Ignored.DAMAGED


def _copy_of(body: bytes) -> Copy | None:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return None
    names = {one.name: str if one.type == "str" else int for one in fields(Copy)}
    if not isinstance(values, dict) or values.keys() != names.keys():
        return None
    if not all(type(values[name]) is kind for name, kind in names.items()):
        return None
    return Copy(**values) if 0 <= values["schema_id"] < 1 << 32 else None


def file_name(registry: str, subject: str, fingerprint: str) -> str:
    """The name of the file for the answer to this question."""
    digest = hashlib.sha256()
    for part in (registry, subject, fingerprint):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()[:32] + ".copy"


class ContractCopies:
    """The copies in one folder, which appears with the first one. Several threads and processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._has_failed = False
        self._log = get_logger("postroom.contract_copies")

    def read(self, registry: str, subject: str, fingerprint: str) -> Copy | None:
        """The copy of the answer to this question, None when there is none that can be trusted. Raises nothing."""
        path = self._folder / file_name(registry, subject, fingerprint)
        try:
            found = decode(_content(path))
        except FileNotFoundError:
            return None
        except OSError:
            found = Ignored.UNREADABLE
        if isinstance(found, Copy) and found.key != (registry, subject, fingerprint):
            found = Ignored.OTHER
        if isinstance(found, Copy):
            return found
        self._log.warning("contract_copy_ignored", operation="read", path=str(path), reason=found.value)
        return None

    def write(self, copy: Copy) -> bool:
        """Put the copy in the place of an older one; True once it would survive a power cut. Raises nothing."""
        path = self._folder / file_name(*copy.key)
        try:
            _have(self._folder)
            replace_durably(path, encode(copy), prefix=".copy-")
        except OSError as exc:
            if not self._has_failed:
                self._log.warning(
                    "contract_copy_failed",
                    operation="write",
                    path=str(path),
                    error=exc.strerror or type(exc).__name__,
                    remedy="name a folder of this user in schema_registry.copies_dir",
                )
            self._has_failed = True
            return False
        self._has_failed = False
        return True


def _content(path: Path) -> bytes:
    handle = os.open(path, _OPEN)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("no regular file")
        return file.read(_MAX_BYTES + 1)


def _have(folder: Path) -> None:
    """Have the folder and those above it, for their owner only, so that they would survive a power cut.

    One of them may be the spool's, which takes a folder that is there for a folder that is safe.
    """
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
        sync_folder(missing.parent)


def copies_folder(config: Config, environ: Mapping[str, str]) -> Path | None:
    """The folder for copies: the one in the settings, else one in the spool's, else one in the user's cache folder.

    None for a user without a home.
    """
    if config.schema_registry.copies_dir is not None:
        return config.schema_registry.copies_dir
    if config.spool.dir is not None:
        return config.spool.dir / "contracts"
    base = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - Path.expanduser may raise
    return Path(base) / "postroom" / "contracts" if Path(base).is_absolute() else None
