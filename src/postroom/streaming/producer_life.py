"""The life of librdkafka's producer: how it is made, called and purged, how its end is noticed, and the next one.

Facts this file is built on (measured with librdkafka 2.16.0, kept by tests):
- On a fatal error the error callback may stay silent: `poll` and `flush` raise, and `flush`, before Python 3.12, may
  raise a `KafkaError`, which is no exception to `except Exception`.
- Another password reaches a running producer by `set_sasl_credentials`, for PLAIN and for SCRAM, and is shown at the
  next connection or when the broker asks again; what is open stays open.
- `purge(blocking=True)` waits for nothing, and `blocking=False` waits for every thread of the library with the
  interpreter's lock held: the flag says its opposite. A thread that is busy with the name of its broker, for seconds
  or for ever, then stands still the whole process.
- A producer that lacks a right (to be idempotent) meets its fatal error anew as soon as it is made.
- A forked child must not touch the parent's producer, not even to free it: its threads do not exist there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException

from postroom.streaming.connection_watch import ConnectionWatch
from postroom.streaming.kafka_errors import REFUSED_LOGINS
from postroom.streaming.librdkafka_object import free, never_free, new_producer
from postroom.streaming.password_file import PasswordFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import KafkaError

    from postroom.libs.clock import Clock
    from postroom.libs.config_loader import Config
    from postroom.libs.logger import Log
    from postroom.observability.metrics import Metrics
    from postroom.streaming.shutter import Shutter

_WAITS_FOR_NOTHING = True  # what `blocking` has to be for that, see above
# How long closing waits until the library's threads have ended, most often a few milliseconds.
_FREED_S = 2.0
# Fatal errors one after the other: the first producer is made at once, the next ones after 0.5, 1, 2, 4 and 8 s.
_REBUILD_FIRST_S = 0.5
_REBUILD_LONGEST_S = 8.0
_REBUILD_STREAK_S = 30.0


class ProducerLife:
    """Owns the producer, from `begin` to `end`; `producer` is None before and after.

    `other` is a second producer for a while: the one that sends alone, or the one that is let go. `watch` hears of the
    connections of the present one. `on_traffic` is called when a connection is, or was for a moment, up.
    """

    def __init__(
        self,
        clock: Clock,
        metrics: Metrics,
        log: Log,
        *,
        make_producer: Callable[..., Any],
        shutter: Shutter,
        on_traffic: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._make_producer = make_producer
        self._shutter = shutter
        self._on_traffic = on_traffic
        self._config: Config | None = None
        self._password_file: PasswordFile | None = None
        self._rebuilt_at = -_REBUILD_STREAK_S
        self._rebuild_wait_s = 0.0
        self.producer: Any = None
        self.other: Any = None
        self.watch = self._new_watch()

    def _new_watch(self) -> ConnectionWatch:
        return ConnectionWatch(self._clock, self._metrics, self._log, self._on_traffic)

    # -- from the first to the last

    def begin(self, config: Config) -> None:
        """Make the producer. Raises ConfigurationError when the client library refuses a setting."""
        self._config = config
        self._password_file = PasswordFile.of(config, self._clock, self._log, self._use_password)
        self.producer = self._new_producer()

    def end(self) -> None:
        """Let go of it. Nothing is unreported by then, or it is lost."""
        if self._password_file is not None:
            self._password_file.close()
        let_go, self.producer = [self.producer], None
        if not free(let_go, _FREED_S):
            self._log.warning("producer_not_freed", operation="close", last_problem=self.watch.last_problem)

    def leave_to_parent(self) -> None:
        """Make what a forked child has from its parent immortal."""
        for inherited in (self.producer, self.other):
            if inherited is not None:
                never_free(inherited)

    def _new_producer(self) -> Any:
        assert self._config is not None
        watch = self.watch = self._new_watch()
        callbacks = {
            "error_cb": self._on_error,
            "stats_cb": watch.on_statistics,
            "throttle_cb": watch.on_throttle,
        }
        return new_producer(self._make_producer, self._config, callbacks, self._log)

    def begin_other(self) -> Any:
        """Return a second producer that sends each record in a request of its own; it lives until `end_other`."""
        assert self._config is not None
        self.other = new_producer(self._make_producer, self._config, {}, self._log, alone=True)
        return self.other

    def end_other(self) -> None:
        """Let go of the second producer."""
        let_go, self.other = [self.other], None
        free(let_go, 0.0)

    # -- calls

    def call(self, call: Callable[[], object]) -> None:
        """Call the library, and take what poll and flush raise on a fatal error: it is the only word of it."""
        try:
            call()
        except KafkaException as exc:
            self.fatal_error_met(exc.args[0].name() or "unknown")
        except SystemError as exc:
            self.fatal_error_met(type(exc).__name__)
        except BaseException:
            raise
        except:  # noqa: E722 - what flush raises before Python 3.12: a KafkaError, which is not even a BaseException
            self.fatal_error_met("KafkaError")

    def begin_purge(self, producer: Any, *, in_flight: bool) -> None:
        """Have what waits in the queue reported, with `in_flight` what is on the wire, too. Waits for nothing."""
        self.call(lambda: producer.purge(in_queue=True, in_flight=in_flight, blocking=_WAITS_FOR_NOTHING))

    # -- the end of one, and the next

    def fatal_error_met(self, problem: str) -> None:
        """Note that this producer is of no more use."""
        self._shutter.fatal = True
        self.watch.last_problem = problem

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._shutter.fatal = True
        self.watch.on_error(error)
        if self._password_file is not None and error.code() in REFUSED_LOGINS:
            self._password_file.refused()

    def _use_password(self, user: str, password: str) -> None:
        for producer in (self.producer, self.other):
            if producer is not None:
                producer.set_sasl_credentials(user, password)

    def is_rebuild_due(self) -> bool:
        """Return whether a new one may be made now: one that meets the next fatal error at once is replaced later."""
        since_s = self._clock.monotonic() - self._rebuilt_at
        if since_s >= _REBUILD_STREAK_S:
            self._rebuild_wait_s = 0.0
        return since_s >= self._rebuild_wait_s

    def replace(self, problem: str) -> None:
        """Put a new one in the place of the present one, which becomes `other`. The poll lock and the gate are held."""
        self.other, self.producer = self.producer, self._new_producer()
        self._shutter.fatal = self._shutter.recalling = False
        self.watch.last_problem = problem

    def note_rebuild(self, at: float) -> None:
        """Note when the last one was made, and how long the next one has to wait."""
        self._rebuilt_at = at
        self._rebuild_wait_s = min(max(2 * self._rebuild_wait_s, _REBUILD_FIRST_S), _REBUILD_LONGEST_S)
