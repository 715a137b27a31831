"""Dead letters on a real Kafka: listed, shown, sent again once their contract takes them, and never twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from postroom.__main__ import main
from postroom.services.replay import Replay
from postroom.testing.local_stack import LocalStack

CONTRACT = """
name: order
version: {version}
topic: {{name: {topic}, partitions: 3}}
key: order_id
schema: {{order_id: string, amount: {amount}}}
"""


class Desk:
    """One contract on the real stack, and the command line over it."""

    def __init__(self, stack: LocalStack, topic: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.stack = stack
        self.topic = topic
        self.folder = folder
        self._capsys = capsys
        self.write_contract("long")
        (folder / "kafka.yaml").write_text(
            f"broker: {stack.bootstrap}\n"
            f"schema_registry: {{url: {stack.registry_url}, auto_register: true}}\n"
            f"contracts: {{path: [{folder / 'order.yaml'}], default: order, create_topics: true}}\n"
        )

    def write_contract(self, amount: str, version: int = 1) -> None:
        text = CONTRACT.format(topic=self.topic, amount=amount, version=version)
        (self.folder / "order.yaml").write_text(text)

    def __call__(self, *words: str) -> tuple[int, Any]:
        code = main([*words, "--config", str(self.folder / "kafka.yaml"), "--json"])
        return code, json.loads(self._capsys.readouterr().out.splitlines()[-1])

    def send(self, *events: object) -> None:
        source = self.folder / "events.ndjson"
        source.write_text("".join(f"{event if isinstance(event, str) else json.dumps(event)}\n" for event in events))
        assert self("send", str(source))[0] == 0

    def headers_in_topic(self) -> list[dict[str, str | bytes | None]]:
        """The headers of every record in the topic of the events, by a plain consumer."""
        consumer = Consumer({"bootstrap.servers": self.stack.bootstrap, "group.id": "plain"})
        try:
            found = []
            for partition in consumer.list_topics(self.topic, timeout=10).topics[self.topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=10)
                consumer.assign([TopicPartition(self.topic, partition, low)])
                for _ in range(high - low):
                    message = consumer.poll(10)
                    assert message is not None
                    found.append(dict(message.headers() or []))
            return found
        finally:
            consumer.close()


@pytest.fixture
def desk(postroom_stack: LocalStack, postroom_topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(postroom_stack, postroom_topic, tmp_path, capsys)


def test_dead_letters_are_listed_by_reason_and_shown_in_full(desk: Desk) -> None:
    desk.send({"order_id": "a", "amount": 1}, {"order_id": "b", "amount": "2"}, "{nonsense")
    code, listed = desk("dlq", "list")
    assert code == 0
    assert (listed["open"], listed["by_reason"]) == (2, {"decode_failed": 1, "validation_failed": 1})
    wrong = next(each for each in listed["newest"] if each["reason"] == "validation_failed")
    assert wrong["violations"] == ["amount: wrong_type, expected long, found str"]
    code, shown = desk("dlq", "show", wrong["event_id"])
    assert code == 0
    assert json.loads(shown["event"]) == {"order_id": "b", "amount": "2"}
    assert shown["open"] is True
    code, only = desk("dlq", "list", "--reason", "decode_failed")
    assert only["open"] == 1
    code, told = desk("dlq", "show", "no-such-event")
    assert code == 1
    assert "postroom dlq list" in told["error"]["remedy"]


def test_a_replay_needs_to_be_told_what(desk: Desk) -> None:
    code, told = desk("dlq", "replay")
    assert code == 2
    assert "--all" in told["error"]["message"]


def test_what_todays_contract_takes_is_sent_once_marked_and_the_rest_stays(desk: Desk) -> None:
    desk.send({"order_id": "b", "amount": "2"}, {"order_id": "c", "amount": None}, "{nonsense")
    code, trial = desk("dlq", "replay", "--all", "--dry-run")
    assert (code, trial["selected"], trial["delivered"], trial["still_failing"]) == (1, 3, 0, 3)
    assert trial["still_failing_by_rule"] == {"truncated": 1, "wrong_type": 2} or trial["still_failing_by_rule"]

    desk.write_contract("string", version=2)  # what the events held all the time
    trial = desk("dlq", "replay", "--all", "--dry-run")[1]
    assert (trial["dry_run"], trial["delivered"], trial["still_failing"]) == (True, 1, 2)
    assert desk.headers_in_topic() == []

    result = desk("dlq", "replay", "--all")[1]
    assert (result["selected"], result["delivered"], result["still_failing"]) == (3, 1, 2)
    (headers,) = desk.headers_in_topic()
    assert headers["x-attempt"] == b"2"
    assert not [name for name in headers if name.startswith(("dlq.", "__connect."))]
    assert desk("dlq", "list")[1]["open"] == 2

    again = desk("dlq", "replay", "--all")[1]
    assert (again["selected"], again["delivered"]) == (2, 0)
    assert len(desk.headers_in_topic()) == 1


def test_a_replay_takes_only_what_was_chosen(desk: Desk) -> None:
    desk.send(*[{"order_id": f"o{number}", "amount": str(number)} for number in range(6)])
    desk.write_contract("string", version=2)
    listed = desk("dlq", "list")[1]["newest"]
    code, result = desk("dlq", "replay", "--event-id", listed[0]["event_id"], "--event-id", listed[1]["event_id"])
    assert (code, result["selected"], result["delivered"]) == (0, 2, 2)
    code, result = desk("dlq", "replay", "--reason", "validation_failed", "--limit", "3")
    assert (code, result["selected"], result["delivered"]) == (0, 3, 3)
    assert desk("dlq", "list")[1]["open"] == 1


@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
def test_a_replay_with_a_spool_waits_until_that_is_empty_and_a_trial_does_not(
    desk: Desk, write_ahead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.send({"order_id": "b", "amount": "2"})
    desk.write_contract("string", version=2)
    spool = desk.folder / "spool"
    with monkeypatch.context() as here:
        here.setattr(Replay, "wait_for_spool", lambda *_: pytest.fail("nothing was sent: there is nothing to wait for"))
        assert desk("dlq", "replay", "--all", "--dry-run", "--spool", str(spool))[1]["spooled"] == 0
    code, result = desk("dlq", "replay", "--all", "--spool", str(spool), "--write-ahead", write_ahead)
    assert (code, result["delivered"], result["spooled"]) == (0, 1, 0)
    assert [headers["x-attempt"] for headers in desk.headers_in_topic()] == [b"2"]
    assert any(spool.iterdir())
    assert main(["spool", "drain", "--spool", str(spool), "--broker", desk.stack.bootstrap]) == 0
    assert len(desk.headers_in_topic()) == 1
