"""The benchmarks run, every way of them delivers what it says, and the figures are put together rightly."""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import msgspec
import pytest
from benchmarks import peers
from benchmarks.__main__ import arguments
from benchmarks.chart import svg
from benchmarks.micro import measure_steps
from benchmarks.report import Span, rows_of, step_table, table
from benchmarks.rounds import Round, register, run_job
from benchmarks.ways import WAYS, Figures, Way, connect, measure
from benchmarks.worker import Job, work
from benchmarks.workload import Place, contract, event_pool
from confluent_kafka import KafkaError, Message

from postroom.schemas.avro_codec import unframe
from postroom.streaming.embedded_broker import EmbeddedBroker
from postroom.streaming.kafka_reader import KafkaReader

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_ID = 7
EVENTS = 200


class _OneSchema(BaseHTTPRequestHandler):
    """A registry that knows the contract's schema under every subject, as id 7."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def _answer(self) -> None:
        if "/associations/" in self.path:  # newer than most registries: the official client takes a 404 for "none"
            self._send(404, {"error_code": 404, "message": "not found"})
        else:
            self._send(200, {"subject": "any", "id": SCHEMA_ID, "version": 1, "schema": contract().schema_json})

    def _send(self, status: int, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _OneSchema)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture
def place(broker: EmbeddedBroker, registry: str, request: pytest.FixtureRequest) -> Place:
    topic = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    broker.create_topic(topic)
    return Place(broker.bootstrap, topic, registry, SCHEMA_ID)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
class TestEveryWay:
    def test_delivers_every_event_once_with_the_same_bytes_and_headers(self, way: Way, place: Place) -> None:
        sender = connect(way, place)
        try:
            sender.send(EVENTS)
            assert sender.delivered == EVENTS
        finally:
            sender.close()
        reader = KafkaReader({"bootstrap.servers": place.bootstrap})
        records = list(reader.read([place.topic]))
        assert len(records) == EVENTS
        users = sorted(str(event["user_id"]) for event in event_pool(EVENTS))
        decoded = []
        for record in records:
            schema_id, body = unframe(record.value or b"")
            event = contract().codec.decode(body)
            assert schema_id == SCHEMA_ID
            assert record.key == event["user_id"].encode()
            assert [name for name, _ in record.headers] == (["ce_id"] if way.with_id else [])
            decoded.append(event["user_id"])
        assert sorted(decoded) == users

    def test_is_measured_for_each_event(self, way: Way, place: Place) -> None:
        figures = measure(way, place, EVENTS, warm_up=10)
        assert figures.cpu_us > 0
        assert figures.wall_us > 0


def test_a_peer_that_loses_a_record_is_no_result(place: Place) -> None:
    """The figure of a record that never arrived would be a lie."""
    sender = peers.raw(place, with_id=False)
    sender._on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT), Message())
    with pytest.raises(RuntimeError, match="1 not delivered"):
        sender.send(10)


def test_the_pool_holds_the_same_events_each_time_but_for_their_times() -> None:
    first, second = event_pool(50), event_pool(50)
    for event in (*first, *second):
        assert contract().codec.encode(event) is not None
        assert len(event) == 12
        del event["timestamp"]
    assert first == second


def test_steps_are_measured_in_the_worker() -> None:
    steps = msgspec.json.decode(work(Job(EVENTS)), type=dict[str, float])
    assert steps.keys() == measure_steps(EVENTS).keys()
    assert all(figure > 0 for figure in steps.values())


def test_a_job_of_a_way_runs_in_a_fresh_process(place: Place) -> None:
    done = msgspec.json.decode(run_job(Job(EVENTS, "raw", place)), type=Figures)
    assert done.cpu_us > 0


def test_a_job_that_fails_says_which_and_why() -> None:
    nowhere = Place("", "", "", 0)
    with pytest.raises(RuntimeError, match=r"no-such-way: (?s:.*)StopIteration"):
        run_job(Job(1, "no-such-way", nowhere))


def test_registering_gives_the_registrys_id(registry: str) -> None:
    assert register(registry, "user_events") == SCHEMA_ID


_ROUNDS = [
    Round(0.5, {way.name: Figures(cpu, 2.0) for way, cpu in zip(WAYS, costs, strict=True)}, {"a step": costs[0]})
    for costs in ([2.0, 4.0, *[8.0] * 11], [4.0, 4.0, *[8.0] * 11], [1.0, 4.0, *[4.0] * 11])
]


def test_ratios_are_taken_within_each_round() -> None:
    rows = {row.name: row for row in rows_of(_ROUNDS, WAYS)}
    assert rows["raw"].cpu_us == Span(2.0, 1.0, 4.0)
    assert rows["raw"].events_per_s == Span(500_000.0, 500_000.0, 500_000.0)
    assert rows["fastavro"].to_raw == Span(4.0, 2.0, 4.0)
    assert rows["fastavro+ce_id"].to_raw == Span(2.0, 1.0, 2.0)
    assert rows["fastavro+ce_id"].to_raw_bare == Span(4.0, 2.0, 4.0)
    assert rows["publish_many"].to_fastavro == Span(1.0, 1.0, 1.0)


def test_a_ratio_to_a_way_that_was_not_measured_is_left_open() -> None:
    ways = [way for way in WAYS if way.family == "publish_many"]
    (row,) = rows_of(_ROUNDS[:1], ways)
    assert row.to_raw is not None
    bare = [Round(0.5, {"publish_many": Figures(8.0, 2.0)}, {})]
    (row,) = rows_of(bare, ways)
    assert (row.to_raw, row.to_raw_bare, row.to_fastavro, row.to_fastavro_bare) == (None, None, None, None)
    assert table([row]).endswith("|  |  |  |  |")


def test_the_tables_hold_every_way_and_step() -> None:
    rows = rows_of(_ROUNDS, WAYS)
    lines = table(rows).splitlines()
    assert len(lines) == 2 + len(WAYS)
    assert lines[2].startswith("| raw: bytes ready, produce + callback | none | 2.00 (1.00-4.00) | 500 (500-500) |")
    assert {line.count("|") for line in lines} == {9}
    assert "| a step | 2.00 (1.00-4.00) |" in step_table(_ROUNDS)


def test_the_picture_has_a_bar_for_every_way_and_is_sound_xml() -> None:
    rows = rows_of(_ROUNDS, WAYS)
    picture = ET.fromstring(svg(rows, ours=frozenset({"publish_many"})))
    bars = picture.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + len(WAYS)


@pytest.mark.parametrize("given", [["--events", "0"], ["--rounds", "-1"], ["--only", "nothing"], ["--events", "many"]])
def test_arguments_out_of_range_are_a_usage_error(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(given)
    assert ended.value.code == 2
    assert "usage: python -m benchmarks" in capsys.readouterr().err


def test_arguments_have_defaults_for_the_published_table() -> None:
    assert arguments([]) == argparse.Namespace(events=100_000, rounds=7, only=None, json=None, svg=None)
