"""The driver's own book-keeping: what is done stays done, another plan does not mix in, and bad rounds are bad."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from postroom import DeadLettered, Delivered, Failed, Refused, Spooled
from postroom.libs.event import FailedReason, RefusedReason
from postroom.services.receipt import Receipt
from tests.chaos import journals as words
from tests.chaos.checker import Verdict
from tests.chaos.driver import FORMAT, Results, is_good
from tests.chaos.journals import Told
from tests.chaos.progress import Progress
from tests.chaos.worker import answer_of

if TYPE_CHECKING:
    from pathlib import Path

HEAD = {"format": FORMAT, "seed": "1", "kills": 2, "bounces": 2, "began": "now"}


def good_round(number: int = 0) -> dict[str, Any]:
    ending = {"exit_code": 0, "drained_s": 0.5, "unaccounted": 0}
    return {"number": number, "error": None, "verdict": Verdict().as_json(), "ending": ending}


def test_rounds_that_are_done_stay_done(tmp_path: Path) -> None:
    Results(tmp_path, HEAD).add(good_round(3))
    again = Results(tmp_path, {**HEAD, "began": "later"})
    assert again.done == {3}
    again.add(good_round(4))
    content = json.loads((tmp_path / "results.json").read_text())
    assert [one["number"] for one in content["rounds"]] == [3, 4]
    assert content["began"] == "now"


@pytest.mark.parametrize("name", ["format", "seed", "kills", "bounces"])
def test_another_plan_is_not_mixed_in(tmp_path: Path, name: str) -> None:
    Results(tmp_path, HEAD).add(good_round())
    with pytest.raises(SystemExit, match=f"another {name}"):
        Results(tmp_path, {**HEAD, name: "other"})


def test_a_round_is_good_only_if_everything_is() -> None:
    assert is_good(good_round())
    verdict = Verdict()
    verdict.note("lost", "an event")
    assert not is_good({**good_round(), "verdict": verdict.as_json()})
    assert not is_good({**good_round(), "error": "StackError: no broker"})
    for name, value in {"exit_code": None, "drained_s": None, "unaccounted": 3}.items():
        assert not is_good({**good_round(), "ending": {**good_round()["ending"], name: value}})


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Delivered("t", 2, 7), Told("e", words.DELIVERED, 5, topic="t", partition=2, offset=7)),
        (Spooled(), Told("e", words.SPOOLED, 5)),
        (DeadLettered("why", "t.dlq", 0, 1), Told("e", words.DEAD_LETTERED, 5, topic="t.dlq", partition=0, offset=1)),
        (Refused(RefusedReason.QUEUE_FULL, 1.0), Told("e", words.REFUSED, 5, detail="queue_full")),
        (
            Failed(FailedReason.CLOSED, may_be_in_kafka=True, detail="x"),
            Told("e", words.FAILED, 5, may_be_in_kafka=True, detail="closed x"),
        ),
    ],
)
def test_every_outcome_is_written_down_as_what_it_is(outcome: Any, told: Told) -> None:
    receipt = Receipt("e")
    receipt.resolve(outcome)
    assert answer_of(receipt, 5) == told


def test_progress_is_read_by_others_while_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "progress.bin"
    assert Progress.of(path) is None
    path.touch()
    assert Progress.of(path) is None
    mine = Progress(path, create=True)
    theirs = Progress.of(path)
    assert theirs is not None
    mine.add("handed", 5)
    mine.add("answered")
    assert (theirs["handed"], theirs.open) == (5, 4)
    assert theirs.values()["delivered"] == 0
