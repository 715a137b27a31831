"""Which faults there are, and which of them happen when: a plan made from a seed, before anything is started."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

UNACKNOWLEDGED = 100
"""A kill of the worker counts only if at least so many of its events were not acknowledged by Kafka at that moment."""


class Kind(StrEnum):
    """One way to do harm. The values stand in the published matrix."""

    KILL = "worker killed"
    END_WHILE_AWAY = "worker ended, Kafka away"
    BOUNCE_CLEAN = "broker bounced, clean"
    BOUNCE_HARD = "leader killed"
    ALL_KILLED = "all brokers killed"
    FREEZE_ONE = "one broker frozen"
    FREEZE_TWO = "two brokers frozen"
    FREEZE_ALL = "all brokers frozen"
    FREEZE_AND_KILL = "one broker frozen, one killed"
    CUT_ONE = "one broker cut off"
    CUT_ALL = "all brokers cut off"
    HALF_OPEN = "network half-open"
    RELAPSE = "cut off, and half-open while draining"
    LOST_REPLIES = "replies lost"
    SLOW = "network slow"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `gap_s` after the one before, for `seconds`; `pick` says which broker or partition (0, 1, 2).

    With `kill_inside` the worker is killed and started again while the fault lasts.
    """

    kind: Kind
    seconds: float
    pick: int
    gap_s: float
    kill_inside: bool = False

    @property
    def row(self) -> str:
        """The row of the matrix that it belongs to."""
        return f"{self.kind.value} + worker killed" if self.kill_inside else self.kind.value


@dataclass(frozen=True, slots=True)
class Round:
    """Some faults, one after the other, on one worker and its restarts; judged together.

    `name` is the row of its faults, or `mix`.
    """

    number: int
    name: str
    write_ahead: str
    threads: int
    faults: tuple[Fault, ...]


MIX = "mix"
MODES = ("off", "fsync")
_KILLS_A_ROUND, _OTHERS_A_ROUND, _MIXED_A_ROUND = 20, 6, 12
_KILLED_INSIDE = (
    Kind.FREEZE_TWO,
    Kind.FREEZE_ALL,
    Kind.BOUNCE_HARD,
    Kind.CUT_ALL,
    Kind.HALF_OPEN,
    Kind.RELAPSE,
    Kind.LOST_REPLIES,
)
_Named: TypeAlias = tuple[str, str, Sequence[Fault]]  # row, write_ahead, faults


def amounts(kills: int, bounces: int) -> dict[Kind, int]:
    """How often each fault happens; kills of the worker inside other faults come on top."""
    fifth, tenth = max(1, bounces // 5), max(1, bounces // 10)
    return {
        Kind.KILL: kills,
        Kind.END_WHILE_AWAY: tenth,
        Kind.BOUNCE_CLEAN: bounces // 2,
        Kind.BOUNCE_HARD: bounces - bounces // 2,
        Kind.ALL_KILLED: tenth,
        Kind.FREEZE_ONE: fifth,
        Kind.FREEZE_TWO: fifth,
        Kind.FREEZE_ALL: fifth,
        Kind.FREEZE_AND_KILL: tenth,
        Kind.CUT_ONE: fifth,
        Kind.CUT_ALL: fifth,
        Kind.HALF_OPEN: fifth,
        Kind.RELAPSE: fifth,
        Kind.LOST_REPLIES: fifth,
        Kind.SLOW: tenth,
    }


def plan(seed: str, *, kills: int, bounces: int) -> tuple[Round, ...]:
    """The whole run. The same arguments give the same plan.

    Half of each kind of fault happens in rounds of nothing else, so that what goes wrong there has a name; the other
    half in random mixes. The rounds come in random order: a run that is cut short has something of everything.
    """
    chance = random.Random(f"chaos {seed}")
    named: list[_Named] = []
    mixed: list[Fault] = []
    for kind, amount in amounts(kills, bounces).items():
        alone = (amount + 1) // 2
        size = _KILLS_A_ROUND if kind is Kind.KILL else _OTHERS_A_ROUND
        named += _rounds([_fault(kind, chance) for _ in range(alone)], size)
        mixed += [_fault(kind, chance, may_kill_inside=True) for _ in range(amount - alone)]
    for kind in _KILLED_INSIDE:
        faults = [_fault(kind, chance, kill_inside=True) for _ in range(max(1, bounces // 10))]
        named += _rounds(faults, _OTHERS_A_ROUND)
    chance.shuffle(mixed)
    named += [(MIX, MODES[part % 2], faults) for part, faults in enumerate(_parts(mixed, _MIXED_A_ROUND))]
    chance.shuffle(named)
    return tuple(_round(number, *one, chance) for number, one in enumerate(named))


def _rounds(faults: Sequence[Fault], size: int) -> list[_Named]:
    return [(faults[0].row, MODES[part % 2], some) for part, some in enumerate(_parts(faults, size))]


def _parts(faults: Sequence[Fault], size: int) -> list[Sequence[Fault]]:
    """Equal parts of at most `size` faults; an even number of them where it can be, for two modes."""
    parts = 2 * -(-len(faults) // (2 * size))
    return [faults[part::parts] for part in range(parts) if faults[part::parts]]


def _round(number: int, name: str, write_ahead: str, faults: Sequence[Fault], chance: random.Random) -> Round:
    # Each call waits for the disk in `fsync`: one thread alone could not hand in a thousand a second.
    threads = 8 if write_ahead == "fsync" else chance.choice((1, 4))
    return Round(number, name, write_ahead, threads, tuple(faults))


def _fault(kind: Kind, chance: random.Random, *, kill_inside: bool = False, may_kill_inside: bool = False) -> Fault:
    lasting = kind not in {Kind.KILL, Kind.BOUNCE_CLEAN, Kind.BOUNCE_HARD, Kind.SLOW}
    # Some shorter and some longer than the patience after which unacknowledged records go to the spool.
    seconds = chance.uniform(16, 24) if lasting and chance.random() < 0.4 else chance.uniform(2, 9)
    inside = kill_inside or (may_kill_inside and kind in _KILLED_INSIDE and chance.random() < 0.5)
    return Fault(kind, round(seconds, 1), chance.randrange(3), round(chance.uniform(0.5, 3), 1), inside)
