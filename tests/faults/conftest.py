"""The servers that the faults happen to: shared ones, made whole again after each test."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from postroom.testing.broker_settings import free_ports
from postroom.testing.local_stack import LocalStack
from tests.faults.post import Said
from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def said() -> Said:
    """The log lines of the test."""
    return Said()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A folder for a spool."""
    return tmp_path / "spool"


def new_topic(stack: LocalStack, *, partitions: int = 3, dead_letters: bool = True, **config: str) -> str:
    """Create a topic of a new name, and one for its dead letters; `config` with `_` for the dot."""
    name = f"fault-{uuid.uuid4().hex[:12]}"
    stack.create_topic(name, partitions=partitions, config={key.replace("_", "."): one for key, one in config.items()})
    if dead_letters:
        stack.create_topic(f"{name}.dlq", partitions=1)
    return name


@pytest.fixture
def stack(postroom_stack: LocalStack) -> Iterator[LocalStack]:
    """One broker that a test may break, and a registry."""
    postroom_stack.restore()
    yield postroom_stack
    postroom_stack.restore()


@pytest.fixture
def topic(stack: LocalStack) -> str:
    """A fresh topic on `stack`, with one for its dead letters."""
    return new_topic(stack)


class Relayed:
    """A broker behind a relay: what the client sees of the network is what a test makes of it."""

    def __init__(self, stack: LocalStack, proxy: TcpProxy) -> None:
        self.stack = stack
        self.proxy = proxy
        self.bootstrap = stack.bootstrap
        self.direct = stack.broker(1)._internal
        """The broker's own address, past the relay: for judges."""

    def new_topic(self, **arguments: Any) -> str:
        return new_topic(self.stack, **arguments)


@pytest.fixture(scope="session")
def relayed_stack() -> Iterator[Relayed]:
    """One broker behind a relay, for the whole session."""
    [port] = free_ports(1)
    with LocalStack(registry=False, advertised_ports=[port]) as stack, TcpProxy(port, stack.broker(1).port) as proxy:
        yield Relayed(stack, proxy)


@pytest.fixture
def relayed(relayed_stack: Relayed) -> Iterator[Relayed]:
    """One broker behind a relay that is healed afterwards."""
    yield relayed_stack
    relayed_stack.proxy.heal()
