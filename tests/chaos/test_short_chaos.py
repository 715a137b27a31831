"""Chaos in minutes: a little of what `python -m tests.chaos` does for an hour and more, on every run of the tests."""

from __future__ import annotations

import json
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.driver import judge_site
from tests.chaos.full_disk import NoMountError, SmallDisk, small_disk
from tests.chaos.ground import Ground, Site, all_killed
from tests.chaos.journals import REFUSED, read_journals
from tests.chaos.scenarios import Fault, Kind
from tests.chaos.spool_files import read_spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

SEED = "short"


@pytest.fixture
def ground(postroom_cluster: LocalStack) -> Iterator[Ground]:
    postroom_cluster.restore()
    yield Ground(postroom_cluster, (), say=print)
    postroom_cluster.restore()


@contextmanager
def worker_at(ground: Ground, folder: Path, write_ahead: str, **more: Any) -> Iterator[Site]:
    """A worker in the middle of its work; nothing of it is left behind."""
    threads = 8 if write_ahead == "fsync" else 2
    topic = f"short-chaos-{random.randrange(2**40):x}"
    site = Site(ground, folder, topic, write_ahead=write_ahead, threads=threads, seed=SEED, **more)
    try:
        site.start_worker()
        assert site.wait_for_deliveries() is not None
        yield site
    finally:
        site.worker.close()


def ends_well(site: Site) -> dict[str, Any]:
    """End the worker, and let the checker judge all of it."""
    ending = site.finish()
    verdict = judge_site(site)
    site.ground.say(f"{json.dumps(ending)}\n{verdict}")  # shown with -s, and when the test fails
    assert verdict.is_good, str(verdict)
    assert ending["exit_code"] == 0
    assert ending["drained_s"] is not None, "records were left in the spool"
    assert ending["unaccounted"] == 0
    assert verdict.facts.waiting == 0
    return verdict.as_json()


def within(seconds: float, condition: Callable[[], object]) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)  # another process works in real time
    return True


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("write_ahead", "kills"), [("off", 13), ("fsync", 12)])
def test_a_worker_killed_at_random_moments_breaks_no_promise(
    ground: Ground, tmp_path: Path, write_ahead: str, kills: int, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    with worker_at(ground, tmp_path, write_ahead) as site:
        done = [site.do(Fault(Kind.KILL, 0, 0, round(chance.uniform(0.2, 1.5), 1))) for _ in range(kills)]
        assert all(found["proved"] for found in done), done
        facts = ends_well(site)["facts"]
    assert facts["killed_runs"] >= kills
    record_property("unacknowledged_at_the_kills", [found["unacknowledged"] for found in done])
    record_property("facts", facts)


@pytest.mark.timeout(900)
def test_five_leaders_killed_break_no_promise(
    ground: Ground, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with worker_at(ground, tmp_path, "off") as site:
        # Longer away than the nine seconds after which the others stop waiting for it: the lead goes to them.
        done = [site.do(Fault(Kind.BOUNCE_HARD, 10, pick % 3, 0.5), settle=True) for pick in range(5)]
        assert all(found["proved"] and found["led"] for found in done), done
        facts = ends_well(site)["facts"]
    record_property("partitions_led", [found["led"] for found in done])
    record_property("facts", facts)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
def test_two_of_three_brokers_frozen_and_thawed_under_load_break_no_promise(
    ground: Ground, tmp_path: Path, write_ahead: str, record_property: Callable[[str, object], None]
) -> None:
    with worker_at(ground, tmp_path, write_ahead) as site:
        # Longer than the patience after which what is not acknowledged goes to the spool.
        found = site.do(Fault(Kind.FREEZE_TWO, 18, 0, 0.5), settle=True)
        assert found["proved"], found
        assert found["delivering_again_s"] is not None
        facts = ends_well(site)["facts"]
    assert facts["spooled"] > 100, "nothing was handed over: the freeze was too short to show anything"
    record_property("facts", facts)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(tmp_path / "disk") as mounted:
            yield mounted
    except NoMountError as exc:
        pytest.skip(str(exc))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
def test_a_full_disk_refuses_and_drains_and_once_freed_accepts_without_a_restart(
    ground: Ground,
    disk: SmallDisk,
    tmp_path: Path,
    write_ahead: str,
    record_property: Callable[[str, object], None],
) -> None:
    with worker_at(ground, tmp_path / "journals", write_ahead, spool=disk.place / "spool") as site:
        count = site.worker.progress
        found: dict[str, Any] = {}
        with all_killed(site, found):
            assert within(30, lambda: len(read_spool(site.spool).waiting) > 300), "Kafka is away and nothing is spooled"

            free = disk.fill()
            assert free == 0
            assert within(20, lambda: count["refused"] >= 200), "the disk is full and nothing is refused"

            disk.empty()
            safe, name = count["spooled"] + count["safe"], "spooled" if write_ahead == "off" else "safe"
            assert within(20, lambda: count["spooled"] + count["safe"] >= safe + 200), f"nothing more is {name}"

            disk.fill()
            refused = count["refused"]
            assert within(20, lambda: count["refused"] >= refused + 200), "full again, and nothing is refused"
            waited = {stored.event_id for stored in read_spool(site.spool).waiting}
        assert found["proved"], found
        # Kafka is back, the disk is as full as before: what waits is sent all the same.
        assert within(60, lambda: not waited & {stored.event_id for stored in read_spool(site.spool).waiting})
        disk.empty()
        facts = ends_well(site)["facts"]
    reasons = {one.detail.split()[0] for one in read_journals(tmp_path / "journals").told if one.kind == REFUSED}
    assert reasons <= {"spool_full", "spool_unavailable"}, reasons
    record_property("facts", facts)
    record_property("refused_with", sorted(reasons))
