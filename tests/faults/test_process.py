"""Processes that die, fork, share a spool or run short of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

from postroom.libs.event import Refused, RefusedReason, Spooled
from postroom.streaming.spool.file_system import OsFile, OsFileSystem
from postroom.testing.broker_settings import free_ports
from postroom.testing.fault_script import FaultScript
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.recording_service import RecordingService
from tests.faults.post import Judgement, Post, until

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.libs.config_loader import Config
    from postroom.observability.metrics import Metrics
    from postroom.testing.local_stack import LocalStack

PREAMBLE = """
import json, os, signal, sys, threading, time
from postroom import ProducerService, load_config
from postroom.testing.recording_service import MemoryRegistry
config = load_config(overrides=json.loads(sys.argv[1]), environ={})
def service():
    return ProducerService(config, registry=MemoryRegistry())
def tell(**told):
    os.write(1, (json.dumps(told) + "\\n").encode())
def rss():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) * 1024
"""


def run(program: str, timeout_s: float = 60, **settings: object) -> tuple[int, list[dict[str, Any]]]:
    """Run a program of its own to its end; return its exit code and what it told."""
    given = {name.replace("__", "."): str(value) for name, value in settings.items()}
    words = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), json.dumps(given)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    ran = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False, env=kept)
    assert ran.returncode in {0, -signal.SIGKILL}, ran.stderr
    return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()]


def nowhere() -> str:
    """An address at which nobody listens."""
    return f"127.0.0.1:{free_ports(1)[0]}"


def test_after_kill_9_with_much_in_the_spool_events_are_accepted_in_two_seconds(tmp_path: Path) -> None:
    """Row 25: the next process counts what it finds while it takes events already."""
    spool = tmp_path / "spool"
    code, told = run(
        """
        from postroom.libs.event import Record
        from postroom.streaming.spool.record_format import Kind
        from postroom.streaming.spool.spool import Spool
        spool = Spool(config.spool.dir)
        spool.start()
        value = b"v" * 150
        for begin in range(0, 400_000, 2_000):
            records = [
                Record("user_events", b"%d" % (n % 1000), value, (), f"id-{n}", 1) for n in range(begin, begin + 2_000)
            ]
            spool.append_many(records)[-1].wait()
        tell(bytes=spool.used_bytes)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        spool__dir=spool,
    )
    assert code == -signal.SIGKILL
    assert told[0]["bytes"] > 80_000_000
    faults = FaultScript().away()
    began = time.monotonic()
    with RecordingService(faults=faults, spool_dir=spool, write_ahead="fsync") as post:
        receipt = post.publish_event({"user_id": "u", "timestamp": 1})
        took_s = time.monotonic() - began
        assert receipt.safe
        print({"MB": told[0]["bytes"] // 10**6, "accepting after, s": round(took_s, 2)})  # noqa: T201
        assert took_s < 2.0
        until(lambda: post.ledger.total().taken_over == 400_000, f"{post.ledger.total()}")
        assert post.ledger.total().unaccounted == 0


def test_with_kafka_away_memory_does_not_grow_with_what_is_spooled(tmp_path: Path) -> None:
    """Row 29: 120,000 events at full speed."""
    _, [told] = run(
        """
        post = service()
        post.start()
        def hand_in(count):
            events = ({"user_id": f"user-{n % 1000}", "timestamp": n} for n in range(count))
            return [post.publish_event(event, timeout=30) for event in events]
        first = hand_in(2_000)
        assert all(type(one.result(30)).__name__ == "Spooled" for one in first)
        del first
        before, most = rss(), 0
        for _ in range(24):
            last = hand_in(5_000)
            most = max(most, rss())
        assert all(type(one.result(30)).__name__ == "Spooled" for one in last)
        total = post.ledger.total()
        tell(grown=most - before, spooled=total.spooled, unaccounted=total.unaccounted)
        os._exit(0)
        """,
        timeout_s=120,
        broker=nowhere(),
        spool__dir=tmp_path / "spool",
    )
    print(told)  # noqa: T201
    assert told["spooled"] == 122_000
    assert told["unaccounted"] == 0
    assert told["grown"] < 100_000_000


class StandingFile(OsFile):
    """A file whose sync returns only while the disk goes."""

    goes = threading.Event()
    waiting = 0

    def sync(self) -> None:
        StandingFile.waiting += 1
        assert StandingFile.goes.wait(60)
        StandingFile.waiting -= 1
        super().sync()


class StandingDisk(OsFileSystem):
    """A disk that can stand still."""

    def _open(self, path: str, flags: int) -> StandingFile:
        return StandingFile(os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def test_a_disk_that_stands_still_bounds_what_waits_for_it_and_the_rest_is_refused_with_a_time(spool: Path) -> None:
    """Row 29: 64 MiB wait in memory for the disk at most."""
    faults = FaultScript()
    StandingFile.goes.set()

    def publisher(config: Config, _: Metrics) -> MemoryPublisher:
        return MemoryPublisher(faults=faults, hand_over_after_s=config.hand_over_after_s)

    with Post("nowhere:1", "user_events", spool, files=StandingDisk(), make_publisher=publisher) as post:
        faults.away()
        assert post.kinds(post.publish(5)) == {"Spooled": 5}
        StandingFile.goes.clear()
        before = len(post.receipts)
        began = time.monotonic()
        text = "t" * 200_000
        refused = None
        for _ in range(600):
            [receipt] = post.publish(1, extra={"session_id": text}, timeout=0.0)
            if receipt.done():
                refused = receipt.result(0)
                break
        taken = len(post.receipts) - before - 1
        assert StandingFile.waiting
        assert isinstance(refused, Refused), refused
        assert refused.reason in {RefusedReason.QUEUE_FULL, RefusedReason.SPOOL_FULL}
        assert refused.retry_after_s
        assert 100 < taken <= 64 * 2**20 // 200_000 + 1
        assert time.monotonic() - began < 20
        StandingFile.goes.set()
        assert post.kinds() == {"Spooled": 5 + taken, "Refused": 1}
        faults.back()
        post.settle()
        found = [record.event_id for record in post.publisher.records]
    safe = [name for name, one in post.receipts.items() if isinstance(one.result(0), Spooled)]
    assert sorted(found) == sorted(safe)


def test_two_services_on_one_spool_have_a_slot_each_and_a_third_takes_over_what_both_left(
    stack: LocalStack, topic: str, spool: Path
) -> None:
    """Row 36: at once and in one folder, Kafka away; afterwards each event is delivered once."""
    away = nowhere()
    with Post(away, topic, spool, keys=5) as one, Post(away, topic, spool, keys=5) as two:
        with one.load(300, prefix="one"), two.load(300, prefix="two"):
            until(lambda: one.spooled() > 100 and two.spooled() > 100, "nothing is spooled")
        assert set(one.kinds()) == set(two.kinds()) == {"Spooled"}
        slots = [each.service.parts.spooling.spool.status().slots[0].name for each in (one, two)]  # type: ignore[union-attr]
        assert len(set(slots)) == 2, slots
    with Post(stack.bootstrap, topic, spool) as three:
        wanted = len(one.receipts) + len(two.receipts)
        until(lambda: three.balance.delivered == wanted, f"{three.balance}")
        assert three.balance.taken_over == wanted
        assert three.balance.unaccounted == 0
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(one, two)
    assert not judgement.repeated
