"""The local stack itself, on real servers: it starts, breaks on demand, recovers, and never stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import LifecycleError, StackError
from postroom.testing import local_stack
from postroom.testing.broker_settings import free_ports
from postroom.testing.local_stack import LocalStack
from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Callable


def produce(bootstrap: str, topic: str, count: int = 60, **settings: str) -> list[str]:
    """Send `count` records with different keys; the errors of those that were not acknowledged."""
    from confluent_kafka import Producer

    errors: list[str] = []

    def report(error: object, _message: object) -> None:
        if error is not None:
            errors.append(str(error))

    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 20_000, "log_level": 0, **settings})
    for number in range(count):
        producer.produce(topic, b"value", key=f"key-{number}", on_delivery=report)
    assert producer.flush(30) == 0
    return errors


def records_in(bootstrap: str, topic: str) -> int:
    """How many records stand in all partitions of the topic."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "count", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        marks = [consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in partitions]
        return sum(high - low for low, high in marks)
    finally:
        consumer.close()


def register(url: str, subject: str, schema: str) -> int:
    request = urllib.request.Request(
        f"{url}/subjects/{subject}/versions",
        data=json.dumps({"schema": schema}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.load(answer)["id"])


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


def wait_until(condition: Callable[[], bool]) -> bool:
    """True as soon as the condition holds; False after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)  # other processes end in real time
    return True


def wait_until_gone(pids: list[int]) -> bool:
    """True as soon as none of the processes exists; False after ten seconds."""
    return wait_until(lambda: not any(alive(pid) for pid in pids))


class TestOneBroker:
    def test_records_are_acknowledged_and_found_again(self, stack: LocalStack, postroom_topic: str) -> None:
        assert produce(stack.bootstrap, postroom_topic) == []
        assert records_in(stack.bootstrap, postroom_topic) == 60

    def test_topics_have_six_partitions_unless_told_otherwise(
        self, stack: LocalStack, postroom_new_topic: Callable[..., str]
    ) -> None:
        from confluent_kafka.admin import AdminClient

        default, two = postroom_new_topic(), postroom_new_topic("orders", partitions=2)
        topics = AdminClient({"bootstrap.servers": stack.bootstrap}).list_topics(timeout=10).topics
        assert len(topics[default].partitions) == 6
        assert len(topics[two].partitions) == 2
        assert two.startswith("orders-")

    def test_a_topic_is_never_made_by_itself(self, stack: LocalStack) -> None:
        errors = produce(stack.bootstrap, "nobody-made-this", 1, **{"topic.metadata.propagation.max.ms": "0"})
        assert len(errors) == 1
        assert "UNKNOWN_TOPIC" in errors[0]

    def test_a_topic_that_exists_is_not_created_again(self, stack: LocalStack, postroom_topic: str) -> None:
        with pytest.raises(StackError, match="already exists"):
            stack.create_topic(postroom_topic)

    def test_a_broker_killed_and_started_has_its_port_and_its_records(
        self, stack: LocalStack, postroom_topic: str
    ) -> None:
        produce(stack.bootstrap, postroom_topic)
        before, pid = stack.bootstrap, stack.broker(1).pid

        stack.broker(1).kill()
        assert not stack.broker(1).running
        with pytest.raises(StackError, match="broker 1 is not running"):
            _ = stack.broker(1).pid
        stack.broker(1).start()

        assert stack.bootstrap == before
        assert stack.broker(1).pid != pid
        assert records_in(stack.bootstrap, postroom_topic) == 60

    def test_a_paused_broker_exists_but_answers_nothing_until_it_is_resumed(
        self, stack: LocalStack, postroom_topic: str
    ) -> None:
        broker = stack.broker(1)
        broker.pause()
        assert (broker.running, broker.paused) == (True, True)
        assert produce(stack.bootstrap, postroom_topic, 1, **{"message.timeout.ms": "1500"}) != []
        broker.resume()
        assert (broker.running, broker.paused) == (True, False)
        assert produce(stack.bootstrap, postroom_topic, 1) == []

    def test_schemas_outlive_a_registry_killed_right_after_its_answer(self, stack: LocalStack) -> None:
        schema = json.dumps({"type": "record", "name": "Kept", "fields": [{"name": "a", "type": "int"}]})
        schema_id = register(stack.registry_url, "kept-value", schema)
        url = stack.registry_url
        stack.registry.kill()
        stack.registry.start()
        assert stack.registry_url == url
        assert register(url, "kept-value", schema) == schema_id

    def test_what_the_stack_does_not_have_is_said(self, stack: LocalStack) -> None:
        with pytest.raises(StackError, match="brokers 1 to 1"):
            stack.broker(2)
        with pytest.raises(StackError, match="running already"):
            stack.broker(1).start()
        with pytest.raises(LifecycleError, match="started already"):
            stack.start()
        assert len(stack.broker(1).log_tail(3).splitlines()) == 3


class TestThreeBrokers:
    def test_records_survive_the_death_of_their_leader(self, cluster: LocalStack, postroom_cluster_topic: str) -> None:
        produce(cluster.bootstrap, postroom_cluster_topic)
        leader = cluster.leader(postroom_cluster_topic, 0)

        leader.kill()
        assert produce(cluster.bootstrap, postroom_cluster_topic, acks="all") == []

        assert cluster.leader(postroom_cluster_topic, 0) is not leader
        assert records_in(cluster.bootstrap, postroom_cluster_topic) == 120

    def test_restore_brings_back_the_dead_and_the_frozen(
        self, cluster: LocalStack, postroom_cluster_topic: str
    ) -> None:
        cluster.broker(1).stop()
        cluster.broker(2).pause()
        cluster.restore()
        assert [broker.running and not broker.paused for broker in cluster.brokers] == [True, True, True]
        assert produce(cluster.bootstrap, postroom_cluster_topic) == []


@pytest.mark.kafka
class TestLife:
    def test_kept_data_is_there_again_on_the_same_ports(self, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        schema = json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]})
        with LocalStack(directory=folder) as stack:
            first = (stack.bootstrap, stack.registry_url)
            stack.create_topic("kept")
            produce(stack.bootstrap, "kept")
            register(stack.registry_url, "other-value", '"string"')
            schema_id = register(stack.registry_url, "kept-value", schema)
        with LocalStack(directory=folder) as stack:
            assert (stack.bootstrap, stack.registry_url) == first
            assert records_in(stack.bootstrap, "kept") == 60
            assert register(stack.registry_url, "kept-value", schema) == schema_id
        with pytest.raises(StackError, match="brokers: 1, and 3 were asked for"):
            LocalStack(brokers=3, directory=folder).start()

    def test_temporary_data_and_processes_are_gone_after_stop(self) -> None:
        stack = LocalStack(registry=False)
        stack.start()
        pid, folder = stack.broker(1).pid, stack._folder
        assert folder.exists()
        stack.stop()
        stack.stop()
        assert not alive(pid)
        assert not folder.exists()
        with pytest.raises(LifecycleError, match="not started"):
            _ = stack.bootstrap

    def test_a_lost_race_for_a_port_is_run_again_with_another_port(
        self, stack: LocalStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taken = stack.broker(1).port
        told: list[str] = []

        def ports(count: int, preferred: object) -> list[int]:
            chosen = free_ports(count)
            return chosen if told else [taken, *chosen[1:]]

        monkeypatch.setattr(local_stack, "free_ports", ports)
        with LocalStack(registry=False, progress=told.append) as other:
            told_of_conflict = any("port was taken" in line for line in told)
            assert other.broker(1).port != taken
        # The first line ("starting ...") comes after the ports are chosen, so only the first choice is the taken one.
        assert told_of_conflict

    def test_a_broker_that_cannot_start_is_shown_with_its_log_and_leaves_nothing(self) -> None:
        stack = LocalStack(registry=False, server_properties={"log.retention.ms": "soon"})
        with pytest.raises(StackError) as caught:
            stack.start()
        assert "log.retention.ms" in str(caught.value)
        assert not stack._folder.exists()
        assert stack._guard._process is None

    @pytest.mark.parametrize("ending", ["sys.exit(0)", "os.kill(os.getpid(), 9)"])
    def test_servers_end_with_the_process_that_started_them(self, ending: str) -> None:
        script = (
            "import os, sys, time\n"
            "from postroom.testing.local_stack import LocalStack\n"
            "stack = LocalStack(registry=False); stack.start()\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    stack.stop(); time.sleep(20); os._exit(0)\n"
            "print(stack.broker(1).pid, child, stack._folder, flush=True)\n"
            f"{ending}\n"
        )
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            broker, child, folder = parent.stdout.readline().split()
            parent.wait(20)
        try:
            assert wait_until_gone([int(broker)])
            assert wait_until(lambda: not Path(folder).exists())
            assert alive(int(child)), "the forked child was to outlive its parent, or this test shows nothing"
        finally:
            os.kill(int(child), signal.SIGKILL)

    def test_a_forked_child_stops_nothing(self, stack: LocalStack) -> None:
        pid = os.fork()
        if pid == 0:
            stack.stop()
            os._exit(0)
        os.waitpid(pid, 0)
        assert stack.broker(1).running


@pytest.mark.kafka
class TestSeams:
    def test_clients_can_be_made_to_show_a_password(self) -> None:
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        stack = LocalStack(
            registry=False,
            security_protocol="SASL_PLAINTEXT",
            server_properties={
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "listener.name.client.scram-sha-512.sasl.jaas.config": scram,
            },
            format_arguments=["--add-scram", "SCRAM-SHA-512=[name=alice,password=in-wonderland]"],
        )
        login = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "alice",
        }
        with stack:
            stack.create_topic("secured")
            right = {**login, "sasl.password": "in-wonderland"}
            assert produce(stack.bootstrap, "secured", 60, **right) == []
            wrong = {**login, "sasl.password": "wrong", "message.timeout.ms": "2000"}
            assert len(produce(stack.bootstrap, "secured", 1, **wrong)) == 1

    def test_clients_are_told_the_port_of_a_proxy(self) -> None:
        from confluent_kafka.admin import AdminClient

        [proxy_port] = free_ports(1)
        with LocalStack(registry=False, advertised_ports=[proxy_port]) as stack:
            assert stack.bootstrap == f"127.0.0.1:{proxy_port}"
            with TcpProxy(proxy_port, stack.broker(1).port):
                seen = AdminClient({"bootstrap.servers": stack.bootstrap, "log_level": 0}).list_topics(timeout=10)
            assert seen.brokers[1].port == proxy_port
            stack.create_topic("behind-a-proxy")

    def test_preferred_ports_are_taken_where_they_are_free(self, stack: LocalStack) -> None:
        [free] = free_ports(1)
        taken = stack.broker(1).port
        chosen = free_ports(3, [taken, free])
        assert chosen[0] != taken
        assert chosen[1] == free
        assert len(set(chosen)) == 3
