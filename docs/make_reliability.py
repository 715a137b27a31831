"""Makes docs/reliability.md from what a chaos run found: `.venv/bin/python docs/make_reliability.py [RESULTS]`.

RESULTS is the `results.json` of a run (`python -m tests.chaos`); its figures are kept in
`tests/chaos/reliability.json`, and without an argument the page is made from there again. A test compares the two.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":  # run as a file, `tests` is not to be found by itself
    sys.path.insert(0, str(ROOT))

from tests.chaos.driver import is_good  # noqa: E402 - after the path is set
from tests.chaos.scenarios import MIX, Kind  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEPT = ROOT / "tests" / "chaos" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"

Found = dict[str, Any]

# Columns of the matrix, and which of the checker's counts stand in them. What stands in none of them is named below it.
BREACHES = {
    "lost": ("lost", "only_in_quarantine"),
    "repeats without a mark": ("duplicates_unmarked", "duplicates_of_the_library", "repeats_waiting_unmarked"),
    "left after removing repeats": ("duplicates_left",),
    "reordered": ("reordered", "spread_keys"),
    "unanswered": ("unanswered",),
    "invented": ("invented", "altered"),
}

# How it is shown that the fault took place, and which faults of the list it covers.
PROOFS = {
    Kind.KILL: "its process ended by signal 9",
    Kind.END_WHILE_AWAY: "connections cut; ended by itself, exit code 0",
    Kind.BOUNCE_CLEAN: "the broker's log ends in good order; process gone, then a new one",
    Kind.BOUNCE_HARD: "process gone, then a new one; it led partitions of the topic",
    Kind.ALL_KILLED: "three processes gone, then three new ones",
    Kind.FREEZE_ONE: "the system shows it as stopped, at the beginning and at the end",
    Kind.FREEZE_TWO: "the same of both",
    Kind.FREEZE_ALL: "the same of all three",
    Kind.FREEZE_AND_KILL: "the system shows one as stopped; the other's process gone",
    Kind.CUT_ONE: "connections reset by the relay before it",
    Kind.CUT_ALL: "connections reset by all three relays",
    Kind.HALF_OPEN: "connections and bytes held by the relays",
    Kind.RELAPSE: "connections reset, later connections and bytes held, by the relays; records were left in the spool",
    Kind.LOST_REPLIES: "bytes of replies swallowed by the relays while requests went through",
    Kind.SLOW: "bytes held back for 0.4 s, each way",
}


def kept(results: Found) -> Found:
    """What of a run's results is worth keeping: figures and proofs, no process ids and no examples of good rounds."""
    rounds = []
    for one in results["rounds"]:
        faults = [
            {name: value for name, value in fault.items() if name not in {"pid", "exit_code", "handed", "stopped"}}
            for fault in one["faults"]
        ]
        verdict = one.get("verdict") or {"good": False, "breaches": {}, "facts": {}, "examples": {}}
        rounds.append({
            "number": one["number"], "name": one["name"], "write_ahead": one["write_ahead"], "threads": one["threads"],
            "seconds": one["seconds"], "error": _first_line(one["error"]), "faults": faults,
            "ending": {name: value for name, value in one["ending"].items() if name != "books"},
            "verdict": {
                "good": verdict["good"],
                "breaches": {name: count for name, count in verdict["breaches"].items() if count},
                "facts": {name: count for name, count in verdict["facts"].items() if count},
                "examples": verdict["examples"],
            },
        })  # fmt: skip
    return {**results, "rounds": rounds}


def _first_line(text: str | None) -> str | None:
    return None if text is None else text.splitlines()[0]


def page(results: Found) -> str:
    """The whole page."""
    rounds: Sequence[Found] = results["rounds"]
    bad = [one for one in rounds if not is_good(one)]
    return "\n".join([
        _HEAD,
        *_summary(results, rounds, bad),
        "",
        "## The matrix",
        _MATRIX_HEAD,
        *_matrix(rounds),
        *_other_breaches(rounds),
        "",
        "## Proof that the faults took place",
        _PROOF_HEAD,
        *_proofs(rounds),
        "",
        "## How long it took",
        _TIMES_HEAD,
        *_times(rounds),
        "",
        "## Rounds that were not good",
        *_bad_rounds(bad),
        "",
        _repeat(results),
    ])  # fmt: skip


# -- parts of the page


