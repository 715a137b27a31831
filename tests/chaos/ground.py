"""Where chaos happens: brokers behind relays, a worker, and the doing of each fault with the proof that it was done."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from confluent_kafka import Consumer, KafkaException, TopicPartition

from postroom.libs.exceptions import StackError
from postroom.testing.broker_settings import free_ports
from postroom.testing.local_stack import LocalStack
from tests.chaos.scenarios import UNACKNOWLEDGED, Fault, Kind, Round
from tests.chaos.spool_files import read_spool
from tests.chaos.worker_process import WorkerProcess
from tests.tcp_proxy import Counts, TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.stack_servers import Broker

PARTITIONS = 6
KILL_TRIES = 4
_RECOVER_S = 120.0
_DRAIN_S = 180.0
_DEAD_LETTERS = ".dlq"
_LAST_WORDS = "Request Handler on Controller"

Evidence: TypeAlias = dict[str, Any]
Doing: TypeAlias = Callable[["Site", Fault, Evidence], AbstractContextManager[None]]


class Ground:
    """The servers and, for one round at a time, topics, a folder and a worker.

    `proxies` stand between clients and brokers, one for each; without them the faults of the network cannot be made.
    """

    def __init__(self, stack: LocalStack, proxies: Sequence[TcpProxy], *, say: Callable[[str], None]) -> None:
        self.stack = stack
        self.proxies = proxies
        self.say = say
        self._pause = threading.Event()  # never set: waits that nothing ends early

    @classmethod
    @contextmanager
    def started(cls, *, say: Callable[[str], None]) -> Iterator[Self]:
        """Three brokers, each behind a relay, and the registry; all gone at the end."""
        ports = free_ports(3)
        with LocalStack(brokers=3, advertised_ports=ports, progress=say) as stack, ExitStack() as relays:
            proxies = [
                relays.enter_context(TcpProxy(port, broker.port))
                for port, broker in zip(ports, stack.brokers, strict=True)
            ]
            yield cls(stack, proxies, say=say)

    def wait(self, seconds: float) -> None:
        """Let the fault last."""
        self._pause.wait(seconds)

    def restore(self) -> None:
        """Bring everything back that was taken away."""
        for proxy in self.proxies:
            proxy.heal()
        self.stack.restore()


class Site:
    """One round on the ground: its topics, folder, spool and worker."""

    def __init__(
        self,
        ground: Ground,
        folder: Path,
        topic: str,
        *,
        write_ahead: str | None,
        threads: int,
        seed: str,
        spool: Path | None = None,
        settings: Sequence[str] = (),
    ) -> None:
        self.ground = ground
        self.folder = folder
        self.topic = topic
        self.dead_letters = topic + _DEAD_LETTERS
        self.spool = spool or folder / "spool"
        self.chance = random.Random(f"site {seed}")
        folder.mkdir(parents=True, exist_ok=True)
        stack = ground.stack
        stack.create_topic(topic, partitions=PARTITIONS, config={"retention.ms": "-1"})
        stack.create_topic(self.dead_letters, partitions=1, config={"retention.ms": "-1"})
        arguments = [
            "--broker", stack.bootstrap, "--registry", stack.registry_url, "--topic", topic,
            "--threads", str(threads), "--seed", seed, "--burst", "400",
        ]  # fmt: skip
        if write_ahead is not None:  # None: without a spool
            arguments += ["--spool", str(self.spool), "--write-ahead", write_ahead]
        arguments += [f"--set={setting}" for setting in settings]
        self.worker = WorkerProcess(folder, arguments)

    @classmethod
    def of(cls, ground: Ground, folder: Path, one: Round, seed: str) -> Self:
        """The site of a planned round."""
        topic = f"chaos-{one.number}-{os.urandom(4).hex()}"
        return cls(ground, folder, topic, write_ahead=one.write_ahead, threads=one.threads, seed=f"{seed} {one.number}")

    # -- the worker

    def start_worker(self) -> float:
        """Start the next run; the seconds until it took its first event."""
        return self.worker.start()

    def kill_worker(self, *, patience_s: float = 10.0) -> Evidence:
        """Kill it at a random moment with enough open events, start it again; what was open, and how long it took."""
        found = self.worker.kill(self.chance, at_least=UNACKNOWLEDGED, patience_s=patience_s)
        # What was told safe and is in Kafka's hands at best: from here on it depends on the files alone.
        found["waiting_in_spool"] = len(read_spool(self.spool).waiting)
        found["unacknowledged"] = max(found["unanswered"], found["waiting_in_spool"])
        found["restarted_after_s"] = round(self.start_worker(), 2)
        found["proved"] = found["exit_code"] == -9 and found["unacknowledged"] >= UNACKNOWLEDGED
        return found

    def wait_for_deliveries(self, count: int = 200, timeout_s: float = _RECOVER_S) -> float | None:
        """Wait until so many more events are delivered; the seconds it took, None when they did not come."""
        began, before = time.monotonic(), self.worker.progress["delivered"]
        while self.worker.progress["delivered"] < before + count:
            if time.monotonic() - began > timeout_s or not self.worker.is_running:
                return None
            time.sleep(0.02)
        return time.monotonic() - began

    def finish(self) -> dict[str, Any]:
        """Bring everything back, let the worker rest until its spool is empty, end it; say how that went."""
        self.ground.restore()
        back = self.wait_for_deliveries()
        self.worker.rest()
        drained = self._wait_until_drained()
        code, seconds = self.worker.end()
        books = self.worker.last_words()
        return {
            "delivering_again_s": None if back is None else round(back, 2),
            "drained_s": None if drained is None else round(drained, 2),
            "exit_code": code,
            "ended_s": round(seconds, 2),
            "unaccounted": books.get("unaccounted"),
            "books": books.get("books"),
        }

    def _wait_until_drained(self) -> float | None:
        began = time.monotonic()
        while read_spool(self.spool).waiting or self.worker.progress.open:
            if time.monotonic() - began > _DRAIN_S or not self.worker.is_running:
                return None
            self.ground.wait(0.3)
        return time.monotonic() - began

    # -- faults

    def do(self, fault: Fault, *, settle: bool = False) -> Evidence:
        """Make one fault happen; what is returned says under `proved` whether it is certain that it did.

        With `settle` this returns when events are delivered again, and says how long that took.
        """
        self.ground.wait(fault.gap_s)
        found: Evidence = {"row": fault.row, "seconds": fault.seconds}
        if fault.kind is Kind.KILL:
            return self._kill_until_it_counts(found)
        with DOING[fault.kind](self, fault, found):
            if fault.kill_inside:
                self.ground.wait(fault.seconds * self.chance.uniform(0.3, 0.7))
                found["kill"] = self.kill_worker(patience_s=1.0)
            self.ground.wait(fault.seconds / 3 if fault.kill_inside else fault.seconds)
        if fault.kill_inside:
            found["proved"] = found["proved"] and found["kill"]["proved"]
        if settle:
            found |= self._wait_until_back()
        return found

    def _wait_until_back(self) -> Evidence:
        """How long it takes until the topic grows, as Kafka itself says, and until events are delivered at once again.

        None is: not within two minutes.
        """
        times: Evidence = {"first_record_s": None, "delivering_again_s": None}
        began, delivered = time.monotonic(), self.worker.progress["delivered"]
        with TopicSize(self.ground.stack.bootstrap, self.topic) as size:
            before = size.records()
            while None in times.values() and time.monotonic() - began < _RECOVER_S and self.worker.is_running:
                seconds = round(time.monotonic() - began, 2)
                if times["first_record_s"] is None and size.has_grown(before):
                    times["first_record_s"] = seconds
                if times["delivering_again_s"] is None and self.worker.progress["delivered"] >= delivered + 200:
                    times["delivering_again_s"] = seconds
                time.sleep(0.02)
        return times

    def _kill_until_it_counts(self, found: Evidence) -> Evidence:
        uncounted = []
        for _ in range(KILL_TRIES):
            kill = self.kill_worker()
            if kill["proved"]:
                break
            uncounted.append(kill["unacknowledged"])
            self.wait_for_deliveries()
        return {**found, **kill, "uncounted": uncounted}


class TopicSize:
    """Asks Kafka how much stands in a topic. A client that got no answer is given up for a new one."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        self._consumer: Consumer | None = None

    def records(self) -> dict[int, int]:
        """The ends of the partitions whose leaders answer."""
        if self._consumer is None:
            self._consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "watch", "log_level": 0})
        ends = {}
        for partition in self._partitions:
            try:
                ends[partition.partition] = self._consumer.get_watermark_offsets(partition, timeout=1.0)[1]
            except KafkaException:
                self._consumer.close()
                self._consumer = None
                break
        return ends

    def has_grown(self, before: dict[int, int]) -> bool:
        """Whether a partition is longer than in `before`, where it is noted when it was not there yet."""
        ends = self.records()
        has_grown = any(end > before.get(number, end) for number, end in ends.items())
        for number, end in ends.items():
            before.setdefault(number, end)
        return has_grown

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._consumer is not None:
            self._consumer.close()


