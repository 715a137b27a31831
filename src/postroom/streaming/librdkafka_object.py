"""The objects of the client library: made with our settings, freed where nobody waits, in a forked child never."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException

from postroom.libs.exceptions import ConfigurationError, LifecycleError
from postroom.streaming.librdkafka_settings import one_by_one, producer_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postroom.libs.config_loader import Config
    from postroom.libs.logger import Log


def new_producer(
    make: Callable[..., Any], config: Config, callbacks: Mapping[str, object], log: Log, *, alone: bool = False
) -> Any:
    """Return a producer with the settings of `config`; ConfigurationError for those that the library refuses.

    With `alone` it sends each record in a request of its own, so that what the broker says is said of that record.
    """
    if config.broker == "embedded":
        raise LifecycleError(
            "the embedded broker is not running",
            remedy="start postroom.streaming.embedded_broker.EmbeddedBroker and use its address",
        )
    settings = producer_settings(config)
    try:
        return make({**(one_by_one(settings) if alone else settings), **callbacks}, logger=_LibraryLog(log))
    except KafkaException as exc:
        raise ConfigurationError(
            f"the Kafka client does not accept its settings: {exc.args[0].str()}",
            remedy="mend the section producer of the configuration",
        ) from exc


def free(objects: list[Any], patience_s: float) -> bool:
    """Let go of the objects, and empty the list: it must hold the last of their references.

    Freeing one waits for the library's threads, and one of those may be busy with the name of its broker, for seconds
    or for ever. So that is done on a thread of its own; False when it has not ended after `patience_s` seconds.
    """
    freeing = threading.Thread(target=objects.clear, name="postroom-free", daemon=True)
    try:
        freeing.start()
    except RuntimeError:  # the system has no thread left, or the interpreter is about to end
        for left in objects:
            never_free(left)
        objects.clear()
        return False
    freeing.join(patience_s)
    return not freeing.is_alive()


def never_free(left: object) -> None:
    """Make an object immortal: one that a forked child has from its parent, whose threads are not there to wait for."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(left))


class _LibraryLog:
    """Takes librdkafka's own log lines: they go to our log, each kind at most once in ten seconds."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def log(self, _level: int, template: str, *parts: object) -> None:
        """Log one line of the library; called from inside poll."""
        self._log.debug("librdkafka", operation="client", detail=template % parts if parts else template)
