"""What the logs promise: one line an event, on stderr, safe to read, silent about secrets, never in the way."""

import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs import logger as module
from postroom.libs.exceptions import KafkaConnectionError
from postroom.libs.log_fields import MASK, MAX_TEXT, clean_fields, looks_secret, one_line
from postroom.libs.logger import configure_logging, get_logger, limited, logger
from postroom.testing.manual_clock import ManualClock

SECRET = "hunter2-k3y"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._State, "output", module._Output())


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    configure_logging("debug", "json", stream)
    return stream


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(code: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], text=True, timeout=60, check=False, **streams)


def test_the_guides_line_works_and_goes_to_stderr_as_json() -> None:
    done = run('from postroom.libs.logger import logger; logger.info("Event published!")', capture_output=True)
    assert done.stdout == ""
    assert json.loads(done.stderr)["event"] == "Event published!"
    assert done.stderr.count("\n") == 1


def test_structlog_is_loaded_with_the_first_line_and_its_configuration_left_alone() -> None:
    code = (
        "import sys; from postroom.libs.logger import logger, limited; limited(logger); logger.debug('x')\n"
        "assert 'structlog' not in sys.modules\n"
        "logger.info('x'); import structlog; assert not structlog.is_configured()"
    )
    done = run(code, capture_output=True)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)


def test_a_line_has_time_level_logger_event_and_the_fields(lines: io.StringIO) -> None:
    get_logger("kafka_client").error("publish_failed", event_id="e-1", operation="publish", retries=5, topic=None)
    (line,) = read(lines)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "level": "error", "logger": "postroom.kafka_client", "event": "publish_failed", "event_id": "e-1",
        "operation": "publish", "retries": 5, "topic": None,
    }  # fmt: skip
    assert list(json.loads(lines.getvalue()))[:4] == ["timestamp", "level", "logger", "event"]


def test_bound_fields_stand_in_every_line(lines: io.StringIO) -> None:
    bound = logger.bind(topic="a", operation="x")
    bound.info("one", operation="y")
    logger.info("two")
    one, two = read(lines)
    assert (one["topic"], one["operation"]) == ("a", "y")
    assert "topic" not in two


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_lines_below_the_level_are_left_out(level: Any) -> None:
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(logger, name)("x")
        assert logger.is_enabled_for(name) == (name in stream.getvalue())
    names = ["debug", "info", "warning", "error", "critical"]
    assert [line["level"] for line in read(stream)] == names[names.index(level) :]


def test_a_terminal_gets_text_and_everything_else_json() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        configure_logging("info", "auto", stream)
        logger.info("event_published", event_id="e-1", odd="a\nb\x1b]0;x")
    assert "\x1b[" in terminal.getvalue()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert "event_published" in plain
    assert r"odd='a\nb\x1b]0;x'" in plain or r"odd=a\nb\x1b]0;x" in plain
    assert plain.count("\n") == 1
    assert read(file)[0]["event_id"] == "e-1"
    configure_logging("info", "json", terminal)
    logger.info("x")
    assert terminal.getvalue().splitlines()[-1].startswith("{")


def test_stderr_is_taken_as_it_is_at_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    logger.info("x")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "x"


class TestItNeverGetsInTheWay:
    def test_a_closed_missing_or_broken_stream_is_survived(self, monkeypatch: pytest.MonkeyPatch) -> None:
        closed = io.StringIO()
        closed.close()
        for stream in (closed, None):
            monkeypatch.setattr(sys, "stderr", stream)
            configure_logging("info", "json")
            logger.error("x", error=ValueError("y"))
        code = (
            "import os, sys\nos.close(2)\nfrom postroom.libs.logger import logger\n"
            "for _ in range(3): logger.error('x')\nprint('done')\nsys.stderr = None"
        )
        assert run(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE).stdout == "done\n"

    def test_fields_that_break_when_they_are_shown_are_survived(self, lines: io.StringIO) -> None:
        class Broken(dict[str, object]):
            def items(self) -> Any:
                raise RuntimeError

        logger.info("one", odd=Broken())
        logger.info("two", many=10**5000, huge=-(2**70), nan=float("nan"), lone="\ud800")
        first, line = read(lines)
        assert (first["event"], first["fields"]) == ("one", "<unprintable>")
        assert (line["event"], line["many"], line["huge"], line["nan"]) == ("two", "<int>", "<int>", "nan")
        assert line["lone"] == "\\ud800"

    def test_threads_do_not_mix_lines(self, lines: io.StringIO) -> None:
        def work(number: int) -> None:
            for index in range(50):
                logger.info("x", number=number, index=index, text="y" * 200)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {(line["number"], line["index"]) for line in read(lines)} == {
            (n, i) for n in range(8) for i in range(50)
        }

    @given(st.text(), st.dictionaries(st.text(), st.text() | st.binary() | st.floats() | st.integers(), max_size=4))
    def test_no_text_breaks_out_of_its_line(self, event: str, fields: dict[str, Any]) -> None:
        stream = io.StringIO()
        configure_logging("info", "json", stream)
        logger.info(event, **fields)
        assert stream.getvalue().endswith("\n")
        assert len(stream.getvalue().splitlines()) == 1
        assert json.loads(stream.getvalue())["level"] == "info"


