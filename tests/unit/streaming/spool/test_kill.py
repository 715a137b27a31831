"""kill -9 at random moments: everything that was reported as stored before is found, in order, by the next start.

A kill leaves the page cache alive, so it says nothing about syncs (test_power_cuts.py does). It says that no state
between two system calls needs a hand.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.unit.streaming.spool.spools import drained, ids, quiet

KILLS = int(os.environ.get("POSTROOM_KILLS", "12"))

WRITER = """
import os, sys, threading
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from tests.unit.streaming.spool.spools import record
spool = Spool(sys.argv[1], segment_bytes=20_000)
spool.start()
number = int(sys.argv[2])
report = lambda what, names: os.write(1, b"".join(b"%s %s\\n" % (what, name.encode()) for name in names))

def drain():
    pause = threading.Event()
    while True:
        found = spool.read(Kind.RECORD, max_records=7)
        report(b"out", [("+" if waiting.sent_before else "-") + waiting.record.event_id for waiting in found])
        report(b"ack", [waiting.record.event_id for waiting in found])
        for waiting in found:
            spool.ack(waiting)
        if not found:
            pause.wait(0.001)

threading.Thread(target=drain, daemon=True).start()
while True:
    records = [record(number + step, key=b"%d" % (step % 3)) for step in range(20)]
    number += len(records)
    stored = [one.event_id for one, ticket in zip(records, spool.append_many(records)) if ticket.wait()]
    report(b"in", stored)
"""


def test_kill_9_at_random_moments_loses_nothing_that_was_reported_as_stored(tmp_path: Path) -> None:
    seed = 1
    moments = random.Random(seed)
    stored: list[str] = []
    acknowledged: set[str] = set()
    handed_out: set[str] = set()
    for kill in range(KILLS):
        lines = _run_and_kill(tmp_path, first=kill * 1_000_000, after_lines=moments.randrange(1, 6000))
        for what, name in lines:
            if what == "in":
                stored.append(name)
            elif what == "ack":
                acknowledged.add(name)
            else:
                assert name[0] == "+" or name[1:] not in handed_out, "a repeat without its mark"
                handed_out.add(name[1:])
    spool = quiet(tmp_path)
    found = drained(spool)
    numbers = [int(name[3:]) for name in ids(found)]
    assert numbers == sorted(set(numbers))
    missing = set(stored) - acknowledged - set(ids(found))
    assert not missing
    assert all(waiting.sent_before for waiting in found if waiting.record.event_id in handed_out)
    assert spool.status().slots[0].records.damages.ranges == 0
    assert [slot.name for slot in spool.status().slots] == ["0001"]
    for waiting in found:
        spool.ack(waiting)
    assert spool.is_empty
    spool.stop()
    assert len(stored) > KILLS * 20


def _run_and_kill(root: Path, *, first: int, after_lines: int) -> list[tuple[str, str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(first)], stdout=subprocess.PIPE, cwd=Path.cwd(), text=True
    )
    with process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after_lines)]
        # The killer is another thread, so that the moment is not the one in which a line was written.
        killer = threading.Thread(target=process.send_signal, args=(signal.SIGKILL,))
        killer.start()
        lines += process.stdout.readlines()
        killer.join()
    pairs = [line.split() for line in lines if line.endswith("\n")]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
