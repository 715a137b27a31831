"""The main job, judged from outside: a hundred thousand events by the command line, read by an ordinary consumer."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from postroom.testing.local_stack import LocalStack

COUNT = 100_000


def read_all(bootstrap: str, topic: str) -> list[Message]:
    """Every record of a topic, by a plain consumer that knows nothing of postroom."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "judge", "enable.partition.eof": True})
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        records: list[Message] = []
        ended = silent = 0
        while ended < len(partitions):
            batch = consumer.consume(10_000, timeout=0.5)  # waits for all of that time unless it gets as many
            silent = 0 if batch else silent + 1
            assert silent < 60, "the topic went silent before its end"
            ended += sum(message.error() is not None for message in batch)
            records += [message for message in batch if message.error() is None]
        return records
    finally:
        consumer.close()


def header(message: Message, name: str) -> str:
    value = dict(message.headers() or [])[name]
    assert isinstance(value, bytes)
    return value.decode()


def postroom(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "postroom", *words, "--json"], capture_output=True, text=True, timeout=150, check=False
    )


def test_every_one_of_a_hundred_thousand_events_is_found_where_its_answer_said(
    postroom_stack: LocalStack, tmp_path: Path
) -> None:
    topic = "main_job"
    settings = tmp_path / "kafka.yaml"
    settings.write_text(
        f"broker: {postroom_stack.bootstrap}\n"
        f"schema_registry: {{url: {postroom_stack.registry_url}}}\n"
        f"topics: {{user_events: {topic}}}\n"
    )
    journal = tmp_path / "accepted.ndjson"
    ran = postroom(
        "run", "--count", str(COUNT), "--invalid-ratio", "0.02", "--seed", "11",
        "--accepted", str(journal), "--config", str(settings),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["received"] == told["accepted"] == COUNT
    assert told["unaccounted"] == told["pending"] == told["failed"] == told["refused"] == 0
    assert 1_500 < told["dead_lettered"] < 2_500

    accepted = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len({entry["event_id"] for entry in accepted}) == COUNT

    delivered = read_all(postroom_stack.bootstrap, topic)
    found = {header(message, "ce_id") for message in delivered}
    assert len(delivered) == len(found) == told["delivered"]
    assert found == {entry["event_id"] for entry in accepted if entry["topic"] == topic}
    with SchemaRegistryClient({"url": postroom_stack.registry_url, "timeout": 20}) as registry:
        # Named, or the client asks for the topic's associations first: the local registry lets some of these hang.
        decode = AvroDeserializer(registry, conf={"subject.name.strategy": topic_subject_name_strategy})
        context = SerializationContext(topic, MessageField.VALUE)
        for message in delivered:
            event = decode(message.value(), context)
            assert event["user_id"].encode() == message.key()

    letters = read_all(postroom_stack.bootstrap, f"{topic}.dlq")
    reasons = Counter(header(message, "dlq.reason") for message in letters)
    assert reasons == {"validation_failed": told["dead_lettered"]}
    dead = {header(message, "dlq.event_id") for message in letters}
    assert dead == {entry["event_id"] for entry in accepted if entry["topic"] == f"{topic}.dlq"}

    sequence = {entry["event_id"]: entry["sequence"] for entry in accepted}
    last: dict[tuple[int, bytes], int] = {}
    for message in delivered:  # within a partition the consumer gives them in the order of the log
        place = (message.partition() or 0, message.key() or b"")
        number = sequence[header(message, "ce_id")]
        assert number > last.get(place, 0)
        last[place] = number
    assert len({partition for partition, _ in last}) == 6
    assert len({key for _, key in last}) > 100

    proof = postroom("verify", "--accepted", str(journal), "--config", str(settings))
    assert proof.returncode == 0, proof.stderr
    verdict = json.loads(proof.stdout.splitlines()[-1])
    assert verdict["ok"] is True
    for report in verdict["topics"]:
        assert report["missing"] == report["duplicated"] == report["out_of_order"] == 0
