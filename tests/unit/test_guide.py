"""The examples of the user's guide that need no server, run as the guide writes them: one test for each component."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "src" / "postroom" / "services"
EVENT = {"user_id": "u1", "timestamp": 1795416182091}


@pytest.fixture(autouse=True)
def fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without settings, and no settings in the environment."""
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_1_the_settings_of_the_guide_are_a_settings_file(fresh_folder: Path) -> None:
    (fresh_folder / "kafka.yaml").write_text(
        'broker: "localhost:9092"\n'
        'topics: {user_events: "user_events"}\n'
        "environments:\n"
        "  staging: {broker: staging.example:9092}\n"
        "  prod: {broker: prod.example:9092}\n"
    )
    from postroom.libs.config_loader import load_config

    assert load_config("kafka.yaml")["topics"]["user_events"] == "user_events"
    # Other settings for each environment, and not a line of code changed:
    assert load_config("kafka.yaml", env="staging")["broker"] == "staging.example:9092"
    assert load_config("kafka.yaml", env="prod")["broker"] == "prod.example:9092"


def test_2_the_logger_writes_one_structured_line() -> None:
    program = """
from postroom.libs.logger import logger

logger.info("Event published!")
logger.error("publish_failed", event_id="0198-1", operation="publish", error=OSError("the secret of u1"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert first["event"] == "Event published!"
    assert first["level"] == "info"
    assert (second["event_id"], second["operation"]) == ("0198-1", "publish")
    assert "OSError" in str(second["error"])
    assert "secret" not in done.stderr  # of a foreign error only the kind: its text may quote the event


def test_3_there_is_an_error_for_each_kind_of_failure() -> None:
    from postroom.libs.exceptions import KafkaConnectionError, PostroomError

    with pytest.raises(KafkaConnectionError, match="Can't connect to Kafka!") as caught:
        raise KafkaConnectionError("Can't connect to Kafka!")
    assert isinstance(caught.value, PostroomError)
    assert caught.value.code == "broker_unavailable"
    assert caught.value.retriable


def test_4_the_config_loader_reads_the_yaml(fresh_folder: Path) -> None:
    (fresh_folder / "kafka.yaml").write_text('broker: "localhost:9092"\n')
    from postroom.libs.config_loader import load_config

    config = load_config("kafka.yaml")
    assert config["broker"] == "localhost:9092"


def test_5_a_folder_answers_like_a_schema_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same example against a real registry: tests/kafka/test_guide.py."""
    monkeypatch.setenv("POSTROOM_SCHEMA_REGISTRY_URL", "./schemas")
    from postroom.schemas.data_contracts import packaged_contracts
    from postroom.schemas.schema_registry_client import SchemaRegistryClient

    SchemaRegistryClient().register("user_events-value", packaged_contracts()["user_event"].schema_json)
    found = SchemaRegistryClient().get_schema("user_events")
    assert (found.subject, found.version) == ("user_events-value", 1)
    assert json.loads(found.schema)["name"].endswith("UserEvent")


def test_6_the_short_form_of_the_guide_is_a_contract() -> None:
    from postroom.schemas.data_contracts import contract_from_short_form
    from postroom.schemas.schema_validator import SchemaValidator

    contract = contract_from_short_form("login", {"user_id": "string", "timestamp": "long"})
    validator = SchemaValidator({"login": contract})
    assert validator.validate("login", {"user_id": "u1", "timestamp": 1}) == []
    assert [violation.path for violation in validator.validate("login", {"user_id": 1})] == ["user_id", "timestamp"]


def test_7_the_validator_stops_an_event_that_breaks_its_contract() -> None:
    from postroom.libs.exceptions import ValidationError
    from postroom.schemas.schema_validator import SchemaValidator

    validator = SchemaValidator()
    assert validator.validate_user_event({"user_id": "u1", "timestamp": 1795416182091}) is True
    with pytest.raises(ValidationError) as missing:
        validator.validate_user_event({"user_id": "u1"})
    assert [(v.path, v.rule) for v in missing.value.violations] == [("timestamp", "missing_field")]
    with pytest.raises(ValidationError) as wrong:
        validator.validate_user_event({"user_id": "u1", "timestamp": "yesterday"})
    assert [(v.path, v.rule) for v in wrong.value.violations] == [("timestamp", "wrong_type")]
    assert "yesterday" not in str(wrong.value)


@pytest.mark.parametrize(
    ("words", "folder"),
    [(["src/postroom/services/producer_main.py"], ROOT), (["producer_main.py"], SERVICES)],
    ids=["from the repository", "beside it"],
)
def test_10_the_entry_point_generates_and_publishes_until_it_is_stopped(words: list[str], folder: Path) -> None:
    """No argument, no settings: it takes the broker inside its process, says so, and stops in good order."""
    with subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            progress = process.stderr.readline()
        finally:
            process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert "embedded broker" in said
    assert "delivered" in progress
    assert "The books balance" in out
    assert process.returncode == 0


def test_11_the_metrics_count_what_they_are_told() -> None:
    from postroom.observability.metrics import (
        get_summary,
        record_dlq_event,
        record_event_published,
        record_publish_latency,
    )

    before = get_summary()
    record_event_published()
    record_publish_latency(45.2)
    record_dlq_event(reason="validation_failed")
    after = get_summary()
    assert after["delivered"] == before["delivered"] + 1
    assert after["dead_lettered"] == before["dead_lettered"] + 1
    assert after["latency_ms"]["p95"] is not None
    assert after["latency_ms"]["p99"] is not None
    assert after["error_rate"] > 0


def test_11_latencies_are_told_in_milliseconds() -> None:
    from postroom.observability.metrics import Metrics

    metrics = Metrics()
    metrics.record_publish_latency(45.2)
    assert metrics.get_summary()["latency_ms"]["max"] == pytest.approx(45.2)


def test_13_of_200_tries_at_a_limit_of_100_a_hundred_go_through_and_the_rest_wait() -> None:
    from postroom.streaming.rate_limiter import RateLimiter
    from postroom.testing.manual_clock import ManualClock

    assert RateLimiter(events_per_second=100).acquire()

    clock = ManualClock()
    limiter = RateLimiter(events_per_second=100, clock=clock)
    passed = sum(limiter.acquire() for _ in range(200))
    assert passed == 100

    began = clock.monotonic()
    assert all(limiter.acquire(timeout=5) for _ in range(100))
    assert clock.monotonic() - began == pytest.approx(1.0)


def test_14_the_generator_makes_events_that_the_contract_takes() -> None:
    from postroom.generators.dummy_data_generator import generate_event
    from postroom.schemas.schema_validator import validate_user_event

    event = generate_event()
    assert event["user_id"]
    assert validate_user_event(event)


def _generated() -> dict[str, object]:
    from postroom.generators.dummy_data_generator import DummyDataGenerator

    return DummyDataGenerator(7).generate_event()


def _broken() -> dict[str, object]:
    return {"user_id": "u1"}


@pytest.mark.parametrize(("make", "ends"), [(_generated, "published"), (_broken, "dead_letters")])
def test_the_flow_generate_validate_pace_publish_else_dead_letter(
    make: Callable[[], dict[str, object]], ends: str
) -> None:
    """The whole flow of the guide in one process, with nothing but memory in the place of Kafka."""
    from postroom.testing.recording_service import RecordingService

    event = make()
    with RecordingService() as post:
        receipt = post.publish_event(event)
        assert receipt.safe
        assert len(getattr(post, ends)) == 1
        balance = post.ledger.total()
    assert (balance.received, balance.accepted, balance.unaccounted) == (1, 1, 0)
