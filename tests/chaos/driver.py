"""Runs the plan: rounds of faults on a real cluster, each judged by the checker. Can be broken off and gone on with.

    python -m tests.chaos --seed 1 --kills 200 --bounces 50          # an hour and a half
    python -m tests.chaos --seed 1 --kills 200 --bounces 50          # again: goes on where it was broken off
    python -m tests.chaos --seed 1 --kills 20 --bounces 10 --minutes 10

What was found stands in `<folder>/seed-<seed>/results.json`. When the plan is done, docs/reliability.md is made of it
(`docs/make_reliability.py`), good or bad. Ends with 0 when all rounds are done and good, 1 when one was not, 3 when the
time was over before the plan was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import traceback
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import confluent_kafka
from confluent_kafka.admin import AdminClient

from postroom.testing.stack_lock import load_lock
from tests.chaos.checker import Verdict, judge
from tests.chaos.ground import Ground, Site
from tests.chaos.journals import read_journals
from tests.chaos.scenarios import MIX, Round, plan
from tests.chaos.spool_files import read_spool
from tests.chaos.topic_logs import read_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1
_PAGE_MAKER = Path(__file__).parents[2] / "docs" / "make_reliability.py"
_ROUNDS_A_CLUSTER = 8  # then a new one: logs and metadata of the old one would only grow


class Results:
    """The file with what was found, written anew after each round."""

    def __init__(self, folder: Path, head: dict[str, Any]) -> None:
        self.path = folder / "results.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = {**head, "rounds": []}
        if self.path.exists():
            before = json.loads(self.path.read_text(encoding="utf-8"))
            same = [name for name in ("format", "seed", "kills", "bounces") if before.get(name) != head[name]]
            if same:
                raise SystemExit(f"{self.path} belongs to a run with another {', '.join(same)}: name another --folder")
            self.content["began"], self.content["rounds"] = before["began"], before["rounds"]

    @property
    def done(self) -> set[int]:
        """The numbers of the rounds that need not be run again."""
        return {one["number"] for one in self.content["rounds"]}

    def add(self, one: dict[str, Any]) -> None:
        """Keep a round, whatever happens next."""
        self.content["rounds"].append(one)
        self.content["ended"] = now()
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        new.replace(self.path)


def now() -> str:
    """The date and time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """What the figures were measured on."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "postroom": f"{metadata.version('postroom')}, commit {commit or 'unknown'}",
        "Python": platform.python_version(),
        "confluent-kafka": metadata.version("confluent-kafka"),
        "librdkafka": confluent_kafka.libversion()[0],
        "Apache Kafka": load_lock().kafka_version,
        "operating system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "processors": str(os.cpu_count()),
    }


def run_round(ground: Ground, one: Round, folder: Path, seed: str) -> dict[str, Any]:
    """Run and judge one round. An exception of ours is noted as its error, and makes it no good round."""
    began = time.monotonic()
    result: dict[str, Any] = {
        "number": one.number, "name": one.name, "write_ahead": one.write_ahead, "threads": one.threads,
        "began": now(), "faults": [], "ending": {}, "error": None,
    }  # fmt: skip
    site = None
    try:
        site = Site.of(ground, folder, one, seed)
        site.start_worker()
        site.wait_for_deliveries()
        for fault in one.faults:
            found = site.do(fault, settle=one.name != MIX)
            ground.say(f"    {_told(found)}")
            result["faults"].append(found)
        result["ending"] = site.finish()
        verdict = judge_site(site)
        ground.say(f"  {verdict}")
        result |= {"verdict": verdict.as_json(), "topic": site.topic}
    except Exception as exc:  # noqa: BLE001 - the other rounds go on; this one stands in the report as what it is
        result["error"] = f"{type(exc).__name__}: {exc}"
        ground.say(traceback.format_exc())
    finally:
        if site is not None:
            site.worker.close()
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def _told(found: dict[str, Any]) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in found.items() if name not in {"row", "seconds", "proved"})
    return f"{'' if found.get('proved') else 'NOT PROVED '}{found['row']} {found['seconds']} s: {facts}"


def judge_site(site: Site) -> Verdict:
    """Everything back in its place: compare the journals with topics and spool, and the worker's own books with 0."""
    bootstrap = site.ground.stack.bootstrap
    logs = [read_topic(bootstrap, site.topic), read_topic(bootstrap, site.dead_letters, is_dead_letters=True)]
    return judge(read_journals(site.folder), logs, read_spool(site.spool))


