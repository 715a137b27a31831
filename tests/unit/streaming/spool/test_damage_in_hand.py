"""Damage that turns up while records are in hand: the counts stay true, a key that waits is never denied."""

from __future__ import annotations

from random import Random

import pytest

from postroom.streaming.spool.group_commit import Place
from postroom.streaming.spool.queue_reader import SpooledRecord
from postroom.streaming.spool.record_format import Kind
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.unit.streaming.spool.power_cut import frames_of
from tests.unit.streaming.spool.spools import drained, ids, quiet, record

KEYS = (b"a", b"b", b"c", b"d", None)


class _DamagedLife:
    """Claims, reads, acknowledgements and gifts back, with bits that flip on the disk meanwhile."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = ModelFileSystem()
        self.spool = quiet(
            "/spool",
            file_system=self.disk,
            clock=ManualClock(),
            segment_bytes=self.random.choice([500, 2000]),
            cursor_bytes=4096,
            key_counters=4099,
        )
        self.keys: dict[str, bytes | None] = {}
        self.topics: dict[str, str] = {}
        self.in_hand: dict[str, SpooledRecord | Place] = {}
        self.claimed: set[str] = set()
        self.acknowledged: set[str] = set()
        self.hit: set[str] = set()

    def step(self) -> None:
        self.random.choice([self.append, self.claim, self.read, self.ack, self.ack, self.put_back, self.damage])()
        if self.random.random() < 0.2:
            self.spool.rewind(Kind.RECORD)
        if self.random.random() < 0.2:
            self.spool.tend()
        self.check()

    def _record(self) -> str:
        name = f"id-{len(self.keys)}"
        self.keys[name] = self.random.choice(KEYS)
        self.topics[name] = self.random.choice(["t", "u"])
        return name

    def append(self) -> None:
        for _ in range(3):
            name = self._record()
            self.spool.append(record(int(name[3:]), key=self.keys[name], topic=self.topics[name])).wait()

    def claim(self) -> None:
        for _ in range(3):
            name = self._record()
            ticket = self.spool.append(record(int(name[3:]), key=self.keys[name], topic=self.topics[name]), claim=True)
            assert ticket.is_claimed
            self.in_hand[name] = ticket.place
            self.claimed.add(name)

    def read(self) -> None:
        for one in self.spool.read(Kind.RECORD, max_records=4):
            assert one.record.event_id not in self.in_hand
            assert one.record.event_id not in self.acknowledged
            self.in_hand[one.record.event_id] = one

    def ack(self) -> None:
        if self.in_hand:
            name = self.random.choice(list(self.in_hand))
            assert self.spool.ack(self.in_hand.pop(name)), "damaged or not, whoever has it may say it is safe"
            self.claimed.discard(name)
            self.acknowledged.add(name)

    def put_back(self) -> None:
        if self.in_hand:
            name = self.random.choice(list(self.in_hand))
            assert self.spool.put_back([self.in_hand.pop(name)], sent=True) == 1
            self.claimed.discard(name)

    def damage(self) -> None:
        frames = [(path, frame) for path in self.disk.paths("/spool/0001") for frame in frames_of(self.disk, path)]
        if frames and len(self.hit) < 6:
            path, frame = self.random.choice(frames)
            begin = -36 if self.random.random() < 0.3 else 0  # what stands before its body, or that
            self.disk.flip(path, (frame.offset + self.random.randrange(begin, frame.length)) * 8)
            self.hit.add(frame.stored.record.event_id)

    def check(self) -> None:
        left = self.keys.keys() - self.acknowledged - self.hit - self.claimed
        for key in KEYS[:-1]:
            for topic in ("t", "u"):
                if any(self.keys[name] == key and self.topics[name] == topic for name in left):
                    assert self.spool.holds_key(topic, key), "a wrong no"
        for topic in ("t", "u"):
            certain = sum(self.topics[name] == topic for name in left)
            assert certain <= self.spool.waiting(topic) <= certain + len(self.hit)
        assert all(counter >= 0 for counter in self.spool._keys._counters)

    def finish(self) -> None:
        for place in self.in_hand.values():
            self.spool.put_back([place], sent=False)
        self.spool.rewind(Kind.RECORD)
        found = drained(self.spool)
        assert ids(found) == sorted(ids(found), key=lambda name: int(name[3:]))
        assert self.keys.keys() - set(ids(found)) - self.acknowledged <= self.hit, "lost, and not hit"
        for one in found:
            assert self.spool.ack(one)
        assert self.spool.waiting_by_topic(Kind.RECORD) == {}
        assert self.spool.status().records == 0
        lost = self.keys.keys() - set(ids(found)) - self.acknowledged
        assert self.spool.status().slots[0].records.damages.records == len(lost)


@pytest.mark.parametrize("seed", [*range(100), 1102, 1114, 2077])  # the last three found faults
def test_counts_and_keys_stay_true_whatever_is_hit(seed: int) -> None:
    life = _DamagedLife(seed)
    for _ in range(60):
        life.step()
    life.finish()


def test_a_record_that_was_hit_while_in_hand_can_still_be_acknowledged_and_is_lost_when_put_back() -> None:
    disk = ModelFileSystem()
    spool = quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64)
    places = [spool.append(record(number), claim=True).place for number in range(3)]
    path = "/spool/0001/records/00000000000000000001.seg"
    for frame in frames_of(disk, path)[:2]:
        disk.flip(path, (frame.offset + 40) * 8)
    assert drained(spool) == []
    assert spool.ack(places[0])
    assert spool.put_back(places[1:], sent=False) == 2
    spool.rewind(Kind.RECORD)
    assert ids(drained(spool)) == ["id-2"]
    damages = spool.status().slots[0].records.damages
    assert (damages.ranges, damages.records, damages.by_topic) == (2, 1, {"topic": 1})
    assert spool.waiting("topic") == 1


def test_a_segment_that_was_removed_while_in_hand_counts_only_what_is_in_hand() -> None:
    disk = ModelFileSystem()
    spool = quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64)
    claimed = spool.append(record(0), claim=True).place
    spool.append_many([record(1), record(2)])
    disk.remove("/spool/0001/records/00000000000000000001.seg")
    assert drained(spool) == []
    assert spool.waiting("topic") == 0
    assert spool.status().records == 1
    spool.append(record(3)).wait()
    assert ids(drained(spool)) == ["id-3"], "what comes after it goes to another file"
    assert spool.put_back([claimed], sent=True) == 1
    spool.rewind(Kind.RECORD)
    assert drained(spool) == []
    assert spool.status().slots[0].records.damages.by_topic == {"topic": 3}
