"""Whether the disk takes records: what errors in a row mean, and when to try again. Pure."""

from __future__ import annotations

import errno

from postroom.libs.exceptions import SpoolError, SpoolFullError, SpoolUnavailableError

FAILURES_IN_A_ROW = 3
FULL_RETRY_S = 1.0
LONGEST_RETRY_S = 8.0

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Availability:
    """Remembers the failures since the last success. Times are monotonic seconds; the caller holds a lock."""

    __slots__ = ("_error", "_failures", "_retry_at", "since")

    def __init__(self) -> None:
        self._failures = 0
        self._retry_at = 0.0
        self._error: OSError | None = None
        self.since: float | None = None

    @property
    def is_refusing(self) -> bool:
        """True since a failure that was not followed by a success and is grave enough to refuse."""
        return self.since is not None

    def refusal(self, now: float) -> SpoolError | None:
        """Return the error to refuse with, None when a try is due or nothing is wrong."""
        if self.since is None or self._error is None or now >= self._retry_at:
            return None
        return spool_error(self._error, retry_after_s=self._retry_at - now)

    def failed(self, exc: OSError, now: float, *, may_resurface: bool) -> SpoolError:
        """Note a failure; return the error for the callers whose records it cost."""
        if exc.errno in _FULL:
            wait_s = FULL_RETRY_S
            self._note(exc, now, wait_s)
        else:
            self._failures += 1
            beyond = self._failures - FAILURES_IN_A_ROW
            wait_s = min(2.0 ** max(0, beyond), LONGEST_RETRY_S)
            if beyond >= 0:
                self._note(exc, now, wait_s)
        return spool_error(exc, retry_after_s=wait_s, may_resurface=may_resurface)

    def succeeded(self) -> None:
        """Note that a batch, or a try, reached the disk."""
        self._failures = 0
        self._error = None
        self.since = None

    def _note(self, exc: OSError, now: float, wait_s: float) -> None:
        self._error = exc
        self._retry_at = now + wait_s
        if self.since is None:
            self.since = now


def spool_error(exc: OSError, *, retry_after_s: float | None, may_resurface: bool = False) -> SpoolError:
    """Return our word for what the operating system said."""
    name = errno.errorcode.get(exc.errno or 0, "error")
    if exc.errno in _FULL:
        return SpoolFullError(
            f"the disk of the spool takes no more ({name})",
            retry_after_s=retry_after_s,
            may_resurface=may_resurface,
            remedy="free space on it, or let the spool drain",
        )
    return SpoolUnavailableError(
        f"the spool cannot be written or read ({name})",
        retry_after_s=retry_after_s,
        may_resurface=may_resurface,
        remedy="check the disk, the rights of its folder and the limit of open files",
    )
