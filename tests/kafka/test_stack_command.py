"""`postroom stack up` for real: it starts, says where, and stops what it started when it is asked to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kafka.test_local_stack import alive, produce, records_in, wait_until_gone

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.kafka
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_with_everything_on_a_signal(ending: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "postroom", "stack", "up", "--no-registry", "--json", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            assert told["registry"] is None
            pids = list(told["pids"].values())
            assert all(alive(pid) for pid in pids)
            assert records_in_a_new_topic(told["broker"]) == 60
        finally:
            process.send_signal(ending)
        errors = process.communicate(timeout=30)[1]
        assert process.returncode == 0, errors
    assert "stack: stopping" in errors
    assert wait_until_gone(pids)


def records_in_a_new_topic(bootstrap: str) -> int:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic("played-with", 6, 1)])["played-with"].result(30)
    assert produce(bootstrap, "played-with") == []
    return records_in(bootstrap, "played-with")


@pytest.mark.kafka
def test_an_interrupt_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "postroom", "stack", "up", "--no-registry", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "stack: starting one broker\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 130
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert wait_until_gone([int(pid) for pid in left.stdout.split()])  # killed, but perhaps still falling
