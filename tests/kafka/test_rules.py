"""Rules and private fields on a real Kafka and a real registry: kept, sent again after the rule was mended, hidden."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from postroom.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

CONTRACT = """
name: order
version: 1
topic: {{name: {topic}, partitions: 3}}
key: order_id
schema:
  type: record
  name: Order
  fields:
    - {{name: order_id, type: string}}
    - {{name: amount, type: long}}
    - {{name: email, type: ["null", string], default: null, "confluent:tags": [PII]}}
ruleSet:
  domainRules:
    - {{name: is_small, doc: Orders are small., type: CEL, expr: message.amount < {limit}}}
    - {{name: has_an_id, type: CEL, expr: message.order_id != '', onFailure: ERROR}}
known_bad:
  is_small: {{order_id: a, amount: 1000}}
  has_an_id: {{order_id: "", amount: 1}}
"""


@pytest.fixture
def run(postroom_stack: LocalStack, postroom_topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line over one contract, which `limit` changes, and what of private values dead letters keep."""

    def call(*words: str, limit: int = 10, privacy: str = "full") -> tuple[int, Any]:
        (tmp_path / "order.yaml").write_text(CONTRACT.format(topic=postroom_topic, limit=limit))
        (tmp_path / "kafka.yaml").write_text(
            f"broker: {postroom_stack.bootstrap}\n"
            f"schema_registry: {{url: {postroom_stack.registry_url}, auto_register: true}}\n"
            f"contracts: {{path: [{tmp_path / 'order.yaml'}], default: order, create_topics: true}}\n"
            f"dead_letters: {{privacy: {{PII: {privacy}}}}}\n"
        )
        code = main([*words, "--config", str(tmp_path / "kafka.yaml"), "--json"])
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    def send(*events: object, privacy: str = "full") -> tuple[int, Any]:
        (tmp_path / "events.ndjson").write_text("".join(f"{json.dumps(event)}\n" for event in events))
        return call("send", str(tmp_path / "events.ndjson"), privacy=privacy)

    call.send = send  # type: ignore[attr-defined]
    return call


def test_what_breaks_a_rule_is_kept_and_sent_again_once_the_rule_is_mended(run: Any) -> None:
    run.send({"order_id": "a", "amount": 5}, {"order_id": "b", "amount": 50}, {"order_id": "", "amount": 1})
    _, listed = run("dlq", "list")
    assert listed["by_reason"] == {"rule_failed": 1}
    assert listed["newest"][0]["violations"] == [
        "amount: is_small, expected Orders are small., found condition not met"
    ]
    code, tried = run("dlq", "replay", "--all")
    assert (code, tried["still_failing_by_rule"]) == (1, {"is_small": 1})
    code, again = run("dlq", "replay", "--all", limit=100)
    assert (code, again["delivered"]) == (0, 1)
    assert run("dlq", "list")[1]["open"] == 0


def test_a_hidden_dead_letter_is_shown_without_its_private_value_and_not_replayed(run: Any) -> None:
    run.send({"order_id": "b", "amount": 50, "email": "somebody@example.com"}, privacy="redacted")
    _, listed = run("dlq", "list")
    assert listed["newest"][0]["rebuildable"] is False
    _, shown = run("dlq", "show", listed["newest"][0]["event_id"])
    assert "somebody" not in json.dumps(shown)
    code, result = run("dlq", "replay", "--all", limit=100)
    assert code == 1
    assert result["not_rebuildable_by_reason"] == {"private values were redacted, by dead_letters.privacy": 1}
