"""What the servers of the local stack are told: ports, properties, command lines. Nothing is started here."""

from __future__ import annotations

import base64
import random
import socket
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.libs.exceptions import StackError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

HOST = "127.0.0.1"

# Below the range from which the kernel takes the ports of outgoing connections (32768 and up on Linux, 49152 on
# macOS): there, while a broker is dead, its port could go to a client, or a client that tries to reach it could
# by chance connect to itself.
_PORTS = range(20_000, 32_000)
_TRIES = 200

JAVA_FLAGS = (
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)

LOGGING = """\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
"""


@dataclass(frozen=True, slots=True)
class BrokerPorts:
    """Three ports of 127.0.0.1: for clients, for the other brokers (and the stack itself), for the controllers."""

    client: int
    internal: int
    controller: int


def new_cluster_id() -> str:
    """22 characters of URL-safe base64 of a random UUID, the form in which Kafka writes its ids.

    None begins with a dash: tools would take it for an option.
    """
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def free_ports(count: int, preferred: Sequence[int] = (), source: random.Random | None = None) -> list[int]:
    """`count` different ports that nobody listens on at this moment, the first ones from `preferred` where free.

    All are held until the last one is found. Somebody may take one right after: who uses them must be ready to
    ask again. Raises StackError when none can be found.
    """
    choose = source or random.SystemRandom()
    held: list[socket.socket] = []
    try:
        for at in range(count):
            wanted: Iterable[int] = [preferred[at]] if at < len(preferred) else []
            held.append(_held_port([*wanted, *choose.sample(_PORTS, _TRIES)]))
        return [int(holder.getsockname()[1]) for holder in held]
    finally:
        for holder in held:
            holder.close()


def _held_port(candidates: Iterable[int]) -> socket.socket:
    for port in candidates:
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no obstacle, a listener is
        try:
            holder.bind((HOST, port))
            holder.listen(1)
        except OSError:
            holder.close()
            continue
        return holder
    raise StackError(f"No free port was found on {HOST} between {_PORTS[0]} and {_PORTS[-1]}")


def broker_properties(
    node: int,
    ports: Sequence[BrokerPorts],
    *,
    data: Path,
    advertised_port: int | None,
    security_protocol: str,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The server.properties of one broker of `len(ports)`; `extra` has the last word.

    The brokers talk among themselves on a listener of their own (INTERNAL, plain), so that a proxy in front of
    the clients' listener (CLIENT) does not come between the replicas, and so that the clients' listener may be
    secured without certificates for the brokers.
    """
    own, count = ports[node - 1], len(ports)
    copies = str(count)
    in_sync = str(min(2, count))
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": ",".join(f"{n}@{HOST}:{p.controller}" for n, p in enumerate(ports, start=1)),
        "listeners": f"CLIENT://{HOST}:{own.client},INTERNAL://{HOST}:{own.internal},"
        f"CONTROLLER://{HOST}:{own.controller}",
        "advertised.listeners": f"CLIENT://{HOST}:{advertised_port or own.client},INTERNAL://{HOST}:{own.internal}",
        "listener.security.protocol.map": f"CLIENT:{security_protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        # Fifty partitions of each internal topic take seconds to make on a small machine; five do the same work.
        "offsets.topic.num.partitions": "5",
        "transaction.state.log.num.partitions": "5",
        "share.coordinator.state.topic.num.partitions": "5",
        "group.initial.rebalance.delay.ms": "0",
    }
    if count == 1:
        # A broker that was killed may come back once its old session has run out. With one broker nobody takes
        # over meanwhile, so the usual nine seconds would only make tests slow.
        properties |= {"broker.session.timeout.ms": "4000", "broker.heartbeat.interval.ms": "1000"}
    return {**properties, **extra}


def properties_text(properties: Mapping[str, str]) -> str:
    r"""The text of a Java properties file: a backslash in a value is written twice."""
    return "".join(f"{key}={value.replace(chr(92), chr(92) * 2)}\n" for key, value in properties.items())


def registry_flags(port: int, management_port: int, database: Path) -> list[str]:
    """System properties for the registry: loopback only, and an H2 file that has what was answered, at once.

    Without WRITE_DELAY=0 the database may write half a second late, and kill -9 would forget a schema.
    """
    return [
        f"-Dquarkus.http.host={HOST}",
        f"-Dquarkus.http.port={port}",
        f"-Dquarkus.management.host={HOST}",
        f"-Dquarkus.management.port={management_port}",
        "-Dapicurio.storage.kind=sql",
        "-Dapicurio.storage.sql.kind=h2",
        f"-Dapicurio.datasource.url=jdbc:h2:file:{database};WRITE_DELAY=0",
    ]
