"""The fresh process in which one measurement is made: a job as JSON in the argument, the result as JSON on stdout."""

from __future__ import annotations

import sys

import msgspec

from benchmarks.ways import WAYS, measure
from benchmarks.workload import Place  # noqa: TC001  msgspec reads it when a job is decoded


class Job(msgspec.Struct, frozen=True):
    """One measurement: a way to a place, or the single steps when there is none."""

    count: int
    way: str = ""
    place: Place | None = None


def work(job: Job) -> bytes:
    """Do the job and return its result as JSON."""
    if job.place is None:
        from benchmarks.micro import measure_steps

        return msgspec.json.encode(measure_steps(job.count))
    way = next(way for way in WAYS if way.name == job.way)
    return msgspec.json.encode(measure(way, job.place, job.count))


if __name__ == "__main__":
    print(work(msgspec.json.decode(sys.argv[1], type=Job)).decode())
