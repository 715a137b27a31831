"""A process killed at a step: what it knew to be safe is found by the next one, whatever the step."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.event import Spooled
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.testing.fault_script import STEPS, FaultScript, Step
from postroom.testing.killed_process import Remains, killed_at
from postroom.testing.manual_clock import ManualClock
from postroom.testing.recording_service import RecordingService, WriteAhead

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_S = 20.0


def event(number: int) -> dict[str, object]:
    return {"user_id": f"u{number % 2}", "timestamp": number}


class Work:
    """Three events delivered, three that wait in the spool, and the draining of these."""

    def __init__(self) -> None:
        self.clock = ManualClock()

    def __call__(self, post: RecordingService) -> None:
        self.hand_in(post, 0)
        post.faults.away()
        receipts = self.hand_in(post, 3)
        self.clock.advance(3)
        assert {type(receipt.result(PATIENCE_S)) for receipt in receipts} == {Spooled}
        post.faults.back()
        post.wait_until_drained()

    def hand_in(self, post: RecordingService, first: int) -> list[Any]:
        return [post.publish_event(event(number), event_id=f"id-{number}") for number in range(first, first + 3)]


@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
@pytest.mark.parametrize("step", STEPS)
def test_what_it_knew_to_be_safe_is_found_by_the_next_one(step: Step, write_ahead: WriteAhead, tmp_path: Path) -> None:
    work = Work()
    left = killed_at(step, work, spool_dir=tmp_path, write_ahead=write_ahead, clock=work.clock)
    with RecordingService(spool_dir=tmp_path, write_ahead=write_ahead, records=left.records) as post:
        post.wait_until_drained()
        found = [(published.event_id, dict(published.headers).get("x-attempt")) for published in post.published]
        assert post.ledger.total().unaccounted == 0
    ids = [event_id for event_id, _ in found]
    assert set(left.safe) <= set(ids)
    for number, (event_id, attempt) in enumerate(found):
        assert attempt is not None or event_id not in ids[:number], "a repeat without its mark"


class TestWhatIsLeft:
    def test_kafka_keeps_what_it_has_and_knowing_it_or_not_is_the_difference_of_an_ack(self) -> None:
        def work(post: RecordingService) -> None:
            for number in range(3):
                post.publish_event(event(number), event_id=f"id-{number}")

        before, after = (killed_at(step, work, nth=2) for step in ("before_ack", "after_ack"))
        for left in (before, after):
            assert [record.event_id for record in left.records] == ["id-0", "id-1"]
        assert (before.safe, after.safe) == (("id-0",), ("id-0", "id-1"))

    def test_an_event_that_is_written_ahead_is_safe_before_kafka_has_it(self, tmp_path: Path) -> None:
        def work(post: RecordingService) -> None:
            post.faults.slow(1000)
            for number in range(3):
                post.publish_event(event(number), event_id=f"id-{number}")

        left = killed_at("before_append", work, nth=3, spool_dir=tmp_path, write_ahead="fsync")
        assert left == Remains((), ("id-0", "id-1"))

    def test_events_of_a_batch_count_too(self) -> None:
        left = killed_at("after_ack", lambda post: post.publish_many(map(event, range(5))), nth=5)
        assert len(left.safe) == len(left.records) == 5

    def test_dead_letters_are_in_kafka_too(self) -> None:
        left = killed_at("after_ack", lambda post: post.publish_event({}, event_id="broken"))
        assert [record.topic for record in left.records] == ["user_events.dlq"]
        assert left.safe == ("broken",)

    def test_a_chain_of_deaths_leaves_one_kafka(self, tmp_path: Path) -> None:
        left = Remains((), ())
        for number in range(3):
            left = killed_at(
                "after_ack",
                lambda post, number=number: post.publish_event(event(number), event_id=f"id-{number}"),  # type: ignore[misc]
                spool_dir=tmp_path,
                records=left.records,
            )
        assert [record.event_id for record in left.records] == ["id-0", "id-1", "id-2"]
        assert left.safe == ("id-2",)


class TestHowItRuns:
    def test_the_child_has_what_the_test_has_and_changes_none_of_it(self) -> None:
        numbers = [1]
        contract = contract_from_short_form("clicks", {"id": "string"}, key_field="id")

        def work(post: RecordingService) -> None:
            numbers.append(2)
            post.publish_event({"id": f"{numbers}"}, event_type="clicks", event_id="id-1")

        left = killed_at("after_ack", work, contracts=[contract])
        assert [record.key for record in left.records] == [b"[1, 2]"]
        assert numbers == [1]

    def test_the_script_may_be_prepared_and_stays_unused_here(self, tmp_path: Path) -> None:
        faults = FaultScript().topic_gone("user_events")

        def work(post: RecordingService) -> None:
            assert isinstance(post.publish_event(event(1)).result(PATIENCE_S), Spooled)

        left = killed_at("after_sync", work, spool_dir=tmp_path, faults=faults)
        assert left.records == ()
        faults.reached("after_sync")

    def test_closing_has_steps_too(self, tmp_path: Path) -> None:
        def work(post: RecordingService) -> None:
            post.faults.away()
            post.publish_event(event(1), event_id="id-1")

        killed_at("after_sync", work, spool_dir=tmp_path)
        with RecordingService(spool_dir=tmp_path) as post:
            post.wait_until_drained()
            assert [published.event_id for published in post.published] == ["id-1"]

    def test_other_services_of_the_test_live_on(self, tmp_path: Path) -> None:
        with RecordingService(spool_dir=tmp_path / "a") as post:
            killed_at("after_ack", lambda other: other.publish_event(event(1)), spool_dir=tmp_path / "b")
            post.publish_event(event(2)).raise_for_outcome(PATIENCE_S)
            post.faults.away()
            post.publish_event(event(3))
        assert list(tmp_path.glob("a/0001/records/*.seg"))


class TestWhatGoesWrong:
    def test_a_step_that_is_not_reached_so_often_is_told_with_the_count(self) -> None:
        with pytest.raises(LookupError, match="before_ack was reached 2 times, not 3: nothing was killed"):
            killed_at("before_ack", lambda post: [post.publish_event(event(number)) for number in range(2)], nth=3)

    def test_what_the_work_raises_is_told_with_its_traceback(self) -> None:
        def work(_: RecordingService) -> None:
            raise ZeroDivisionError("by the work")

        with pytest.raises(
            RuntimeError, match=r"(?s)killed at before_ack raised.*in work.*ZeroDivisionError: by the work"
        ):
            killed_at("before_ack", work)

    def test_an_end_of_the_interpreter_does_not_get_out_of_the_child(self) -> None:
        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            killed_at("before_ack", lambda _: exit_with(3))

    def test_one_that_neither_dies_nor_ends_is_given_up(self) -> None:
        with pytest.raises(TimeoutError, match=r"neither reached before_ack nor ended within 0\.2 s"):
            killed_at("before_ack", lambda _: threading.Event().wait(), timeout_s=0.2)

    @pytest.mark.parametrize(("step", "nth"), [("lunch", 1), ("before_ack", 0)])
    def test_nonsense_is_told_before_anything_runs(self, step: Any, nth: int) -> None:
        with pytest.raises(ValueError):
            killed_at(step, lambda _: None, nth=nth)

    def test_no_process_is_left_behind(self) -> None:
        before = children()  # the servers of other tests are among them
        killed_at("after_ack", lambda post: post.publish_event(event(1)))
        with pytest.raises(LookupError):
            killed_at("after_ack", lambda _: None)
        assert not children() - before


def children() -> set[int]:
    """The ids of this process's children, the dead that nobody has waited for among them."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text()
        except OSError:
            continue  # gone while it was looked at
        if int(state.rpartition(")")[2].split()[1]) == os.getpid():
            found.add(int(folder.name))
    return found


LEFT_ALONE = """
import os, sys, threading
from postroom.testing.killed_process import killed_at
def work(_):
    print(os.getpid(), flush=True)
    threading.Timer(0.0, lambda: os.kill(os.getppid(), 9)).start()
    threading.Event().wait()
killed_at("before_ack", work)
"""


def test_a_child_whose_parent_is_gone_ends_itself() -> None:
    with subprocess.Popen([sys.executable, "-c", LEFT_ALONE], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline())
        assert process.stdout.read() == "", "the child has the other end of the pipe: it is gone"


def exit_with(status: int) -> None:
    raise SystemExit(status)
