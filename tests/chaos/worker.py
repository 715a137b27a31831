"""The program that is killed: hands in events without end, and writes down what it hands in and what it is told.

    python -m tests.chaos.worker --folder DIR --run 0 --broker HOST:PORT --registry URL --topic T --spool DIR

An application like any other: it uses the public interface of the product only. Each run begins its keys' numbers
above those of the runs before. SIGUSR1 lets it rest: it hands in nothing more and stays. SIGTERM ends it in good
order: no more events, the service closed, every answer waited for and written down; so does the end of the process
that started it. See `journals` and `progress` for what it leaves behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroom import DeadLettered, Delivered, Failed, ProducerService, Refused, Spooled
from tests.chaos import journals as words
from tests.chaos.journals import Handed, LineFile, Told, end_line, handed_line, handed_path, told_line, told_path
from tests.chaos.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom import Receipt

NUMBERS_OF_A_RUN = 1_000_000
_HOT_KEYS = 10  # of each thread: three tenths of the events go to them, so that keys have near neighbours
_HOT_SHARE = 0.3
_PAYLOAD = "x" * 120
_LAST_ANSWERS_S = 60.0
_REPORT_EVERY_S = 1.0
_KINDS: dict[Any, str] = {
    Delivered: words.DELIVERED,
    Spooled: words.SPOOLED,
    DeadLettered: words.DEAD_LETTERED,
    Refused: words.REFUSED,
    Failed: words.FAILED,
}


class Worker:
    """Some threads that hand in events in bursts, each with keys of its own, and the journals they fill."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.run = asked.run
        folder: Path = asked.folder
        self.handed = LineFile(handed_path(folder, self.run))
        self.told = LineFile(told_path(folder, self.run))
        self.progress = Progress(folder / f"progress-{self.run:04d}.bin", create=True)
        self.resting = threading.Event()
        self.ending = threading.Event()
        self.defect: BaseException | None = None
        self._counting = threading.Lock()

    def work(self) -> int:
        """Hand in events until the end is asked for; return the exit code."""
        signal.signal(signal.SIGUSR1, lambda *_: self.resting.set())
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        parent = os.getppid()
        with ProducerService.from_config(None, overrides=settings(self.asked)) as post:
            threads = [
                threading.Thread(target=self._hand_in, args=(post, number), name=f"hands-in-{number}")
                for number in range(self.asked.threads)
            ]
            for thread in threads:
                thread.start()
            self.progress.add("started")
            while not self.ending.wait(_REPORT_EVERY_S):
                self._report("resting" if self.resting.is_set() else "working")
                if os.getppid() != parent:  # nobody is left who could end it
                    self._end()
            self._report("ending")
            for thread in threads:
                thread.join()
        self._wait_for_answers()
        if self.defect is not None:
            raise self.defect
        self.handed.write(end_line(self.run))
        self._report("ended", books=repr(post.ledger.total()), unaccounted=post.ledger.total().unaccounted)
        return 0

    def _end(self) -> None:
        self.resting.set()
        self.ending.set()

    def _wait_for_answers(self) -> None:
        """The product runs callbacks on a thread of its own; what has not come by the deadline never comes."""
        deadline = time.monotonic() + _LAST_ANSWERS_S
        while self.progress.open and self.defect is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def _report(self, state: str, **more: object) -> None:
        line = {"state": state, "open": self.progress.open, **self.progress.values(), **more}
        print(json.dumps(line), flush=True)  # noqa: T201 - a program

    # -- handing in

    def _hand_in(self, post: ProducerService, thread: int) -> None:
        try:
            self._bursts(post, thread)
        except BaseException as exc:  # noqa: BLE001 - a journal that cannot be written ends the run, and says so
            self.defect = exc
            self._end()

    def _bursts(self, post: ProducerService, thread: int) -> None:
        asked = self.asked
        chance = random.Random(f"{asked.seed}-{self.run}-{thread}")
        keys = range(thread, asked.keys, asked.threads)
        numbers = dict.fromkeys(keys, self.run * NUMBERS_OF_A_RUN)
        burst = max(1, asked.burst // asked.threads)
        every_s = burst * asked.threads / asked.rate
        due, count = time.monotonic(), 0
        while not self.resting.is_set():
            for _ in range(burst):
                hot = chance.random() < _HOT_SHARE
                key = keys[chance.randrange(min(_HOT_KEYS, len(keys)) if hot else len(keys))]
                numbers[key] += 1
                count += 1
                is_bad = asked.bad_every > 0 and count % asked.bad_every == 0
                self._hand_in_one(
                    post, Handed(f"{self.run}.{thread}.{count}", f"key-{key}", numbers[key], self.run, is_bad)
                )
                if self.resting.is_set():
                    return
            # Who was held up does not make up for it: the rate is a ceiling, and bursts stay apart.
            due = max(due + every_s, time.monotonic() - every_s)
            self.resting.wait(max(0.0, due - time.monotonic()))

    def _hand_in_one(self, post: ProducerService, event: Handed) -> None:
        self.handed.write(handed_line(event))
        with self._counting:
            self.progress.add("handed")
        body: dict[str, object] = {"user_id": event.key, "timestamp": event.number, "session_id": _PAYLOAD}
        if event.is_bad:
            body["action"] = "no such action"
        try:
            receipt = post.publish_event(body, event_id=event.event_id, timeout=self.asked.timeout)
        except Exception as exc:  # noqa: BLE001 - it must not raise; if it does, that is an answer, and judged
            self._note(Told(event.event_id, words.RAISED, self.run, detail=f"{type(exc).__name__}: {exc}"))
            return
        if receipt.safe:
            self.told.write(told_line(Told(event.event_id, words.SAFE, self.run)))
            with self._counting:
                self.progress.add("safe")
        receipt.add_done_callback(self._answered)

    # -- being told

    def _answered(self, receipt: Receipt) -> None:
        try:
            self._note(answer_of(receipt, self.run))
        except BaseException as exc:  # noqa: BLE001 - see above
            self.defect = exc
            self._end()

    def _note(self, answer: Told) -> None:
        self.told.write(told_line(answer))
        with self._counting:
            self.progress.add(answer.kind)
            self.progress.add("answered")


def answer_of(receipt: Receipt, run: int) -> Told:
    """What a finished receipt says, as a line of the journal."""
    outcome: Any = receipt.result(0)
    more: dict[str, Any] = {}
    if isinstance(outcome, Failed):
        more = {"may_be_in_kafka": outcome.may_be_in_kafka}
    elif isinstance(outcome, Delivered | DeadLettered):
        more = {"topic": outcome.topic, "partition": outcome.partition, "offset": outcome.offset}
    if isinstance(outcome, Failed | Refused):
        more["detail"] = f"{outcome.reason.value} {outcome.detail}".strip()
    return Told(receipt.event_id, _KINDS[type(outcome)], run, **more)


def settings(asked: argparse.Namespace) -> dict[str, object]:
    """The product's settings, as the command line names them."""
    chosen: dict[str, object] = {
        "broker": asked.broker,
        "schema_registry.url": asked.registry,
        "schema_registry.auto_register": True,
        "topics.user_events": asked.topic,
    }
    if asked.spool is not None:
        chosen |= {"spool.dir": str(asked.spool), "spool.write_ahead": asked.write_ahead}
    for one in asked.set:
        name, _, value = one.partition("=")
        with contextlib.suppress(ValueError):
            value = json.loads(value)
        chosen[name] = value
    return chosen


def command_line() -> argparse.ArgumentParser:
    """What the program takes."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.worker", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the journals")
    parser.add_argument("--run", type=int, required=True, help="a number above those of all earlier runs")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--spool", type=Path, help="none: without a spool")
    parser.add_argument("--write-ahead", choices=["off", "fsync"], default="off")
    parser.add_argument("--rate", type=float, default=1_000, help="events a second, all threads together")
    parser.add_argument("--burst", type=int, default=250, help="events handed in one after the other without a pause")
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--bad-every", type=int, default=100, help="every so many-th event breaks its contract; 0: none"
    )
    parser.add_argument("--timeout", type=float, default=5.0, help="longest wait of one call, in seconds")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; return the exit code."""
    return Worker(command_line().parse_args(arguments)).work()


if __name__ == "__main__":
    sys.exit(main())
