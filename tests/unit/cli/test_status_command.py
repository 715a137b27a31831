"""What `postroom status` promises: the truth about a process in a screen, and an exit code for scripts."""

from __future__ import annotations

import http.server
import json
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from postroom.__main__ import main
from postroom.observability.http_endpoint import HttpEndpoint
from postroom.observability.metrics import Metrics
from postroom.services.health_checks import health_of
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file, no variable, and a proxy that must not be asked."""
    monkeypatch.chdir(tmp_path)
    for name in ("POSTROOM_CONFIG", "POSTROOM_BROKER", "POSTROOM_ENV", "POSTROOM_SPOOL_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")


@contextmanager
def serving(service: RecordingService) -> Iterator[str]:
    with service, HttpEndpoint(Metrics(), health_of(service)) as endpoint:
        yield endpoint.url


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[str]:
    """Something that is not postroom."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def hand_in(service: RecordingService) -> Any:
    return service.publish_event({"user_id": "u1", "timestamp": 1}).result(PATIENCE_S)


def as_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["status", *words, "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_process_that_is_well_is_told_in_a_few_lines_and_exit_code_0(
    capsys: pytest.CaptureFixture[str],
) -> None:
    service = RecordingService()
    with serving(service) as url:
        hand_in(service)
        assert main(["status", "--url", url]) == 0
        told = capsys.readouterr().out
        assert f"{url}, pid " in told
        assert "ready" in told
        assert re.search(r"all \d+ parts are well", told)
        assert "user_events" in told
        code, document = as_json(capsys, "--url", url + "/")
    assert code == 0
    assert (document["url"], document["folder"]) == (url, None)
    assert document["process"]["ledger"]["total"]["delivered"] == 1


def test_an_outage_is_told_with_what_waits_and_since_when_and_is_no_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    service = RecordingService(spool_dir=tmp_path / "spool")
    with serving(service) as url:
        service.faults.away()
        hand_in(service)
        assert main(["status", "--url", url]) == 0
        told = capsys.readouterr().out
    assert "path user_events: spooling for " in told
    assert "kafka_unavailable" in told
    assert f"spool {tmp_path / 'spool'}: 1 records and 0 dead letters waiting, oldest " in told
    assert "events go to the spool" in told


def test_what_is_not_ready_is_exit_code_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    service = RecordingService(spool_dir=tmp_path / "spool")
    with serving(service) as url:
        service.faults.topic_gone("user_events")
        hand_in(service)
        code, document = as_json(capsys, "--url", url)
        assert code == 1
        assert document["process"]["components"]["paths"]["state"] == "down"
        assert main(["status", "--url", url]) == 1
    told = capsys.readouterr().out
    assert "not ready" in told
    assert "postroom topics create" in told


def test_events_unaccounted_are_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    service = RecordingService()
    with serving(service) as url:
        hand_in(service)
        service.ledger.book("user_events").delivered += 1
        assert main(["status", "--url", url]) == 1
        assert "1 events are unaccounted for" in capsys.readouterr().out
        service.ledger.book("user_events").delivered -= 1


def test_where_nothing_answers_is_exit_code_3_and_says_where_it_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", "http://127.0.0.1:1"]) == 3
    told = capsys.readouterr().err
    assert "nothing of postroom answers at http://127.0.0.1:1: Connection refused" in told
    assert "--metrics-port" in told
    code, document = as_json(capsys, "--url", "http://127.0.0.1:1")
    assert (code, document["process"]) == (3, None)
    assert "Connection refused" in document["problem"]


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"<html>", 200, "no JSON"),
        (b"[1]", 200, "no status of postroom"),
        (b'{"components": 3}', 200, "no status of postroom"),
        (b"\xff", 200, "its answer is no"),
        (b"not found", 404, "HTTP 404"),
    ],
)
def test_something_else_that_answers_is_not_taken_for_postroom(
    body: bytes, status: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(body, status) as url:
        assert main(["status", "--url", url]) == 3
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("url", ["localhost:9464", "ftp://127.0.0.1", "http://", "http://[::1", "http://a:99999"])
def test_what_is_no_address_is_a_usage_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", url]) == 2
    assert "is no address such as" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ("", "http://127.0.0.1:9464"),
        ("metrics: {port: 1}", "http://127.0.0.1:1"),
        ("metrics: {port: 1, host: 0.0.0.0}", "http://127.0.0.1:1"),
        ("metrics: {port: 1, host: '::'}", "http://[::1]:1"),
    ],
)
def test_without_an_address_the_settings_say_where(
    settings: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kafka.yaml").write_text(f"broker: localhost:9092\n{settings}\n")
    asked = []

    def ask(address: str) -> dict[str, Any]:
        asked.append(address)
        raise OSError(111, "Connection refused")

    monkeypatch.setattr("postroom.cli.status_command._ask", ask)
    assert main(["status"]) == 3
    assert asked == [address]
    assert "Connection refused" in capsys.readouterr().err


def test_a_topic_that_would_command_the_terminal_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "live": True, "ready": True, "pid": 1,
        "components": {"paths": {"state": "degraded", "detail": "\x1b[2J"}},
        "paths": [{"topic": "a\x1b]0;b\x07", "state": "spooling", "for_s": 1, "problem": None}],
    }  # fmt: skip
    with answering(json.dumps(document).encode()) as url:
        assert main(["status", "--url", url]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\x07" not in told