# -- how each fault is made


@contextmanager
def _frozen(brokers: Sequence[Broker], found: Evidence) -> Iterator[None]:
    for broker in brokers:
        broker.pause()
    found["stopped"] = {broker.name: stopped_state(broker.pid) for broker in brokers}
    try:
        yield
    finally:
        still = {broker.name: state_of(broker.pid) for broker in brokers}
        for broker in brokers:
            broker.resume()
    found["proved"] = {*found["stopped"].values(), *still.values()} == {"T"}


def _freeze(count: int) -> Doing:
    def doing(site: Site, fault: Fault, found: Evidence) -> AbstractContextManager[None]:
        brokers = site.ground.stack.brokers
        return _frozen([brokers[(fault.pick + one) % 3] for one in range(count)], found)

    return doing


@contextmanager
def _gone(site: Site, brokers: Sequence[Broker], found: Evidence, *, clean: bool) -> Iterator[None]:
    """Some brokers end, and are started again in the end: on return they answer."""
    pids = {broker.name: broker.pid for broker in brokers}
    for broker in brokers:
        if clean:
            broker.terminate()
        else:
            broker.kill()
    for broker in brokers:
        broker.stop()  # waits for the clean ones, at most 15 seconds, then kills
    if clean:
        # Who had to be killed after all has said the first and not the second.
        found["clean"] = all(broker.said("due to signal SIGTERM") and broker.said(_LAST_WORDS) for broker in brokers)
    found["gone"] = {name: not is_alive(pid) for name, pid in pids.items()}
    try:
        yield
    finally:
        for broker in brokers:
            broker.start(wait=False)
        site.ground.stack.restore()
    is_back = all(broker.pid != pids[broker.name] for broker in brokers)
    found["proved"] = is_back and all(found["gone"].values()) and found.get("clean", True)


