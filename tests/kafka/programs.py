"""Programs as users write them, each in a process of its own, and what they leave on the disk.

A program begins with the preamble below: `say(word=...)` tells the test something, `hear()` waits for its answer. It is
ended with its test at the latest, and a process that it leaves behind fails the test.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.chaos.spool_files import read_spool
from tests.kafka.plain_log import read_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from postroom.testing.local_stack import LocalStack
    from tests.tcp_proxy import TcpProxy

PATIENCE_S = 60.0
"""So long a test waits for what must come, on a machine that may be busy."""

_HELPERS_S = 5.0

PREAMBLE = """
import atexit, json, multiprocessing, os, signal, sys, threading, time
from collections import Counter
from postroom import ProducerService, get_service, load_config

config = load_config()

def say(**told):
    os.write(1, (json.dumps(told) + "\\n").encode())

def hear():
    assert os.read(0, 1) == b"!"

def event(n, who="", key=None):
    return {"user_id": key or f"user-{n % 100}", "timestamp": n, "session_id": who}

def publish(service, who, count, key=None):
    return [service.publish_event(event(n, who, key), event_id=f"{who}-{n}") for n in range(count)]

def kinds(receipts):
    return Counter(type(receipt.outcome).__name__ for receipt in receipts)

def books(service):
    balance = service.ledger.total()
    return {name: getattr(balance, name) for name in balance.__struct_fields__ if getattr(balance, name)}

def until(condition, timeout_s=60):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)