class TestNothingLeaks:
    @pytest.mark.parametrize(
        "name",
        [
            "password", "sasl.password", "sasl_password", "saslPassword", "SASL_PASSWORD", "ssl.key.password", "token",
            "accessToken", "api_key", "apiKey", "X-Api-Key", "client.secret", "secret", "authorization", "credentials",
            "private_key", "ssl_key", "passphrase", "cookie", "sasl.jaas.config", "pwd",
        ],
    )  # fmt: skip
    def test_values_under_secret_names_are_masked(self, name: str, lines: io.StringIO) -> None:
        assert looks_secret(name)
        logger.info("x", **{name: SECRET}, nested={"deep": [{name: SECRET}]})
        logger.bind(**{name: 12345}).info("y")
        assert SECRET not in lines.getvalue()
        assert "12345" not in lines.getvalue()
        assert read(lines)[0][name] == MASK

    @pytest.mark.parametrize("name", ["tokens", "key", "secretary", "event_id", "partition", "keyboard", "topic"])
    def test_harmless_names_are_not_masked(self, name: str) -> None:
        assert clean_fields({name: "x"}) == {name: "x"}

    @pytest.mark.parametrize("name", ["value", "payload", "event_data", "Value", "body", "data", "event", "record"])
    def test_payloads_are_masked_whatever_they_are(self, name: str, lines: io.StringIO) -> None:
        for payload in (SECRET, SECRET.encode(), {"user": SECRET}, [SECRET], 5):
            logger.info("x", **{name: payload}, nested={name: payload})
        assert SECRET not in lines.getvalue()
        assert all(line["event"] == "x" for line in read(lines))

    def test_bytes_and_objects_of_unknown_kinds_show_their_class_only(self, lines: io.StringIO) -> None:
        @dataclass
        class Letter:
            text: str = SECRET

        logger.info("x", letter=Letter(), raw=SECRET.encode(), many=[Letter()], by={"k": Letter()})
        assert SECRET not in lines.getvalue()
        assert (read(lines)[0]["letter"], read(lines)[0]["raw"]) == ("<Letter>", "<bytes>")

    def test_of_a_foreign_error_only_class_and_place_are_told(self, lines: io.StringIO) -> None:
        try:
            int(SECRET)
        except ValueError as exc:
            logger.error("x", error=exc)
        (line,) = read(lines)
        assert line["error"] == "ValueError"
        assert re.fullmatch(r"test_logger\.py:\d+", line["error_at"])
        assert SECRET not in lines.getvalue()

    def test_our_own_errors_and_the_systems_are_told_in_words(self, lines: io.StringIO) -> None:
        logger.error("x", error=KafkaConnectionError("no broker answered", remedy="start Kafka"))
        logger.error("y", error=OSError(28, "No space left on device"))
        ours, systems = read(lines)
        assert (ours["error"], ours["error_message"]) == ("broker_unavailable", "no broker answered. Start Kafka.")
        assert (systems["error"], systems["error_message"]) == ("OSError", "No space left on device")

    def test_credentials_in_addresses_are_masked(self) -> None:
        assert one_line(f"at https://user:{SECRET}@host/x and a@b") == "at https://***@host/x and a@b"

    def test_names_that_a_line_needs_itself_do_not_hide_it(self, lines: io.StringIO) -> None:
        logger.info("x", level="fake", timestamp="fake", logger="fake")
        (line,) = read(lines)
        assert (line["level"], line["logger"], line["level_"]) == ("info", "postroom", "fake")

    def test_plain_values_are_shown_as_they_are(self) -> None:
        given = {"a": True, "b": None, "c": 1.5, "d": Decimal("1.50"), "e": UUID(int=0), "f": Path("/x"), "g": (1, "b")}
        assert list(clean_fields(given).values()) == [True, None, 1.5, "1.50", str(UUID(int=0)), "/x", [1, "b"]]

    def test_a_line_stays_bounded(self) -> None:
        deep: dict[str, Any] = {}
        deep["again"] = deep
        cleaned = clean_fields({"text": "x" * 10**6, "many": list(range(10**5)), "deep": deep})
        assert len(json.dumps(cleaned)) < MAX_TEXT + 1000


