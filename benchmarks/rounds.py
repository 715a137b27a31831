"""Interleaved rounds: in each, every way once, in an order of its own, each in a fresh process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.ways import Figures, Way
from benchmarks.worker import Job
from benchmarks.workload import contract
from postroom.schemas.schema_registry_client import SchemaRegistryClient, subject_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.workload import Place

    Progress = Callable[[str], None]

_ROOT = Path(__file__).parent.parent
_JOB_TIMEOUT_S = 300.0
STEP_CALLS = 20_000


class Round(msgspec.Struct, frozen=True):
    """What one round measured. `load` is the machine's load average over a minute, just before the round."""

    load: float
    ways: dict[str, Figures]
    steps_us: dict[str, float]


def run_job(job: Job) -> bytes:
    """Run the job in a fresh process and return its JSON. Raises RuntimeError with the end of what it complained of."""
    command = [sys.executable, "-m", "benchmarks.worker", msgspec.json.encode(job).decode()]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, timeout=_JOB_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{job.way or 'the single steps'}: {done.stderr.decode(errors='replace')[-2_000:]}")
    return done.stdout


def run_rounds(
    ways: Sequence[Way], place: Place | None, *, rounds: int, count: int, steps: bool, say: Progress
) -> list[Round]:
    """Measure `rounds` rounds of `count` events a way; `steps` adds the single steps to each.

    `place` may be None when there are no ways. The first way runs once more before the first round and is not
    counted: a broker that has just started is slow.
    """
    order = random.Random(rounds)  # the same order for the same number of rounds, a different one in each round
    if ways:
        run_job(Job(count, ways[0].name, place))
    results = []
    for number in range(1, rounds + 1):
        load = round(os.getloadavg()[0], 2)
        figures: dict[str, Figures] = {}
        for way in order.sample(ways, len(ways)):
            figures[way.name] = one = msgspec.json.decode(run_job(Job(count, way.name, place)), type=Figures)
            speed = f"{one.cpu_us:6.2f} us CPU  {1e6 / one.wall_us:10,.0f} events/s"
            say(f"round {number}/{rounds}  {way.name:<26} {speed}")
        steps_us = msgspec.json.decode(run_job(Job(STEP_CALLS)), type=dict[str, float]) if steps else {}
        results.append(Round(load, figures, steps_us))
    return results


def register(registry: str, topic: str) -> int:
    """Register the contract for the topic and return its schema id."""
    user_event = contract()
    with SchemaRegistryClient(registry) as client:
        return client.register(subject_name("topic_name", topic, user_event.record_name), user_event.schema_json)
