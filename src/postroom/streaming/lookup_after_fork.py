"""Whether a forked child can look up addresses at all.

Fact this file is built on (glibc 2.36, kept by a test): `getaddrinfo` with AI_ADDRCONFIG, which is how librdkafka calls
it, even for a numeric address, holds a lock of the C library for a moment that a fork does not free. When any thread of
the parent was in that moment, no lookup in the child ever ends. Nothing can be done about it in the child: it connects
to nobody, and says so.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A numeric address is looked up in a fraction of a millisecond.
_PATIENCE_S = 5.0

_is_forked = False


def watch_lookups(on_stuck: Callable[[], None]) -> None:
    """In a forked child: try a lookup, and call `on_stuck` when it has not ended after 5 s. Waits for nothing."""
    if _is_forked:
        with contextlib.suppress(RuntimeError):  # no thread is left: then nothing is known
            threading.Thread(target=_watch, args=(on_stuck,), name="postroom-lookup", daemon=True).start()


def _watch(on_stuck: Callable[[], None]) -> None:
    lookup = threading.Thread(target=_look_up, name="postroom-lookup", daemon=True)
    lookup.start()
    lookup.join(_PATIENCE_S)
    if lookup.is_alive():
        on_stuck()


def _look_up() -> None:
    with contextlib.suppress(OSError):
        socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)


def _after_fork_in_child() -> None:
    global _is_forked  # noqa: PLW0603 - true of the process, for good
    _is_forked = True


os.register_at_fork(after_in_child=_after_fork_in_child)
