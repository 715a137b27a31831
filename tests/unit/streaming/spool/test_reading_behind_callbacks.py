"""A record can be read only after everybody who stored it, or one before it in the same sync, has been told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom.libs.event import Record
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.streaming.spool.group_commit import Ticket

PATIENCE_S = 30.0


def _record(number: int) -> Record:
    return Record("topic", b"k", b"value", (), f"id{number}", number)


def test_a_claim_that_is_given_back_by_its_callback_is_read_before_what_was_stored_with_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    may_answer, reads_meanwhile = threading.Event(), []

    def give_back(ticket: Ticket) -> None:
        may_answer.wait(PATIENCE_S)
        reads_meanwhile.append(spool.read(Kind.RECORD))
        spool.put_back([ticket.place], sent=False)
        spool.rewind(Kind.RECORD)

    try:
        first = spool.append(_record(1), claim=True, on_stored=give_back)
        second = spool.append(_record(2))
        may_answer.set()
        first.wait(PATIENCE_S)
        second.wait(PATIENCE_S)
        found: list[str] = []
        while len(found) < 2:
            found += [waiting.record.event_id for waiting in spool.read(Kind.RECORD)]
    finally:
        spool.stop()
    assert reads_meanwhile == [[]]
    assert found == ["id1", "id2"]


def test_a_group_that_was_stored_while_another_was_told_of_ends_no_reading_in_the_middle_of_one(tmp_path: Path) -> None:
    """Without threads a callback may append: the one stored last is told of first, and is not as long as the other."""
    spool = Spool(tmp_path, background=False)
    spool.start()
    reads_meanwhile = []

    def append_another(_ticket: Ticket) -> None:
        spool.append(_record(22222))
        reads_meanwhile.append(spool.read(Kind.RECORD))

    spool.append(_record(1), on_stored=append_another)
    found = [waiting.record.event_id for waiting in spool.read(Kind.RECORD)]
    assert reads_meanwhile == [[]]
    assert found == ["id1", "id22222"]
    spool.stop()
