"""A broker inside this process, for demos and first steps: nothing to install, gone when the process ends.

It is the mock cluster that comes inside librdkafka: real Kafka protocol on real loopback ports, so that other
clients and processes can talk to it. What it is not: it removes no duplicates of an idempotent producer, keeps
no replicas, knows no TLS, SASL or ACLs, and trims a partition at 5 MiB or 100,000 records. It is therefore never
the judge of loss, order or duplicates; for that start a real Kafka with `postroom stack up`.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any, Self

from confluent_kafka import KafkaException, Producer

from postroom.libs.exceptions import KafkaConnectionError, LifecycleError
from postroom.streaming.librdkafka_object import never_free

PARTITIONS = 4
"""Topics appear on first use with so many partitions; the mock cluster has no CreateTopics."""

_READY_WITHIN_S = 10.0

_brokers: weakref.WeakSet[EmbeddedBroker] = weakref.WeakSet()


class EmbeddedBroker:
    """One broker on a loopback port from `start()` to `stop()`; also a context manager.

    A forked child reaches the parent's broker at its address; its copy of this object is a stopped one.
    """

    def __init__(self) -> None:
        self._owner: Any = None
        self._bootstrap = ""
        _brokers.add(self)

    @property
    def bootstrap(self) -> str:
        """`host:port` of the running broker; LifecycleError when it is not running."""
        if not self._bootstrap:
            raise LifecycleError("the embedded broker is not running", remedy="call start() first")
        return self._bootstrap

    def start(self) -> Self:
        """Start it and wait until it answers. Raises KafkaConnectionError if it does not within ten seconds."""
        if self._owner is not None:
            return self
        quiet = logging.Logger("postroom.embedded_broker", level=logging.CRITICAL + 1)  # noqa: LOG001 - not registered
        owner = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1}, logger=quiet)
        try:
            metadata = owner.list_topics(timeout=_READY_WITHIN_S)
        except KafkaException as exc:
            raise KafkaConnectionError("the embedded broker did not start", remedy="try again") from exc
        self._bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())
        self._owner = owner
        return self

    def create_topic(self, name: str) -> None:
        """Make the topic exist, with `PARTITIONS` partitions: asking for its metadata creates it."""
        if self._owner is None:
            raise LifecycleError("the embedded broker is not running", remedy="call start() first")
        self._owner.list_topics(name, timeout=_READY_WITHIN_S)

    def stop(self) -> None:
        """Stop it; everything it held is gone."""
        self._owner = None
        self._bootstrap = ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _after_fork_in_child(self) -> None:
        if self._owner is not None:
            never_free(self._owner)
        self.stop()


def _after_fork_in_child() -> None:
    for broker in list(_brokers):
        broker._after_fork_in_child()  # noqa: SLF001 - the module's own class


os.register_at_fork(after_in_child=_after_fork_in_child)
