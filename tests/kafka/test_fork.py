"""Processes that fork, and processes that just end: nothing is lost, nobody hangs. Each case is its own program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.kafka.plain_log import read_log
from tests.kafka.programs import Kafka, files_of, living_of, until
from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

BOUND_S = 60

PREAMBLE = """
import json, multiprocessing, os, signal, sys, threading, time
from postroom import ProducerService, get_service, load_config
from postroom.observability.metrics import METRICS

config = load_config(overrides=json.loads(sys.argv[1]), environ={})

def events(who, count):
    return [{"user_id": f"user-{n % 100}", "timestamp": n, "session_id": who} for n in range(count)]

def publish(service, who, count):
    return [service.publish_event(event, event_id=f"{who}-{n}") for n, event in enumerate(events(who, count))]

def tell(who, service):
    balance = service.ledger.total()
    numbers = METRICS.get_summary()
    told = {"who": who, "received": balance.received, "delivered": balance.delivered,
            "unaccounted": balance.unaccounted,
            "counted": numbers["received"]}
    os.write(1, (json.dumps(told) + "\\n").encode())

def wait_for(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


class Bench:
    """Runs programs against a topic, and reads what they left there."""

    def __init__(self, stack: LocalStack, topic: str) -> None:
        self.stack = stack
        self.topic = topic
        self.overrides = {
            "broker": stack.bootstrap,
            "topics.user_events": topic,
            "schema_registry.url": stack.registry_url,
            "schema_registry.auto_register": True,
        }

    def run(self, program: str, *, code: int = 0) -> list[dict[str, int]]:
        """Run a program to its end; return what its processes told about their books."""
        words = [sys.executable, "-c", PREAMBLE + textwrap.dedent(program), json.dumps(self.overrides)]
        ran = subprocess.run(words, capture_output=True, text=True, timeout=BOUND_S, check=False)
        assert ran.returncode == code, ran.stderr
        return [json.loads(line) for line in ran.stdout.splitlines()]

    def found(self) -> Counter[str]:
        """How many events of each process stand in the topic; none of them twice."""
        log = read_log(self.stack.bootstrap, self.topic)
        assert max(Counter(entry.event_id for entry in log).values(), default=1) == 1
        return Counter(entry.event_id.rpartition("-")[0] for entry in log)


@pytest.fixture
def bench(postroom_stack: LocalStack, postroom_topic: str) -> Bench:
    return Bench(postroom_stack, postroom_topic)


def books(who: str, count: int) -> dict[str, object]:
    return {"who": who, "received": count, "delivered": count, "unaccounted": 0, "counted": count}


class TestFork:
    def test_parent_and_child_both_publish_when_the_fork_comes_before_the_first_event(self, bench: Bench) -> None:
        told = bench.run("""
            service = ProducerService(config)
            child = os.fork()
            who = "parent" if child else "child"
            publish(service, who, 500)
            service.close()
            tell(who, service)
            if child:
                wait_for(child)
            sys.exit(0)
        """)
        assert sorted(told, key=lambda one: str(one["who"])) == [books("child", 500), books("parent", 500)]
        assert bench.found() == {"parent": 500, "child": 500}

    def test_parent_and_child_both_publish_when_the_fork_comes_in_the_middle(self, bench: Bench) -> None:
        """Several threads are at work in the parent, records are on their way, and neither process closes anything."""
        told = bench.run("""
            service = ProducerService(config)
            first = publish(service, "parent", 500)
            threads = [threading.Thread(target=publish, args=(service, f"thread{n}", 2000)) for n in range(4)]
            for thread in threads: thread.start()
            while service.ledger.total().received < 1500: time.sleep(0.001)
            child = os.fork()
            if not child:
                assert service.ledger.total().received == 0
                assert all(receipt.done() for receipt in first)
                mine = publish(service, "child", 500)
                assert all(receipt.raise_for_outcome(30) for receipt in mine)
                tell("child", service)
                sys.exit(0)
            for thread in threads: thread.join()
            publish(service, "late", 500)
            wait_for(child)
            service.close()
            tell("parent", service)
        """)
        assert told == [books("child", 500), books("parent", 9_000)]
        expected = {"parent": 500, "child": 500, "late": 500, **{f"thread{n}": 2_000 for n in range(4)}}
        assert bench.found() == expected

    def test_children_of_children_publish_too(self, bench: Bench) -> None:
        bench.run("""
            service = get_service = ProducerService(config)
            for who in ("one", "two", "three"):
                publish(service, who, 200)
                child = os.fork()
                if child:
                    wait_for(child)
                    sys.exit(0)
            publish(service, "four", 200)
        """)
        assert bench.found() == dict.fromkeys(("one", "two", "three", "four"), 200)

    def test_a_service_that_was_closed_stays_closed_in_the_child(self, bench: Bench) -> None:
        bench.run("""
            from postroom.libs.exceptions import LifecycleError
            with ProducerService(config) as service:
                publish(service, "parent", 10)
            child = os.fork()
            if child:
                wait_for(child)
            else:
                try:
                    publish(service, "child", 1)
                except LifecycleError:
                    sys.exit(0)
                sys.exit(1)
        """)
        assert bench.found() == {"parent": 10}

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_workers_of_multiprocessing_that_just_return_lose_nothing(self, bench: Bench, method: str) -> None:
        """`multiprocessing` ends its forked workers without the interpreter's own way of ending."""
        program = f"""
            def work(who):
                service = ProducerService(config) if "{method}" != "fork" else shared
                publish(service, who, 300)

            shared = ProducerService(config)
            if __name__ == "__main__":
                publish(shared, "parent", 300)
                context = multiprocessing.get_context("{method}")
                workers = [context.Process(target=work, args=(f"worker{{n}}",)) for n in range(2)]
                for worker in workers: worker.start()
                for worker in workers: worker.join()
                assert [worker.exitcode for worker in workers] == [0, 0]
        """
        if method == "fork":
            bench.run(program)
        else:
            self._run_as_file(bench, program)
        assert bench.found() == {"parent": 300, "worker0": 300, "worker1": 300}

    def _run_as_file(self, bench: Bench, program: str) -> None:
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program.py"
            path.write_text(PREAMBLE + textwrap.dedent(program))
            words = [sys.executable, str(path), json.dumps(bench.overrides)]
            ran = subprocess.run(words, capture_output=True, text=True, timeout=BOUND_S, check=False)
        assert ran.returncode == 0, ran.stderr

    def test_a_pool_of_processes_made_after_the_first_event_works(self, bench: Bench) -> None:
        bench.run("""
            from concurrent.futures import ProcessPoolExecutor
            service = ProducerService(config)
            publish(service, "parent", 100)

            def work(n):
                receipts = publish(service, f"task{n}", 50)
                return all(receipt.raise_for_outcome(30) for receipt in receipts)

            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
                assert all(pool.map(work, range(6)))
        """)
        assert bench.found() == {"parent": 100, **{f"task{n}": 50 for n in range(6)}}


class TestTheEnd:
    def test_a_program_that_just_ends_delivers_everything(self, bench: Bench) -> None:
        bench.run("""
            publish(ProducerService(config), "one", 1000)
        """)
        assert bench.found() == {"one": 1_000}

    def test_so_do_two_services_in_one_process(self, bench: Bench) -> None:
        bench.run("""
            first, second = ProducerService(config), ProducerService(config)
            publish(first, "one", 500)
            publish(second, "two", 500)
            publish(first, "three", 500)
        """)
        assert bench.found() == {"one": 500, "two": 500, "three": 500}

    def test_so_does_one_that_exits_with_a_code(self, bench: Bench) -> None:
        bench.run(
            """
            publish(ProducerService(config), "one", 500)
            sys.exit(3)
            """,
            code=3,
        )
        assert bench.found() == {"one": 500}

    def test_so_does_one_that_dies_of_an_exception(self, bench: Bench) -> None:
        bench.run(
            """
            publish(ProducerService(config), "one", 500)
            raise RuntimeError("the end")
            """,
            code=1,
        )
        assert bench.found() == {"one": 500}

    def test_so_does_one_whose_last_events_come_from_another_thread(self, bench: Bench) -> None:
        bench.run("""
            threading.Thread(target=lambda: publish(ProducerService(config), "one", 500)).start()
        """)
        assert bench.found() == {"one": 500}

    def test_callbacks_of_the_last_events_are_called(self, bench: Bench) -> None:
        told = bench.run("""
            for receipt in publish(ProducerService(config), "one", 5):
                receipt.add_done_callback(lambda receipt: os.write(1, b'{"called": 1}\\n'))
        """)
        assert told == [{"called": 1}] * 5

    def test_ctrl_c_in_the_middle_loses_no_event_that_was_handed_in(self, bench: Bench) -> None:
        """Ten programs are interrupted at different moments; the books of each are right."""
        for number in range(10):
            told = bench.run(f"""
                service = ProducerService(config)
                publish(service, "warm{number}-", 1)[0].result(30)
                main = threading.main_thread().ident
                threading.Timer(0.05 + 0.007 * {number}, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
                receipts = []
                try:
                    for n in range(10_000_000):
                        event = {{"user_id": f"user-{{n % 100}}", "timestamp": n}}
                        receipts.append(service.publish_event(event, event_id=f"run{number}-{{n}}"))
                except KeyboardInterrupt:
                    pass
                service.close()
                assert all(receipt.raise_for_outcome(0) for receipt in receipts)
                balance = service.ledger.total()
                told = dict(balance=balance.unaccounted + balance.pending, surplus=balance.received - len(receipts) - 1)
                os.write(1, (json.dumps(told) + "\\n").encode())
            """)
            assert told[0]["balance"] == 0
            assert told[0]["surplus"] in (0, 1)


@pytest.fixture
def kafka(tmp_path: Path, postroom_stack: LocalStack, postroom_topic: str) -> Iterator[Kafka]:
    with TcpProxy(0, postroom_stack.broker(1).port) as relay:
        yield Kafka(tmp_path, postroom_stack, postroom_topic, relay)


@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
class TestForkWithASpool:
    def test_each_process_has_its_own_slot_and_its_own_books_and_sends_its_own_records(
        self, kafka: Kafka, write_ahead: str
    ) -> None:
        """The fork comes when the parent has records in the spool; Kafka comes when both have."""
        program = """
            service = ProducerService(config)
            first = publish(service, "parent", 300)
            until(lambda: kinds(first) == {"Spooled": 300})
            if child := os.fork():
                until(lambda: os.path.exists(os.environ["DONE"]))
                second = publish(service, "late", 100)
                until(lambda: kinds(second) == {"Spooled": 100})
                say(who="parent", books=books(service), pid=os.getpid())
                until(lambda: service.parts.spooling.spool.is_empty)
                wait_for(child)
                service.close()
                say(who="parent", books=books(service))
            else:
                assert service.ledger.total().received == 0
                mine = publish(service, "child", 200)
                until(lambda: kinds(mine) == {"Spooled": 200})
                say(who="child", books=books(service), pid=os.getpid())
                open(os.environ["DONE"], "w").close()
                until(lambda: service.parts.spooling.spool.is_empty)
                service.close()
                say(who="child", books=books(service))
        """
        done = str(kafka.desk.folder / "done")
        with kafka.desk.start(
            program.replace('os.environ["DONE"]', repr(done)), spool__write_ahead=write_ahead
        ) as process:
            child, parent = process.says(), process.says()
            assert child["books"] == {"received": 200, "accepted": 200, "spooled": 200}
            assert parent["books"] == {"received": 400, "accepted": 400, "spooled": 400}
            assert kafka.desk.slots() == {"0001": {"parent": 300, "late": 100}, "0002": {"child": 200}}
            assert kafka.desk.owner("0001") == parent["pid"]
            assert kafka.desk.owner("0002") == child["pid"]
            kafka.comes()
            child, parent = process.says(), process.says()
            process.ends()
        assert child["books"] == {"received": 200, "accepted": 200, "delivered": 200, "drained": 200}
        assert parent["books"] == {"received": 400, "accepted": 400, "delivered": 400, "drained": 400}
        assert kafka.found() == {"parent": 300, "late": 100, "child": 200}
        assert kafka.desk.waiting() == {}

    def test_a_fork_before_the_first_event_is_the_same(self, kafka: Kafka, write_ahead: str) -> None:
        program = """
            service = ProducerService(config)
            child = os.fork()
            publish(service, "parent" if child else "child", 200)
            service.close()
            if child:
                wait_for(child)
            else:
                sys.exit(0)
        """
        kafka.desk.run(program, spool__write_ahead=write_ahead)
        assert sorted(map(dict, kafka.desk.slots().values()), key=str) == [{"child": 200}, {"parent": 200}]
        kafka.drain()
        assert kafka.found() == {"parent": 200, "child": 200}

    def test_a_child_holds_no_lock_and_no_file_of_its_parent(self, kafka: Kafka, write_ahead: str) -> None:
        """The parent is killed, and its children live, one of which has published: the slot is free at once."""
        program = """
            service = ProducerService(config)
            first = publish(service, "parent", 300)
            until(lambda: kinds(first) == {"Spooled": 300})
            children = []
            for publishes in (False, True):
                child = os.fork()
                if not child:
                    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
                    if publishes:
                        mine = publish(service, "child", 100)
                        until(lambda: kinds(mine) == {"Spooled": 100})
                    say(ready=os.getpid())
                    threading.Event().wait()
            threading.Event().wait()
        """
        desk = kafka.desk
        with desk.start(program, spool__write_ahead=write_ahead) as parent:
            children = [parent.says()["ready"] for _ in range(2)]
            assert f"{desk.spool}/0001/LOCK" in files_of(parent.pid)
            held = [{path for path in files_of(child) if path.startswith(str(desk.spool))} for child in children]
            assert min(map(len, held)) == 0
            assert all(path.startswith(f"{desk.spool}/0002/") for path in set().union(*held))
            parent.signal(signal.SIGKILL)
            parent.ends(code=-signal.SIGKILL)
            kafka.comes()
            [told] = desk.run(
                """
                began = time.monotonic()
                with ProducerService(config) as service:
                    slots = [slot.name for slot in service.parts.spooling.spool.status().slots]
                    until(lambda: service.parts.spooling.spool.is_empty)
                say(slots=slots, books=books(service))
                """,
                spool__write_ahead=write_ahead,
            )
            assert told == {
                "slots": ["0001"],
                "books": {"received": 300, "accepted": 300, "delivered": 300, "taken_over": 300, "drained": 300},
            }
            for child in children:
                os.kill(child, signal.SIGTERM)
            until(lambda: not living_of(parent.pid), "the children have ended")
        found = kafka.found()
        assert found["parent"] == 300


class TestWorkersWithASpool:
    """Kafka is away; the workers just return, as the libraries that start them have it."""

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_those_of_multiprocessing_leave_all_on_the_disk(self, kafka: Kafka, method: str) -> None:
        program = f"""
            def work(who):
                service = ProducerService(config) if "{method}" != "fork" else shared
                publish(service, who, 300)

            shared = ProducerService(config)
            if __name__ == "__main__":
                publish(shared, "parent", 300)
                context = multiprocessing.get_context("{method}")
                workers = [context.Process(target=work, args=(f"worker{{n}}",)) for n in range(2)]
                for worker in workers: worker.start()
                for worker in workers: worker.join()
                assert [worker.exitcode for worker in workers] == [0, 0]
        """
        kafka.desk.run(program)
        assert sorted(map(dict, kafka.desk.slots().values()), key=str) == [
            {"parent": 300}, {"worker0": 300}, {"worker1": 300},
        ]  # fmt: skip
        kafka.drain()
        assert kafka.found() == {"parent": 300, "worker0": 300, "worker1": 300}