class TestRepeats:
    def test_one_line_an_interval_and_the_next_says_how_many_were_left_out(self, lines: io.StringIO) -> None:
        clock = ManualClock()
        log = limited(logger, 10.0, clock)
        for _ in range(5):
            log.warning("broker_unavailable")
        log.warning("something_else")
        clock.advance(9.9)
        log.warning("broker_unavailable")
        clock.advance(0.1)
        log.warning("broker_unavailable")
        clock.advance(10)
        log.warning("broker_unavailable")
        seen = [(line["event"], line.get("repeated")) for line in read(lines)]
        assert seen == [
            ("broker_unavailable", None), ("something_else", None),
            ("broker_unavailable", 5), ("broker_unavailable", None),
        ]  # fmt: skip

    def test_the_values_of_a_chosen_field_count_apart(self, lines: io.StringIO) -> None:
        log = limited(logger, 10.0, ManualClock(), by="topic")
        for topic in ("a", "b", "a", "b"):
            log.error("x", topic=topic)
        assert [line["topic"] for line in read(lines)] == ["a", "b"]

    def test_what_is_remembered_is_bounded(self, lines: io.StringIO) -> None:
        log = limited(logger, 10.0, ManualClock(), by="id")
        for number in range(3000):
            log.info("x", id=number)
        assert len(log._seen) == 1000

    def test_threads_together_write_one_line_and_lose_no_count(self, lines: io.StringIO) -> None:
        clock = ManualClock()
        log = limited(logger, 10.0, clock)

        def work() -> None:
            for _ in range(100):
                log.info("x")

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.advance(10)
        log.info("x")
        assert [line.get("repeated") for line in read(lines)] == [None, 799]

    def test_a_lock_that_a_fork_left_held_is_not_waited_for(self, lines: io.StringIO) -> None:
        log = limited(logger, 10.0, ManualClock())
        with log._lock:
            log.info("x")
        assert len(read(lines)) == 1


class TestInAnApplication:
    @pytest.fixture
    def handler(self) -> Iterator[logging.Handler]:
        class Keep(logging.Handler):
            records: list[logging.LogRecord]

            def emit(self, record: logging.LogRecord) -> None:
                self.records.append(record)

        keep = Keep()
        keep.records = []
        standard = logging.getLogger("postroom")
        standard.addHandler(keep)
        level = standard.level
        standard.setLevel(logging.INFO)
        yield keep
        standard.removeHandler(keep)
        standard.setLevel(level)

    def test_lines_go_where_the_applications_logging_goes(
        self, handler: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        get_logger("kafka_client").info("event_published", event_id="e\n1", password=SECRET)
        get_logger("kafka_client").debug("too_fine")
        (record,) = handler.records
        assert (record.name, record.levelno) == ("postroom.kafka_client", logging.INFO)
        assert record.getMessage() == r"event_published event_id=e\n1 password=***"
        assert record.postroom == {"event": "event_published", "event_id": r"e\n1", "password": MASK}
        assert capsys.readouterr().err == ""

    def test_a_program_that_configures_the_logs_of_postroom_gets_them_there(
        self, handler: Any, lines: io.StringIO
    ) -> None:
        logger.info("x")
        assert len(read(lines)) == 1
        assert handler.records == []

    def test_fields_named_as_those_of_a_record_do_no_harm(self, handler: Any) -> None:
        logger.info("x", message="m", name="n", args="a", msg="%s %d")
        assert handler.records[0].getMessage() == "x message=m name=n args=a msg=%s %d"


def test_names_stand_below_postroom() -> None:
    assert [get_logger(name).name for name in ("postroom", "postroom.x", "x", "postroomx")] == [
        "postroom", "postroom.x", "postroom.x", "postroom.postroomx",
    ]  # fmt: skip
