"""The drain of `postroom spool drain`: a producer service that is handed nothing, watched until its spool is empty."""

from __future__ import annotations

import sys
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Self

import msgspec

from postroom.cli.border import FAILED
from postroom.cli.spool_folder import SHUT, SlotLook, look_into
from postroom.cli.words import counts, duration, many, printable
from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.schemas.registry_protocol import RegisteredSchema
from postroom.services.health_checks import REMEDIES
from postroom.services.producer_service import ProducerService
from postroom.services.spool_view import PathView, SpoolSummary, paths_of, spool_of
from postroom.streaming.spool.inspection import shut_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from postroom.libs.config_loader import Config
    from postroom.schemas.registration import Registration

STILL_S = 30.0
"""So long Kafka is there and nothing moves before it is said that nothing will."""

IN_USE, LEFT = 3, 4

_LOOK_S = 0.05
_CONNECTS_IN_S = 1.0
_TELL_EVERY_S = 1.0
_OTHERS_EVERY_S = 1.0


class Verdict(Enum):
    """What a look at the draining says."""

    GO_ON = "go_on"
    EMPTY = "empty"
    STUCK = "stuck"  # what is left will not move, however long one waits
    TIME_IS_UP = "time_is_up"


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """The draining at one moment. `still_s`: so many seconds nothing has left; `closed`: paths that are not direct."""

    elapsed_s: float = 0.0
    sent: int = 0
    waiting: int = 0
    by_topic: dict[str, int] = {}
    rejected: int = 0
    oldest_s: float | None = None
    is_counted: bool = True
    is_connected: bool = True
    away_s: float = 0.0
    problem: str = ""
    still_s: float = 0.0
    damaged: int = 0
    lost: int = 0
    closed: tuple[PathView, ...] = ()


def judge(now: Situation, left_s: float | None) -> Verdict:
    """Say whether the draining is over. `left_s` is what is left of the time that it may take, None for no limit.

    With a limit it waits until then for what a person can mend; without one it waits for Kafka as long as it takes, but
    not for a topic that nobody creates, a right that nobody gives, or records that the disk does not give back.
    """
    if now.is_counted and not now.waiting:
        return Verdict.EMPTY
    if now.is_counted and now.waiting <= now.rejected:
        return Verdict.STUCK
    if left_s is not None:
        return Verdict.TIME_IS_UP if left_s <= 0 else Verdict.GO_ON
    needs_a_person = all(path.problem in REMEDIES or path.problem is None for path in now.closed)
    return Verdict.STUCK if now.is_connected and needs_a_person and now.still_s >= STILL_S else Verdict.GO_ON


def progress(now: Situation) -> str:
    """One line for people: what was sent, what is left, and what it is waiting for."""
    parts = [f"{now.elapsed_s:7.1f} s", f"sent {now.sent:,}", f"left {now.waiting:,}"]
    if now.by_topic:
        parts[-1] += f" ({counts(now.by_topic)})"
    if not now.is_counted:
        parts[-1] += " and counting"
    if now.oldest_s is not None:
        parts.append(f"oldest {duration(now.oldest_s)}")
    if not now.is_connected:
        if now.away_s >= _CONNECTS_IN_S:
            parts.append(f"waits for Kafka, not there for {duration(now.away_s)}{_why(now)}")
    else:
        parts += [f"{printable(path.topic)}: {path.problem}" for path in now.closed if path.problem is not None]
    return "  ".join(parts)


def _why(now: Situation) -> str:
    return f" ({now.problem})" if now.problem else ""


def remedies(now: Situation) -> list[str]:
    """What is left and why, a line each, with what a person can do about it."""
    if not now.is_connected:
        return [f"Kafka did not answer{_why(now)}: bring it back, or name another address with --broker"]
    lines = [
        f"{printable(path.topic)}: {path.problem}; {REMEDIES.get(path.problem, 'see the log')}"
        for path in now.closed
        if path.problem is not None
    ]
    if now.rejected:
        lines.append(
            f"{many(now.rejected, 'dead letter')} refused by the broker, left in the spool: see the lines "
            "dead_letter_rejected, make the topic take them (its max.message.bytes), and drain again"
        )
    if not lines and now.waiting and now.still_s >= STILL_S:
        lines.append(f"{many(now.waiting, 'record')} could not be read from the disk: see the log, and drain again")
    return lines


