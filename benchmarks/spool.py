"""The spool against SQLite on the same disk, and what it costs: `python -m benchmarks.spool [folder] [--large]`.

All ways of a table run in one process, in rounds, each round in another order; medians count, since a disk that
others use is never quiet. SQLite runs with WAL and synchronous=FULL, one transaction for each batch: "fields" stores
what the spool stores of a record, "blob" its value only. `--large` adds a gibibyte of events and a killed process.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroom.libs.event import Record
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from postroom.streaming.spool.group_commit import Ticket

LABELS = (("type", b"user_event"), ("contract", b"user_event:1"), ("topic", b"user_events"))
ROUNDS = 30
RECORDS_A_ROUND = 2_000
THREADS = 16
WRITERS = 4
LARGE = 3_600_000
_VALUE = b"x" * 200
_FIELDS = ("topic text", "key blob", "value blob", "headers blob", "event_id text", "timestamp_ms int", "attempt int")


def records(first: int, count: int) -> list[Record]:
    """Records as the pipeline hands them in: an id of 36 characters, one header, a value of 200 bytes."""
    return [
        Record("user_events", b"key-%d" % (n % 50_000), _VALUE, (("ce_id", b"%036d" % n),), f"{n:036d}", n)
        for n in range(first, first + count)
    ]


class Database:
    """A table in SQLite."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode=wal")
        self._connection.execute("pragma synchronous=full")
        self._connection.execute(f"create table records ({', '.join(columns)})")
        self._insert = f"insert into records values ({', '.join('?' * len(columns))})"

    def store(self, rows: Sequence[tuple[object, ...]]) -> None:
        self._connection.execute("begin")
        self._connection.executemany(self._insert, rows)
        self._connection.execute("commit")


