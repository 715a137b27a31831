"""The servers of the local stack: how each is started, asked whether it is ready, and stopped."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from postroom.libs.exceptions import StackError
from postroom.testing.broker_settings import HOST, JAVA_FLAGS, BrokerPorts, new_cluster_id, registry_flags
from postroom.testing.server_process import Guard, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from postroom.libs.clock import Clock
    from postroom.testing.stack_install import Installation

_READY_S = 120.0
_STOP_S = 15.0
_ASK_EVERY_S = 0.05
_ASK_TIMEOUT_S = 5.0


class StackServer(ServerProcess, ABC):
    """A server of the stack. It keeps its port and its data over any number of ends and starts."""

    def start(self, *, wait: bool = True) -> None:
        """Start it again on the same port and data. With `wait`, return when it has answered.

        Raises StackError when it runs already or is not ready within two minutes; a broker without a majority
        of controllers never gets ready, so start it with `wait=False`.
        """
        self.launch()
        if wait:
            self.wait_ready(self._clock.monotonic() + _READY_S)

    def stop(self) -> None:
        """Shut it down in good order (SIGTERM); after 15 seconds by SIGKILL. It is gone on return."""
        self.terminate()
        self.wait(_STOP_S)

    def wait_ready(self, deadline: float) -> None:
        """Return when the server has answered. `deadline` is in seconds of the clock's monotonic time.

        Raises StackError with the end of the log when the server ends or the deadline passes.
        """
        while not self.is_ready():
            if not self.running:
                raise StackError(f"{self.name} ended before it was ready. Its log ends:\n{self.log_tail()}")
            if self._clock.monotonic() >= deadline:
                raise StackError(f"{self.name} was not ready in time. Its log ends:\n{self.log_tail()}")
            self._clock.sleep(_ASK_EVERY_S)

    @abstractmethod
    def is_ready(self) -> bool:
        """Ask the server once; False when it does not answer properly."""


class Broker(StackServer):
    """One Kafka broker, which is also a controller. `node` is its number, `port` that of the clients' listener."""

    def __init__(
        self,
        node: int,
        ports: BrokerPorts,
        cluster_id: str,
        *,
        installation: Installation,
        folder: Path,
        brokers: int,
        guard: Guard,
        clock: Clock,
    ) -> None:
        logging = f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}"
        class_path = os.pathsep.join(str(jar) for jar in installation.kafka)
        settings = str(folder / "server.properties")
        super().__init__(
            f"broker {node}",
            [str(installation.java), *JAVA_FLAGS, logging, "-cp", class_path, "kafka.Kafka", settings],
            log=folder / "broker.log",
            guard=guard,
            clock=clock,
        )
        self.node = node
        self.port = ports.client
        self._internal = f"{HOST}:{ports.internal}"
        self._cluster_id = cluster_id
        self._brokers = brokers
        self._seen_all = False

    @property
    def bootstrap(self) -> str:
        """This broker's own address, `host:port`."""
        return f"{HOST}:{self.port}"

    def is_ready(self) -> bool:
        """Whether this broker answers for what it leads and knows a controller; the first time, all its peers too."""
        if not (_listens(self.port) and _listens_at(self._internal)):
            return False
        try:
            seen = self._metadata()
        except StackError:
            return False
        if seen.cluster_id != self._cluster_id or seen.controller_id < 0 or self.node not in seen.brokers:
            return False
        self._seen_all = self._seen_all or len(seen.brokers) == self._brokers
        return self._seen_all and self._leads(seen)

    def _leads(self, seen: Any) -> bool:
        """Whether this broker answers for the partitions that it leads.

        After a restart the metadata names it at once, from its log, a good while before it takes the lead.
        """
        from confluent_kafka import KafkaException, TopicPartition
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # public, but not re-exported

        led = [
            TopicPartition(topic.topic, number)
            for topic in seen.topics.values()
            for number, partition in topic.partitions.items()
            if partition.leader == self.node or partition.replicas == [self.node]
        ]
        if not led:
            return True
        admin = self._admin()
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's own omission
        answers = admin.list_offsets(dict.fromkeys(led, latest), request_timeout=_ASK_TIMEOUT_S)
        try:
            for answer in answers.values():
                answer.result(2 * _ASK_TIMEOUT_S)
        except (KafkaException, TimeoutError):
            return False
        return True

    def create_topic(self, name: str, *, partitions: int, copies: int, config: Mapping[str, str]) -> None:
        """Create a topic. Raises StackError when Kafka refuses."""
        from confluent_kafka import KafkaException
        from confluent_kafka.cimpl import NewTopic

        topic = NewTopic(name, num_partitions=partitions, replication_factor=copies, config=dict(config))
        admin = self._admin()  # held in a name: the answer never comes once the client is collected
        try:
            admin.create_topics([topic], request_timeout=30)[name].result(35)
        except (KafkaException, TimeoutError) as exc:
            raise StackError(f"The topic {name} could not be created: {exc}") from exc

    def wait_topic(self, name: str, partitions: int, deadline: float) -> None:
        """Return when this broker knows a leader for every partition of the topic."""
        while True:
            known = self._metadata(name).topics[name].partitions
            if len(known) >= partitions and all(part.leader >= 0 for part in known.values()):
                return
            if self._clock.monotonic() >= deadline:
                raise StackError(f"{self.name} does not know the leaders of {name}")
            self._clock.sleep(_ASK_EVERY_S)

    def leader_of(self, topic: str, partition: int) -> int:
        """The node that leads the partition, as this broker knows it. Raises StackError when there is none."""
        known = self._metadata(topic).topics[topic].partitions.get(partition)
        if known is None or known.leader < 0:
            raise StackError(f"{topic} [{partition}] has no leader")
        return int(known.leader)

    def _metadata(self, topic: str | None = None) -> Any:
        from confluent_kafka import KafkaException

        try:
            return self._admin().list_topics(topic, timeout=_ASK_TIMEOUT_S)
        except KafkaException as exc:
            raise StackError(f"{self.name} did not answer: {exc}") from exc

    def _admin(self) -> Any:
        """A client of its own for each question: none lives on to be inherited by a fork or to fill stderr."""
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self._internal, "log_level": 0})