class SpoolDrain:
    """Takes over what lies unclaimed in a spool, and sends it. A context manager; inside, it drains."""

    def __init__(self, settings: Config, directory: Path, clock: Clock = SYSTEM_CLOCK) -> None:
        spool = settings.spool.model_copy(update={"dir": directory, "write_ahead": "off"})
        contracts = settings.contracts.model_copy(update={"create_topics": False})
        config = settings.model_copy(update={"spool": spool, "contracts": contracts})
        self._service = ProducerService(config, registry=_NoRegistry(), clock=clock)
        self._clock = clock
        self._started = self._moved = clock.monotonic()
        self._last = (0, 0)
        self._damaged = 0  # a slot that is empty is let go, and with it what is known of its damage

    def __enter__(self) -> Self:
        self._service.start()
        self._started = self._moved = self._clock.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._service.close()

    def look(self) -> Situation:
        """Return how it stands."""
        now = self._clock.monotonic()
        parts = self._service.parts
        spool = spool_of(parts, self._clock)
        assert spool is not None
        balance = self._service.ledger.total()
        sent = balance.drained
        if (sent, spool.waiting) != self._last:
            self._last, self._moved = (sent, spool.waiting), now
        self._damaged = max(self._damaged, spool.records.damaged + spool.dead_letters.damaged)
        condition = parts.publisher.condition()
        return Situation(
            elapsed_s=now - self._started,
            sent=sent,
            waiting=spool.waiting,
            by_topic=_by_topic(spool),
            rejected=spool.rejected,
            oldest_s=spool.oldest_s,
            is_counted=spool.is_counted,
            is_connected=condition.connected is True,
            away_s=condition.since_s,
            problem=condition.problem,
            still_s=now - self._moved,
            damaged=self._damaged,
            lost=balance.quarantined,
            closed=tuple(path for path in paths_of(parts, self._clock) if not path.is_direct),
        )

    def run(self, left_s: Callable[[], float | None], tell: Callable[[Situation], object]) -> tuple[Verdict, Situation]:
        """Drain until it is over; `tell` gets every look."""
        while True:
            now = self.look()
            verdict = judge(now, left_s())
            if verdict is not Verdict.GO_ON:
                return verdict, now
            tell(now)
            self._clock.sleep(_LOOK_S)


def _by_topic(spool: SpoolSummary) -> dict[str, int]:
    topics = dict(spool.records.by_topic)
    for topic, count in spool.dead_letters.by_topic.items():
        topics[topic] = topics.get(topic, 0) + count
    return topics


class _NoRegistry:
    """What is spooled is encoded already, and nothing else is sent: no registry is asked, and none must be there."""

    def lookup(self, subject: str, schema: Registration) -> int:
        """Return a number that no record will carry."""
        del subject, schema
        return 0

    def register(self, subject: str, schema: Registration) -> int:
        """Return a number that no record will carry."""
        return self.lookup(subject, schema)

    def kept(self, subject: str, schema: Registration) -> RegisteredSchema:
        """Return the schema as it is."""
        return RegisteredSchema(subject, 1, 0, schema.schema, schema.metadata, schema.rule_set)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


class DrainResult(msgspec.Struct, frozen=True):
    """How a draining by hand ended.

    `in_use` are the slots of others that are not empty, `newer` those that are nobody's and hold something that only a
    newer version can read, `shut` those that this user cannot take, `unread` those with files that the disk does not
    give.
    """

    directory: str
    verdict: Verdict
    sent: int
    last: Situation
    in_use: tuple[SlotLook, ...]
    newer: tuple[str, ...]
    elapsed_s: float
    shut: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        """What is left in the slots that are nobody's, and why."""
        lines = [] if self.verdict is Verdict.EMPTY else remedies(self.last)
        if self.last.damaged:
            places, records = many(self.last.damaged, "place"), many(self.last.lost, "record")
            lines.append(
                f"{places} in its files could not be read, with {records} that had been counted: set aside in its"
                " quarantine, look at the disk"
            )
        lines += [f"slot {name} is of a newer version of postroom: drain it with that version" for name in self.newer]
        lines += [f"slot {name} cannot be taken ({SHUT}): drain it as the user who wrote it" for name in self.shut]
        lines += [f"slot {name} has files that cannot be read: look at the disk" for name in self.unread]
        return lines

    @property
    def code(self) -> int:
        """The exit code: what needs a person comes before what needs time."""
        if self.verdict is Verdict.STUCK or self.newer or self.shut or self.unread or self.last.damaged:
            return FAILED
        if self.verdict is Verdict.TIME_IS_UP:
            return LEFT
        return IN_USE if self.in_use else 0

    def told(self) -> dict[str, object]:
        """The result as JSON has it."""
        return {
            "directory": self.directory,
            "sent": self.sent,
            "left": self.last.waiting,
            "left_by_topic": self.last.by_topic,
            "rejected": self.last.rejected,
            "damaged": self.last.damaged,
            "lost": self.last.lost,
            "problems": self.problems,
            "newer": self.newer,
            "shut": self.shut,
            "unread": self.unread,
            "in_use": [{"slot": slot.slot, "owner": slot.owner, "waiting": slot.waiting} for slot in self.in_use],
            "elapsed_s": self.elapsed_s,
        }

    def lines(self) -> list[str]:
        """The result for people."""
        directory = printable(self.directory)
        lines = [f"Sent {self.sent:,} in {duration(self.elapsed_s)}."]
        if self.last.waiting:
            lines.append(f"{self.last.waiting:,} are left in {directory} ({counts(self.last.by_topic)}).")
        lines += [f"  {problem}" for problem in self.problems]
        lines += [_in_use_line(slot) for slot in self.in_use]
        if not (self.last.waiting or self.in_use or self.newer or self.shut or self.unread):
            lines.append(f"Nothing waits in {directory}.")
        return lines


