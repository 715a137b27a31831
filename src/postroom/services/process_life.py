"""What happens to every producer service of a process when the interpreter ends, and when the process forks."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Protocol

from postroom.libs.logger import get_logger


class Living(Protocol):
    """Something that must be closed before the process ends, and begins anew in a forked child."""

    def close(self, timeout_s: float | None = None) -> None:
        """Make safe what is on its way and let go of everything; calling it again does nothing."""
        ...

    def after_fork_in_child(self) -> None:
        """Forget what belongs to the parent; no other thread runs now, and any lock may be held for ever."""
        ...


_living: weakref.WeakSet[Living] = weakref.WeakSet()
_told_by: set[int] = set()
_ended_in: set[int] = set()


def take_care_of(one: Living) -> None:
    """Renew `one` in every forked child from now on, and close it at the end, if it still exists then."""
    _living.add(one)


def close_at_worker_exit() -> None:
    """Close everything at the end of a worker process of `multiprocessing`, too: there `atexit` is not heard.

    Call it in the process itself. It does nothing elsewhere, and nothing the second time.
    """
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is None or util is None or process.parent_process() is None or os.getpid() in _told_by:
        return
    _told_by.add(os.getpid())
    util.Finalize(None, _at_exit, exitpriority=100)


def is_ending() -> bool:
    """Return whether this process has closed everything, because the interpreter ends: nobody would close more."""
    return os.getpid() in _ended_in


def _close_all() -> None:
    """Whoever forgot to close does not lose what was on its way.

    An interruption (Ctrl-C once more) ends the waiting, and no closing: it goes up when all are closed.
    """
    interruption: BaseException | None = None
    for one in list(_living):
        try:
            try:
                one.close() if interruption is None else one.close(0.0)
            except (KeyboardInterrupt, SystemExit) as exc:
                interruption = exc
                one.close(0.0)
        except BaseException as exc:  # noqa: BLE001 - the others are closed all the same
            get_logger("postroom.process_life").error("close_failed", operation="exit", error=type(exc).__name__)
    if interruption is not None:
        raise interruption


def _at_exit() -> None:
    _ended_in.add(os.getpid())
    _close_all()


def _after_fork_in_child() -> None:
    for one in list(_living):
        one.after_fork_in_child()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)
