"""Any sequence of appends, claims, reads, acknowledgements, restarts and crashes gives what simple lists would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from postroom.streaming.spool.record_format import Kind
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.spools import abandon, drained, quiet, record

if TYPE_CHECKING:
    from postroom.streaming.spool.group_commit import Place, Ticket
    from postroom.streaming.spool.queue_reader import SpooledRecord
    from postroom.streaming.spool.spool import Spool

KINDS = st.sampled_from(list(Kind))
KEYS = st.sampled_from([b"a", b"b", b"c", None])


class Waiting:
    """A record that is not acknowledged, as the lists know it."""

    def __init__(self, number: int, key: bytes | None) -> None:
        self.number = number
        self.key = key
        self.place: SpooledRecord | Place | None = None  # in hand
        self.is_claimed = False
        self.was_sent = False
        self.is_from_before = False


class SpoolAgainstLists(RuleBasedStateMachine):
    """The lists: for each kind what is not acknowledged, in order; and up to where it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = ModelFileSystem()
        self.clock = ManualClock()
        self.number = 0
        self.waiting: dict[Kind, list[Waiting]] = {kind: [] for kind in Kind}
        self.read_up_to: dict[Kind, int] = dict.fromkeys(Kind, -1)
        self.unflushed: dict[Kind, list[Waiting]] = {kind: [] for kind in Kind}
        self.spool = self._open()

    def _open(self) -> Spool:
        return quiet(
            "/spool",
            file_system=self.disk,
            clock=self.clock,
            segment_bytes=800,
            fill_bytes=300,
            cursor_bytes=2048,
            key_counters=4099,
        )

    def _new(self, kind: Kind, key: bytes | None) -> Waiting:
        one = Waiting(self.number, key)
        self.waiting[kind].append(one)
        self.number += 1
        return one

    @rule(kind=KINDS, keys=st.lists(KEYS, min_size=1, max_size=5), size=st.integers(0, 300))
    def append(self, kind: Kind, keys: list[bytes | None], size: int) -> None:
        records = [record(self._new(kind, key).number, key=key, size=size) for key in keys]
        for ticket in self.spool.append_many(records, kind=kind):
            ticket.wait()

    @rule(kind=KINDS, keys=st.lists(KEYS, min_size=1, max_size=5))
    def append_claimed(self, kind: Kind, keys: list[bytes | None]) -> None:
        told: list[Ticket] = []
        for key in keys:
            one = self._new(kind, key)
            ticket = self.spool.append(record(one.number, key=key), kind=kind, claim=True, on_stored=told.append)
            assert told[-1] is ticket
            assert ticket.is_claimed
            one.place, one.is_claimed = ticket.place, True

    @rule(kind=KINDS, count=st.integers(1, 6))
    def read(self, kind: Kind, count: int) -> None:
        found = self.spool.read(kind, max_records=count)
        expected = [one for one in self.waiting[kind] if one.number > self.read_up_to[kind] and one.place is None]
        assert [int(one.record.event_id[3:]) for one in found] == [one.number for one in expected[:count]]
        for one, waiting in zip(expected, found, strict=False):
            assert waiting.sent_before == one.was_sent or (one.is_from_before and waiting.sent_before)
            one.place = waiting
        self.read_up_to[kind] = expected[count - 1].number if len(found) == count else self.number - 1

    def _one_in_hand(self, kind: Kind, data: st.DataObject) -> Waiting | None:
        in_hand = [one for one in self.waiting[kind] if one.place is not None]
        return in_hand[data.draw(st.integers(0, len(in_hand) - 1))] if in_hand else None

    @rule(kind=KINDS, data=st.data())
    def acknowledge(self, kind: Kind, data: st.DataObject) -> None:
        one = self._one_in_hand(kind, data)
        if one is None or one.place is None:
            return
        assert self.spool.ack(one.place)
        assert not self.spool.ack(one.place)
        one.was_sent, one.is_claimed, one.place = True, False, None
        self.waiting[kind].remove(one)
        self.unflushed[kind].append(one)

    @rule(kind=KINDS, data=st.data(), sent=st.booleans())
    def put_back(self, kind: Kind, data: st.DataObject, sent: bool) -> None:
        one = self._one_in_hand(kind, data)
        if one is None or one.place is None:
            return
        assert self.spool.put_back([one.place], sent=sent) == 1
        assert self.spool.put_back([one.place], sent=True) == 0
        one.place, one.is_claimed, one.was_sent = None, False, one.was_sent or sent

    @rule(kind=KINDS)
    def rewind(self, kind: Kind) -> None:
        self.spool.rewind(kind)
        self.read_up_to[kind] = -1

    @rule()
    def tend(self) -> None:
        self.spool.tend()
        self.unflushed = {kind: [] for kind in Kind}

    @rule()
    def restart(self) -> None:
        self.spool.stop()
        self.unflushed = {kind: [] for kind in Kind}
        self._reopen()

    @rule()
    def crash(self) -> None:
        abandon(self.spool)
        self._reopen()

    def _reopen(self) -> None:
        self.spool = self._open()
        for kind in Kind:
            for one in (*self.waiting[kind], *self.unflushed[kind]):
                one.was_sent = one.was_sent or one.place is not None
                one.place, one.is_claimed, one.is_from_before = None, False, True
            # Of the acknowledgements that were not written for sure, some may have been.
            found = drained(self.spool, kind)
            numbers = {int(one.record.event_id[3:]) for one in found}
            back = [one for one in self.unflushed[kind] if one.number in numbers]
            self.waiting[kind] = sorted(self.waiting[kind] + back, key=lambda one: one.number)
            self.unflushed[kind] = []
            assert [int(one.record.event_id[3:]) for one in found] == [one.number for one in self.waiting[kind]]
            assert self.spool.put_back(found, sent=False) == len(found)
            self.spool.rewind(kind)
            self.read_up_to[kind] = -1

    @invariant()
    def counts_and_keys_are_those_of_the_lists(self) -> None:
        status = self.spool.status()
        for kind, records in zip(Kind, (status.records, status.dead_letters), strict=True):
            assert records == len(self.waiting[kind])
            unclaimed = [one for one in self.waiting[kind] if not one.is_claimed]
            assert self.spool.waiting("topic", kind) == len(unclaimed)
            assert self.spool.has_waiting(kind) == bool(unclaimed)
            assert self.spool.waiting_by_topic(kind) == ({"topic": len(unclaimed)} if unclaimed else {})
        keys = {one.key for one in self.waiting[Kind.RECORD] if not one.is_claimed}
        for key in (b"a", b"b", b"c"):
            assert self.spool.holds_key("topic", key) == (key in keys)
        assert self.spool.is_empty == (not any(self.waiting.values()))


TestSpoolAgainstLists = SpoolAgainstLists.TestCase
TestSpoolAgainstLists.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
