"""`postroom topics`, `tail` and `verify` against a real Kafka and a real registry."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from postroom.__main__ import main
from postroom.schemas.avro_codec import Codec, frame
from postroom.schemas.schema_registry_client import SchemaRegistryClient
from postroom.services.journal import AcceptedJournal
from postroom.streaming.embedded_broker import EmbeddedBroker

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

SCHEMA = {"type": "record", "name": "click", "fields": [{"name": "user", "type": "string"}]}


@pytest.fixture
def servers(postroom_stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name the stack; no settings of this machine are found."""
    monkeypatch.chdir(tmp_path)
    return ["--broker", postroom_stack.bootstrap, "--registry", postroom_stack.registry_url]


@pytest.fixture
def clicks(postroom_stack: LocalStack, postroom_topic: str) -> str:
    """A topic with twenty clicks in one partition and a record of nobody's schema in another."""
    with SchemaRegistryClient(postroom_stack.registry_url) as registry:
        schema_id = registry.register(f"{postroom_topic}-value", json.dumps(SCHEMA))
    producer = Producer({"bootstrap.servers": postroom_stack.bootstrap})
    codec = Codec(SCHEMA)
    for number in range(20):
        value = codec.encode({"user": f"u{number}"}, frame(schema_id))
        headers: list[tuple[str, str | bytes | None]] = [("ce_id", f"id-{number}".encode())]
        producer.produce(postroom_topic, value, b"k", partition=0, headers=headers, timestamp=1000 + number)
    producer.produce(postroom_topic, b"not \x1b[31mavro", b"\x1b[0m", partition=1, timestamp=999)
    assert producer.flush(20) == 0
    return postroom_topic


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """What stands on stdout, line by line."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_topics_are_created_once_with_their_dead_letter_topics(
    servers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names come from the settings; what differs is told and left alone."""
    name = f"clicks-{uuid.uuid4().hex[:8]}"
    contract = tmp_path / "click.yaml"
    contract.write_text("name: click\nversion: 1\ntopic: clicks\nschema: {user: string}\n")
    settings = tmp_path / "my.yaml"
    settings.write_text(f"topics: {{clicks: {name}}}\ncontracts: {{path: [{contract}], default: click}}\n")
    options = ["--config", str(settings), *servers[:2], "--json"]
    create = ["topics", "create", "--partitions", "3", "--replication", "1", *options]
    assert main(create) == 0
    assert main(create) == 0
    assert main(["topics", "create", "click", "--partitions", "6", *options]) == 0
    states = [[topic["state"] for topic in told["topics"]] for told in lines(capsys)]  # type: ignore[attr-defined]  # JSON
    assert states == [["created"] * 2, ["exists"] * 2, ["differs"] * 2]
    assert main(["topics", "create", "--partitions", "6", *options[:-1]]) == 0
    told = capsys.readouterr().out
    assert f"{name}: exists with 3 partitions, 1 replicas; asked for 6 and" in told
    assert f"{name}.dlq: exists" in told


def test_tail_shows_the_last_records_decoded(
    servers: list[str], clicks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten if nothing is said, by their time; `--count` says otherwise."""
    assert main(["tail", clicks, "--json", *servers]) == 0
    assert [told["event"] for told in lines(capsys)] == [{"user": f"u{number}"} for number in range(10, 20)]
    assert main(["tail", clicks, "--json", "-n", "2", *servers]) == 0
    assert [told["offset"] for told in lines(capsys)] == [18, 19]


def test_tail_shows_everything_from_the_beginning(
    servers: list[str], clicks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each record once; what cannot be decoded is described."""
    assert main(["tail", clicks, "--json", "--from", "beginning", *servers]) == 0
    told = lines(capsys)
    assert sorted(str(record["kind"]) for record in told) == ["bytes"] + ["event"] * 20
    assert main(["tail", clicks, "--json", "--from", "beginning", "--follow", "--count", "21", *servers]) == 0
    assert len(lines(capsys)) == 21


def test_tail_for_people_cannot_command_their_terminal(
    servers: list[str], clicks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters in keys and values are written out."""
    assert main(["tail", clicks, "--from", "beginning", *servers]) == 0
    told = capsys.readouterr().out
    assert '{"user": "u19"}' in told
    assert "13 bytes not decoded" in told
    assert r"key \x1b[0m" in told
    assert "\x1b" not in told


def test_tail_of_an_unknown_topic_says_what_to_do(servers: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and a remedy."""
    assert main(["tail", "no-such-topic", *servers]) == 1
    assert "postroom topics create" in capsys.readouterr().err


def journal(path: Path, topic: str, numbers: range) -> str:
    """A journal of clicks that were accepted."""
    with AcceptedJournal(path) as accepted:
        for number in numbers:
            accepted.accepted(f"id-{number}", b"k", topic, number)
    return str(path)


def test_verify_says_good_with_exit_code_0(
    servers: list[str], clicks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people in a sentence, for scripts in numbers."""
    accepted = journal(tmp_path / "a.ndjson", clicks, range(20))
    assert main(["verify", "--accepted", accepted, *servers[:2]]) == 0
    told = capsys.readouterr().out
    assert f"{clicks}: 20 accepted, 20 found, 0 missing, 0 duplicated" in told
    assert "Good" in told
    assert main(["verify", "--accepted", accepted, "--json", *servers[:2]]) == 0
    (verdict,) = lines(capsys)
    assert verdict == {
        "ok": True,
        "topics": [
            {
                "topic": clicks,
                "accepted": 20,
                "found": 20,
                "dead_lettered": 0,
                "missing": 0,
                "duplicated": 0,
                "marked": 0,
                "unmarked": 0,
                "out_of_order": 0,
                "foreign": 1,
            }
        ],
    }


def test_verify_says_what_is_wrong_with_exit_code_1(
    servers: list[str], clicks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two are missing, and named."""
    accepted = journal(tmp_path / "a.ndjson", clicks, range(22))
    assert main(["verify", "--accepted", accepted, *servers[:2]]) == 1
    told = capsys.readouterr().out
    assert "missing: id-20, id-21" in told
    assert "Not good" in told


@pytest.mark.parametrize("named", [True, False])
def test_verify_refuses_the_embedded_broker(
    named: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its word and by its address alone: it removes no duplicates."""
    monkeypatch.chdir(tmp_path)
    accepted = journal(tmp_path / "a.ndjson", "t", range(1))
    with EmbeddedBroker() as broker:
        assert main(["verify", "--accepted", accepted, "--broker", "embedded" if named else broker.bootstrap]) == 2
    assert "removes no duplicates" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["tail", "t"], ["topics", "create"]])
def test_other_commands_say_that_the_embedded_broker_lives_elsewhere(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be read from a broker that is not running."""
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--broker", "embedded"]) == 2
    assert "inside the process that runs it" in capsys.readouterr().err


def test_a_missing_journal_is_an_error(servers: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and which file."""
    assert main(["verify", "--accepted", str(tmp_path / "no.ndjson"), *servers[:2]]) == 1
    assert "no.ndjson could not be read" in capsys.readouterr().err