class RegistryServer(StackServer):
    """An Apicurio Registry. Schemas and ids survive its end, by SIGKILL too."""

    def __init__(
        self,
        port: int,
        management_port: int,
        *,
        installation: Installation,
        folder: Path,
        guard: Guard,
        clock: Clock,
    ) -> None:
        assert installation.registry is not None
        flags = registry_flags(port, management_port, folder / "schemas")
        jar = str(installation.registry / "quarkus-run.jar")
        super().__init__(
            "the registry",
            [str(installation.java), *JAVA_FLAGS, *flags, "-jar", jar],
            log=folder / "registry.log",
            guard=guard,
            directory=folder,
            clock=clock,
        )
        self.port = port

    @property
    def url(self) -> str:
        """Where it speaks Confluent's REST API."""
        return f"http://{HOST}:{self.port}/apis/ccompat/v7"

    def is_ready(self) -> bool:
        """Whether it lists its subjects. That it is our own registry on that port, its log says."""
        if not self.said("Listening on"):
            return False
        connection = http.client.HTTPConnection(HOST, self.port, timeout=_ASK_TIMEOUT_S)
        try:
            connection.request("GET", "/apis/ccompat/v7/subjects")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def format_storage(
    broker_folders: list[Path], cluster_id: str, *, installation: Installation, arguments: tuple[str, ...]
) -> None:
    """Prepare the data folders of brokers that have none yet, by Kafka's storage tool.

    The tool runs once. What it writes for the other brokers differs in two lines of `meta.properties`, so they
    get copies: that saves two starts of Java. Raises StackError when the tool fails.
    """
    first, *others = broker_folders
    if (first / "data" / "meta.properties").exists():
        return
    class_path = os.pathsep.join(str(jar) for jar in installation.kafka)
    command = [
        str(installation.java), *JAVA_FLAGS, f"-Dlog4j2.configurationFile={first / 'log4j2.properties'}",
        "-cp", class_path, "kafka.tools.StorageTool",
        "format", "-t", cluster_id, "-c", str(first / "server.properties"), *arguments,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_READY_S, check=False)  # noqa: S603 - the command line is made here
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StackError(f"Kafka's storage tool did not run ({type(exc).__name__})") from exc
    if done.returncode != 0:
        raise StackError(f"Kafka's storage tool failed:\n{(done.stdout + done.stderr)[-2000:]}")
    for node, folder in enumerate(others, start=2):
        shutil.copytree(first / "data", folder / "data")
        (folder / "data" / "meta.properties").write_text(
            f"version=1\ncluster.id={cluster_id}\nnode.id={node}\ndirectory.id={new_cluster_id()}\n",
            encoding="utf-8",
        )


def _listens_at(address: str) -> bool:
    return _listens(int(address.rpartition(":")[2]))


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False
