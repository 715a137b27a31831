"""The spool by hand on a real Kafka: what a killed process left is shown, sent, and found by a plain consumer, once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from postroom.cli.spool_folder import look_into
from postroom.libs.event import Record
from postroom.streaming.spool.spool import Spool
from tests.kafka.test_the_main_job import header, read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

PATIENCE_S = 90.0
NOWHERE = "127.0.0.1:1"


class Desk:
    """A folder with settings whose topic is on the real stack, and the command line over it."""

    def __init__(self, stack: LocalStack, topic: str, folder: Path) -> None:
        self.stack = stack
        self.topic = topic
        self.folder = folder
        self.spool = folder / "spool"
        self.journal = folder / "accepted.ndjson"
        (folder / "kafka.yaml").write_text(
            f"broker: {stack.bootstrap}\nschema_registry: {{url: {folder / 'registry'}, auto_register: true}}\n"
            f"topics: {{user_events: {topic}}}\nspool: {{dir: {self.spool}}}\n"
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "postroom", *words, "--config", str(self.folder / "kafka.yaml"), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder)

    def __call__(self, *words: str) -> tuple[int, Any, str]:
        """Exit code, the object on the last line of stdout, and stderr."""
        with self.start(*words) as process:
            out, told = process.communicate(timeout=PATIENCE_S)
        return process.returncode, json.loads(out.splitlines()[-1]), told

    @contextmanager
    def at_work(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A process whose stderr is read away, and that is killed at the end if it still lives."""
        process = self.start(*words)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def waiting(self) -> int:
        """How much waits, looked at from this process: a command for each look would take seconds."""
        return sum(slot.waiting for slot in look_into(self.spool))

    def leave(self, count: int) -> None:
        """Records as a process leaves them that is gone."""
        spool = Spool(self.spool, background=False)
        spool.start()
        for number in range(count):
            spool.append(Record(self.topic, b"k", b"v", (("ce_id", b"%d" % number),), str(number), 1_795_000_000_000))
        spool.stop()

    def accepted(self) -> list[str]:
        return [json.loads(line)["event_id"] for line in self.journal.read_text().splitlines() if line.endswith("}")]

    def found(self, topic: str) -> list[str]:
        return [header(message, "ce_id") for message in read_all(self.stack.bootstrap, topic)]


@pytest.fixture
def desk(postroom_stack: LocalStack, postroom_new_topic: Callable[..., str], tmp_path: Path) -> Desk:
    topic = postroom_new_topic()
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": postroom_stack.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(f"{topic}.dlq", 1, 1)])[f"{topic}.dlq"].result(30)
    return Desk(postroom_stack, topic, tmp_path)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert process is None or process.poll() is None, "the process has ended"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
def test_what_a_killed_process_left_is_shown_sent_and_found_by_everybody(desk: Desk, write_ahead: str) -> None:
    words = ["run", "--broker", NOWHERE, "--rate", "400", "--invalid-ratio", "0.05", "--seed", "3"]
    with desk.at_work(*words, "--write-ahead", write_ahead, "--accepted", str(desk.journal)) as process:
        wait_until(lambda: desk.journal.exists() and len(desk.accepted()) > 1000, process)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    accepted = set(desk.accepted())

    code, told, _ = desk("spool", "status")
    assert code == 0
    (slot,) = told["slots"]
    assert slot["owner"] is None
    assert slot["records"]["by_topic"].keys() == {desk.topic}
    assert slot["dead_letters"]["by_topic"].keys() == {f"{desk.topic}.dlq"}
    waiting = told["total"]["records"] + told["total"]["dead_letters"]
    assert waiting >= len(accepted) > 1000
    assert told["total"]["oldest_s"] > 0

    code, told, _ = desk("spool", "inspect", "--limit", "10000")
    assert told["summary"] == {"shown": waiting, "waiting": waiting}

    code, told, progress = desk("spool", "drain")
    assert code == 0, progress
    assert (told["sent"], told["left"], told["problems"], told["in_use"]) == (waiting, 0, [], [])

    delivered, letters = desk.found(desk.topic), desk.found(f"{desk.topic}.dlq")
    assert len(delivered) + len(letters) == len({*delivered, *letters}) == waiting
    assert accepted <= {*delivered, *letters}
    assert desk.waiting() == 0


def test_a_slot_in_use_is_named_and_left_to_its_process(desk: Desk) -> None:
    with desk.at_work("run", "--broker", NOWHERE, "--rate", "50") as process:
        wait_until(lambda: desk.spool.exists() and desk.waiting() > 10, process)
        code, told, _ = desk("spool", "drain")
        assert code == 3
        (slot,) = told["in_use"]
        assert (slot["slot"], told["sent"]) == ("0001", 0)
        assert str(process.pid) in slot["owner"]
        assert slot["waiting"] > 10
        code, told, progress = desk("spool", "drain", "--timeout", "3")
        assert (code, told["sent"]) == (3, 0)
        assert f"is in use by pid {process.pid}" in progress
    assert desk.found(desk.topic) == []


def test_a_process_at_work_is_waited_for_until_it_is_done(desk: Desk) -> None:
    with desk.at_work("run", "--broker", NOWHERE, "--count", "50", "--drain-timeout", "3") as process:
        wait_until(lambda: desk.spool.exists() and desk.waiting() == 50, process)
        code, told, progress = desk("spool", "drain", "--timeout", "60")
        assert code == 0, progress
        assert (told["sent"], told["left"]) == (50, 0)
    assert len(desk.found(desk.topic)) == 50


def test_with_kafka_away_it_says_so_and_leaves_everything_at_the_timeout(desk: Desk) -> None:
    desk.leave(20)
    code, told, progress = desk("spool", "drain", "--broker", NOWHERE, "--timeout", "4")
    assert (code, told["sent"], told["left"]) == (4, 0, 20)
    assert "waits for Kafka" in progress
    assert "--broker" in told["problems"][0]
    assert desk.waiting() == 20


def test_a_signal_ends_it_in_good_order_and_loses_nothing(desk: Desk) -> None:
    desk.leave(20)
    with desk.start("spool", "drain", "--broker", NOWHERE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "waits for Kafka" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert desk.waiting() == 20


def test_dead_letters_that_the_broker_refuses_are_told_and_not_waited_for(
    desk: Desk, postroom_new_topic: Callable[..., str]
) -> None:
    topic = postroom_new_topic()
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": desk.stack.bootstrap, "log_level": 0})
    small = NewTopic(f"{topic}.dlq", 1, 1, config={"max.message.bytes": "200"})
    admin.create_topics([small])[f"{topic}.dlq"].result(30)
    settings = desk.folder / "kafka.yaml"
    settings.write_text(settings.read_text().replace(desk.topic, topic))
    run = ("run", "--count", "50", "--invalid-ratio", "0.1", "--seed", "4", "--drain-timeout", "0")
    assert desk(*run, "--broker", NOWHERE)[0] == 4
    code, told, progress = desk("spool", "drain")
    assert code == 1
    assert told["left"] == told["rejected"] == told["left_by_topic"][f"{topic}.dlq"] > 0
    assert told["sent"] == 50 - told["left"]
    assert "refused by the broker" in told["problems"][0]
    assert "dead_letter_rejected" in progress
    assert desk.waiting() == told["left"]