def drain_folder(
    settings: Config, directory: Path, timeout_s: float | None, clock: Clock = SYSTEM_CLOCK
) -> DrainResult:
    """Send what is nobody's in a spool, and wait for what others have there, as far as `timeout_s` allows.

    Tells on stderr how it goes. Raises ConfigurationError for what is no folder.
    """
    began = clock.monotonic()
    last, verdict, sent, damaged, lost = Situation(), Verdict.EMPTY, 0, 0, 0
    shut: set[str] = set()

    def left_s() -> float | None:
        return None if timeout_s is None else began + timeout_s - clock.monotonic()

    with Teller(clock) as teller:
        while True:
            slots = look_into(directory)
            unclaimed = _unclaimed(slots)
            if unclaimed or any(slot.unreadable and slot.owner is None for slot in slots):
                with SpoolDrain(settings, directory, clock) as job:
                    verdict, last = job.run(left_s, lambda now: teller.tell(partial(progress, now)))
                sent, damaged, lost = sent + last.sent, damaged + last.damaged, lost + last.lost
                slots = look_into(directory)
                if verdict is Verdict.EMPTY:  # all that it could take is empty
                    shut |= unclaimed & _unclaimed(slots)
            in_use = tuple(slot for slot in slots if slot.waiting and slot.owner is not None)
            time_left = left_s()
            if verdict is not Verdict.EMPTY or not in_use or time_left is None or time_left <= 0:
                break
            teller.tell(partial(_in_use_words, in_use))
            clock.sleep(min(_OTHERS_EVERY_S, time_left))
    newer = tuple(slot.slot for slot in slots if slot.newer and slot.owner is None and _has_segments(directory, slot))
    elapsed_s = round(clock.monotonic() - began, 3)
    last = msgspec.structs.replace(last, damaged=damaged, lost=lost)
    not_ours = tuple(sorted(shut.union(shut_slots(directory))))
    told: set[str] = set() if damaged else {slot.slot for slot in slots if slot.unreadable and slot.owner is None}
    unread = tuple(sorted(told.difference(newer, not_ours)))
    return DrainResult(str(directory.absolute()), verdict, sent, last, in_use, newer, elapsed_s, not_ours, unread)


def _unclaimed(slots: Iterable[SlotLook]) -> set[str]:
    return {slot.slot for slot in slots if slot.waiting and slot.owner is None}


def _has_segments(directory: Path, slot: SlotLook) -> bool:
    """True when there is a file with records in a slot; more is not known of one that only a newer version can read."""
    return any((directory / slot.slot).glob("*/*.seg"))


def _in_use_line(slot: SlotLook) -> str:
    return (
        f"slot {slot.slot} is in use by {printable(slot.owner or '-')}, which drains it itself: {slot.waiting:,} wait"
    )


def _in_use_words(slots: Iterable[SlotLook]) -> str:
    return "waits: " + "; ".join(map(_in_use_line, slots))


class Teller:
    """Tells on stderr how it goes: one line that changes on a terminal, a line a second anywhere else."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        from rich.console import Console

        self._clock = clock
        self._next = clock.monotonic() + _TELL_EVERY_S
        console = Console(stderr=True, highlight=False)
        self._status = console.status("looking into the spool") if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, words: Callable[[], str]) -> None:
        """Tell what `words` says, if it is time again."""
        now = self._clock.monotonic()
        if now < self._next:
            return
        self._next = now + (_TELL_EVERY_S if self._status is None else _TELL_EVERY_S / 5)
        if self._status is None:
            sys.stderr.write(words() + "\n")
        else:
            from rich.text import Text

            self._status.update(Text(words()))