def wait_for(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def leave_on_sigterm():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
"""


class Process:
    """A process with its standard streams, and all that it forks: ended at the end of `with`, at the latest."""

    def __init__(self, words: Sequence[str], *, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        self._said = folder / f"said-{os.urandom(4).hex()}.log"
        with self._said.open("wb") as log:
            self.process = subprocess.Popen(
                list(words),
                cwd=folder,
                env=kept | dict(environment or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        left = self._end_all()
        if kind is not None:
            sys.stderr.write(self.said)  # shown with the failure
        assert kind is not None or not left, f"processes were left behind: {left} {self.said}"

    def _end_all(self) -> list[str]:
        """End what still runs in the session of the process; return what that was."""
        with suppress(AssertionError):  # helpers of Python's own end themselves when they find that nobody needs them
            until(lambda: not living_of(self.pid), "all have ended", 0.0 if self.process.poll() is None else _HELPERS_S)
        left = living_of(self.pid)
        self.process.kill()
        self.process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._reader.join(PATIENCE_S)
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        return left

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self.process.pid

    @property
    def said(self) -> str:
        """What it wrote to its standard error so far."""
        return self._said.read_text(errors="replace")

    def wait_for_words(self, pattern: str) -> None:
        """Wait until its standard error holds these words."""
        until(lambda: re.search(pattern, self.said), f"it writes {pattern}")

    def wait_for_lines(self, count: int) -> None:
        """Wait until it has written so many more lines to its standard error."""
        before = self.said.count("\n")
        until(lambda: self.said.count("\n") >= before + count, f"it writes {count} lines")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log with this event's name."""
        lines = [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    def hears(self) -> None:
        """Let the program go on behind its `hear()`."""
        assert self.process.stdin is not None
        self.process.stdin.write("!")
        self.process.stdin.flush()

    def says(self, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next thing that the program says."""
        try:
            told: dict[str, Any] = json.loads(self._lines.get(timeout=timeout_s))
        except queue.Empty:
            raise AssertionError(f"it says nothing for {timeout_s} s; its log: {self.said}") from None
        return told

    def lines(self) -> list[str]:
        """What it has written to its standard output besides; ask when it has ended."""
        self._reader.join(PATIENCE_S)
        return [self._lines.get() for _ in range(self._lines.qsize())]

    def rest(self) -> list[dict[str, Any]]:
        """What it has said besides; ask when it has ended."""
        return [json.loads(line) for line in self.lines()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process, not to its children."""
        self.process.send_signal(number)

    def ends(self, *, within_s: float = PATIENCE_S, code: int = 0) -> float:
        """Wait for the end; return the seconds that took."""
        began = time.monotonic()
        try:
            found = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended in {within_s} s; its log: {self.said}") from None
        assert found == code, f"it ended with {found}; its log: {self.said}"
        return time.monotonic() - began


class Desk:
    """A folder with the settings of programs, a registry in files, and a spool."""

    def __init__(self, folder: Path, broker: str, **settings: object) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        (folder / "schemas").mkdir(parents=True)
        self._settings: dict[str, object] = {
            "broker": broker,
            "schema_registry.url": str(folder / "schemas"),
            "schema_registry.auto_register": True,
            "spool.dir": str(self.spool),
            **{name.replace("__", "."): value for name, value in settings.items()},
        }

    def settings_file(self, **changes: object) -> Path:
        """A file with the settings of the desk and these changes (`spool__write_ahead="fsync"`)."""
        tree: dict[str, Any] = {}
        for name, value in (
            self._settings | {name.replace("__", "."): value for name, value in changes.items()}
        ).items():
            *sections, last = name.split(".")
            inside = tree
            for section in sections:
                inside = inside.setdefault(section, {})
            inside[last] = value
        path = self.folder / f"kafka-{os.urandom(4).hex()}.yaml"
        path.write_text(json.dumps(tree))
        return path

    def start(self, program: str, *, first: str = "", **changes: object) -> Process:
        """Start a program. `first` is what it does before anything of postroom is imported."""
        path = self.folder / f"program_{os.urandom(4).hex()}.py"
        path.write_text(textwrap.dedent(first) + PREAMBLE + textwrap.dedent(program))
        return Process(
            [sys.executable, str(path)],
            folder=self.folder,
            environment={"POSTROOM_CONFIG": str(self.settings_file(**changes)), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def run(self, program: str, *, code: int = 0, within_s: float = PATIENCE_S, **more: Any) -> list[dict[str, Any]]:
        """Run a program to its end; return what it said."""
        with self.start(program, **more) as process:
            process.ends(within_s=within_s, code=code)
            return process.rest()

    def waiting(self) -> Counter[str]:
        """How many events of each giver wait in the spool, whichever slot holds them; none twice."""
        ids = [one.event_id for one in read_spool(self.spool).waiting]
        assert len(set(ids)) == len(ids), "an event lies in the spool twice"
        return Counter(event_id.rpartition("-")[0] for event_id in ids)

    def slots(self) -> dict[str, Counter[str]]:
        """How many events of each giver wait in each slot."""
        found: dict[str, Counter[str]] = {}
        for one in read_spool(self.spool).waiting:
            found.setdefault(one.slot, Counter())[one.event_id.rpartition("-")[0]] += 1
        return found

    def owner(self, slot: str) -> int:
        """The number of the process that took the slot last."""
        lock = self.spool / slot / "LOCK"
        until(lambda: len(lock.read_text().split()) > 1, "the new owner has written its number")
        return int(lock.read_text().split()[1].rstrip(","))


class Kafka:
    """A real Kafka that clients do not reach before `comes()`, and a desk whose programs have a spool."""

    def __init__(self, folder: Path, stack: LocalStack, topic: str, relay: TcpProxy) -> None:
        self._stack = stack
        self._topic = topic
        self._relay = relay
        relay.cut()
        self.desk = Desk(folder, f"127.0.0.1:{relay.port}", topics__user_events=topic)

    def comes(self) -> None:
        """From now on programs that ask for it find it."""
        self._relay.heal()

    def ids(self) -> list[str]:
        """The ids of the events in the topic; none of them twice."""
        found = [entry.event_id for entry in read_log(self._stack.bootstrap, self._topic)]
        assert len(set(found)) == len(found)
        return found

    def found(self) -> Counter[str]:
        """How many events of each giver stand in the topic; none of them twice."""
        return Counter(event_id.rpartition("-")[0] for event_id in self.ids())

    def drain(self) -> None:
        """Let a fresh process send all that waits."""
        self.comes()
        self.desk.run("""
            with ProducerService(config) as service:
                until(lambda: service.parts.spooling.spool.is_empty)
        """)


def until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S, each_s: float = 0.01) -> float:
    """Wait until the condition holds, looking every `each_s` seconds; return the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(each_s)
    return time.monotonic() - began


def living_of(group: int) -> list[str]:
    """The processes of a group that live: number, state, command. One that has ended, unasked, does not live."""
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,pid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 1) for line in listed.stdout.splitlines())
    return [row for of_group, row in rows if int(of_group) == group and row.split()[1][0] not in "ZX"]


def files_of(pid: int) -> set[str]:
    """The paths of the files that a process has open."""
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(str(descriptor.readlink()))
    return found