class Figures:
    """Seconds and CPU seconds of one way, a pair for each round."""

    def __init__(self) -> None:
        self.rounds: list[tuple[float, float]] = []

    def run(self, work: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.rounds.append((time.perf_counter() - wall, time.process_time() - cpu))

    def row(self, name: str, count: int) -> str:
        wall = statistics.median(wall for wall, _ in self.rounds)
        best = min(wall for wall, _ in self.rounds)
        cpu = statistics.median(cpu for _, cpu in self.rounds)
        return f"{name:<40}{count / wall:>12,.0f}{count / best:>12,.0f}{cpu / count * 1e6:>10.2f}"


def compare_appends(root: Path, batch: int) -> None:
    """Print the rates of appending in batches: ours, ours without filling ahead, SQLite's.

    All wait for each batch but "one ahead", which hands in the next batch before it waits for the one before: what the
    writer's thread is for, and what a connection of SQLite, which syncs inside `commit`, cannot do.
    """
    spools = {"spool": Spool(root / f"a{batch}"), "spool, not filled ahead": Spool(root / f"b{batch}", fill_bytes=0)}
    for spool in spools.values():
        spool.start()
    fields = Database(root / f"fields{batch}.db", _FIELDS)
    blobs = Database(root / f"blob{batch}.db", ["value blob"])
    count = max(batch, RECORDS_A_ROUND if batch > 1 else 100)
    ways = (*spools, "spool, one ahead", "SQLite, fields", "SQLite, blob")
    figures: dict[str, Figures] = {name: Figures() for name in ways}
    order = random.Random(batch)
    for number in range(ROUNDS):
        batches = [records(number * count + at, batch) for at in range(0, count, batch)]
        of_fields = [_rows(some) for some in batches]
        of_blobs = [[(r.value,) for r in some] for some in batches]

        work: dict[str, Callable[[], None]] = {name: partial(_append, spool, batches) for name, spool in spools.items()}
        work["spool, one ahead"] = partial(_append_ahead, spools["spool"], batches)
        work["SQLite, fields"] = partial(_insert, fields, of_fields)
        work["SQLite, blob"] = partial(_insert, blobs, of_blobs)
        for name in order.sample(sorted(work), len(work)):
            figures[name].run(work[name])
    for name, one in figures.items():
        print(one.row(f"{name}, batches of {batch}", count))
    for spool in spools.values():
        spool.stop()


def _rows(some: Sequence[Record]) -> list[tuple[object, ...]]:
    return [(r.topic, r.key, r.value, r.headers[0][1], r.event_id, r.timestamp_ms, r.attempt) for r in some]


def _append(spool: Spool, batches: Sequence[Sequence[Record]]) -> None:
    for some in batches:
        spool.append_many(some)[-1].wait()


def _append_ahead(spool: Spool, batches: Sequence[Sequence[Record]]) -> None:
    before: Ticket | None = None
    for some in batches:
        last = spool.append_many(some)[-1]
        if before is not None:
            before.wait()
        before = last
    if before is not None:
        before.wait()


def _insert(database: Database, batches: Sequence[Sequence[tuple[object, ...]]]) -> None:
    for rows in batches:
        database.store(rows)


def _in_threads(work: Callable[[Any], None], shares: Iterable[object]) -> None:
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def compare_writers(root: Path, batch: int) -> None:
    """Print the rates of several threads that each append batches and wait for each: ours, SQLite's.

    SQLite gets the better of its two ways, one connection that the threads share under a lock: connections of their own
    wait for each other in steps, and reached four fifths of it.
    """
    spool, database, lock = Spool(root / "writers"), Database(root / "writers.db", _FIELDS), threading.Lock()
    spool.start()
    each = RECORDS_A_ROUND // batch
    figures = {name: Figures() for name in ("spool", "SQLite, fields")}

    def insert(batches: Sequence[Sequence[tuple[object, ...]]]) -> None:
        for rows in batches:
            with lock:
                database.store(rows)

    order = random.Random(batch)
    for number in range(ROUNDS):
        first = number * WRITERS * RECORDS_A_ROUND
        shares = [
            [records(first + (writer * each + at) * batch, batch) for at in range(each)] for writer in range(WRITERS)
        ]
        work = {
            "spool": partial(_in_threads, partial(_append, spool), shares),
            "SQLite, fields": partial(_in_threads, insert, [[_rows(some) for some in share] for share in shares]),
        }
        for name in order.sample(sorted(work), len(work)):
            figures[name].run(work[name])
    for name, one in figures.items():
        print(one.row(f"{name}, {WRITERS} threads, batches of {batch}", WRITERS * RECORDS_A_ROUND))
    spool.stop()


def sixteen_threads(root: Path) -> None:
    """Print the rate of threads that append one record and wait for it, again and again."""
    spool, each = Spool(root / "threads"), 500
    spool.start()

    def work(worker: int) -> None:
        for record in records(worker * each, each):
            spool.append(record).wait()

    figures = Figures()
    for _ in range(5):
        figures.run(partial(_in_threads, work, range(THREADS)))
    print(figures.row(f"{THREADS} threads, a record at a time", THREADS * each))
    spool.stop()


def claims(root: Path) -> None:
    """Print what a written-ahead record costs: appended as claimed, called back, acknowledged."""
    spool, count = Spool(root / "claims"), 50_000
    spool.start()

    def stored(ticket: Ticket) -> None:
        spool.ack(ticket.place)

    figures = Figures()
    for number in range(5):
        some = records(number * count, count)

        def work(some: list[Record] = some) -> None:
            ticket = None
            for at, record in enumerate(some):
                ticket = spool.append(record, labels=LABELS, claim=True, on_stored=stored)
                if at % 1000 == 999:
                    ticket.wait()

        figures.run(work)
    print(figures.row("claim, callback and acknowledgement", count))
    spool.stop()


def large(root: Path) -> None:
    """Print memory while a gibibyte is appended, and how long a start takes after the process was killed."""
    path = root / "large"
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        spool = Spool(path, max_bytes=2**40)
        spool.start()
        before, began = _resident_bytes(), time.perf_counter()
        for first in range(0, LARGE, 1000):
            spool.append_many(records(first, 1000))[-1].wait()
        took = time.perf_counter() - began
        gained = (_resident_bytes() - before) / 2**20
        size = spool.used_bytes / 2**30
        text = f"{LARGE:,} records appended: {size:.2f} GiB, {LARGE / took:,.0f}/s, {gained:.1f} MiB of memory"
        os.write(writer, text.encode())
        os._exit(9)
    os.waitpid(child, 0)
    print(os.read(reader, 1000).decode())
    before, began = _resident_bytes(), time.perf_counter()
    spool = Spool(path, max_bytes=2**40)
    spool.start()
    spool.append(records(LARGE, 1)[0]).wait()
    appended = time.perf_counter() - began
    while not spool.read(Kind.RECORD):
        time.sleep(0.001)
    read = time.perf_counter() - began
    while not spool.is_counted:
        time.sleep(0.01)
    counted = time.perf_counter() - began
    gained = (_resident_bytes() - before) / 2**20
    print(f"start: {appended:.2f} s to a stored record, {read:.2f} s to the first read, {counted:.2f} s to all counts")
    figures = Figures()
    for _ in range(5):
        figures.run(lambda: [spool.read(Kind.RECORD) for _ in range(100)])
    print(f"{gained:.1f} MiB of memory for the counts")
    print(figures.row("reading, 1,000 at a time", 100_000))
    spool.stop()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print the tables."""
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    root = Path(tempfile.mkdtemp(prefix="spool-benchmark-", dir=folders[0] if folders else None))
    try:
        print(f"{'load ' + format(os.getloadavg()[0], '.1f'):<40}{'records/s':>12}{'at best':>12}{'us CPU':>10}")
        for batch in (1, 100, 1000):
            compare_appends(root, batch)
        compare_writers(root, 100)
        sixteen_threads(root)
        claims(root)
        if "--large" in sys.argv:
            large(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
