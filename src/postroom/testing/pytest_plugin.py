"""Pytest fixtures: a double without Kafka, and a real Kafka with a real Schema Registry, started for who asks.

    def test_my_code(recording_service):
        my_code(post=recording_service)
        assert recording_service.published[0].event["user_id"] == "u1"

    def test_my_code_while_kafka_is_away(spooling_service, postroom_faults, postroom_clock):
        postroom_faults.away()
        my_code(post=spooling_service)
        postroom_clock.advance(600)

    def test_my_service(postroom_stack, postroom_topic):
        producer = Producer({"bootstrap.servers": postroom_stack.bootstrap})
        producer.produce(postroom_topic, b"hello")

Installed with postroom, found by pytest by itself. The servers need the extra `stack` (`postroom[stack]`); the first
run downloads Kafka and the registry into the user's cache. Each set of servers is started once per session.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postroom.testing.fault_script import FaultScript
    from postroom.testing.local_stack import LocalStack
    from postroom.testing.manual_clock import ManualClock
    from postroom.testing.recording_service import RecordingService


def _started(request: pytest.FixtureRequest, brokers: int) -> Iterator[LocalStack]:
    from postroom.testing.local_stack import LocalStack  # heavy: loaded for who asks

    reporter = request.config.pluginmanager.get_plugin("terminalreporter")

    def progress(line: str) -> None:
        if reporter is not None and reporter.verbosity > 0:
            reporter.write_line(f"postroom stack: {line}")

    with LocalStack(brokers=brokers, progress=progress) as stack:
        yield stack


@pytest.fixture
def recording_service() -> Iterator[RecordingService]:
    """A producer service without Kafka that runs for one test: the same checks, everything kept in memory."""
    from postroom.testing.recording_service import RecordingService  # heavy: loaded for who asks

    with RecordingService() as service:
        yield service


@pytest.fixture
def postroom_faults() -> FaultScript:
    """What goes wrong with Kafka and the disk in `spooling_service`: nothing, until the test says so."""
    from postroom.testing.fault_script import FaultScript

    return FaultScript()


@pytest.fixture
def postroom_clock() -> ManualClock:
    """The clock of `spooling_service`: it stands still until the test moves it."""
    from postroom.testing.manual_clock import ManualClock  # heavy: loaded for who asks

    return ManualClock()


@pytest.fixture
def spooling_service(
    tmp_path: Path, postroom_faults: FaultScript, postroom_clock: ManualClock
) -> Iterator[RecordingService]:
    """A recording service with a spool in `tmp_path / "spool"` that obeys `postroom_faults` and `postroom_clock`."""
    from postroom.testing.recording_service import RecordingService  # heavy: loaded for who asks

    with RecordingService(clock=postroom_clock, faults=postroom_faults, spool_dir=tmp_path / "spool") as service:
        yield service


@pytest.fixture(scope="session")
def postroom_stack(request: pytest.FixtureRequest) -> Iterator[LocalStack]:
    """A running stack of one broker and a registry, the same for the whole session."""
    yield from _started(request, brokers=1)


@pytest.fixture(scope="session")
def postroom_cluster(request: pytest.FixtureRequest) -> Iterator[LocalStack]:
    """A running stack of three brokers and a registry, the same for the whole session.

    A test may kill and pause its brokers: `postroom_cluster_topic` and `postroom_new_cluster_topic` make it whole
    again before and after the test that uses them; other tests call `postroom_cluster.restore()`.
    """
    yield from _started(request, brokers=3)


@pytest.fixture
def postroom_new_topic(postroom_stack: LocalStack) -> Callable[..., str]:
    """A function that creates a topic of a new name on `postroom_stack` and returns the name.

    It takes a prefix, `partitions` (6) and `config`, a mapping of Kafka's topic settings.
    """
    return _topic_maker(postroom_stack)


@pytest.fixture
def postroom_topic(postroom_new_topic: Callable[..., str]) -> str:
    """The name of a fresh topic with six partitions on `postroom_stack`."""
    return postroom_new_topic()


@pytest.fixture
def postroom_new_cluster_topic(postroom_cluster: LocalStack) -> Iterator[Callable[..., str]]:
    """The same as `postroom_new_topic` on `postroom_cluster`, with three replicas."""
    postroom_cluster.restore()
    yield _topic_maker(postroom_cluster)
    postroom_cluster.restore()


@pytest.fixture
def postroom_cluster_topic(postroom_new_cluster_topic: Callable[..., str]) -> str:
    """The name of a fresh topic with six partitions and three replicas on `postroom_cluster`."""
    return postroom_new_cluster_topic()


def _topic_maker(stack: LocalStack) -> Callable[..., str]:
    def new_topic(prefix: str = "test", *, partitions: int = 6, config: dict[str, str] | None = None) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        stack.create_topic(name, partitions=partitions, config=config)
        return name

    return new_topic
