"""How a process ends: whatever Kafka does, what was handed in is on the disk or told, and the end comes in time."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

import pytest

from postroom import AsyncProducerService, ProducerService, load_config
from postroom.libs.event import Delivered, Failed, FailedReason, Refused, RefusedReason, Spooled
from postroom.libs.exceptions import LifecycleError
from tests.chaos.spool_files import read_spool
from tests.kafka.plain_log import read_log
from tests.kafka.programs import Desk, Process, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from postroom.libs.event import Outcome
    from postroom.services.receipt import Receipt
    from postroom.testing.local_stack import LocalStack

MODES = ["off", "fsync"]
EVENTS = 500
AWAY_S = 12.0
"""Closing may take so long where no connection is up: two seconds to know it, and the rest for a busy machine."""

# Hands events in until SIGTERM, as a worker does that closes in the usual way.
WORKER = """
leave_on_sigterm()
with ProducerService(config) as service:
    first = publish(service, "before", 200)
    if IS_THERE:
        until(lambda: kinds(first) == {"Delivered": 200})
    say(ready=1)
    hear()
    second = publish(service, "after", EVENTS)
    atexit.register(lambda: say(told=kinds(second), books=books(service)))
    say(handed=len(first + second))
    threading.Event().wait()
""".replace("EVENTS", str(EVENTS))
WITHOUT_KAFKA, WITH_KAFKA = WORKER.replace("IS_THERE", "False"), WORKER.replace("IS_THERE", "True")


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that refuses connections, for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def desk(tmp_path: Path, nowhere: str) -> Desk:
    """A desk whose Kafka is never there."""
    return Desk(tmp_path, nowhere)


@pytest.fixture
def real_stack(postroom_stack: LocalStack) -> Iterator[LocalStack]:
    """A real Kafka that the test may kill and freeze."""
    yield postroom_stack
    postroom_stack.restore()


def drained(desk: Desk, stack: LocalStack, topic: str) -> Counter[str]:
    """Let a fresh process drain the spool; return how many events of each giver stand in the topic, none twice."""
    desk.run(
        """
        with ProducerService(config) as service:
            until(lambda: service.parts.spooling.spool.is_empty)
        """,
        broker=stack.bootstrap,
        topics__user_events=topic,
    )
    assert desk.waiting() == {}
    log = Counter(entry.event_id for entry in read_log(stack.bootstrap, topic))
    return Counter(event_id.rpartition("-")[0] for event_id in log)


class TestSigtermWithKafkaAway:
    @pytest.mark.parametrize("write_ahead", MODES)
    @pytest.mark.parametrize("grace_s", [20, 5])
    def test_a_process_that_never_saw_kafka_ends_in_time_with_all_on_the_disk(
        self, desk: Desk, write_ahead: str, grace_s: float
    ) -> None:
        with desk.start(WITHOUT_KAFKA, spool__write_ahead=write_ahead, delivery__close_timeout_s=grace_s) as worker:
            assert worker.says() == {"ready": 1}
            worker.hears()
            assert worker.says() == {"handed": 200 + EVENTS}
            worker.signal(signal.SIGTERM)
            assert worker.ends(within_s=AWAY_S) < grace_s
            told = worker.says()
        assert told["told"] == {"Spooled": EVENTS}
        assert told["books"] == dict.fromkeys(("received", "accepted", "spooled"), 200 + EVENTS)
        assert desk.waiting() == {"before": 200, "after": EVENTS}

    def test_when_kafka_dies_under_it_all_is_on_the_disk_in_seconds(
        self, tmp_path: Path, real_stack: LocalStack, postroom_topic: str
    ) -> None:
        with Fleet(tmp_path, real_stack, postroom_topic) as fleet:
            fleet.wait_until_ready()
            real_stack.broker(1).kill()
            fleet.hand_in()
            taken = fleet.stop()
            real_stack.restore()
            fleet.check(real_stack, postroom_topic)
        assert all(seconds < min(grace_s, AWAY_S) for grace_s, seconds in taken), taken

    def test_when_kafka_freezes_under_it_all_is_on_the_disk_when_the_grace_time_is_over(
        self, tmp_path: Path, real_stack: LocalStack, postroom_topic: str
    ) -> None:
        """Connections stay up and nothing is answered: nobody can know what Kafka has, so closing takes its time."""
        with Fleet(tmp_path, real_stack, postroom_topic) as fleet:
            fleet.wait_until_ready()
            real_stack.broker(1).pause()
            fleet.hand_in()
            taken = fleet.stop()
            real_stack.restore()
            fleet.check(real_stack, postroom_topic)
        assert all(grace_s / 2 < seconds < grace_s + 1 for grace_s, seconds in taken), taken

    def test_a_full_queue_in_front_of_a_frozen_kafka_is_on_the_disk_within_the_grace_time(
        self, tmp_path: Path, real_stack: LocalStack, postroom_topic: str
    ) -> None:
        """What is handed over takes its time, too: the more is on its way, the sooner that begins.

        A grace time in which a busy machine gets there, too: what it takes is some two seconds of the processor.
        """
        program = """
            leave_on_sigterm()
            with ProducerService(config) as service:
                publish(service, "first", 1)[0].raise_for_outcome(30)
                say(ready=1)
                hear()
                receipts = publish(service, "one", 99_000)
                atexit.register(lambda: say(told=kinds(receipts)))
                say(handed=1)
                threading.Event().wait()
        """
        desk = Desk(tmp_path, real_stack.bootstrap, topics__user_events=postroom_topic, delivery__close_timeout_s=10)
        with desk.start(program) as process:
            process.says()
            real_stack.broker(1).pause()
            process.hears()
            process.says()
            process.signal(signal.SIGTERM)
            seconds = process.ends()
            assert process.says() == {"told": {"Spooled": 99_000}}
        assert seconds < 14, seconds
        assert desk.waiting() == {"one": 99_000}


class Fleet:
    """A worker for each way to be safe and each grace time, all at once and on one spool."""

    def __init__(self, folder: Path, stack: LocalStack, topic: str) -> None:
        self._all = ExitStack()
        self.desk = Desk(folder, stack.bootstrap, topics__user_events=topic)
        self.workers: list[tuple[float, Process]] = []
        for number, (write_ahead, grace_s) in enumerate(itertools.product(MODES, (20.0, 5.0))):
            program = WITH_KAFKA.replace('"before"', f'"before{number}"').replace('"after"', f'"after{number}"')
            worker = self.desk.start(program, spool__write_ahead=write_ahead, delivery__close_timeout_s=grace_s)
            self.workers.append((grace_s, self._all.enter_context(worker)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._all.__exit__(*error)  # type: ignore[arg-type]  # what a with statement gives

    def wait_until_ready(self) -> None:
        for _, worker in self.workers:
            assert worker.says() == {"ready": 1}

    def hand_in(self) -> None:
        for _, worker in self.workers:
            worker.hears()
        for _, worker in self.workers:
            assert worker.says() == {"handed": 200 + EVENTS}

    def stop(self) -> list[tuple[float, float]]:
        """Send SIGTERM to all, and wait for the ends; return the grace time of each, and how long it took."""
        began = time.monotonic()
        for _, worker in self.workers:
            worker.signal(signal.SIGTERM)
        in_order = sorted(self.workers, key=lambda pair: pair[0])
        taken = []
        for grace_s, worker in in_order:
            worker.ends()
            taken.append((grace_s, time.monotonic() - began))
        return taken

    def check(self, stack: LocalStack, topic: str) -> None:
        """What was handed in after the trouble began is on the disk, and a fresh process sends all of it."""
        numbers = range(len(self.workers))
        for _, worker in self.workers:
            told = worker.says()
            assert told["told"] == {"Spooled": EVENTS}
            in_all = 200 + EVENTS
            assert told["books"] == {"received": in_all, "accepted": in_all, "delivered": 200, "spooled": EVENTS}
        assert self.desk.waiting() == {f"after{number}": EVENTS for number in numbers}
        assert len(self.desk.slots()) == len(self.workers)
        found = drained(self.desk, stack, topic)
        assert found == {
            f"{word}{number}": count for number in numbers for word, count in (("before", 200), ("after", EVENTS))
        }


def wait_for_events_in(spool: Path) -> None:
    until(lambda: read_spool(spool).waiting, "events are on the disk")


ENDINGS = {
    "comes to its end": ("", 0),
    "dies of an exception": ("raise RuntimeError('the end')", 1),
    "exits with a code": ("sys.exit(3)", 3),
    "exits in another thread": ("thread = threading.Thread(target=sys.exit); thread.start(); thread.join()", 0),
    "has shut logging down and closed its streams": (
        "import logging; logging.basicConfig(); logging.shutdown(); sys.stdout.close(); sys.stderr.close()",
        0,
    ),
    "ends with threads that go on": (
        "threading.Thread(target=lambda: publish(service, 'late', 10**9), daemon=True).start(); time.sleep(0.2)",
        0,
    ),
    "hands in its last words at the end": ("atexit.register(lambda: publish(service, 'last', 10))", 0),
    "hands in from a thread of its own": ("threading.Thread(target=lambda: publish(service, 'last', 10)).start()", 0),
}


class TestAnEndWithoutClose:
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_a_program_leaves_all_on_the_disk_within_seconds_when_it(
        self, tmp_path: Path, nowhere: str, ending: str
    ) -> None:
        """Kafka is not there, nobody closes, and both ways to be safe are tried."""
        how, code = ENDINGS[ending]
        desks = {mode: Desk(tmp_path / mode, nowhere, spool__write_ahead=mode) for mode in MODES}
        with ExitStack() as running:
            programs = [
                running.enter_context(
                    desk.start("service = ProducerService(config)\npublish(service, 'one', 300)\n" + how)
                )
                for desk in desks.values()
            ]
            for program in programs:
                program.ends(within_s=AWAY_S, code=code)
        for desk in desks.values():
            found = desk.waiting()
            assert found["one"] == 300
            assert found["last"] == (10 if "last" in how else 0)

    def test_without_a_spool_each_event_is_told_that_it_failed(self, tmp_path: Path, nowhere: str) -> None:
        desk = Desk(tmp_path, nowhere, spool__dir=None, delivery__close_timeout_s=2)
        program = """
            service = ProducerService(config)
            for receipt in publish(service, "one", 3):
                receipt.add_done_callback(lambda receipt: say(told=str(receipt.outcome.reason), id=receipt.event_id))
        """
        with desk.start(program) as process:
            process.ends(within_s=AWAY_S)
            assert process.rest() == [{"told": "kafka_unavailable", "id": f"one-{number}"} for number in range(3)]
            assert [line["count"] for line in process.logged("closed_too_early")] == [3]

    def test_what_was_told_safe_outlives_a_sigterm_that_nobody_handles(self, desk: Desk) -> None:
        """Without a handler the signal ends a Python program as kill -9 does."""
        program = """
            service = ProducerService(config)
            assert all(receipt.safe for receipt in publish(service, "one", 300))
            say(ready=1)
            hear()
        """
        with desk.start(program, spool__write_ahead="fsync") as process:
            process.says()
            process.signal(signal.SIGTERM)
            process.ends(code=-signal.SIGTERM)
        assert desk.waiting() == {"one": 300}


class TestCtrlCTwice:
    def test_the_second_one_ends_the_waiting_and_all_is_on_the_disk(
        self, tmp_path: Path, real_stack: LocalStack, postroom_topic: str
    ) -> None:
        """Kafka is frozen: without the second Ctrl-C closing would go on for 18 s. It says so from its inside."""
        program = """
            service = ProducerService(config)
            publish(service, "first", 1)[0].raise_for_outcome(30)
            say(ready=1)
            hear()
            receipts = publish(service, "one", 300)
            atexit.register(lambda: say(told=kinds(receipts)))
            publisher = service.parts.publisher
            flush = publisher.flush
            def say_and_flush(seconds):
                publisher.flush = flush
                say(closing=1)
                return flush(seconds)
            publisher.flush = say_and_flush
            try:
                say(handed=1)
                threading.Event().wait()
            finally:
                service.close()
        """
        with ExitStack() as running:
            desks = [
                Desk(tmp_path / mode, real_stack.bootstrap, topics__user_events=postroom_topic, spool__write_ahead=mode)
                for mode in MODES
            ]
            programs = [running.enter_context(desk.start(program)) for desk in desks]
            for process in programs:
                assert process.says() == {"ready": 1}
            real_stack.broker(1).pause()
            for process, desk in zip(programs, desks, strict=True):
                process.hears()
                assert process.says() == {"handed": 1}
                process.signal(signal.SIGINT)
                assert process.says() == {"closing": 1}
                process.signal(signal.SIGINT)
                assert process.ends(within_s=AWAY_S, code=-signal.SIGINT) < 5
                assert process.says() == {"told": {"Spooled": 300}}
                assert desk.waiting() == {"one": 300}


class TestTheRunCommand:
    """`postroom run --spool` is such a process, too."""

    @pytest.fixture
    def start(self, tmp_path: Path, postroom_topic: str) -> Callable[..., Process]:
        settings = Desk(tmp_path, "127.0.0.1:1", topics__user_events=postroom_topic).settings_file(spool__dir=None)

        def run(broker: str, spool: Path, *words: str) -> Process:
            command = [sys.executable, "-m", "postroom", "run", "--config", str(settings), "--json"]
            return Process([*command, "--broker", broker, "--spool", str(spool), *words], folder=tmp_path)

        return run

    @staticmethod
    def summary(process: Process) -> dict[str, Any]:
        found: dict[str, Any] = json.loads("".join(process.lines()))
        assert found["unaccounted"] == found["pending"] == found["in_flight"] == found["failed"] == 0
        assert found["received"] == found["accepted"]
        return found

    def test_sigterm_with_kafka_dead_leaves_all_on_the_disk_and_the_next_run_sends_it(
        self, start: Callable[..., Process], tmp_path: Path, real_stack: LocalStack, postroom_topic: str
    ) -> None:
        with ExitStack() as running:
            spools = {mode: tmp_path / f"spool-{mode}" for mode in MODES}
            runs = [
                running.enter_context(start(real_stack.bootstrap, spool, "--write-ahead", mode, "--rate", "500"))
                for mode, spool in spools.items()
            ]
            for process in runs:
                process.wait_for_words(r"delivered [1-9]")
            real_stack.broker(1).kill()
            for process in runs:
                process.wait_for_words("broker_unavailable")
                process.signal(signal.SIGTERM)
            received = 0
            for process, spool in zip(runs, spools.values(), strict=True):
                process.ends(within_s=AWAY_S, code=4)
                summary = self.summary(process)
                assert len(read_spool(spool).waiting) == summary["spooled"] > 0
                received += summary["received"]
            real_stack.restore()
        for spool in spools.values():
            with start(real_stack.bootstrap, spool, "--count", "0") as process:
                process.ends()
            assert not read_spool(spool).waiting
        log = read_log(real_stack.bootstrap, postroom_topic)
        assert len({entry.event_id for entry in log}) == received
        assert max(Counter(entry.event_id for entry in log if not entry.repeat).values()) == 1

    def test_it_starts_without_kafka_and_ends_without_it(
        self, start: Callable[..., Process], tmp_path: Path, nowhere: str
    ) -> None:
        with ExitStack() as running:
            spools = {mode: tmp_path / f"spool-{mode}" for mode in MODES}
            runs = [
                running.enter_context(start(nowhere, spool, "--write-ahead", mode, "--rate", "500"))
                for mode, spool in spools.items()
            ]
            for process, spool in zip(runs, spools.values(), strict=True):
                wait_for_events_in(spool)
                process.signal(signal.SIGTERM)
            for process, spool in zip(runs, spools.values(), strict=True):
                process.ends(within_s=AWAY_S, code=4)
                summary = self.summary(process)
                assert len(read_spool(spool).waiting) == summary["spooled"] == summary["received"] > 0

    def test_ctrl_c_twice_ends_it_at_once_with_all_on_the_disk(
        self, start: Callable[..., Process], tmp_path: Path, real_stack: LocalStack
    ) -> None:
        """Kafka is frozen: after one Ctrl-C it goes on waiting for the answers."""
        with ExitStack() as running:
            spools = {mode: tmp_path / f"spool-{mode}" for mode in MODES}
            runs = [
                running.enter_context(start(real_stack.bootstrap, spool, "--write-ahead", mode, "--rate", "500"))
                for mode, spool in spools.items()
            ]
            for process in runs:
                process.wait_for_words(r"delivered [1-9]")
            real_stack.broker(1).pause()
            for process, spool in zip(runs, spools.values(), strict=True):
                process.wait_for_lines(3)
                process.signal(signal.SIGINT)
                process.wait_for_lines(1)
                process.signal(signal.SIGINT)
                assert process.ends(within_s=AWAY_S, code=130) < 5
                summary = self.summary(process)
                assert len(read_spool(spool).waiting) == summary["spooled"] > 0

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_while_it_waits_for_room_in_a_full_queue(
        self, tmp_path: Path, real_stack: LocalStack, postroom_topic: str, number: signal.Signals
    ) -> None:
        """Kafka is frozen: room would come after 15 s, when the client gives up. Ctrl-C is given twice."""
        desk = Desk(tmp_path, real_stack.bootstrap, topics__user_events=postroom_topic)
        path = desk.settings_file(producer__queue_max_messages=5_000, delivery__close_timeout_s=2)
        command = [sys.executable, "-m", "postroom", "run", "--config", str(path), "--json"]
        with Process(command, folder=tmp_path) as process:
            process.wait_for_words(r"delivered [1-9]")
            real_stack.broker(1).pause()
            process.wait_for_lines(3)
            process.signal(number)
            if number is signal.SIGINT:
                time.sleep(0.3)
                process.signal(number)
            assert process.ends(code=130 if number is signal.SIGINT else 4) < 6
            summary = self.summary(process)
        assert sum(desk.waiting().values()) == summary["spooled"] > 0


@pytest.fixture
def new_service(tmp_path: Path, nowhere: str) -> Iterator[Callable[..., ProducerService]]:
    """Makes services of this process with a spool; by default Kafka is never there. They are closed with the test."""
    made: list[ProducerService] = []

    def make(**changes: object) -> ProducerService:
        desk = Desk(tmp_path / f"desk{len(made)}", nowhere)
        service = ProducerService(load_config(desk.settings_file(**changes), environ={}))
        made.append(service)
        return service

    yield make
    for service in made:
        service.close(0.0)


def publish(service: ProducerService, who: str, count: int) -> list[Receipt]:
    return [
        service.publish_event({"user_id": f"user-{n % 100}", "timestamp": n}, event_id=f"{who}-{n}")
        for n in range(count)
    ]


def kinds(receipts: Iterable[Receipt]) -> Counter[str]:
    """How many receipts have which outcome; `None` for one that has none."""
    return Counter(type(receipt.outcome).__name__ for receipt in receipts)


def stored(service: ProducerService) -> set[str]:
    """The ids of the events in the service's spool, each of them there once."""
    directory = service.parts.config.spool.dir
    assert directory is not None
    ids = [one.event_id for one in read_spool(directory).waiting]
    assert len(set(ids)) == len(ids)
    return set(ids)


