"""Creates, lists and describes topics."""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]  # public
from confluent_kafka.cimpl import NewTopic

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import ConfigurationError, KafkaConnectionError
from postroom.streaming.kafka_errors import AUTHENTICATION, SSL, client_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from postroom.libs.exceptions import PostroomError

_VISIBLE_EVERY_S = 0.05
_EMBEDDED_CLUSTER = "mockCluster"

# What the broker says when the request itself is wrong: no use in asking again.
_WRONG_REQUEST = frozenset({17, 37, 38, 39, 40, 42, 44})  # names, partitions, replication, assignment, config, policy


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic as it should be; -1 leaves partitions or replicas to the cluster.

    `config` holds Kafka's own topic settings (`retention.ms`).
    """

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = {}


class TopicState(Enum):
    """What `create_topics` found or did."""

    CREATED = "created"
    EXISTS = "exists"
    DIFFERS = "differs"


class TopicResult(msgspec.Struct, frozen=True):
    """The answer for one topic, with the number of partitions and replicas that it has now."""

    name: str
    state: TopicState
    partitions: int
    replication: int


class PartitionDescription(msgspec.Struct, frozen=True):
    """One partition; `leader` is -1 where there is none at present."""

    number: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


class TopicDescription(msgspec.Struct, frozen=True):
    """A topic as the cluster knows it."""

    name: str
    partitions: tuple[PartitionDescription, ...]

    @property
    def replication(self) -> int:
        """The number of replicas of the partition that has fewest."""
        return min((len(partition.replicas) for partition in self.partitions), default=0)

    @property
    def has_leaders(self) -> bool:
        """True when every partition can be written to."""
        return all(partition.leader >= 0 for partition in self.partitions)


class KafkaAdmin:
    """Administers topics. `settings` are the client library's; every call ends within `timeout_s` seconds.

    The connection is made at the first call.
    """

    def __init__(
        self,
        settings: Mapping[str, object],
        *,
        timeout_s: float = 30.0,
        clock: Clock = SYSTEM_CLOCK,
        make_admin: Callable[..., Any] = AdminClient,
    ) -> None:
        self._settings = dict(settings)
        self._timeout_s = timeout_s
        self._clock = clock
        self._make_admin = make_admin
        self._admin: Any = None
        self._last_error: KafkaError | None = None

    def create_topics(self, specs: Sequence[TopicSpec]) -> list[TopicResult]:
        """Make the topics exist, and return in the same order what was found or done.

        One that exists is left as it is; `DIFFERS` says that its partitions or replicas are not those of the spec.
        On return the new topics are visible and have leaders. All topics are tried before the first error is raised:
        `ConfigurationError` for a spec that the cluster refuses, `AuthorizationError`, `KafkaConnectionError`.
        """
        if not specs:
            return []
        if self.is_embedded():
            raise ConfigurationError(
                "the embedded broker creates no topics on request", remedy="just use them: they appear by themselves"
            )
        created = self._create(specs)
        there = self.wait_until_visible({spec.name: spec.partitions if spec.name in created else 1 for spec in specs})
        return [_result(spec, there[spec.name], created=spec.name in created) for spec in specs]

    def _create(self, specs: Sequence[TopicSpec]) -> set[str]:
        """Ask for every topic, then raise the first problem there was; return the names of those that are new."""
        wanted = [
            NewTopic(
                spec.name, num_partitions=spec.partitions, replication_factor=spec.replication, config={**spec.config}
            )
            for spec in specs
        ]
        created, problems = set(), []
        for name, future in self._client().create_topics(wanted, request_timeout=self._timeout_s).items():
            try:
                future.result()  # ends within the request's own timeout
                created.add(name)
            except KafkaException as exc:
                error = exc.args[0]
                if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    problems.append(self._failed(f"create topic {name}", error))
        if problems:
            raise problems[0]
        return created

    def wait_until_visible(self, partitions: Mapping[str, int]) -> dict[str, TopicDescription]:
        """Wait until each topic has at least so many partitions and a leader for all of them; return them.

        Raises `KafkaConnectionError` with the names of those that have not within `timeout_s` seconds.
        """
        end = self._clock.monotonic() + self._timeout_s
        while True:
            there = self.describe(list(partitions))
            late = [
                name
                for name, count in partitions.items()
                if (found := there[name]) is None or len(found.partitions) < max(1, count) or not found.has_leaders
            ]
            if not late:
                return {name: found for name, found in there.items() if found is not None}
            if self._clock.monotonic() >= end:
                raise KafkaConnectionError(
                    f"not ready after {self._timeout_s:g} s: {', '.join(late)}", remedy="check that all brokers run"
                )
            self._clock.sleep(_VISIBLE_EVERY_S)

    def describe(self, names: Sequence[str]) -> dict[str, TopicDescription | None]:
        """Return each topic as the cluster knows it, None for one that it does not know."""
        topics = self._metadata().topics
        return {name: _description(topics[name]) if name in topics else None for name in names}

    def settings_of(self, names: Sequence[str]) -> dict[str, Mapping[str, str] | None]:
        """Return Kafka's own settings of each topic (`cleanup.policy`), None for one that is not there or not told.

        Raises `KafkaConnectionError` when nobody answers, `AuthorizationError` when no topic may be asked about.
        """
        told: dict[str, Mapping[str, str] | None] = dict.fromkeys(names)
        problems: list[KafkaError] = []
        wanted = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        for resource, future in self._client().describe_configs(wanted, request_timeout=self._timeout_s).items():
            try:
                entries = future.result()  # ends within the request's own timeout
            except KafkaException as exc:
                problems.append(exc.args[0])
                continue
            told[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
        if len(problems) == len(names) and problems:
            raise self._failed("ask Kafka for the settings of topics", problems[0])
        return told

    def list_topics(self) -> list[str]:
        """Return the names of all topics that this client may see, sorted, without Kafka's own (`__...`)."""
        return sorted(name for name in self._metadata().topics if not name.startswith("__"))

    def is_embedded(self) -> bool:
        """Return whether the answering broker is the mock cluster inside librdkafka, which proves nothing."""
        return str(self._metadata().cluster_id).startswith(_EMBEDDED_CLUSTER)

    def _client(self) -> Any:
        if self._admin is None:
            settings = self._settings | {"error_cb": self._on_error, "allow.auto.create.topics": False}
            quiet = logging.Logger("postroom.kafka_admin", level=logging.CRITICAL + 1)  # noqa: LOG001 - not registered
            self._admin = self._make_admin(settings, logger=quiet)
        return self._admin

    def _on_error(self, error: KafkaError) -> None:
        # A refused login is followed by "all brokers down": the first says what to do.
        if self._last_error is None or self._last_error.code() not in {AUTHENTICATION, SSL}:
            self._last_error = error

    def _metadata(self) -> Any:
        try:
            return self._client().list_topics(timeout=self._timeout_s)
        except KafkaException as exc:
            raise self._failed("ask Kafka for its topics", exc.args[0]) from exc

    def _failed(self, doing: str, error: KafkaError) -> PostroomError:
        if error.code() in _WRONG_REQUEST:
            return ConfigurationError(f"could not {doing}: {error.str()}", remedy="mend the contract or the option")
        told = self._last_error or error
        return client_error(doing, told.code(), told.name())


def _result(spec: TopicSpec, found: TopicDescription, *, created: bool) -> TopicResult:
    partitions, replication = len(found.partitions), found.replication
    if created:
        state = TopicState.CREATED
    elif spec.partitions in {-1, partitions} and spec.replication in {-1, replication}:
        state = TopicState.EXISTS
    else:
        state = TopicState.DIFFERS
    return TopicResult(spec.name, state, partitions, replication)


def _description(topic: Any) -> TopicDescription | None:
    if topic.error is not None:
        return None
    return TopicDescription(
        topic.topic,
        tuple(
            PartitionDescription(number, found.leader, tuple(found.replicas), tuple(found.isrs))
            for number, found in sorted(topic.partitions.items())
        ),
    )
