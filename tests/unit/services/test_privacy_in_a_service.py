"""Private values in the pipeline: where dead letters keep them, and that they stand nowhere else."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLettered, DeadLetterReason, Delivered, FailedReason, Refused, Spooled
from postroom.libs.exceptions import ConfigurationError
from postroom.observability.metric_table import HIDDEN
from postroom.observability.prometheus import render
from postroom.schemas.csv_events import csv_events
from postroom.schemas.data_contracts import load_contract
from postroom.services.health_checks import status_of
from postroom.services.replay import Replay, Selection
from postroom.streaming.kafka_reader import ReadRecord
from postroom.testing.fault_script import FaultScript
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract

KEY = "0123456789abcdef"
GOOD = {"user_id": "u1", "timestamp": 1795416182091, "country": "DE"}


def settings(**privacy: str) -> Config:
    key = {"dead_letters.privacy_key": KEY} if "hashed" in privacy.values() else {}
    entries = {f"dead_letters.privacy.{tag}": how for tag, how in privacy.items()}
    return load_config(overrides={**entries, **key}, environ={})


def contract() -> Contract:
    return load_contract("examples/contracts/user_event_with_rules.yaml")


def outcome(post: RecordingService, event: Any) -> Any:
    return post.publish_event(event).result(timeout=5)


def records(post: RecordingService) -> list[ReadRecord]:
    return [
        ReadRecord(record.topic, 0, at, record.key, record.value, record.headers, 0)
        for at, record in enumerate(post.publisher.records)
    ]


def test_by_default_a_dead_letter_keeps_everything() -> None:
    with RecordingService([contract()]) as post:
        bad = {**GOOD, "email": "nobody"}
        assert isinstance(outcome(post, bad), DeadLettered)
        assert post.dead_letters[0].event == bad
        assert post.ledger.total().hidden == 0


@pytest.mark.parametrize("how", ["redacted", "hashed"])
def test_a_hidden_dead_letter_is_marked_counted_and_not_replayed(how: str) -> None:
    with RecordingService([contract()], config=settings(PII=how)) as post:
        kept = outcome(post, {**GOOD, "email": "nobody"})
        assert isinstance(kept, DeadLettered)
        (record,) = post.publisher.records
        headers = dict(record.headers)
        assert (headers["dlq.rebuildable"], headers["dlq.privacy"]) == (b"false", how.encode())
        assert b"nobody" not in (record.value or b"") + b"".join(headers.values())
        assert b'"country":"DE"' in (record.value or b"")
        (letter,) = post.dead_letters
        assert letter.event is None
        assert letter.damage == f"private values were {how}, by dead_letters.privacy"
        result = Replay(post, Selection()).run(lambda: records(post), lambda: 0)
        assert (result.not_rebuildable, result.delivered) == (1, 0)
        assert result.not_rebuildable_by_reason == {letter.damage: 1}
        total = post.ledger.total()
        assert (total.dead_lettered, total.hidden, total.unaccounted) == (1, 1, 0)
        assert post._metrics.snapshot().series(HIDDEN) == [(("user_events",), 1)]


def test_what_cannot_be_read_has_its_value_left_out() -> None:
    with RecordingService([contract()], config=settings(PII="redacted")) as post:
        kept = outcome(post, '{"user_id": "u1", "email": "somebody')
        assert kept.reason == DeadLetterReason.DECODE_FAILED
        (record,) = post.publisher.records
        assert record.value == b""
        assert dict(record.headers)["dlq.privacy"] == b"left_out"
        assert "left out" in post.dead_letters[0].damage


@pytest.mark.parametrize("how", ["redacted", "hashed"])
def test_of_a_row_of_csv_only_the_private_cells_are_hidden(how: str) -> None:
    """A row that can be read is an event like any other; what cannot be read is left out."""
    rows = b'u1,1795416182091,DE,nobody\nu2,then,DE,secret@b\nu3,1,DE,"secret@c\nu4,1,DE,secret@d,more\n'
    lines = io.BytesIO(b"user_id,timestamp,country,email\n" + rows)
    with RecordingService([contract()], config=settings(PII=how)) as post:
        reasons = [outcome(post, row).reason for row in csv_events(lines, contract())]
        assert reasons == ["rule_failed", "validation_failed", "decode_failed", "decode_failed"]
        kept = [(dict(one.headers)["dlq.privacy"].decode(), one.value or b"") for one in post.publisher.records]
        assert [privacy for privacy, _ in kept] == [how, how, "left_out", "left_out"]
        assert [value for _, value in kept[2:]] == [b"", b""]
        for (_, value), user in zip(kept[:2], (b"u1", b"u2"), strict=True):
            assert b'"user_id":"%s"' % user in value
            assert b'"country":"DE"' in value
            assert b"nobody" not in value
            assert b"secret" not in value
        assert b'"timestamp":"redacted"' in kept[1][1], "what has not the type of its field may be anything"


def test_a_contract_without_such_fields_is_not_touched() -> None:
    with RecordingService(config=settings(PII="redacted")) as post:
        outcome(post, {"user_id": 5})
        assert post.dead_letters[0].event == {"user_id": 5}


def test_a_key_that_is_to_be_hidden_stops_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keyed.yaml"
    path.write_text(
        "name: user_event\nversion: 1\ntopic: t\nkey: email\n"
        "schema: {type: record, name: E, fields: [{name: email, type: string, 'confluent:tags': [PII]}]}\n"
    )
    keyed = load_contract(path)
    with pytest.raises(ConfigurationError, match="the key of contract user_event is the field email"):
        RecordingService([keyed], config=settings(PII="hashed")).start()
    with RecordingService([keyed]) as post:
        assert isinstance(outcome(post, {"email": "a"}), Delivered)
    assert "key_is_private" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"dead_letters.privacy.PII": "hashed"}, "dead_letters.privacy.PII is hashed, but dead_letters.privacy_key"),
        ({"dead_letters.privacy_key": KEY}, "dead_letters.privacy hashes nothing"),
        ({"dead_letters.privacy.PII": "hashed", "dead_letters.privacy_key": "short"}, "fewer than 16 bytes"),
        ({"dead_letters.privacy.PII": "hidden"}, "dead_letters.privacy.PII"),
    ],
)
def test_settings_that_hide_nothing_are_refused(overrides: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config(overrides=overrides, environ={})
    assert told in str(caught.value)


def test_the_key_comes_from_a_file_like_other_secrets(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "kafka.yaml").write_text("dead_letters: {privacy: {PII: hashed}, privacy_key: '${file:key}'}\n")
    config = load_config(tmp_path / "kafka.yaml", environ={})
    assert config.dead_letters.hash_key == KEY.encode()
    environ = {"POSTROOM_DEAD_LETTERS_PRIVACY_KEY_FILE": str(tmp_path / "key")}
    (tmp_path / "kafka.yaml").write_text("dead_letters: {privacy: {PII: hashed}}\n")
    assert load_config(tmp_path / "kafka.yaml", environ=environ).dead_letters.hash_key == KEY.encode()


def test_what_a_broker_refuses_out_of_the_spool_is_hidden_too(tmp_path: Path) -> None:
    faults = FaultScript()
    with RecordingService([contract()], config=settings(PII="redacted"), faults=faults, spool_dir=tmp_path) as post:
        faults.not_allowed("user_events")
        assert isinstance(outcome(post, PLANTED), Spooled)
        post.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
        faults.back("user_events")
        post.wait_until_drained()
        (letter,) = [record for record in post.publisher.records if record.topic == "user_events.dlq"]
        assert dict(letter.headers)["dlq.privacy"] == b"redacted"
        assert CANARY.encode() not in (letter.value or b"")
        total = post.ledger.total()
        assert (total.dead_lettered, total.hidden, total.unaccounted) == (1, 1, 0)


def test_a_spooled_record_of_an_unknown_contract_is_left_out(tmp_path: Path) -> None:
    faults = FaultScript()
    faults.not_allowed("user_events")
    with RecordingService([contract()], config=settings(PII="redacted"), faults=faults, spool_dir=tmp_path) as post:
        assert isinstance(outcome(post, PLANTED), Spooled)
    other = dataclasses.replace(contract(), version=2)
    later = RecordingService([other], config=settings(PII="redacted"), spool_dir=tmp_path)
    later.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
    with later as post:
        post.wait_until_drained()
        (letter,) = [record for record in post.publisher.records if record.topic == "user_events.dlq"]
        assert (letter.value, dict(letter.headers)["dlq.privacy"]) == (b"", b"left_out")


CANARY = "canary-c0ffee"
PLANTED = {**GOOD, "email": f"{CANARY}@example.com"}


@pytest.mark.parametrize("how", ["full", "redacted", "hashed"])
def test_planted_values_stand_nowhere_but_in_the_values_of_records(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything at DEBUG: success, violations, rules, broken JSON, refusals, too large, the spool, a defect."""
    caplog.set_level(logging.DEBUG)
    faults = FaultScript()
    said = io.StringIO()
    config = settings(PII=how).with_overrides({"producer.max_message_bytes": 40_000})
    with RecordingService([contract()], config=config, faults=faults, spool_dir=tmp_path / "spool") as post:
        events: list[Any] = [
            PLANTED,
            json.dumps(PLANTED),
            {**PLANTED, "email": CANARY},  # breaks a rule
            {**PLANTED, "user_id": ""},  # is refused
            {**PLANTED, "position_ms": 2, "duration_ms": 1},  # is only counted
            {**PLANTED, "email": [CANARY]},
            {**PLANTED, "timestamp": PLANTED["email"]},
            {**PLANTED, "emial": CANARY},
            {**PLANTED, "video_id": "x" * 50_000},
            {**PLANTED, "email": _Hostile()},
            json.dumps(PLANTED)[:-1],
            f'{{"email": "{CANARY}", "email": "{CANARY}"}}'.encode(),
            b"\xff" + CANARY.encode(),
        ]
        outcomes = [outcome(post, event) for event in events]
        for reason in (FailedReason.BROKER_ERROR, DeadLetterReason.MESSAGE_TOO_LARGE):
            post.fail_next(reason)
            outcomes.append(outcome(post, PLANTED))
        for topic, event in (("user_events", PLANTED), ("user_events.dlq", {**PLANTED, "email": CANARY})):
            faults.not_allowed(topic)
            outcomes.append(outcome(post, event))
            assert isinstance(outcomes[-1], Spooled)
            faults.back(topic)
        for each in outcomes:
            print(each, repr(each), each.error(), file=said)
        kinds = {type(each) for each in outcomes}
        assert {Delivered, DeadLettered, Refused} <= kinds
        try:
            post.publish_event(PLANTED, timestamp=CANARY)  # type: ignore[arg-type]
        except TypeError as exc:
            said.write(str(exc))
        said.write(json.dumps(status_of(post), default=str))
        said.write(render(post._metrics)[0].decode())
        letters = [letter for letter in post.dead_letters if letter.event_id]
        sent = list(post.publisher.records)
    captured = capfd.readouterr()
    everywhere = f"{said.getvalue()}\n{caplog.text}\n{captured.out}\n{captured.err}"
    assert "rule_failed" in everywhere
    assert CANARY not in everywhere
    headers = b"".join(name.encode() + value for record in sent for name, value in record.headers)
    assert CANARY.encode() not in headers
    assert CANARY.encode() not in b"".join(record.key or b"" for record in sent)
    for letter in letters:
        assert CANARY not in repr(letter.violations)
    kept = [record.value or b"" for record in sent if record.topic.endswith(".dlq")]
    assert len(kept) >= 7
    assert (CANARY.encode() in b"".join(kept)) == (how == "full")
    assert CANARY not in "".join(str(path) for path in tmp_path.rglob("*"))


class _Hostile:
    def __repr__(self) -> str:
        return CANARY

    __str__ = __repr__