@pytest.mark.parametrize("write_ahead", MODES)
class TestCallbacksWhileItCloses:
    def test_whatever_they_do_all_of_them_are_called_and_the_events_are_on_the_disk(
        self, new_service: Callable[..., ProducerService], write_ahead: str
    ) -> None:
        """One raises, one wants to end the program, one hands in again, one closes."""
        service = new_service(spool__write_ahead=write_ahead)
        called: Counter[str] = Counter()

        def raises(_: Receipt) -> None:
            called["raises"] += 1
            raise ValueError

        def leaves(_: Receipt) -> None:
            called["leaves"] += 1
            sys.exit(3)

        def hands_in_again(_: Receipt) -> None:
            called["hands in again"] += 1
            try:
                service.publish_event({"user_id": "again", "timestamp": 1})
            except LifecycleError:
                called["is told that it is closed"] += 1

        def closes(_: Receipt) -> None:
            service.close()
            called["closes"] += 1

        receipts = publish(service, "one", 30)
        for receipt in receipts:
            for callback in (raises, leaves, hands_in_again, closes):
                receipt.add_done_callback(callback)
        service.close()
        words = ("raises", "leaves", "hands in again", "is told that it is closed", "closes")
        assert called == dict.fromkeys(words, 30)
        assert kinds(receipts) == {"Spooled": 30}
        assert stored(service) == {f"one-{number}" for number in range(30)}
        assert service.ledger.total().unaccounted == 0

    def test_one_may_close_the_service_that_nobody_else_closes(
        self, new_service: Callable[..., ProducerService], write_ahead: str
    ) -> None:
        service = new_service(spool__write_ahead=write_ahead)
        closed = threading.Event()

        def close(_: Receipt) -> None:
            service.close()
            closed.set()

        first, *rest = publish(service, "one", 300)
        first.add_done_callback(close)
        assert closed.wait(AWAY_S)
        assert kinds([first, *rest]) == {"Spooled": 300}
        assert len(stored(service)) == 300


