"""What came back goes into the spool as it was sent: in order, marked where it may be in Kafka, none lost."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.clock import SYSTEM_CLOCK
from postroom.libs.exceptions import LifecycleError, NotRepresentableError, SpoolFullError
from postroom.services.hand_over import HandOver
from postroom.services.item import Item
from postroom.streaming.delivery import PURGE_INFLIGHT, RECALLED, decide, was_never_sent
from postroom.streaming.publisher import Report
from postroom.streaming.spool import record_format
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from tests.unit.streaming.spool.spools import drained, ids, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.libs.exceptions import PostroomError
    from postroom.streaming.spool.group_commit import Ticket

MAYBE = Report(decide(PURGE_INFLIGHT))
NEVER = Report(was_never_sent(decide(PURGE_INFLIGHT)))


class Lane:
    def __init__(self, name: str) -> None:
        self.labels = (("type", name.encode()),)


class Desk:
    """A spool, and what the hand-over says of the items."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.spool = Spool(folder, **settings)
        self.spool.start()
        self.kept: list[str] = []
        self.refused: dict[str, type[PostroomError]] = {}
        self.hand_over = HandOver(
            self.spool,
            None,  # type: ignore[arg-type]  # nothing is buried here
            SYSTEM_CLOCK,
            buries_exhausted=False,
            on_kept=self._on_kept,
            on_refused=self._on_refused,
        )

    def _on_kept(self, item: Item, _report: Report, ticket: Ticket) -> None:
        assert ticket.error is None
        assert item.record is not None
        self.kept.append(item.record.event_id)

    def _on_refused(self, item: Item, _report: Report, error: PostroomError) -> None:
        assert item.record is not None
        self.refused[item.record.event_id] = type(error)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.spool.stop()


def item(number: int, lane: str = "clicks", **more: Any) -> Item:
    found = Item(None, None, 0.0, lambda *_: None)  # type: ignore[arg-type]  # nobody asks for receipt or book
    found.record = record(number, **more)
    found.lane = Lane(lane)  # type: ignore[assignment]
    return found


def test_they_lie_there_in_their_order_whatever_contract_and_kind_they_have(desk: Desk) -> None:
    items = [item(number, lane="clicks" if number % 3 else "orders") for number in range(3000)]
    for one in items[::7]:
        one.dead_letter_reason = "delivery_exhausted"
    desk.hand_over.keep([(one, NEVER) for one in items])
    desk.spool.stop()
    assert sorted(desk.kept) == sorted(f"id-{number}" for number in range(3000))
    again = Spool(desk.spool._root, background=False)
    again.start()
    records, letters = drained(again), drained(again, Kind.DEAD_LETTER)
    again.stop()
    assert ids(letters) == [f"id-{number}" for number in range(0, 3000, 7)]
    assert ids(records) == [f"id-{number}" for number in range(3000) if number % 7]
    assert {dict(letter.labels)["reason"] for letter in letters} == {b"delivery_exhausted"}
    for stored in records:
        number = int(stored.record.event_id.removeprefix("id-"))
        assert dict(stored.labels) == {"type": b"clicks" if number % 3 else b"orders"}


def test_only_what_may_be_in_kafka_is_marked(desk: Desk) -> None:
    desk.hand_over.keep([(item(1), MAYBE), (item(2), NEVER), (item(3), Report(RECALLED))])
    desk.spool.stop()
    again = Spool(desk.spool._root, background=False)
    again.start()
    assert [(one.record.attempt, dict(one.record.headers).get("x-attempt")) for one in drained(again)] == [
        (2, b"2"),
        (1, None),
        (2, b"2"),
    ]
    again.stop()


def test_one_that_no_frame_can_hold_is_refused_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_format, "MAX_BODY_BYTES", 1_000_000)  # a gibibyte takes the test 14 seconds
    desk.hand_over.keep([(item(1), NEVER), (item(2, size=1_000_000), NEVER), (item(3), NEVER)])
    desk.spool.stop()
    assert desk.kept == ["id-1", "id-3"]
    assert desk.refused == {"id-2": NotRepresentableError}


def test_a_spool_that_is_full_says_so_of_each_that_it_does_not_keep_and_of_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, max_bytes=1_000_000, max_disk_share=1.0)
    desk.hand_over.keep([(item(number, size=200), NEVER) for number in range(9_000)])
    desk.spool.stop()
    assert desk.kept
    assert set(desk.refused.values()) == {SpoolFullError}
    assert sorted([*desk.kept, *desk.refused]) == sorted(f"id-{number}" for number in range(9_000))


def test_one_that_is_stopped_in_the_middle_answers_for_each(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    def stop_soon() -> None:
        end = time.monotonic() + 30
        while not desk.kept and time.monotonic() < end:
            time.sleep(0.0005)
        desk.spool.stop()

    stopping = threading.Thread(target=stop_soon)
    stopping.start()
    desk.hand_over.keep([(item(number), NEVER) for number in range(40_000)])
    stopping.join()
    assert set(desk.refused.values()) <= {LifecycleError}
    assert sorted([*desk.kept, *desk.refused]) == sorted(f"id-{number}" for number in range(40_000))
