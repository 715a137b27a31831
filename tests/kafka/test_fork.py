"""Processes that fork, and processes that just end: nothing is lost, nobody hangs. Each case is its own program."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.kafka.plain_log import read_log

if TYPE_CHECKING:
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