@pytest.mark.parametrize("write_ahead", MODES)
class TestClosing:
    def test_many_closes_at_once_all_return_when_all_is_on_the_disk(
        self, new_service: Callable[..., ProducerService], write_ahead: str
    ) -> None:
        """They begin at moments between the first one's waiting, its hand-over and its end."""
        service = new_service(spool__write_ahead=write_ahead)
        receipts = publish(service, "one", 2_000)
        left_open: list[int] = []
        start = threading.Barrier(9)

        def close(number: int) -> None:
            start.wait(AWAY_S)
            if number == 1:
                until(lambda: not service.running, "the first one's closing")
            elif number:
                until(receipts[(number - 2) * 300].done, "the hand-over of this one")
            service.close()
            left_open.append(sum(not receipt.done() for receipt in receipts))

        threads = [threading.Thread(target=close, args=(number,)) for number in range(9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(AWAY_S)
        assert left_open == [0] * 9
        assert kinds(receipts) == {"Spooled": 2_000}
        assert len(stored(service)) == 2_000

    def test_nothing_is_taken_any_more_and_who_tries_is_told(
        self, new_service: Callable[..., ProducerService], write_ahead: str
    ) -> None:
        service = new_service(spool__write_ahead=write_ahead)
        publish(service, "one", 10)
        service.close()
        books = service.ledger.total()
        with pytest.raises(LifecycleError, match="closed"):
            publish(service, "late", 1)
        with pytest.raises(LifecycleError, match="closed"):
            service.publish_many([{"user_id": "late", "timestamp": 1}])
        with pytest.raises(LifecycleError, match="closed"):
            asyncio.run(AsyncProducerService(service).publish_event({"user_id": "late", "timestamp": 1}))
        assert service.ledger.total() == books
        assert len(stored(service)) == 10

    @pytest.mark.parametrize("is_there", [False, True])
    def test_while_threads_publish_each_event_has_one_outcome_and_none_hangs(
        self,
        new_service: Callable[..., ProducerService],
        postroom_stack: LocalStack,
        postroom_topic: str,
        write_ahead: str,
        is_there: bool,
    ) -> None:
        """The queue is small: some of the threads wait for room when the service closes."""
        changes = {"broker": postroom_stack.bootstrap, "topics__user_events": postroom_topic} if is_there else {}
        service = new_service(spool__write_ahead=write_ahead, producer__queue_max_messages=2_000, **changes)
        publish(service, "first", 1)
        told: Counter[str] = Counter()
        refused: list[int] = []
        handed: dict[int, list[Receipt]] = {number: [] for number in range(12)}

        def hand_in(number: int) -> None:
            for n in itertools.count():
                event: dict[str, object] = {"user_id": f"user-{number}", "timestamp": n}
                try:
                    receipt = service.publish_event(event, event_id=f"{number}-{n}")
                except LifecycleError:
                    refused.append(number)
                    return
                receipt.add_done_callback(lambda receipt: told.update([receipt.event_id]))
                handed[number].append(receipt)

        threads = [threading.Thread(target=hand_in, args=(number,)) for number in handed]
        for thread in threads:
            thread.start()
        until(lambda: sum(map(len, handed.values())) >= 1_500, "enough events")
        service.close()
        for thread in threads:
            thread.join(AWAY_S)
        assert sorted(refused) == sorted(handed)
        receipts = list(itertools.chain(*handed.values()))
        until(lambda: len(told) == len(receipts), "every callback")
        assert set(told.values()) == {1}
        found = kinds(receipts)
        assert set(found) <= {"Delivered", "Spooled", "Failed", "Refused"}
        for receipt in receipts:
            match receipt.outcome:
                case Failed(reason=reason, may_be_in_kafka=maybe):
                    assert (reason, maybe) == (FailedReason.CLOSED, False)
                case Refused(reason=why):
                    assert why is RefusedReason.QUEUE_FULL
        spooled = {receipt.event_id for receipt in receipts if isinstance(receipt.outcome, Spooled)}
        assert stored(service) - {"first-0"} == spooled
        balance = service.ledger.total()
        assert (balance.unaccounted, balance.pending, balance.in_flight) == (0, 0, 0)
        assert balance.received == len(receipts) + 1
        if is_there:
            log = Counter(entry.event_id for entry in read_log(postroom_stack.bootstrap, postroom_topic))
            assert set(log.values()) == {1}
            delivered = {receipt.event_id for receipt in receipts if isinstance(receipt.outcome, Delivered)}
            assert set(log) - {"first-0"} == delivered
        else:
            assert found["Spooled"]

    def test_while_tasks_publish_each_event_has_one_outcome_and_none_hangs(
        self, new_service: Callable[..., ProducerService], write_ahead: str
    ) -> None:
        service = new_service(spool__write_ahead=write_ahead, producer__queue_max_messages=2_000)
        post = AsyncProducerService(service)
        outcomes: list[Outcome] = []

        begun: set[int] = set()
        all_have_begun = asyncio.Event()

        async def hand_in(number: int) -> None:
            with suppress(LifecycleError):
                for n in itertools.count():
                    event: dict[str, object] = {"user_id": f"user-{number}", "timestamp": n}
                    begun.add(number)
                    if len(begun) == 500:
                        all_have_begun.set()
                    outcomes.append(await post.publish_event(event, event_id=f"{number}-{n}"))

        async def live() -> None:
            tasks = [asyncio.create_task(hand_in(number)) for number in range(500)]
            await all_have_begun.wait()
            await post.close()
            await asyncio.wait_for(asyncio.gather(*tasks), AWAY_S)

        async def start_and_live() -> None:
            async with post:
                await live()

        asyncio.run(start_and_live())
        spooled = sum(isinstance(outcome, Spooled) for outcome in outcomes)
        assert len(stored(service)) == spooled > 0
        assert service.ledger.total().received == len(outcomes)
        assert service.ledger.total().unaccounted == 0
