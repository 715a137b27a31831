"""A random life of a spool on the model file system, in which the power may fail at every moment.

After every change of the disk, every content that a power cut may leave there is opened by the production code and
held against what the callers were told. One seed is one life; it breaks off now and then and goes on from a cut disk.
"""

from __future__ import annotations

import errno
import itertools
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from postroom.libs.event import Record
from postroom.libs.exceptions import PostroomError, SpoolError
from postroom.streaming.spool.frame_scan import Frame, FrameScan
from postroom.streaming.spool.record_format import Kind, parse_segment_header
from postroom.streaming.spool.spool import Spool
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem

if TYPE_CHECKING:
    from postroom.streaming.spool.group_commit import Place, Ticket
    from postroom.streaming.spool.queue_reader import SpooledRecord

ROOT = "/spool"
_salts = itertools.count(1)
_KEYS = (b"a", b"b", b"c", None)


class _InHand(NamedTuple):
    """A record that somebody has; `was_sent` says that an earlier try may have sent it."""

    name: str
    place: SpooledRecord | Place
    was_sent: bool


class BrokenPromiseError(AssertionError):
    """What a disk after a power cut gave was not what the callers were told."""


class PowerCutLife:
    """Runs one life and counts the disks that were opened. `states_each` bounds them for each moment."""

    def __init__(self, seed: int, *, deaf_to: frozenset[str] = frozenset(), states_each: int = 40) -> None:
        self._random = Random(seed)
        self._cuts = Random(seed + 1)
        self._states_each = states_each
        self._deaf_to = deaf_to
        self.states = 0
        self.sync_places: set[str] = set()
        self._records: dict[str, tuple[int, Kind, Record]] = {}
        self._accepted: dict[str, None] = {}
        self._refused: set[str] = set()
        self._handed_out: set[str] = set()
        self._acknowledged: set[str] = set()
        self._damaged: dict[str, bytes] = {}
        self._unflushed: set[str] = set()
        self._flushed: set[str] = set()
        self._in_hand: list[_InHand] = []
        self._died: dict[str, int] = {}
        self._on_trial: dict[Kind, str] = {}
        self._unsure: set[str] = set()  # may be on trial for a start, or not, or outlived
        self._use(ModelFileSystem())

    def run(self, steps: int) -> None:
        """Live on for so many steps."""
        for _ in range(steps):
            step = self._random.choices(
                [
                    *(self._append, self._claim, self._read, self._acknowledge, self._tend),
                    *(self._put_back, self._rewind, self._try_alone, self._outlive),
                    *(self._restart, self._cut, self._fill, self._break, self._break_cursor, self._damage),
                ],
                weights=[16, 12, 20, 32, 12, 8, 6, 4, 4, 3, 3, 5, 4, 2, 3],
            )[0]
            step()
        self.sync_places |= self._disk.sync_places

    # -- steps

    def _record(self, kind: Kind) -> Record:
        number = len(self._records)
        value = self._random.choice([None, b"", bytes(20), b"\xff" * 30, b"value %d" % number])
        record = Record(
            "topic",
            self._random.choice(_KEYS),
            value,
            (("h", b"%d" % number),),
            f"id{number}",
            number,
            1 + number % 3,
        )
        self._records[record.event_id] = (number, kind, record)
        return record

    def _kind(self) -> Kind:
        return Kind.RECORD if self._random.random() < 0.8 else Kind.DEAD_LETTER

    def _append(self) -> None:
        kind = self._kind()
        records = [self._record(kind) for _ in range(self._random.randint(1, 4))]
        for record, ticket in zip(records, self._spool.append_many(records, kind=kind), strict=True):
            self._note_answer(record.event_id, ticket.error)

    def _claim(self) -> None:
        kind = self._kind()
        for _ in range(self._random.randint(1, 3)):
            record = self._record(kind)

            def stored(ticket: Ticket, name: str = record.event_id) -> None:
                self._note_answer(name, ticket.error)
                if ticket.is_claimed:  # from now on it may be on its way
                    self._handed_out.add(name)
                    self._in_hand.append(_InHand(name, ticket.place, was_sent=False))

            try:
                self._spool.append(record, kind=kind, claim=True, on_stored=stored)
            except SpoolError as exc:
                self._note_answer(record.event_id, exc)

    def _note_answer(self, name: str, error: PostroomError | None) -> None:
        if error is None:
            self._accepted[name] = None
        elif not (isinstance(error, SpoolError) and error.may_resurface):
            self._refused.add(name)

    def _read(self) -> None:
        kind = self._random.choice(list(Kind))
        try:
            found = self._spool.read(kind, max_records=self._random.randint(1, 6))
        except PostroomError:
            return
        self._handed_out |= {waiting.record.event_id for waiting in found}
        self._in_hand += [_InHand(one.record.event_id, one, was_sent=one.sent_before) for one in found]

    def _acknowledge(self) -> None:
        for _ in range(self._random.randint(1, 5)):
            if self._in_hand:
                one = self._in_hand.pop(self._random.randrange(min(3, len(self._in_hand))))
                self._acknowledged.add(one.name)
                self._unflushed.add(one.name)
                assert self._spool.ack(one.place)

    def _put_back(self) -> None:
        """Give back some of what is in hand; what was never sent may come without a mark from now on."""
        some = [one for one in self._in_hand if self._random.random() < 0.5]
        sent = self._random.random() < 0.5
        assert self._spool.put_back([one.place for one in some], sent=sent) == len(some)
        self._in_hand = [one for one in self._in_hand if one not in some]
        if not sent:
            self._handed_out -= {one.name for one in some if not one.was_sent}

    def _rewind(self) -> None:
        self._spool.rewind(self._random.choice(list(Kind)))

    def _try_alone(self) -> None:
        """Have one record of a kind on trial, in place of another: that one's trial is simply over."""
        if self._in_hand:
            one = self._random.choice(self._in_hand)
            self._unsure = {one.name, self._on_trial.get(one.place.kind, "")}
            self._spool.on_trial(one.place)
            self._on_trial[one.place.kind] = one.name
            self._unsure = set()

    def _outlive(self) -> None:
        """End the trial of a record in hand."""
        for one in self._in_hand:
            if self._on_trial.get(one.place.kind) == one.name:
                self._unsure = {one.name}
                self._spool.trial_over(one.place)
                del self._on_trial[one.place.kind]
                self._died.pop(one.name, None)
                self._unsure = set()

    def _tend(self) -> None:
        self._clock.advance(10)
        healthy = self._disk.fault is None and self._disk.free_bytes is None
        self._spool.tend()
        if healthy:
            self._flushed |= self._unflushed
            self._unflushed.clear()

    def _restart(self) -> None:
        self._heal()
        self._stop()
        self._use(self._disk)

    def _cut(self) -> None:
        states = list(self._disk.crash_states(self._cuts))
        self._heal()
        self._use(self._cuts.choice(states))

    def _fill(self) -> None:
        """Let the disk be full for one append."""
        self._disk.free_bytes = self._random.randint(0, 400)
        self._append()
        if self._random.random() < 0.3:  # draining goes on
            self._read()
            self._claim()
            self._acknowledge()
            self._tend()
        self._heal()

    def _break(self) -> None:
        """Let one operation fail for as long as one append takes."""
        broken = self._random.choice(["write", "sync", "sync_folder", "create", "truncate"])
        self._disk.fault = lambda operation, path: (
            OSError(errno.EIO, "broken") if operation == broken and "LOCK" not in path else None
        )
        self._append()
        self._claim()
        self._heal()

    def _break_cursor(self) -> None:
        """Let the next write of a cursor fail, so that a new file takes its place; or take the file away."""
        if self._random.random() < 0.5:
            self._stop()
            # Without its cursor a queue may give back what was acknowledged: all of it, marked.
            self._flushed.clear()
            for path in self._disk.paths():
                if path.endswith("/cursor"):
                    self._disk.remove(path)
            self._use(self._disk)
        failures = iter([OSError(errno.EIO, "broken")])
        self._disk.fault = lambda operation, path: (
            next(failures, None) if operation in {"write", "sync"} and "/cursor" in path else None
        )
        self._claim()
        self._acknowledge()
        self._spool.tend()
        self._disk.fault = None
        self._tend()

    def _damage(self) -> None:
        """Flip a bit in the body of a frame, at rest."""
        self._heal()
        self._stop()
        frames = [(path, frame) for path in self._disk.paths("/spool/0001") for frame in frames_of(self._disk, path)]
        if frames:
            path, frame = self._random.choice(frames)
            content = bytearray(self._disk.content(path))
            content[frame.offset + self._random.randrange(frame.length)] ^= 1 << self._random.randrange(8)
            self._disk.put(path, bytes(content))
            name = frame.stored.record.event_id
            if name not in self._acknowledged:
                self._damaged[name] = bytes(content[frame.offset : frame.offset + frame.length])
        self._use(self._disk)

    # -- the disk

    def _heal(self) -> None:
        self._disk.fault = None
        self._disk.free_bytes = None
        self._clock.advance(10)

    def _use(self, disk: ModelFileSystem) -> None:
        self._clock = ManualClock()
        self._in_hand = []
        self._unflushed = set()
        self._disk = disk
        disk.deaf_to = self._deaf_to
        disk.on_change = self._check_cuts
        self._spool = _spool(disk, self._clock)
        for name in self._on_trial.values():
            self._died[name] = self._died.get(name, 0) + 1
        self._on_trial = {}
        self._spool.start()

    def _stop(self) -> None:
        self._unsure = set(self._on_trial.values())
        self._spool.stop()
        self._flushed |= self._unflushed
        self._on_trial, self._unsure = {}, set()

    def _check_cuts(self) -> None:
        states = list(self._disk.crash_states(self._cuts))
        if len(states) > self._states_each:
            states = states[:2] + self._cuts.sample(states[2:], self._states_each - 2)
        for state in states:
            self._check(state)
        self.states += len(states)
        self.sync_places |= self._disk.sync_places

    def _check(self, disk: ModelFileSystem) -> None:
        spool = _spool(disk, self._clock)
        spool.start()
        came_back: set[str] = set()
        for kind in Kind:
            last = -1
            while found := spool.read(kind):
                for waiting in found:
                    last = self._check_record(waiting, kind, last)
                    self._check_deaths(waiting.record.event_id, spool.deaths_at(waiting))
                    came_back.add(waiting.record.event_id)
        excused = came_back | self._acknowledged | self._damaged.keys()
        missing = [name for name in self._accepted if name not in excused]
        if self._damaged:
            whole_disk = b"".join(disk.content(path) for path in disk.paths())
            missing += [name for name, data in self._damaged.items() if data not in whole_disk]
        if missing:
            raise BrokenPromiseError(f"accepted and lost: {missing}")
        if came_back & self._flushed:
            raise BrokenPromiseError(f"acknowledged, flushed and back: {came_back & self._flushed}")
        if came_back & self._refused:
            raise BrokenPromiseError(f"refused for good and back: {came_back & self._refused}")

    def _check_record(self, waiting: SpooledRecord, kind: Kind, last: int) -> int:
        number, handed_in_as, record = self._records.get(waiting.record.event_id, (-1, None, None))
        if record != waiting.record or kind != handed_in_as or waiting.kind != kind:
            raise BrokenPromiseError("a record that nobody handed in")
        if number <= last:
            raise BrokenPromiseError("out of order, or twice")
        if waiting.record.event_id in self._handed_out and not waiting.sent_before:
            raise BrokenPromiseError("a repeat without its mark")
        return number

    def _check_deaths(self, name: str, deaths: int) -> None:
        died = self._died.get(name, 0)
        allowed = {died + (name in self._on_trial.values())}
        if name in self._unsure:
            allowed = {0, died, died + 1}
        if deaths not in allowed:
            raise BrokenPromiseError(f"{deaths} deaths at a record instead of {allowed}")


def frames_of(disk: ModelFileSystem, path: str) -> list[Frame]:
    """The whole frames in a segment's file; none in any other."""
    header = parse_segment_header(disk.content(path)[:128])
    if header is None or not path.endswith(".seg"):
        return []
    file = disk.open_to_read(path)
    scan = FrameScan(file, seed=header.seed, kind=header.kind, next_sequence=header.first_sequence)
    return [found for found in scan.run(file.size()) if isinstance(found, Frame)]


def _spool(disk: ModelFileSystem, clock: ManualClock) -> Spool:
    return Spool(
        ROOT,
        file_system=disk,
        clock=clock,
        segment_bytes=600,
        fill_bytes=250,
        batch_bytes=400,
        cursor_bytes=256,
        key_counters=64,
        background=False,
        salt=lambda: next(_salts).to_bytes(8, "little"),
    )
