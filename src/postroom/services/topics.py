"""The topics that contracts name, each with its dead letter topic beside it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom.libs.exceptions import KafkaConnectionError, PostroomError
from postroom.libs.logger import get_logger
from postroom.services.lane import dead_letter_topic
from postroom.streaming.kafka_admin import KafkaAdmin, TopicResult, TopicSpec
from postroom.streaming.librdkafka_settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract

_AT_THE_START_S = 5.0
_AGAIN_S = (1.0, 2.0, 4.0, 8.0)
_JOIN_S = 0.5  # a question that is just being asked is not waited for


def topic_specs(
    contracts: Iterable[Contract],
    config: Config,
    *,
    partitions: int | None = None,
    replication: int | None = None,
) -> list[TopicSpec]:
    """Return the topics that `contracts` ask for, under their actual names; `partitions` and `replication` win.

    A topic that several contracts share stands there once, with what any of them says: they agree where they say it.
    """
    specs: dict[str, TopicSpec] = {}
    for contract in contracts:
        wanted = (
            (
                config.topic(contract.topic),
                contract.partitions,
                contract.replication,
                contract.retention_ms,
            ),
            (
                dead_letter_topic(contract, config),
                contract.dead_letter_partitions,
                contract.dead_letter_replication,
                contract.dead_letter_retention_ms,
            ),
        )
        for name, its_partitions, its_replication, retention_ms in wanted:
            settings = {} if retention_ms is None else {"retention.ms": str(retention_ms)}
            spec = TopicSpec(name, partitions or its_partitions, replication or its_replication, settings)
            specs[name] = _together(specs[name], spec) if name in specs else spec
    return list(specs.values())


def _together(first: TopicSpec, other: TopicSpec) -> TopicSpec:
    return TopicSpec(
        first.name,
        other.partitions if first.partitions == -1 else first.partitions,
        other.replication if first.replication == -1 else first.replication,
        {**other.config, **first.config},
    )


def create_contract_topics(contracts: Iterable[Contract], config: Config) -> list[TopicResult]:
    """Make the topics of `contracts` exist; see `KafkaAdmin.create_topics`. One that exists is left as it is."""
    return KafkaAdmin(client_settings(config)).create_topics(topic_specs(contracts, config))


class TopicsInTime:
    """Makes the topics of contracts exist at the start of a service, or later, once Kafka is there.

    `waiting_for` is the code of the error that keeps them from it, empty when there is none. `again_s` are the pauses
    between two tries, the last one for ever.
    """

    def __init__(
        self,
        contracts: Iterable[Contract],
        config: Config,
        *,
        make_admin: Callable[..., KafkaAdmin] = KafkaAdmin,
        again_s: Sequence[float] = _AGAIN_S,
    ) -> None:
        self._specs = topic_specs(contracts, config)
        self._settings = client_settings(config)
        self._make_admin = make_admin
        self._again_s = again_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._log = get_logger("postroom.topics")
        self.waiting_for = ""

    def start(self) -> None:
        """Create them, within a few seconds; where no broker answers, a thread goes on trying.

        Raises what Kafka says against it: ConfigurationError, AuthorizationError.
        """
        try:
            self._create()
        except KafkaConnectionError as exc:
            self._note(exc)
            self._thread = threading.Thread(target=self._go_on, name="postroom-topics", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Try no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _create(self) -> None:
        admin = self._make_admin(self._settings, timeout_s=_AT_THE_START_S)
        if not admin.is_embedded():  # there they appear when they are first asked about
            admin.create_topics(self._specs)
        self.waiting_for = ""

    def _go_on(self) -> None:
        tries = 0
        while not self._stopping.wait(self._again_s[min(tries, len(self._again_s) - 1)]):
            tries += 1
            try:
                self._create()
            except Exception as exc:  # noqa: BLE001 - without this thread the topics would be missing for good
                self._note(exc if isinstance(exc, PostroomError) else PostroomError(type(exc).__name__))
            else:
                self._log.info("topics_created", operation="start", count=len(self._specs))
                return

    def _note(self, error: PostroomError) -> None:
        if error.code != self.waiting_for and not self._stopping.is_set():
            self._log.warning(
                "topics_not_created", operation="start", error=error.code, detail=error.message, remedy=error.remedy
            )
        self.waiting_for = error.code