def _bounce_clean(site: Site, fault: Fault, found: Evidence) -> AbstractContextManager[None]:
    return _gone(site, [site.ground.stack.brokers[fault.pick]], found, clean=True)


def _bounce_leader(site: Site, fault: Fault, found: Evidence) -> AbstractContextManager[None]:
    """Kill who leads a partition of the topic at this moment."""
    leaders = [leader_of(site.ground.stack, site.topic, number) for number in range(PARTITIONS)]
    leader = leaders[fault.pick]
    found["led"] = leaders.count(leader)
    return _gone(site, [leader], found, clean=False)


def all_killed(site: Site, found: Evidence) -> AbstractContextManager[None]:
    """No broker is left, until the end of the block: then all three answer again."""
    return _gone(site, site.ground.stack.brokers, found, clean=False)


@contextmanager
def _freeze_and_kill(site: Site, fault: Fault, found: Evidence) -> Iterator[None]:
    """One broker stands still while another is killed: no majority is left."""
    brokers = site.ground.stack.brokers
    frozen, killed = brokers[fault.pick], brokers[(fault.pick + 1) % 3]
    pid = killed.pid
    frozen.pause()
    found["stopped"] = {frozen.name: stopped_state(frozen.pid)}
    killed.kill()
    found["gone"] = {killed.name: not is_alive(pid)}
    try:
        yield
    finally:
        frozen.resume()
        killed.start(wait=False)
        site.ground.stack.restore()
    found["proved"] = found["stopped"] == {frozen.name: "T"} and found["gone"] == {killed.name: True}


def _network(
    change: Callable[[TcpProxy], None], proof: Callable[[Counts, Counts], dict[str, int]], *, every: bool = True
) -> Doing:
    """A fault of the relays; `proof` says from their counts before and after what happened: each must be above 0."""

    @contextmanager
    def doing(site: Site, fault: Fault, found: Evidence) -> Iterator[None]:
        chosen = site.ground.proxies if every else [site.ground.proxies[fault.pick]]
        before = [proxy.counts for proxy in chosen]
        for proxy in chosen:
            change(proxy)
        try:
            yield
        finally:
            for proxy in chosen:
                proxy.heal()
        sums: dict[str, int] = {}
        for proxy, counts in zip(chosen, before, strict=True):
            for name, count in proof(counts, proxy.counts).items():
                sums[name] = sums.get(name, 0) + count
        found["relays"] = sums
        found["proved"] = all(sums.values())

    return doing