def _summary(results: Found, rounds: Sequence[Found], bad: Sequence[Found]) -> list[str]:
    facts = _sum_facts(rounds)
    faults = [fault for one in rounds for fault in one["faults"]]
    kills = _kills(faults)
    minutes = sum(one["seconds"] for one in rounds) / 60
    state = "**All of them kept every promise.**" if not bad else f"**{len(bad)} of them did not keep every promise.**"
    unfinished = results["planned_rounds"] - len(rounds)
    proved = sum(1 for fault in faults if fault.get("proved"))
    answers = (
        f"{facts['handed']:,} events handed in, {facts['accepted']:,} accepted, {facts['refused']:,} refused, "
        f"{facts['failed']:,} failed, {facts['cut_off']:,} without an outcome because the worker was killed "
        f"({facts['cut_off_found']:,} of these came into Kafka all the same)."
    )
    harm = (
        f"{proved:,} faults with proof; {len(kills):,} kills of the worker counted, with {min(kills, default=0):,} "
        f"to {max(kills, default=0):,} unacknowledged events each."
    )
    worst = max((one["verdict"]["facts"].get("duplicates_marked", 0) for one in rounds), default=0)
    repeats = (
        f"{facts['duplicates_marked']:,} repeats with a mark among {facts['records']:,} records "
        f"({facts['duplicates_marked'] / max(1, facts['records']):.1%}); the most in one round: {worst:,}."
    )
    outside = (
        f"Outside the promises, and so not counted as broken: {facts['reordered_across_runs']:,} first occurrences "
        f"behind one of a later process; {facts['repeat_before_original']:,} originals behind their marked repeat."
    )
    lines = [
        f"- {len(rounds)} rounds in {minutes:.0f} minutes. {state}",
        f"- {answers}",
        f"- {harm}",
        f"- {repeats}",
        f"- {outside}",
    ]
    if unfinished > 0:
        lines.append(f"- **The run is not complete: {unfinished} planned rounds are missing.**")
    return lines


