"""The end of a program, and forks in its middle: nothing is gone without a word, nothing hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kafka.programs import Desk, Kafka
from tests.kafka.test_fork import kafka
from tests.kafka.test_stopping import MODES, nowhere

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["kafka", "nowhere"]  # fixtures


# -- a child that is forked while the poll thread imports what renders log lines hangs for ever


def test_a_child_forked_while_another_thread_writes_the_first_line_of_the_log_works(
    tmp_path: Path, nowhere: str
) -> None:
    """The moment is made certain: the fork comes when the module is being imported by the thread that polls."""
    program = """
        import faulthandler
        service = ProducerService(config)
        publish(service, "parent", 1)
        def is_loading():
            module = sys.modules.get("postroom.libs.log_lines")
            return module is not None and getattr(module.__spec__, "_initializing", False)
        end = time.monotonic() + 5
        while not is_loading() and time.monotonic() < end:
            pass
        child = os.fork()
        if not child:
            faulthandler.dump_traceback_later(20, exit=True)
            publish(service, "child", 1)
            service.close()
            os._exit(0)
        wait_for(child)
    """
    desk = Desk(tmp_path, nowhere)
    desk.run(program)
    assert desk.waiting() == {"parent": 1, "child": 1}


@pytest.mark.parametrize("write_ahead", MODES)
def test_a_child_that_can_look_up_no_address_since_the_fork_spools_says_so_and_ends(
    tmp_path: Path, nowhere: str, write_ahead: str
) -> None:
    """A thread of the parent was in the C library's lookup at the fork, whose lock no fork frees.

    The client library's threads then stand still for ever in the child. Nothing may wait for them: not the purge (which
    would hold the interpreter's lock meanwhile), and not the closing.
    """
    program = """
        import faulthandler, socket

        def look_up():
            socket.getaddrinfo("127.0.0.1", 0, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)

        def look_up_again_and_again():
            while not stop.is_set():
                look_up()

        def is_told():
            return "looked up" in service.parts.publisher.condition().problem

        service = ProducerService(config)
        publish(service, "parent", 1)
        stop = threading.Event()
        threads = [threading.Thread(target=look_up_again_and_again) for _ in range(3)]
        for thread in threads: thread.start()
        code = FREE = 3
        for _ in range(100):
            if code != FREE:
                break
            time.sleep(0.05)
            child = os.fork()
            if not child:
                lookup = threading.Thread(target=look_up, daemon=True)
                lookup.start()
                lookup.join(2)
                if not lookup.is_alive():
                    os._exit(FREE)
                faulthandler.dump_traceback_later(50, exit=True)
                mine = publish(service, "child", 100)
                until(lambda: kinds(mine) == {"Spooled": 100})
                until(is_told)
                began = time.monotonic()
                service.close()
                say(stuck=True, closed_in=time.monotonic() - began)
                sys.exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stop.set()
        for thread in threads: thread.join()
        service.close()
        sys.exit(code)
    """
    desk = Desk(tmp_path, nowhere, spool__write_ahead=write_ahead)
    with desk.start(program) as process:
        code = process.process.wait(100)
        if code == 3:
            pytest.skip("the C library of this machine frees its lock in a forked child")
        assert code == 0, process.said
        [told] = process.rest()
        assert told["closed_in"] < 15
        assert len(process.logged("lookups_stuck")) == 1
    assert desk.waiting() == {"parent": 1, "child": 100}


@pytest.mark.parametrize("write_ahead", MODES)
class TestForkWithASpool:
    def test_forks_in_the_middle_of_busy_threads_lose_nothing_and_hang_nowhere(
        self, kafka: Kafka, write_ahead: str
    ) -> None:
        """Whatever lock another thread holds at that moment: the child's own spool works."""
        program = """
            service = ProducerService(config)
            publish(service, "first", 1)
            stop = threading.Event()
            counts = [0] * 4
            def hand_in(number):
                while not stop.is_set():
                    service.publish_event(event(counts[number]), event_id=f"thread{number}-{counts[number]}")
                    counts[number] += 1
            threads = [threading.Thread(target=hand_in, args=(number,)) for number in range(4)]
            for thread in threads: thread.start()
            children = []
            for number in range(12):
                before = sum(counts)
                until(lambda: sum(counts) > before + 50)
                child = os.fork()
                if not child:
                    mine = publish(service, f"child{number}", 20)
                    service.close()
                    assert kinds(mine) == {"Spooled": 20}
                    os._exit(0)
                children.append(child)
            stop.set()
            for thread in threads: thread.join()
            for child in children: wait_for(child)
            service.close()
            say(counts=counts)
        """
        [told] = kafka.desk.run(program, spool__write_ahead=write_ahead)
        expected = {"first": 1, **{f"thread{number}": count for number, count in enumerate(told["counts"])}}
        assert kafka.desk.waiting() == {**expected, **{f"child{number}": 20 for number in range(12)}}


