"""What a worker was handed and what it was told, line by line: written so that `kill -9` costs at most a torn line.

A folder holds, for each run of a worker, `handed-<run>.ndjson` (a line before each event is handed in, an `end` line
when the run ends in good order) and `told-<run>.ndjson` (a line after each answer), and `killed.ndjson`, in which
whoever kills a worker notes the run that he is going to end. A line is on its way to the disk when `write` returns:
the system keeps it when the process dies. Nothing here knows the product.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SAFE = "safe"
DELIVERED = "delivered"
SPOOLED = "spooled"
DEAD_LETTERED = "dead_lettered"
REFUSED = "refused"
FAILED = "failed"
RAISED = "raised"
ACCEPTED = frozenset({SAFE, DELIVERED, SPOOLED, DEAD_LETTERED})
OUTCOMES = frozenset({DELIVERED, SPOOLED, DEAD_LETTERED, REFUSED, FAILED, RAISED})


class Handed(NamedTuple):
    """One event as it was handed in. `number` rises with each event of a key, over all runs.

    `is_bad` is true for one that breaks its contract.
    """

    event_id: str
    key: str
    number: int
    run: int
    is_bad: bool = False


class Told(NamedTuple):
    """One answer about an event: `safe` (accepted, on its way), or an outcome."""

    event_id: str
    kind: str
    run: int
    may_be_in_kafka: bool = False
    topic: str = ""
    partition: int = -1
    offset: int = -1
    detail: str = ""


@dataclass(slots=True)
class Journals:
    """Everything that a folder of journals says, in the order in which each run wrote it."""

    handed: list[Handed] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    torn_lines: int = 0

    @property
    def runs(self) -> set[int]:
        """The runs that handed in anything, or ended."""
        return {event.run for event in self.handed} | self.ended


class LineFile:
    """Appends whole lines to a file with one `write` each: two threads never mix, a dead process left whole lines."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: str) -> None:
        """Hand one line to the operating system; it outlives this process when this returns."""
        data = (line + "\n").encode()
        written = os.write(self._descriptor, data)
        if written != len(data):  # a full disk: what is said from here on would be no proof
            raise OSError(f"only {written} of {len(data)} bytes of the journal were taken")

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def handed_line(event: Handed) -> str:
    """One event as a line. Written out, because it runs for every event; ids and keys are plain ASCII."""
    bad = ',"bad":true' if event.is_bad else ""
    return f'{{"id":"{event.event_id}","key":"{event.key}","n":{event.number},"run":{event.run}{bad}}}'


def told_line(answer: Told) -> str:
    """One answer as a line."""
    line: dict[str, Any] = {"id": answer.event_id, "kind": answer.kind, "run": answer.run}
    if answer.may_be_in_kafka:
        line["maybe"] = True
    if answer.topic:
        line |= {"topic": answer.topic, "partition": answer.partition, "offset": answer.offset}
    if answer.detail:
        line["detail"] = answer.detail
    return json.dumps(line, separators=(",", ":"))


def end_line(run: int) -> str:
    """The line that says that a run ended in good order, having waited for its answers."""
    return json.dumps({"end": run})


def handed_path(folder: Path, run: int) -> Path:
    """Where a run writes down what it hands in."""
    return folder / f"handed-{run:04d}.ndjson"


def told_path(folder: Path, run: int) -> Path:
    """Where a run writes down what it is told."""
    return folder / f"told-{run:04d}.ndjson"


def note_kill(folder: Path, run: int) -> None:
    """Note, before it is done, that a run is going to be killed: its open events need no answer."""
    with LineFile(folder / "killed.ndjson") as file:
        file.write(json.dumps({"killed": run}))


def read_journals(folder: Path) -> Journals:
    """Read a folder. Raises ValueError for a line, other than a file's torn last one, that cannot be read."""
    found = Journals()
    for path in sorted(folder.glob("handed-*.ndjson")):
        for line in _lines(path, found):
            if "end" in line:
                found.ended.add(line["end"])
            else:
                found.handed.append(Handed(line["id"], line["key"], line["n"], line["run"], line.get("bad", False)))
    for path in sorted(folder.glob("told-*.ndjson")):
        found.told.extend(_answers(_lines(path, found)))
    for path in folder.glob("killed.ndjson"):
        found.killed.update(line["killed"] for line in _lines(path, found))
    return found


def _answers(lines: Iterable[dict[str, Any]]) -> Iterator[Told]:
    for line in lines:
        place = (line.get("topic", ""), line.get("partition", -1), line.get("offset", -1))
        yield Told(line["id"], line["kind"], line["run"], line.get("maybe", False), *place, line.get("detail", ""))


def _lines(path: Path, found: Journals) -> Iterator[dict[str, Any]]:
    *whole, last = path.read_bytes().split(b"\n")
    for number, line in enumerate(whole, start=1):
        try:
            yield json.loads(line)
        except ValueError as exc:
            raise ValueError(f"{path.name}, line {number} cannot be read") from exc
    if last:  # the process died inside this write: what it stands for had not been done, or not been told, yet
        found.torn_lines += 1