def is_good(result: dict[str, Any]) -> bool:
    """Whether a round was judged, kept every promise, and ended with an empty spool and balanced books."""
    ending = result["ending"]
    return bool(
        result["error"] is None
        and result["verdict"]["good"]
        and ending["exit_code"] == 0
        and ending["drained_s"] is not None
        and ending["unaccounted"] == 0
    )


def clean_up(ground: Ground, site_folder: Path, result: dict[str, Any]) -> None:
    """Remove the topics and files of a good round; those of a bad one are kept to be looked at."""
    if is_good(result):
        topics = [result["topic"], f"{result['topic']}.dlq"]
        admin = AdminClient({"bootstrap.servers": ground.stack.bootstrap, "log_level": 0})
        for answer in admin.delete_topics(topics, operation_timeout=20).values():
            answer.result(30)
        shutil.rmtree(site_folder, ignore_errors=True)


def run(asked: argparse.Namespace) -> int:
    """Run what is not done yet of the plan; return the exit code."""
    rounds = plan(asked.seed, kills=asked.kills, bounces=asked.bounces)
    head = {"format": FORMAT, "seed": asked.seed, "kills": asked.kills, "bounces": asked.bounces, "began": now()}
    folder: Path = asked.folder / f"seed-{asked.seed}"
    results = Results(folder, head)
    results.content["versions"] = versions()
    results.content["planned_rounds"] = len(rounds)
    left = [one for one in rounds if one.number not in results.done and asked.only in {None, one.name}]
    end = time.monotonic() + asked.minutes * 60
    with Grounds() as grounds:
        for one in left:
            if time.monotonic() > end:
                say("the time is over; the same command goes on from here")
                return 3
            ground = grounds.take()
            say(f"round {one.number + 1} of {len(rounds)}: {one.name}, {len(one.faults)} faults, {one.write_ahead}")
            place = folder / f"round-{one.number:03d}"
            shutil.rmtree(place, ignore_errors=True)
            result = run_round(ground, one, place, asked.seed)
            results.add(result)
            if result["error"] is None:
                clean_up(ground, place, result)
            else:
                grounds.leave()  # who knows what state the servers are in
    if asked.page and len(results.done) == len(rounds):
        subprocess.run([sys.executable, str(_PAGE_MAKER), str(results.path)], check=True)
        say("docs/reliability.md is made of it")
    bad = [one["number"] for one in results.content["rounds"] if not is_good(one)]
    say(f"{len(results.content['rounds'])} of {len(rounds)} rounds done, not good: {bad or 'none'}")
    return 1 if bad else 0


class Grounds:
    """A cluster for some rounds, then a new one: logs and metadata of the old one would only grow."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._ground: Ground | None = None
        self._rounds = 0

    def take(self) -> Ground:
        """Return a running cluster."""
        if self._rounds >= _ROUNDS_A_CLUSTER:
            self.leave()
        self._rounds += 1
        if self._ground is None:
            self._ground = self._open.enter_context(Ground.started(say=say))
        return self._ground

    def leave(self) -> None:
        """Stop the cluster; the next round gets a new one."""
        self._open.close()
        self._ground, self._rounds = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def say(line: str) -> None:
    """Tell whoever watches."""
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)  # noqa: T201 - a program


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", default="1", help="the same seed plans the same faults at the same moments")
    parser.add_argument("--kills", type=int, default=200, help="of the worker, beside those inside other faults")
    parser.add_argument("--bounces", type=int, default=50, help="of brokers; the others are in proportion")
    parser.add_argument("--minutes", type=float, default=10_000, help="begin no round after so many minutes")
    parser.add_argument("--only", help="only the rounds of that name (a row of the matrix, or mix)")
    parser.add_argument("--folder", type=Path, default=Path("build/chaos"), help="for results and bad rounds")
    parser.add_argument("--no-page", dest="page", action="store_false", help="leave docs/reliability.md as it is")
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
