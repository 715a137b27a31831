"""What is said of books that are off: one line when it begins, one when it ends, nothing in between."""

import json
import time
from pathlib import Path

import pytest

from postroom.libs import logger
from postroom.observability.books_watch import BooksWatch
from postroom.services.ledger import Ledger
from postroom.services.receipt import Receipt
from postroom.testing.recording_service import RecordingService


@pytest.fixture(autouse=True)
def _json_lines() -> None:
    logger.configure_logging("info", "json")


def lines(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str, int | None]]:
    """Event, topic and count of each line since the last call."""
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    return [(line["event"], line["topic"], line.get("count")) for line in told if line["logger"] == "postroom.ledger"]


def test_each_topic_is_told_once_when_it_is_off_and_once_when_it_balances_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch = BooksWatch()
    for unaccounted in ([("orders", 0)], [("orders", 2), ("clicks", 0)], [("orders", 3), ("clicks", 1)]):
        watch.tell(watch.compare(unaccounted))
    assert lines(capsys) == [("books_off_balance", "orders", 2), ("books_off_balance", "clicks", 1)]
    for unaccounted in ([("orders", 0), ("clicks", 1)], [("orders", 0), ("clicks", 1)], [("orders", 1)]):
        watch.tell(watch.compare(unaccounted))
    assert lines(capsys) == [
        ("books_balance_again", "orders", None),
        ("books_off_balance", "orders", 1),
        ("books_balance_again", "clicks", None),
    ]


def test_books_are_watched_by_whoever_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger()
    receipt = Receipt("e1")
    ledger.book("orders").receive(receipt)
    ledger.total()
    assert lines(capsys) == []
    ledger.disown()
    list(ledger.readings())
    ledger.total()
    assert lines(capsys) == [("books_off_balance", "orders", 1)]


def test_the_books_of_events_without_a_contract_have_a_name_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    watch = BooksWatch()
    watch.tell(watch.compare([("", 1)]))
    assert lines(capsys) == [("books_off_balance", "none", 1)]


def test_a_service_with_a_spool_notices_by_itself(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told: list[tuple[str, str, int | None]] = []
    with RecordingService(spool_dir=tmp_path) as service:
        book = service.ledger.book("user_events")
        book.delivered += 1
        end = time.monotonic() + 30
        while not told and time.monotonic() < end:
            time.sleep(0.01)
            told += lines(capsys)
        book.delivered -= 1
    assert told == [("books_off_balance", "user_events", 1)]