def _cut_proof(before: Counts, after: Counts) -> dict[str, int]:
    return {"connections cut": after.cut - before.cut}


def _held_proof(before: Counts, after: Counts) -> dict[str, int]:
    held_bytes = after.held_bytes - before.held_bytes
    return {"connections held": after.held - before.held, "bytes held": held_bytes}


def _lost_proof(before: Counts, after: Counts) -> dict[str, int]:
    return {
        "reply bytes swallowed": after.swallowed_bytes - before.swallowed_bytes,
        "request bytes delivered meanwhile": after.requests_while_lossy_bytes - before.requests_while_lossy_bytes,
    }


def _slow_proof(before: Counts, after: Counts) -> dict[str, int]:
    return {"bytes delayed": after.delayed_bytes - before.delayed_bytes}


@contextmanager
def _end_while_away(site: Site, fault: Fault, found: Evidence) -> Iterator[None]:
    """With every connection cut the worker is asked to end: within its grace time, with everything spooled."""
    with _network(TcpProxy.cut, _cut_proof)(site, fault, found):
        yield
        code, seconds = site.worker.end()
        found["exit_code"], found["ended_after_s"] = code, round(seconds, 2)
    site.start_worker()


@contextmanager
def _relapse(site: Site, fault: Fault, found: Evidence) -> Iterator[None]:
    """Every connection is cut, comes back, and as soon as the drain has sent something everything stands still."""
    first: Evidence = {}
    again: Evidence = {}
    with _network(TcpProxy.cut, _cut_proof)(site, fault, first):
        site.ground.wait(6)  # something has to wait in the spool
    with TopicSize(site.ground.stack.bootstrap, site.topic) as size:
        before, deadline = size.records(), time.monotonic() + _RECOVER_S
        while not size.has_grown(before) and time.monotonic() < deadline:
            time.sleep(0.005)
    left = len(read_spool(site.spool).waiting)
    with _network(TcpProxy.freeze, _held_proof)(site, fault, again):
        yield
    found["relays"] = {**first["relays"], **again["relays"]}
    found["left_to_drain"] = left
    found["proved"] = first["proved"] and again["proved"] and left > 0


DOING: dict[Kind, Doing] = {
    Kind.BOUNCE_CLEAN: _bounce_clean,
    Kind.BOUNCE_HARD: _bounce_leader,
    Kind.ALL_KILLED: lambda site, _fault, found: all_killed(site, found),
    Kind.FREEZE_ONE: _freeze(1),
    Kind.FREEZE_TWO: _freeze(2),
    Kind.FREEZE_ALL: _freeze(3),
    Kind.FREEZE_AND_KILL: _freeze_and_kill,
    Kind.CUT_ONE: _network(TcpProxy.cut, _cut_proof, every=False),
    Kind.CUT_ALL: _network(TcpProxy.cut, _cut_proof),
    Kind.HALF_OPEN: _network(TcpProxy.freeze, _held_proof),
    Kind.LOST_REPLIES: _network(TcpProxy.drop_replies, _lost_proof),
    Kind.RELAPSE: _relapse,
    Kind.END_WHILE_AWAY: _end_while_away,
    Kind.SLOW: _network(lambda proxy: proxy.delay(0.4), _slow_proof),
}


# -- looking


def state_of(pid: int) -> str:
    """The first letter of what the system says of a process: T is stopped, Z a zombie; empty when it is gone."""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip()[:1]


def stopped_state(pid: int) -> str:
    """The state of a process that was sent SIGSTOP: all its threads need a moment to stand still."""
    deadline = time.monotonic() + 5
    while (state := state_of(pid)) != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    return state


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    return state_of(pid) not in {"", "Z"}


def leader_of(stack: LocalStack, topic: str, partition: int) -> Broker:
    """The leader of a partition, waited for while there is none."""
    deadline = time.monotonic() + _RECOVER_S
    while True:
        with contextlib.suppress(StackError):
            return stack.leader(topic, partition)
        if time.monotonic() > deadline:
            raise StackError(f"{topic} [{partition}] got no leader")
        time.sleep(0.1)
