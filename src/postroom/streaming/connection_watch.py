"""What the client library tells about its connections: whether one is up, what went wrong, how often it tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from postroom.streaming.delivery import ALL_BROKERS_DOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import KafkaError, ThrottleEvent

    from postroom.libs.clock import Clock
    from postroom.libs.logger import Log
    from postroom.observability.metrics import Metrics


class _Broker(msgspec.Struct):
    state: str
    txretries: int


class _Statistics(msgspec.Struct):
    """What is read of the library's statistics: a text of some kilobytes for each broker and topic."""

    msg_size: int
    brokers: dict[str, _Broker]


_EXPLAINS = frozenset({"_SSL", "_AUTHENTICATION", "_RESOLVE", "SASL_AUTHENTICATION_FAILED"})
"""Troubles that say why there is no connection: what follows from them, that no broker is there, does not hide them."""

_LONGEST_TEXT = 300

_DECODER = msgspec.json.Decoder(_Statistics)


class ConnectionWatch:
    """Hears the error and statistics callbacks of one producer; nothing here raises.

    `connected` is None until something is known. `on_traffic` is called when a connection is, or was for a
    moment, up: from then on requests may have been sent. `queue_bytes` is what the statistics said last, half a
    second ago at most. Until `throttled_until` (monotonic seconds) a broker makes us wait.
    """

    def __init__(self, clock: Clock, metrics: Metrics, log: Log, on_traffic: Callable[[], None]) -> None:
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._on_traffic = on_traffic
        self._retries = 0
        self._since = clock.monotonic()
        self.connected: bool | None = None
        self.last_problem = ""
        self.queue_bytes = 0
        self.throttled_until = 0.0

    def state(self) -> tuple[bool | None, float, str]:
        """Return whether a connection is up (None: not known yet), for how many seconds, and the last problem."""
        return self.connected, self._clock.monotonic() - self._since, self.last_problem

    def on_error(self, error: KafkaError) -> None:
        """Take an error that concerns a connection and not one record."""
        name, text = error.name() or "unknown", error.str()
        if name in _EXPLAINS:
            self.last_problem = f"{name}: {text[:_LONGEST_TEXT]}"
        elif not self.last_problem.startswith(tuple(_EXPLAINS)):
            self.last_problem = name
        if error.code() == ALL_BROKERS_DOWN:
            self._set_connected(connected=False)
        if "in state UP" in text:
            self._on_traffic()
        self._metrics.record_connection_failure()
        self._log.warning("broker_unavailable", operation="connect", error=name, detail=text[:_LONGEST_TEXT])

    def on_throttle(self, event: ThrottleEvent) -> None:
        """Take the notice that a broker makes us wait (its quota): no trouble with the connection, and no error.

        For that time it reads no more requests, and so answers none.
        """
        self.throttled_until = max(self.throttled_until, self._clock.monotonic() + event.throttle_time)
        self._log.warning("broker_throttles", operation="publish", throttle_ms=round(event.throttle_time * 1000))

    def on_statistics(self, text: str) -> None:
        """Take the library's statistics. What cannot be read is left out: a statistic is never worth an error."""
        try:
            told = _DECODER.decode(text)
        except msgspec.MsgspecError:
            return
        self.queue_bytes = told.msg_size
        brokers = told.brokers.values()
        if any(broker.state == "UP" for broker in brokers):
            self._set_connected(connected=True)
            self.last_problem = ""
        elif self.connected:
            self._set_connected(connected=False)
        retries = sum(broker.txretries for broker in brokers)
        if retries > self._retries:
            self._metrics.record_retry(retries - self._retries)
        self._retries = retries

    def _set_connected(self, *, connected: bool) -> None:
        if connected is not self.connected:
            self.connected = connected
            self._since = self._clock.monotonic()
            if connected:
                self._on_traffic()
