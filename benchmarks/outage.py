"""`python -m benchmarks.outage`: what being safe costs, and how quickly an outage is over, on a real Kafka."""

from __future__ import annotations

import argparse
import asyncio
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.config_loader import load_config
from postroom.libs.logger import configure_logging
from postroom.observability.metrics import Metrics
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.services.async_service import AsyncProducerService
from postroom.services.producer_service import ProducerService
from postroom.testing.local_stack import LocalStack
from postroom.testing.recording_service import MemoryRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.services.receipt import Receipt

_TOPIC = "measured"
_CONTRACT = contract_from_short_form(
    "measured", {"user_id": "string", "timestamp": "long", "text": "string"}, topic=_TOPIC, key_field="user_id"
)
_TEXT = "x" * 170  # the record's value has about 200 bytes with it
_TASKS = 1_000
_THREADS = 16
_PATIENCE_S = 600.0


class Figure(msgspec.Struct, frozen=True):
    """One thing that was measured: its median and its range, in `unit`, over so many tries."""

    name: str
    unit: str
    median: float
    low: float
    high: float
    tries: int


def figure(name: str, unit: str, values: list[float]) -> Figure:
    return Figure(name, unit, statistics.median(values), min(values), max(values), len(values))


def events(count: int) -> Iterator[dict[str, object]]:
    for number in range(count):
        yield {"user_id": f"user-{number % 1000}", "timestamp": number, "text": _TEXT}


def new_service(stack: LocalStack, folder: Path | None, write_ahead: str = "off") -> ProducerService:
    overrides: dict[str, object] = {"broker": stack.bootstrap, "contracts.default": "measured"}
    if folder is not None:
        overrides |= {"spool.dir": str(folder), "spool.write_ahead": write_ahead, "spool.max_bytes": 2**34}
    config = load_config(environ={}, overrides=overrides)
    return ProducerService(config, registry=MemoryRegistry(), contracts={"measured": _CONTRACT}, metrics=Metrics())


def settle(service: ProducerService) -> None:
    end = time.monotonic() + _PATIENCE_S
    while (now := service.ledger.total()).pending + now.in_flight:
        if time.monotonic() > end:
            raise TimeoutError(str(now))
        time.sleep(0.001)


def many(service: ProducerService, count: int) -> None:
    batch: list[dict[str, object]] = []
    for event in events(count):
        batch.append(event)
        if len(batch) == 100:
            service.publish_many(batch)
            batch.clear()


def tasks(service: ProducerService, count: int) -> None:
    async def work() -> None:
        post, source = AsyncProducerService(service), events(count)

        async def task() -> None:
            for event in source:
                await post.publish_event(event)

        await asyncio.gather(*(task() for _ in range(_TASKS)))

    asyncio.run(work())


