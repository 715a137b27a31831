"""Many events, one result: counts, and the problems in the order of the input."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from postroom.libs.event import DeadLettered, Delivered, Failed, FailedReason, Refused, RefusedReason, Spooled
from postroom.services import batch as module
from postroom.services.batch import Batch, Problem
from postroom.services.receipt import Receipt
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.libs.event import Outcome

GOOD = {"user_id": "u1", "timestamp": 1}
LETTER = DeadLettered("validation_failed", "clicks.dlq", 0, 0)
REFUSED = Refused(RefusedReason.RATE_LIMITED, 1.0)
FAILED = Failed(FailedReason.CLOSED, may_be_in_kafka=False)


def resolved(number: int, outcome: Outcome) -> Receipt:
    receipt = Receipt(f"id-{number}")
    receipt.resolve(outcome)
    return receipt


def test_every_outcome_is_counted_and_the_bad_ones_are_named_by_their_number() -> None:
    batch = Batch()
    outcomes: list[Outcome] = [Delivered("clicks", 0, 0), LETTER, Spooled(), REFUSED, FAILED, Delivered("clicks", 0, 1)]
    for number, outcome in enumerate(outcomes):
        batch.add(resolved(number, outcome))
    result = batch.finish()
    assert (result.received, result.delivered, result.spooled) == (6, 2, 1)
    assert (result.dead_lettered, result.refused, result.failed) == (1, 1, 1)
    assert result.problems == (Problem(1, "id-1", LETTER), Problem(3, "id-3", REFUSED), Problem(4, "id-4", FAILED))
    assert (result.problems_omitted, result.ok) == (0, False)


def test_nothing_is_a_good_result_too() -> None:
    assert Batch().finish().ok


def test_more_problems_than_a_thousand_are_counted_only() -> None:
    batch = Batch()
    for number in range(1_500):
        batch.add(resolved(number, LETTER))
    result = batch.finish()
    assert (len(result.problems), result.problems_omitted, result.dead_lettered) == (1_000, 500, 1_500)


def test_only_so_many_receipts_are_open_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OPEN_CAP", 3)
    batch = Batch()
    receipts = [Receipt(str(number)) for number in range(3)]
    added = threading.Event()

    def add() -> None:
        for receipt in receipts:
            batch.add(receipt)
        added.set()

    adding = threading.Thread(target=add)
    adding.start()
    assert not added.wait(0.05)
    receipts[0].resolve(Delivered("clicks", 0, 0))
    assert added.wait(20)
    adding.join()


def test_the_input_is_read_lazily_and_what_it_raises_comes_after_the_outcomes() -> None:
    def source() -> Iterator[dict[str, object]]:
        for number in range(5):
            assert service.ledger.total().received == number
            yield GOOD
        raise OSError("the file broke")

    with RecordingService() as service:
        with pytest.raises(OSError, match="the file broke"):
            service.publish_many(source())
        assert service.ledger.total().delivered == 5
