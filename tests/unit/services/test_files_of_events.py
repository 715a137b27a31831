"""Files of CSV and of CloudEvents through the whole pipeline: every row has its outcome, bad ones can be replayed."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.event import DeadLettered, DeadLetterReason, Delivered, Outcome, Refused
from postroom.libs.exceptions import ConfigurationError
from postroom.schemas.csv_events import CSV_TYPE
from postroom.schemas.data_contracts import Contract, contract_from_short_form
from postroom.services.producer_main import Run, RunOptions
from postroom.services.replay import Replay, Selection
from postroom.streaming.kafka_reader import ReadRecord
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from postroom.libs.event import Record

ORDER = contract_from_short_form("order", {"id": "string", "cents": "long"}, topic="orders", key_field="id")
CLICK = contract_from_short_form("click", {"url": "string"}, topic="clicks")


def service(*contracts: Contract, **more: Any) -> RecordingService:
    config = load_config(overrides={"contracts.default": "order", **more}, environ={})
    return RecordingService(contracts or (ORDER, CLICK), config=config)


def outcomes(post: RecordingService, file: Path, content: bytes | None, **options: Any) -> list[Outcome]:
    if content is not None:
        file.write_bytes(content)
    receipts: list[Any] = []
    run = Run(load_config(overrides={}, environ={}), RunOptions(source=str(file), **options), service=post)
    with run:
        run.feed(receipts.append)
        run.finish()
    assert post.ledger.total().unaccounted == 0
    return [receipt.result(5) for receipt in receipts]


def kinds(told: Iterable[Outcome]) -> list[type]:
    return [type(outcome) for outcome in told]


def read_back(record: Record) -> ReadRecord:
    return ReadRecord(record.topic, 0, 0, record.key, record.value, record.headers, record.timestamp_ms)


class TestCsv:
    def test_a_file_by_that_name_is_read_by_the_contract(self, tmp_path: Path) -> None:
        post = service()
        assert kinds(outcomes(post, tmp_path / "orders.CSV", b"cents,id\r\n5,a\r\n6,b\r\n", count=1)) == [Delivered]
        assert [(one.event, one.key) for one in post.published] == [({"id": "a", "cents": 5}, b"a")]

    def test_whatever_it_is_called_if_the_format_is_said_and_the_contract_too(self, tmp_path: Path) -> None:
        post = service()
        told = outcomes(post, tmp_path / "x.txt", b'url\n"a,b"\n', format="csv", event_type="clicks")
        assert kinds(told) == [Delivered]
        assert post.published[0].event == {"url": "a,b"}

    def test_each_bad_row_is_a_dead_letter_with_its_line_and_the_others_go_through(self, tmp_path: Path) -> None:
        content = b'\xef\xbb\xbfid,cents\na,1\nb,x\nc\nd,"2\ne,\xff\n"f",3\n'
        post = service()
        told = outcomes(post, tmp_path / "orders.csv", content)
        bad = [outcome for outcome in told if isinstance(outcome, DeadLettered)]
        assert kinds(told) == [Delivered, *[DeadLettered] * 4, Delivered]
        assert [(outcome.reason, [str(one) for one in outcome.violations]) for outcome in bad] == [
            ("validation_failed", ["cents: wrong_type, expected long, found str in line 3, column 2"]),
            ("decode_failed", ["event: column_count, expected a row of CSV, found line 4: 1 cells, not 2"]),
            (
                "decode_failed",
                [
                    (
                        "event: syntax, expected a row of CSV, found line 5: quotes that do not close, or text behind "
                        "a closing quote"
                    )
                ],
            ),
            (
                "decode_failed",
                ["event: invalid_utf8, expected a row of CSV, found line 6, column 2: bytes that are not UTF-8"],
            ),
        ]
        assert [(letter.event, letter.content_type) for letter in post.dead_letters] == [
            (b"id,cents\r\nb,x", CSV_TYPE),
            (b"id,cents\r\nc", CSV_TYPE),
            (b'id,cents\r\nd,"2', CSV_TYPE),
            (b"id,cents\r\ne,\xff", CSV_TYPE),
        ]
        assert post.dead_letters[0].key == b"b"

    def test_dead_letters_of_rows_are_sent_again_once_the_contract_takes_them(self, tmp_path: Path) -> None:
        post = service()
        outcomes(post, tmp_path / "orders.csv", b'id,cents\na,"1,5"\nb\n')
        letters = [read_back(record) for record in post.publisher.records]
        mended = contract_from_short_form("order", {"id": "string", "cents": "string"}, topic="orders", key_field="id")
        with service(mended) as again:
            result = Replay(again, Selection()).run(lambda: letters, lambda: 0)
            assert (result.delivered, result.still_failing_by_rule) == (1, {"column_count": 1})
            assert again.published[0].event == {"id": "a", "cents": "1,5"}
        other = contract_from_short_form("order", {"id": "string"}, topic="orders", key_field="id")
        with service(other) as again:
            result = Replay(again, Selection()).run(lambda: letters, lambda: 0)
            assert result.still_failing_by_rule == {"unknown_column": 2}

    def test_a_row_that_the_broker_refuses_is_kept_as_it_was_written(self, tmp_path: Path) -> None:
        post = service()
        post.start()
        post.fail_next(DeadLetterReason.REJECTED_BY_BROKER)
        assert kinds(outcomes(post, tmp_path / "orders.csv", b'id,cents\n"a",1\n')) == [DeadLettered]
        (letter,) = post.dead_letters
        assert (letter.event, letter.content_type) == (b'id,cents\r\n"a",1', CSV_TYPE)

    @pytest.mark.parametrize(
        ("content", "options", "told"),
        [
            (b"id,cent\n1,2\n", {}, r"for the contract order: column 2, cent, is no field"),
            (b"anna,anna@example.org\n", {}, "for the contract order: none of the columns has the name of a field"),
            (b"", {}, "no header row"),
            (b"id,cents\n", {"event_type": "nothing"}, "known contracts: click, order"),
        ],
    )
    def test_what_no_row_could_pass_stops_it_before_the_first(
        self, content: bytes, options: dict[str, Any], told: str, tmp_path: Path
    ) -> None:
        post = service()
        with pytest.raises(ConfigurationError, match=told):
            outcomes(post, tmp_path / "orders.csv", content, **options)
        assert post.ledger.total().received == 0

    def test_a_file_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        run = Run(load_config(overrides={}, environ={}), RunOptions(source=str(tmp_path / "no.csv")), service=service())
        with run, pytest.raises(ConfigurationError, match=r"no\.csv"):
            run.feed()

    def test_one_bad_row_of_ten_thousand_is_the_only_dead_letter(self, tmp_path: Path) -> None:
        rows = [b"u%d,%d" % (number, number) for number in range(10_000)]
        rows[7_777] = b'u7777,"7777'
        told = outcomes(service(), tmp_path / "orders.csv", b"\n".join([b"id,cents", *rows]))
        assert [at for at, outcome in enumerate(told) if not isinstance(outcome, Delivered)] == [7_777]

    def test_a_hundred_megabytes_in_one_row_end_as_one_dead_letter_in_bounded_memory(self, tmp_path: Path) -> None:
        def rows() -> Iterator[bytes]:
            yield b"id,cents\n"
            for _ in range(100):
                yield b"x" * 1_000_000
            yield b",5\na,1\n"

        file = tmp_path / "orders.csv"
        with file.open("wb") as out:
            out.writelines(rows())
        tracemalloc.start()
        try:
            told = outcomes(service(), file, None)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kinds(told) == [DeadLettered, Delivered]
        assert peak < 96 * 1024 * 1024


class TestCloudEvents:
    def line(self, **changes: Any) -> bytes:
        made = {"specversion": "1.0", "id": "e-1", "source": "/s", "type": "click", "data": {"url": "/"}, **changes}
        return json.dumps(made).encode()

    def test_each_line_names_its_type_and_bad_ones_are_told(self, tmp_path: Path) -> None:
        lines = [
            self.line(),
            self.line(type="order", id="e-2", data={"id": "a", "cents": 1}),
            self.line(type="other", id="e-3"),
            self.line(source=""),
            b"{",
            self.line(data={"url": 5}),
            self.line(id="e-6"),
        ]
        post = service()
        told = outcomes(post, tmp_path / "events.ndjson", b"\n".join(lines), format="cloudevents")
        assert kinds(told) == [Delivered, Delivered, Refused, Refused, DeadLettered, DeadLettered, Delivered]
        assert [(one.event_type, one.event_id) for one in post.published] == [
            ("click", "e-1"),
            ("order", "e-2"),
            ("click", "e-6"),
        ]

    def test_the_generator_makes_none(self) -> None:
        post = RecordingService()
        options = RunOptions(count=3, seed=1, format="cloudevents")
        with Run(load_config(overrides={}, environ={}), options, service=post) as run:
            run.feed()
            run.finish()
        assert len(post.published) == 3