def threads(service: ProducerService, count: int) -> None:
    def work() -> None:
        for event in events(count // _THREADS):
            service.publish_event(event)

    workers = [threading.Thread(target=work) for _ in range(_THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def timed(
    stack: LocalStack, way: Callable[[ProducerService, int], None], write_ahead: str, count: int
) -> tuple[float, float]:
    """Return CPU microseconds an event and events a second of one way of handing in."""
    with folder_for_spool() as folder, new_service(stack, folder, write_ahead) as service:
        way(service, 2_000)
        settle(service)
        cpu, wall = time.process_time(), time.monotonic()
        way(service, count)
        settle(service)
        return (time.process_time() - cpu) / count * 1e6, count / (time.monotonic() - wall)


class folder_for_spool:  # noqa: N801 - reads as a word where it is used
    def __enter__(self) -> Path:
        self._folder = Path(tempfile.mkdtemp(prefix="postroom-outage-", dir=Path.cwd()))
        return self._folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def ways(stack: LocalStack, rounds: int, count: int) -> Iterator[Figure]:
    """Write ahead against off, in the same rounds."""
    for name, way in (("publish_many, batches of 100", many), (f"{_TASKS:,} asyncio tasks", tasks)):
        ratios, off, fsync = [], [], []
        for _ in range(rounds):
            off.append(timed(stack, way, "off", count)[0])
            fsync.append(timed(stack, way, "fsync", count)[0])
            ratios.append(fsync[-1] / off[-1])
        yield figure(f"{name}: off", "us CPU", off)
        yield figure(f"{name}: fsync", "us CPU", fsync)
        yield figure(f"{name}: fsync / off", "times", ratios)
    rates = [timed(stack, threads, "fsync", count // 2)[1] for _ in range(rounds)]
    yield figure(f"{_THREADS} blocking threads, fsync", "events/s", rates)


def drains(stack: LocalStack, rounds: int, count: int) -> Iterator[Figure]:
    """Rate of the drain against that of direct publishing, each to the last acknowledgement."""
    direct, drained, ratios = [], [], []
    for _ in range(rounds):
        with new_service(stack, None) as service:
            service.publish_many(events(2_000))
            began = time.monotonic()
            service.publish_many(events(count))
            direct.append(count / (time.monotonic() - began))
        with folder_for_spool() as folder:
            fill(folder, count)
            with new_service(stack, folder) as service:
                began = first = 0.0
                while service.ledger.total().drained < count:
                    if not began and service.ledger.total().drained:
                        began, first = time.monotonic(), service.ledger.total().drained
                    time.sleep(0.002)
                drained.append((count - first) / (time.monotonic() - began))
        ratios.append(drained[-1] / direct[-1])
    yield figure("direct, publish_many", "events/s", direct)
    yield figure("drain", "events/s", drained)
    yield figure("drain / direct", "times", ratios)


def fill(folder: Path, count: int) -> None:
    """Leave `count` events in the spool of a service whose Kafka was never there."""
    config = load_config(
        environ={},
        overrides={
            "broker": "127.0.0.1:1",
            "contracts.default": "measured",
            "spool.dir": str(folder),
            "spool.max_bytes": 2**34,
        },
    )
    service = ProducerService(config, registry=MemoryRegistry(), contracts={"measured": _CONTRACT}, metrics=Metrics())
    with service:
        service.publish_event(next(events(1))).result(30)
        spool_all(service, count - 1)


def spool_all(service: ProducerService, count: int) -> None:
    for event in events(count):
        item = service.admit(event, None, None, None, None, None)
        service.hand_over(item, 60.0)
    settle(service)


def restart(stack: LocalStack, gigabytes: float) -> Iterator[Figure]:
    """A start on a full spool: seconds to the first accepted event, and to the first drained one."""
    with folder_for_spool() as folder:
        count = int(gigabytes * 2**30 / 330)
        fill(folder, count)
        size = sum(file.stat().st_size for file in folder.rglob("*.seg"))
        began = time.monotonic()
        with new_service(stack, folder, "fsync") as service:
            assert service.publish_event(next(events(1))).safe
            yield figure(
                f"restart with {size / 2**30:.2f} GiB spooled: accepting after", "s", [time.monotonic() - began]
            )
            while not service.ledger.total().drained:
                time.sleep(0.002)
            yield figure("restart: first drained after", "s", [time.monotonic() - began])
            service.close(0.0)


def memory(count: int) -> Iterator[Figure]:
    """Growth of the process while it spools at full speed with Kafka away."""
    with folder_for_spool() as folder:
        config = load_config(
            environ={},
            overrides={
                "broker": "127.0.0.1:1",
                "contracts.default": "measured",
                "spool.dir": str(folder),
                "spool.max_bytes": 2**34,
            },
        )
        service = ProducerService(
            config, registry=MemoryRegistry(), contracts={"measured": _CONTRACT}, metrics=Metrics()
        )
        with service:
            service.publish_event(next(events(1))).result(30)
            spool_all(service, 20_000)
            before = resident_mib()
            began = time.monotonic()
            spool_all(service, count)
            yield figure(f"{count:,} events spooled with Kafka away: growth", "MiB", [resident_mib() - before])
            yield figure("the same: rate", "events/s", [count / (time.monotonic() - began)])
            yield figure(
                "the same: peak of the process", "MiB", [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
            )


def resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS here")


def deaths(rounds: int) -> Iterator[Figure]:
    """All brokers die under 1,000 events a second, and return: the worst wait to be safe, the first drained record."""
    for write_ahead in ("off", "fsync"):
        safe, returned = [], []
        for _ in range(rounds):
            with LocalStack(brokers=1, registry=False) as stack, folder_for_spool() as folder:
                stack.create_topic(_TOPIC, partitions=6)
                stack.create_topic(f"{_TOPIC}.dlq", partitions=1)
                with new_service(stack, folder, write_ahead) as service:
                    safe.append(worst_wait(stack, service))
                    stack.restore()
                    began, before = time.monotonic(), service.ledger.total().drained
                    while service.ledger.total().drained == before:
                        time.sleep(0.002)
                    returned.append(time.monotonic() - began)
        yield figure(f"all brokers killed, {write_ahead}: worst event safe after", "s", safe)
        yield figure(f"all brokers back, {write_ahead}: first drained record after", "s", returned)


def worst_wait(stack: LocalStack, service: ProducerService) -> float:
    waits: list[float] = []
    done = threading.Event()

    def hand_in() -> None:
        for event in events(12_000):
            began = time.monotonic()
            receipt: Receipt = service.publish_event(event)
            if receipt.safe:
                waits.append(time.monotonic() - began)
            else:
                receipt.listen(lambda _, began=began: waits.append(time.monotonic() - began))  # type: ignore[misc]  # a default
            time.sleep(0.0008)
        done.set()

    thread = threading.Thread(target=hand_in)
    thread.start()
    time.sleep(3)
    for broker in stack.brokers:
        broker.kill()
    killed_at = len(waits)
    done.wait(_PATIENCE_S)
    thread.join()
    settle(service)
    return max(waits[killed_at:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=60_000, metavar="N")
    parser.add_argument("--spooled", type=int, default=3_600_000, metavar="N", help="events of the memory figure")
    parser.add_argument("--gigabytes", type=float, default=1.0, metavar="G", help="of the restart")
    parser.add_argument("--only", choices=["ways", "drains", "restart", "memory", "deaths"], action="append")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    configure_logging("critical", "json")
    wanted = given.only or ["ways", "drains", "restart", "memory", "deaths"]
    found: list[Figure] = []

    def take(figures: Iterator[Figure]) -> None:
        for one in figures:
            found.append(one)
            sys.stdout.write(
                f"| {one.name} | {one.median:,.3g} {one.unit} | {one.low:,.3g} to {one.high:,.3g} | {one.tries} |\n"
            )
            sys.stdout.flush()

    sys.stdout.write("| what | median | range | tries |\n|---|---|---|---|\n")
    if {"ways", "drains", "restart"} & set(wanted):
        with LocalStack(brokers=1, registry=False) as stack:
            stack.create_topic(_TOPIC, partitions=6)
            stack.create_topic(f"{_TOPIC}.dlq", partitions=1)
            if "ways" in wanted:
                take(ways(stack, given.rounds, given.events))
            if "drains" in wanted:
                take(drains(stack, given.rounds, given.events * 2))
            if "restart" in wanted:
                take(restart(stack, given.gigabytes))
    if "memory" in wanted:
        take(memory(given.spooled))
    if "deaths" in wanted:
        take(deaths(given.rounds))
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))


if __name__ == "__main__":
    main()
