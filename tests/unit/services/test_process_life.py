"""At the end of a process everything that was not closed is closed, whatever one of them does."""

from __future__ import annotations

import gc
import weakref

import pytest

from postroom.services import process_life


class Living:
    def __init__(self, error: Exception | None = None) -> None:
        self.closed = False
        self._error = error

    def close(self) -> None:
        self.closed = True
        if self._error is not None:
            raise self._error

    def after_fork_in_child(self) -> None: ...


@pytest.fixture(autouse=True)
def _nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_life, "_living", weakref.WeakSet())


def test_one_that_raises_keeps_no_other_from_being_closed(caplog: pytest.LogCaptureFixture) -> None:
    all_of_them = [Living(), Living(RuntimeError("a secret")), Living()]
    for one in all_of_them:
        process_life.take_care_of(one)
    process_life._close_all()
    assert [one.closed for one in all_of_them] == [True, True, True]
    assert caplog.text.count("close_failed") == 1
    assert "a secret" not in caplog.text


def test_what_nobody_holds_is_not_held_here() -> None:
    process_life.take_care_of(Living())
    gc.collect()
    assert list(process_life._living) == []


def test_outside_a_worker_of_multiprocessing_there_is_nothing_to_register() -> None:
    before = set(process_life._told_by)
    process_life.close_at_worker_exit()
    assert process_life._told_by == before
