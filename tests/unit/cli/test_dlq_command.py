"""`postroom dlq`, as far as it needs no Kafka: how a dead letter is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postroom.__main__ import main
from postroom.cli import dlq_command
from postroom.libs.event import Violation
from postroom.schemas.csv_events import CSV_TYPE
from postroom.streaming.dead_letter_format import ProducerIdentity, Stage, dead_letter_record
from postroom.streaming.kafka_reader import ReadRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

HOSTILE = "\x1b]0;owned\x07\x1bc\x9b2J\x85"


class Reader:
    """Gives one dead letter, and nothing of Kafka."""

    def __init__(self, event: Any, content_type: str) -> None:
        record = dead_letter_record(
            event,
            topic="user_events",
            reason="validation_failed",
            stage=Stage.VALIDATE,
            event_id="e-1",
            producer=ProducerIdentity("s", "h", "1"),
            now_ms=0,
            key=HOSTILE.encode(),
            violations=[Violation(HOSTILE, "rule", "this", "that")],
            content_type=content_type,
        )
        self._record = ReadRecord(record.topic, 0, 0, record.key, record.value, record.headers, 0)

    def read(self, _topics: list[str]) -> Iterable[ReadRecord]:
        return [self._record]


@pytest.mark.parametrize(
    "event", [f"id,n\r\n{HOSTILE},1".encode(), {"id": HOSTILE, HOSTILE: 1}], ids=["csv", "mapping"]
)
def test_nothing_in_a_dead_letter_commands_the_terminal_that_shows_it(
    event: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dlq_command, "_reader", lambda _: Reader(event, CSV_TYPE))
    assert main(["dlq", "show", "e-1", "--broker", "localhost:1"]) == 0
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert "validation_failed" in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
    if isinstance(event, bytes):
        assert "id,n\n" in shown, "a row stands below its header"
