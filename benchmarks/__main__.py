"""`python -m benchmarks`: start a real Kafka and a registry, measure every way, print the tables."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import confluent_kafka
import msgspec

from benchmarks.chart import svg
from benchmarks.report import Row, rows_of, step_table, table
from benchmarks.rounds import Round, register, run_rounds
from benchmarks.ways import WAYS, Way
from benchmarks.workload import Place
from postroom.testing.local_stack import LocalStack

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOPIC = "user_events"
_PARTITIONS = 6
_STEPS = "steps"


class Result(msgspec.Struct, frozen=True):
    """Everything a run measured, as `--json` writes it."""

    versions: dict[str, str]
    events: int
    rows: list[Row]
    rounds: list[Round]


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    names = list(dict.fromkeys(way.family for way in WAYS))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="CPU per event of postroom's publish_event and publish_many beside other ways of publishing, "
        "on a real Kafka and a real registry (started here). Tables go to stdout, progress to stderr.",
    )
    parser.add_argument("--events", type=_positive, default=100_000, metavar="N", help="events a measurement (100000)")
    parser.add_argument("--rounds", type=_positive, default=7, metavar="N", help="rounds, each with every way (7)")
    parser.add_argument(
        "--only", action="append", choices=[*names, _STEPS], metavar="NAME", help=f"{', '.join(names)} or {_STEPS}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a picture of the table to FILE")
    return parser.parse_args(given)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def measure_all(ways: Sequence[Way], *, events: int, rounds: int, steps: bool) -> list[Round]:
    """Run the rounds; a way needs the servers, which are started and stopped here."""
    if not ways:
        return run_rounds(ways, None, rounds=rounds, count=events, steps=steps, say=_say)
    with LocalStack(progress=_say) as stack:
        stack.create_topic(_TOPIC, partitions=_PARTITIONS)
        place = Place(stack.bootstrap, _TOPIC, stack.registry_url, register(stack.registry_url, _TOPIC))
        return run_rounds(ways, place, rounds=rounds, count=events, steps=steps, say=_say)


def main(given: Sequence[str]) -> None:
    """Measure what the arguments ask for and print it."""
    asked = arguments(given)
    ways = [way for way in WAYS if not asked.only or way.family in asked.only]
    steps = not asked.only or _STEPS in asked.only
    rounds = measure_all(ways, events=asked.events, rounds=asked.rounds, steps=steps)
    rows = rows_of(rounds, ways)
    loads = [one.load for one in rounds]
    print(f"{asked.rounds} rounds of {asked.events:,} events a way; load before a round {min(loads)} to {max(loads)}")
    if rows:
        print(f"\n{table(rows)}")
    if steps:
        print(f"\n{step_table(rounds)}")
    if asked.json is not None:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(_result(asked.events, rows, rounds))))
    if asked.svg is not None and rows:
        asked.svg.write_text(svg(rows, ours=frozenset(way.name for way in ways if way.ours)), encoding="utf-8")


def _result(events: int, rows: list[Row], rounds: list[Round]) -> Result:
    versions = {name: version(name) for name in ("postroom", "confluent-kafka", "fastavro", "msgspec")}
    versions |= {"librdkafka": confluent_kafka.libversion()[0], "python": platform.python_version()}
    return Result(versions, events, rows, rounds)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
