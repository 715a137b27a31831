"""A password that was rotated is read again from its file once a broker has refused the old one.

A thread of its own does it, while logins are refused: a file on a disk that stands still holds up nobody. The file may
change long after the broker did, and the client library may keep to itself for 30 s what it has told in the same words
before (librdkafka 2.16.0), so for a while after a refusal the file is looked at every second.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from postroom.streaming.librdkafka_settings import SASL_PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.clock import Clock
    from postroom.libs.config_loader import Config
    from postroom.libs.logger import Log

_LOOK_EVERY_S = 1.0
# Twice as long as the library may keep a refusal to itself.
_LOOK_FOR_S = 60.0


class PasswordFile:
    """Hands a password that changed to `use(user, password)`; nothing here raises but what `use` does, into the log."""

    def __init__(self, config: Config, clock: Clock, log: Log, use: Callable[[str, str], None]) -> None:
        self._config = config
        self._clock = clock
        self._log = log
        self._use = use
        self._known = config.secret(SASL_PASSWORD)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._refused_at = 0.0
        self._closed = threading.Event()

    @classmethod
    def of(cls, config: Config, clock: Clock, log: Log, use: Callable[[str, str], None]) -> Self | None:
        """Return the file of the password of `config`; None where the password stands in no file of its own."""
        if config.origin(SASL_PASSWORD).secret_file is None or config.producer.security.sasl_username is None:
            return None
        return cls(config, clock, log, use)

    def refused(self) -> None:
        """Note that a broker refused the login. Never waits for the file."""
        self._refused_at = self._clock.monotonic()
        with self._lock:
            if self._thread is not None or self._closed.is_set():
                return
            thread = threading.Thread(target=self._run, name="postroom-password", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread left, or the interpreter is ending: the next refusal tries again
                return
            self._thread = thread

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._is_over():
            self._look()
            self._closed.wait(_LOOK_EVERY_S)

    def _is_over(self) -> bool:
        with self._lock:
            is_over = self._closed.is_set() or self._clock.monotonic() - self._refused_at > _LOOK_FOR_S
            if is_over:
                self._thread = None
            return is_over

    def _look(self) -> None:
        user, password = self._config.producer.security.sasl_username, self._config.secret(SASL_PASSWORD)
        if user is None or password is None or password == self._known:
            return
        try:
            self._use(user, password)
        except Exception as exc:  # noqa: BLE001 - without the thread no later password would be found
            self._log.error("password_not_used", operation="connect", error=type(exc).__name__)
            return
        self._known = password
        self._log.info("password_read_again", operation="connect", setting=SASL_PASSWORD)
