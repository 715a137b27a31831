"""A signal's exception in the middle of an append, at every place of it: what is appended later keeps its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postroom.streaming.spool.record_format import Kind
from postroom.testing.manual_clock import ManualClock
from postroom.testing.model_file_system import ModelFileSystem
from tests.interruption import interrupted_at
from tests.unit.streaming.spool.spools import drained, ids, quiet, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.streaming.spool.group_commit import Ticket
    from postroom.streaming.spool.spool import Spool

FILES = ("queue_intake.py", "group_commit.py", "waiting.py", "key_counts.py")


def one(spool: Spool, told: list[Ticket], *, claim: bool) -> None:
    spool.append(record(1), claim=claim, on_stored=told.append)


def some(spool: Spool, told: list[Ticket], *, claim: bool) -> None:
    spool.append_many([record(1), record(10, key=b"other", topic="u")], on_stored=told.append)
    assert not claim


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("append", "claim"), [(one, False), (one, True), (some, False)])
def test_what_is_appended_after_an_interrupted_append_keeps_its_place(
    append: Callable[..., None], claim: bool, is_first: bool
) -> None:
    for number in range(1, 1000):
        disk = ModelFileSystem()
        spool = quiet("/spool", file_system=disk, clock=ManualClock(), cursor_bytes=256, key_counters=64)
        queue = spool._own[Kind.RECORD]  # type: ignore[index]  # it is running
        commit_next = queue._writer.commit_next
        queue._writer.commit_next = lambda: False  # type: ignore[method-assign]  # all of it in one batch
        told: list[Ticket] = []
        tickets = [] if is_first else [spool.append(record(0), claim=True)]
        is_hit = interrupted_at(number, FILES, lambda: append(spool, told, claim=claim))  # noqa: B023 - called at once
        tickets += [spool.append(record(2), claim=True), spool.append(record(3)), spool.append(record(4), claim=True)]
        while commit_next():
            pass
        places = [ticket.place for ticket in tickets]
        taken = {"id-1", "id-10"} if append is some else {"id-1"}
        stored = {name for name in taken if told} if not claim else set()
        for ticket in told if claim else []:
            spool.put_back([ticket.place], sent=False)
            stored = {"id-1"}
        assert spool.put_back(places[-3:-2], sent=False) == 1
        spool.rewind(Kind.RECORD)
        assert set(ids(drained(spool))) == {"id-2", "id-3"} | stored, number
        assert spool.waiting("topic") == 2 + len(stored & {"id-1"}), number
        assert spool.put_back(places[-1:], sent=False) == 1
        spool.rewind(Kind.RECORD)
        found = drained(spool)
        assert ids(found) == ["id-4"]
        assert spool.ack(found[0])
        assert queue._writer.waiting.size == 0
        spool.stop()
        if not is_hit:
            assert number > 10
            return
    pytest.fail("an append has fewer places")
