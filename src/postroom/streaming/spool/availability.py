"""Whether the disk takes records: what errors in a row mean, and when to try again. Pure."""

from __future__ import annotations

import errno

from postroom.libs.exceptions import SpoolError, SpoolFullError, SpoolUnavailableError

FAILURES_IN_A_ROW = 3
FULL_RETRY_S = 1.0
STALL_S = 10.0
"""What takes longer the disk does not answer: a file server that is away, a volume that hangs."""
STALL_RETRY_S = 1.0
LONGEST_RETRY_S = 8.0

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Availability:
    """Remembers the failures since the last success, and since when the disk has been asked and has not answered.

    Times are monotonic seconds; the caller holds a lock, but to set `asked_at` (None: nothing is asked).
    """

    __slots__ = ("_error", "_failures", "_retry_at", "asked_at", "since")

    def __init__(self) -> None:
        self._failures = 0
        self._retry_at = 0.0
        self._error: OSError | None = None
        self.since: float | None = None
        self.asked_at: float | None = None

    @property
    def is_refusing(self) -> bool:
        """True since a failure that was not followed by a success and is grave enough to refuse."""
        return self.since is not None

    def refusal(self, now: float) -> SpoolError | None:
        """Return the error to refuse with, None when a try is due or nothing is wrong."""
        stalled_s = self.stalled_s(now)
        if stalled_s:
            return unanswered(stalled_s)
        if self.since is None or self._error is None or now >= self._retry_at:
            return None
        return spool_error(self._error, retry_after_s=self._retry_at - now)

    def stalled_s(self, now: float) -> float:
        """Return for how many seconds the disk has not answered; 0 as long as that is nothing unusual."""
        asked_at = self.asked_at
        waited_s = 0.0 if asked_at is None else now - asked_at
        return waited_s if waited_s > STALL_S else 0.0

    def refusing_since(self, now: float) -> float | None:
        """Return since when records are refused; None when they are taken."""
        stalled_s = self.stalled_s(now)
        return now - stalled_s if self.since is None and stalled_s else self.since

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


def unanswered(stalled_s: float, *, may_resurface: bool = False) -> SpoolUnavailableError:
    """Return our word for a disk that does not answer."""
    return SpoolUnavailableError(
        f"the disk of the spool has not answered for {stalled_s:.0f} s",
        retry_after_s=STALL_RETRY_S,
        may_resurface=may_resurface,
        remedy="look whether it hangs: a file server that is away, a volume that is not attached",
    )


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
