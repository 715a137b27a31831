"""What `postroom run` and `postroom send` promise, on the embedded broker: counts, exit codes, signals, journals."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from postroom.__main__ import main
from postroom.services.journal import read_journal
from tests.mock_cluster import MockCluster

KEYS = {
    "received", "taken_over", "accepted", "delivered", "dead_lettered", "spooled", "quarantined", "in_flight",
    "pending", "refused", "failed", "unaccounted", "elapsed_s", "events_per_s", "error_rate", "latency_ms",
    "dead_letters_by_reason", "refused_by_reason", "failed_by_reason",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file, no variable: what runs here is what the command line says."""
    monkeypatch.chdir(tmp_path)
    for name in ("POSTROOM_CONFIG", "POSTROOM_BROKER", "POSTROOM_SCHEMA_REGISTRY_URL", "POSTROOM_ENV"):
        monkeypatch.delenv(name, raising=False)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    """Run a command with --json: its exit code, the object on its last line, what it told on stderr."""
    code = main([*words, "--json"])
    told = capsys.readouterr()
    return code, json.loads(told.out.splitlines()[-1]), told.err


def test_without_a_broker_named_anywhere_it_uses_the_embedded_one_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, result, told = run(capsys, "run", "--count", "500", "--seed", "1")
    assert code == 0
    assert "embedded broker" in told
    assert set(result) == KEYS
    assert (result["received"], result["delivered"], result["unaccounted"]) == (500, 500, 0)
    assert result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]


def test_broken_events_become_dead_letters_and_every_event_is_counted_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    journal = tmp_path / "accepted.ndjson"
    code, result, _ = run(
        capsys, "run", "--count", "1000", "--invalid-ratio", "0.2", "--seed", "7", "--accepted", str(journal)
    )
    assert code == 0
    assert result["dead_lettered"] > 100
    assert result["dead_letters_by_reason"] == {"validation_failed": result["dead_lettered"]}
    assert result["delivered"] + result["dead_lettered"] == result["accepted"] == result["received"] == 1000
    entries = list(read_journal(journal))
    assert len({entry.event_id for entry in entries}) == 1000
    assert sorted(entry.sequence for entry in entries) == list(range(1, 1001))
    assert sum(entry.topic == "user_events.dlq" for entry in entries) == result["dead_lettered"]


def test_the_same_seed_breaks_the_same_events(capsys: pytest.CaptureFixture[str]) -> None:
    first = run(capsys, "run", "--count", "300", "--invalid-ratio", "0.3", "--seed", "5")[1]["dead_lettered"]
    second = run(capsys, "run", "--count", "300", "--invalid-ratio", "0.3", "--seed", "5")[1]["dead_lettered"]
    assert first == second > 0


def test_dead_letters_can_be_asked_to_fail_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, result, _ = run(capsys, "run", "--count", "50", "--invalid-ratio", "1", "--fail-on", "dead_letters")
    assert code == 1
    assert result["dead_lettered"] == 50


def test_events_nobody_takes_end_with_code_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "events.ndjson"
    source.write_text('{"user_id": "u1", "timestamp": 1}\n')
    code, result, _ = run(capsys, "run", "--source", str(source), "--type", "no_such_contract")
    assert code == 3
    assert result["refused_by_reason"] == {"unknown_event_type": 1}


def test_one_bad_line_of_a_file_hurts_no_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = '{"user_id": "u%d", "timestamp": %d}'
    lines = [good % (number, number) for number in range(1000)]
    lines[500] = '{"user_id": "u500", "timestamp": 5'
    source = tmp_path / "events.ndjson"
    source.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode() + b"\n   \n")
    code, result, _ = run(capsys, "run", "--source", str(source))
    assert code == 0
    assert (result["delivered"], result["dead_letters_by_reason"]) == (999, {"decode_failed": 1})


def test_a_file_that_is_not_there_is_a_usage_error_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    code, result, _ = run(capsys, "run", "--source", "nowhere.ndjson")
    assert code == 2
    assert result["error"]["code"] == "configuration_invalid"
    assert result["error"]["remedy"]


def test_the_rate_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    _, result, _ = run(capsys, "run", "--count", "300", "--rate", "200")
    assert result["received"] == 300
    assert result["elapsed_s"] >= 1.3  # 20 at once, 280 at 200 a second: 1.4 s; never faster


