"""Any sequence of appends, reads, acknowledgements, restarts and crashes gives what a simple list would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from postroom.streaming.spool.record_format import Kind
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, quiet, record

if TYPE_CHECKING:
    from postroom.streaming.spool.queue_reader import SpooledRecord
    from postroom.streaming.spool.spool import Spool

KINDS = st.sampled_from(list(Kind))
KEYS = st.sampled_from([b"a", b"b", b"c", None])


class SpoolAgainstLists(RuleBasedStateMachine):
    """The lists: for each kind what waits (number, key), in order, and how many of it are handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = ModelFileSystem()
        self.clock = ManualClock()
        self.number = 0
        self.waiting: dict[Kind, list[tuple[int, bytes | None]]] = {kind: [] for kind in Kind}
        self.unread: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        self.in_hand: dict[Kind, list[SpooledRecord]] = {kind: [] for kind in Kind}
        self.handed_out: set[int] = set()
        self.unflushed: dict[Kind, list[tuple[int, bytes | None]]] = {kind: [] for kind in Kind}
        self.spool = self._open()

    def _open(self) -> Spool:
        return quiet(
            "/spool", file_system=self.disk, clock=self.clock, segment_bytes=500, cursor_bytes=2048, key_counters=4099
        )

    @rule(kind=KINDS, keys=st.lists(KEYS, min_size=1, max_size=5), size=st.integers(0, 300))
    def append(self, kind: Kind, keys: list[bytes | None], size: int) -> None:
        records = []
        for key in keys:
            records.append(record(self.number, key=key, size=size))
            self.waiting[kind].append((self.number, key))
            self.unread[kind].append(self.number)
            self.number += 1
        for ticket in self.spool.append_many(records, kind=kind):
            ticket.wait()

    @rule(kind=KINDS, count=st.integers(1, 6))
    def read(self, kind: Kind, count: int) -> None:
        found = self.spool.read(kind, max_records=count)
        expected, self.unread[kind] = self.unread[kind][:count], self.unread[kind][count:]
        assert [int(one.record.event_id[3:]) for one in found] == expected
        for one in found:
            number = int(one.record.event_id[3:])
            assert one.sent_before or number not in self.handed_out
            self.handed_out.add(number)
        self.in_hand[kind] += found

    @rule(kind=KINDS, data=st.data())
    def acknowledge(self, kind: Kind, data: st.DataObject) -> None:
        if not self.in_hand[kind]:
            return
        one = self.in_hand[kind].pop(data.draw(st.integers(0, len(self.in_hand[kind]) - 1)))
        assert self.spool.ack(one)
        place = (int(one.record.event_id[3:]), one.record.key)
        self.waiting[kind].remove(place)
        self.unflushed[kind].append(place)

    @rule()
    def tend(self) -> None:
        self.spool.tend()
        self.unflushed = {kind: [] for kind in Kind}

    @rule(kind=KINDS)
    def rewind(self, kind: Kind) -> None:
        self.spool.rewind(kind)
        self.in_hand[kind] = []
        self.unread[kind] = [number for number, _ in self.waiting[kind]]

    @rule()
    def restart(self) -> None:
        self.spool.stop()
        self.unflushed = {kind: [] for kind in Kind}
        self._reopen()

    @rule()
    def crash(self) -> None:
        abandon(self.spool)
        for kind, places in self.unflushed.items():  # acknowledgements that were not written come back
            self.waiting[kind] = sorted(self.waiting[kind] + places)
        self.unflushed = {kind: [] for kind in Kind}
        self._reopen()

    def _reopen(self) -> None:
        self.spool = self._open()
        for kind in Kind:
            self.in_hand[kind] = []
            self.unread[kind] = [number for number, _ in self.waiting[kind]]

    @invariant()
    def counts_and_keys_are_those_of_the_lists(self) -> None:
        status = self.spool.status()
        assert (status.records, status.dead_letters) == (
            len(self.waiting[Kind.RECORD]),
            len(self.waiting[Kind.DEAD_LETTER]),
        )
        keys = {key for _, key in self.waiting[Kind.RECORD]}
        for key in (b"a", b"b", b"c"):
            assert self.spool.holds_key("topic", key) == (key in keys)
        assert self.spool.is_empty == (not any(self.waiting.values()))


TestSpoolAgainstLists = SpoolAgainstLists.TestCase
TestSpoolAgainstLists.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