class TestWorkersWithASpool:
    @pytest.mark.parametrize("method", ["fork"])
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

    def test_those_of_a_pool_do_too_and_one_that_is_killed_leaves_what_was_told_safe(self, kafka: Kafka) -> None:
        program = """
            from concurrent.futures import ProcessPoolExecutor
            from concurrent.futures.process import BrokenProcessPool

            def work(n):
                receipts = publish(get_service(), f"task{n}", 50)
                assert all(receipt.safe for receipt in receipts)
                return os.getpid()

            def die(n):
                work(n)
                os.kill(os.getpid(), signal.SIGKILL)

            if __name__ == "__main__":
                publish(get_service(), "parent", 100)
                context = multiprocessing.get_context("fork")
                with ProcessPoolExecutor(2, mp_context=context) as pool:
                    pids = set(pool.map(work, range(6)))
                pool = ProcessPoolExecutor(2, mp_context=context)
                try:
                    pool.submit(die, 6).result()
                except BrokenProcessPool:
                    pool.shutdown()
                    say(workers=len(pids))
        """
        [told] = kafka.desk.run(program, spool__write_ahead="fsync")
        assert told["workers"] >= 1
        expected = {"parent": 100, **{f"task{number}": 50 for number in range(7)}}
        assert kafka.desk.waiting() == expected
        kafka.drain()
        assert kafka.found() == expected


# -- what is handed in after postroom's own end-of-program work is gone without a word


@pytest.mark.parametrize("write_ahead", MODES)
def test_what_is_handed_in_at_the_very_end_is_on_the_disk_or_refused(
    tmp_path: Path, nowhere: str, write_ahead: str
) -> None:
    """Last words that were registered before postroom was imported are said after it has closed."""
    first = """
        import atexit
        def last_words():
            from postroom.libs.exceptions import LifecycleError
            try:
                publish(get_service(), "last", 10)
            except LifecycleError:
                say(told=1)
        atexit.register(last_words)
    """
    desk = Desk(tmp_path, nowhere, spool__write_ahead=write_ahead)
    told = desk.run("publish(get_service(), 'one', 10)", first=first)
    assert desk.waiting() == ({"one": 10} if told else {"one": 10, "last": 10})


# -- Ctrl-C while the services are closed at the end leaves the others open


def test_ctrl_c_while_one_service_is_closed_at_the_end_leaves_no_other_unclosed(tmp_path: Path, nowhere: str) -> None:
    program = """
        services = [ProducerService(config) for _ in range(3)]
        for number, service in enumerate(services): publish(service, f"service{number}", 100)
        def interrupt():
            until(lambda: any(service._closed for service in services))
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt, daemon=True).start()
    """
    desk = Desk(tmp_path, nowhere)
    desk.run(program)
    assert desk.waiting() == {f"service{number}": 100 for number in range(3)}