def test_a_duration_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, result, _ = run(capsys, "run", "--duration", "0.5", "--rate", "100")
    assert code == 0
    assert 0 < result["received"] <= 70


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_the_run_in_good_order(number: signal.Signals, code: int, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "postroom", "run", "--rate", "200", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for line in process.stderr:
            if "delivered" in line and "delivered 0 " not in line:
                break
        process.send_signal(number)
        result = json.loads(process.stdout.read().splitlines()[-1])
        process.stderr.read()
    assert process.returncode == code
    assert result["received"] == result["delivered"] > 0
    assert result["unaccounted"] == result["pending"] == 0


@pytest.mark.parametrize("source", ["-", "fifo", "fifo.csv", "silent.csv", "nobody"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_a_run_whose_source_says_nothing_more(
    source: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """The read was gone on with, for as long as whoever writes into the pipe has nothing to write: hours."""
    words = [sys.executable, "-m", "postroom", "run", "--source", source, "--json"]
    os.mkfifo(tmp_path / source)
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        said = "user_id,timestamp\nu1,1\nu2," if source == "fifo.csv" else '{"user_id": "u1", "timestamp": 1}\n{"us'
        wanted = "delivered 1 "
        if source == "-":
            process.stdin.write(said)
            process.stdin.flush()
        elif source == "nobody":
            wanted = "delivered 0 "
        else:
            wanted = "delivered 0 " if source == "silent.csv" else wanted
            pipe = os.open(tmp_path / source, os.O_WRONLY)
            os.write(pipe, b"user_" if source == "silent.csv" else said.encode())
        for line in process.stderr:
            if wanted in line:
                break
        process.send_signal(number)
        result = json.loads(process.stdout.read().splitlines()[-1])
        process.stderr.read()
    assert process.returncode == code
    assert result["received"] == result["delivered"] == (wanted == "delivered 1 ")


def test_it_serves_metrics_and_health_while_it_runs(tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "postroom", "run", "--rate", "200", "--metrics-port", str(port), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "delivered" in line and "delivered 0 " not in line:
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=10) as answer:
            live = answer.status
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            ready = json.loads(answer.read())
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert live == 200
    assert 'postroom_events_delivered_total{topic="user_events"}' in metrics
    names = {"kafka_client", "schema_validator", "schema_registry", "rate_limiter", "dead_letters"}
    assert names <= set(ready["components"])


def test_two_commands_in_one_process_do_not_share_their_books(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "run", "--count", "10")[1]["received"] == 10
    assert run(capsys, "run", "--count", "20")[1]["received"] == 20


def test_a_person_gets_a_summary_samples_and_what_to_try_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--count", "200", "--invalid-ratio", "0.1", "--seed", "3"]) == 0
    told = capsys.readouterr().out
    for part in ("The books balance", "Read back from Kafka", "Dead letters", "stack up", "p99"):
        assert part in told


def test_what_events_hold_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A closing tag that nothing had opened ended the whole run with a traceback, after everything was delivered."""
    source = tmp_path / "events.ndjson"
    source.write_text(
        '{"user_id": "[/bold]\\u001b[2J[red]", "timestamp": 1}\n{"user_id": "b", "timestamp": 1, "[/x]": 1}\n'
    )
    assert main(["run", "--source", str(source)]) == 0
    shown = capsys.readouterr().out
    assert "[/bold]?[2J[red]" in shown
    assert "\x1b" not in shown


def test_send_never_falls_back_to_the_embedded_broker(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = tmp_path / "events.ndjson"
    source.write_text('{"user_id": "u1", "timestamp": 1}\n')
    with MockCluster() as gone:
        bootstrap = gone.bootstrap
    registry = tmp_path / "registry"
    code, result, _ = run(capsys, "send", str(source), "--broker", bootstrap, "--registry", str(registry))
    assert code == 2
    assert "postroom contracts register" in result["error"]["remedy"]


def test_send_writes_one_outcome_a_line_in_the_order_of_the_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source = tmp_path / "events.ndjson"
    source.write_text('{"user_id": "u1", "timestamp": 1}\n{"user_id": 2}\nrubbish\n{"user_id": "u4", "timestamp": 4}\n')
    code = main(["send", str(source), "--broker", "embedded", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 0
    assert [line["outcome"] for line in lines[:-1]] == ["delivered", "dead_lettered", "dead_lettered", "delivered"]
    assert [line["number"] for line in lines[:-1]] == [1, 2, 3, 4]
    assert lines[1]["violations"] == [
        "user_id: wrong_type, expected string, found int",
        "timestamp: missing_field, expected long, found absent",
    ]
    assert lines[-1]["summary"]["accepted"] == 4
    assert main(["send", str(source), "--broker", "embedded"]) == 0
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 4
    assert "rubbish" not in told.out
    assert "4 events: 2 delivered, 2 dead-lettered" in told.err


def test_send_takes_csv_by_the_file_s_name_and_cloudevents_when_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = tmp_path / "events.csv"
    rows.write_text("timestamp,user_id\n1,u1\nx,u2\n")
    assert main(["send", str(rows), "--broker", "embedded", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["outcome"] for line in lines[:-1]] == ["delivered", "dead_lettered"]
    assert lines[1]["violations"] == ["timestamp: wrong_type, expected long, found str in line 3, column 1"]
    envelopes = tmp_path / "events.ndjson"
    attributes = '"specversion": "1.0", "id": "e-1", "source": "/s", "type": "user_event"'
    envelopes.write_text(f'{{{attributes}, "data": {{"user_id": "u1", "timestamp": 1}}}}\n')
    assert main(["send", str(envelopes), "--broker", "embedded", "--json", "--format", "cloudevents"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (line["outcome"], line["event_id"]) == ("delivered", "e-1")


def test_run_takes_a_file_of_the_format_that_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = tmp_path / "events"
    rows.write_text("timestamp,user_id\n1,u1\nx,u2\n")
    words = ["run", "--broker", "embedded", "--json", "--format", "csv"]
    assert main([*words, "--source", str(rows)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["delivered"], summary["dead_lettered"]) == (1, 1)
    assert main(words) == 2
    assert "name one with --source" in capsys.readouterr().err


def test_send_stops_at_a_header_that_does_not_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = tmp_path / "events.csv"
    rows.write_text("timestamp;user_id\n1;u1\n")
    assert main(["send", str(rows), "--broker", "embedded"]) == 2
    told = capsys.readouterr().err
    assert "none of the columns has the name of a field" in told
    assert "Separate columns with commas" in told