def _matrix(rounds: Sequence[Found]) -> list[str]:
    heads = ["fault", "tries", "off, fsync", "events", *BREACHES, "repeats with a mark", "rounds, good"]
    lines = [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    for name in _names(rounds):
        mine = [one for one in rounds if one["name"] == name]
        facts, breaches = _sum_facts(mine), _sum_breaches(mine)
        faults = [fault for one in mine for fault in one["faults"]]
        proved = sum(1 for fault in faults if fault.get("proved"))
        tries = f"{proved}" + (f" (+{len(faults) - proved} without proof)" if proved < len(faults) else "")
        counts = [_figure(sum(breaches[kind] for kind in kinds)) for kinds in BREACHES.values()]
        good = sum(is_good(one) for one in mine)
        rounds_good = f"{good} of {len(mine)}" if good == len(mine) else f"**{good} of {len(mine)}**"
        modes = Counter(one["write_ahead"] for one in mine for _ in one["faults"])
        tried = f"{modes['off']}, {modes['fsync']}"
        events, marked = f"{facts['handed']:,}", f"{facts['duplicates_marked']:,}"
        lines.append(
            _row([f"{name} of the above" if name == MIX else name, tries, tried, events, *counts, marked, rounds_good])
        )
    return lines


def _other_breaches(rounds: Sequence[Found]) -> list[str]:
    shown = {kind for kinds in BREACHES.values() for kind in kinds}
    others = {name: count for name, count in _sum_breaches(rounds).items() if count and name not in shown}
    if not others:
        return ["", "Nothing else that the checker looks for was found."]
    return ["", "**Also found:** " + ", ".join(f"{name} {count}" for name, count in sorted(others.items())) + "."]


def _proofs(rounds: Sequence[Found]) -> list[str]:
    lines = [_row(["fault", "alone", "in mixes", "proof", "figures"]), _row(["---", "---:", "---:", "---", "---"])]
    all_faults = [(one["name"] == MIX, fault) for one in rounds for fault in one["faults"]]
    for row in sorted({fault["row"] for _, fault in all_faults}, key=_order):
        mine = [(is_mix, fault) for is_mix, fault in all_faults if fault["row"] == row]
        counts = Counter(is_mix for is_mix, _ in mine)
        proof = PROOFS[Kind(row.split(" + ", maxsplit=1)[0])] + (
            "; the worker's process ended by signal 9" if " + " in row else ""
        )
        figures = "; ".join(_figures([fault for _, fault in mine]))
        lines.append(_row([row, str(counts[False]), str(counts[True]), proof, figures]))
    return lines


def _figures(faults: Sequence[Found]) -> Iterable[str]:
    lasted = [fault["seconds"] for fault in faults if not fault["row"].startswith(Kind.KILL.value)]
    if lasted:
        yield f"{min(lasted):.0f} to {max(lasted):.0f} s"
    kills = _kills(faults)
    if kills:
        yield f"unacknowledged {min(kills):,} to {max(kills):,}, median {statistics.median(kills):,.0f}"
    uncounted = sum(len(fault.get("uncounted", ())) for fault in faults)
    if uncounted:
        yield f"{uncounted} more kills hit fewer than 100 and do not count"
    sums: Counter[str] = Counter()
    for fault in faults:
        sums.update(fault.get("relays", {}))
    yield from (f"{name}: {count:,}" for name, count in sums.items())
    left = [fault["left_to_drain"] for fault in faults if "left_to_drain" in fault]
    if left:
        yield f"{min(left):,} to {max(left):,} records left in the spool when it stood still"
    led = [fault["led"] for fault in faults if "led" in fault]
    if led:
        yield f"led {min(led)} to {max(led)} of 6 partitions"


def _times(rounds: Sequence[Found]) -> list[str]:
    heads = ["fault", "first record: median, s", "longest, s", "at once: median, s", "longest, s", "times"]
    lines = [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    faults = [fault for one in rounds for fault in one["faults"]]
    for row in sorted({fault["row"] for fault in faults}, key=_order):
        mine = [fault for fault in faults if fault["row"] == row and "delivering_again_s" in fault]
        if mine:
            cells = [cell for name in ("first_record_s", "delivering_again_s") for cell in _spread(mine, name)]
            lines.append(_row([row, *cells, str(len(mine))]))
    restarts = [kill["restarted_after_s"] for kill in _kill_records(faults)]
    drained = [one["ending"]["drained_s"] for one in rounds if one["ending"].get("drained_s") is not None]
    return [
        *lines,
        "",
        f"A killed worker, started again, had handed in its first event after {statistics.median(restarts):.1f} s "
        f"(median; longest {max(restarts):.1f} s), the start of the interpreter included."
        if restarts
        else "",
        f"At the end of a round the spool was empty {statistics.median(drained):.1f} s (median; longest "
        f"{max(drained):.1f} s) after the worker was told to rest."
        if drained
        else "",
    ]


def _spread(faults: Sequence[Found], name: str) -> tuple[str, str]:
    """Median and longest; what did not come within two minutes is said instead of the longest."""
    times = [fault.get(name) for fault in faults]
    came = [seconds for seconds in times if seconds is not None]
    longest = f"{max(came):.1f}" if len(came) == len(times) else f"**{len(times) - len(came)} over 120**"
    return (f"{statistics.median(came):.1f}" if came else "", longest)


def _bad_rounds(bad: Sequence[Found]) -> list[str]:
    if not bad:
        return ["None."]
    lines = []
    for one in bad:
        what = [f"{name} {count}" for name, count in one["verdict"]["breaches"].items() if count]
        ending = one["ending"]
        if one["error"]:
            what.append(f"broken off: {one['error']}")
        elif ending["drained_s"] is None:
            what.append("the spool was not empty after three minutes")
        if not one["error"] and ending["exit_code"] != 0:
            what.append(f"the worker ended with {ending['exit_code']}")
        if not one["error"] and ending["unaccounted"]:
            what.append(f"{ending['unaccounted']} events unaccounted in its books")
        lines.append(
            f"- round {one['number'] + 1}, {one['name']}, `write_ahead: {one['write_ahead']}`: {'; '.join(what)}"
        )
        examples = one["verdict"]["examples"]
        lines += [f"  - `{kind}`: {example}" for kind, some in examples.items() for example in some[:2]]
    return lines


def _repeat(results: Found) -> str:
    versions = "\n".join(_row([name, version]) for name, version in results["versions"].items())
    kills, bounces = results["kills"], results["bounces"]
    return f"""## Power cuts
A machine that loses its power cannot be had by the thousand, so the production code of the spool runs on a model of a
file system that keeps what is written apart from what is synced (`postroom.testing.model_file_system`). At each change
of it, disks that a power cut might leave are opened by the production code, and what it gives back is held against what
callers were told. `make test` opens 100,000 such disks, `make chaos` a million. The million of 2026-11-30 (commit
bebf835, 12 minutes) broke no promise; an earlier one had found a damaged record that went to quarantine without the
zero that it ended with, which is mended. Taking out any one sync call of the spool makes the model fail; a test does
so for each.

## How to repeat
```
make setup
.venv/bin/python -m tests.chaos --seed {results["seed"]} --kills {kills} --bounces {bounces}
```
The same seed plans the same faults in the same order, on the same brokers, for as long. What the system does in
between, it does at its own time: no two runs are the same to the microsecond. A run that was broken off goes on
with the same command. At its end it makes this page.

| | |
|---|---|
| seed | {results["seed"]} |
| begun, ended | {results["began"]}, {results.get("ended", "")} |
{versions}
"""


# -- sums


def _names(rounds: Sequence[Found]) -> list[str]:
    return sorted({one["name"] for one in rounds}, key=_order)


def _order(row: str) -> tuple[int, bool]:
    if row == MIX:
        return len(Kind), True
    return list(Kind).index(Kind(row.split(" + ", maxsplit=1)[0])), " + " in row


def _sum_facts(rounds: Iterable[Found]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for one in rounds:
        sums.update(one["verdict"]["facts"])
    return sums


def _sum_breaches(rounds: Iterable[Found]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for one in rounds:
        sums.update(one["verdict"]["breaches"])
    return sums


def _kill_records(faults: Iterable[Found]) -> list[Found]:
    records = [fault.get("kill", fault) for fault in faults]
    return [kill for kill in records if "unacknowledged" in kill]


def _kills(faults: Iterable[Found]) -> list[int]:
    return [kill["unacknowledged"] for kill in _kill_records(faults) if kill.get("proved")]


def _figure(count: int) -> str:
    return "0" if not count else f"**{count:,}**"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


_HEAD = """# Reliability: what was broken, and what came of it

This page is made from the results of a program that breaks things (`tests/chaos`). It says what was found, also
where that is not flattering. Written by hand are only the explanations.

An application hands in 1,000 events a second with 1,000 keys (three tenths of them to a few hot ones), in
bursts of 400; one in a hundred breaks its contract and becomes a dead letter. It uses postroom's public
interface, with a spool, half of the rounds with `write_ahead: off` and half with `fsync`, against three real
Kafka brokers with three replicas and `min.insync.replicas: 2`; a relay stands before each broker. It writes
down what it is going to hand in and what it is told, so that both survive `kill -9`.

After each round everything is brought back and the application ends in good order. Then a checker that shares
no code with postroom compares the two journals with every record in the topics, in the dead letter topics (both
read by a plain consumer) and in the spool's files (read by a reader of its own, written from [the
specification](specs/spool-format.md)). Each kind of finding was planted once in the checker's own tests.
"""

_MATRIX_HEAD = """
One row is one kind of fault; in its rounds nothing else happens, except between `+` signs. In the mixes
everything comes in random order, and what is found there belongs to no single fault. "Off, fsync" says how many
of the tries had which `write_ahead`. "Lost" is accepted and nowhere; "repeats without a mark" are copies beyond
the first without `x-attempt` above 1, whoever made them; "reordered" are first occurrences behind a later one
of the same key, within one process; "unanswered" never got an outcome, though nobody killed the application;
"invented" was never handed in, or with another content.
"""

_PROOF_HEAD = """
A fault without proof that it took place is not counted. A kill counts only if at least 100 events were
unacknowledged at that moment: handed in and without an outcome (also those whose outcome was on its way to the
application), or accepted and only in the spool.
"""

_TIMES_HEAD = """
From the end of the fault until Kafka had a further record of the topic (asked of Kafka, not of postroom), and until
200 more events were delivered at once, which takes as long as their keys have older records in the spool. In rounds
of one kind; a broker that was started again counts as back when it answers for all that it leads.
"""


def _one_line_a_round(results: Found) -> str:
    head = json.dumps({name: value for name, value in results.items() if name != "rounds"})
    rounds = ",\n".join(json.dumps(one) for one in results["rounds"])
    return f'{head[:-1]}, "rounds": [\n{rounds}\n]}}\n'


def main(arguments: Sequence[str]) -> None:
    """Keep the figures of a run, if one is named, and make the page."""
    if arguments:
        results = kept(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
        KEPT.write_text(_one_line_a_round(results), encoding="utf-8")
    PAGE.write_text(page(json.loads(KEPT.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
