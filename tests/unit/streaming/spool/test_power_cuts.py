"""Every disk that a power cut may leave is opened by the production code; see power_cut.py for what must hold."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from postroom.streaming.spool.queue_reader import QueueReader
from postroom.streaming.spool.queue_writer import QueueWriter
from tests.unit.streaming.spool.power_cut import BrokenPromiseError, PowerCutLife

# About 0.6 ms of CPU each. `POSTROOM_CRASH_STATES=1000000` for the long run.
STATES = int(os.environ.get("POSTROOM_CRASH_STATES", "100000"))
STEPS = 80


@pytest.mark.timeout(7200)
def test_no_power_cut_loses_invents_reorders_or_unmarks_a_record() -> None:
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        opened = pool.map(_live, range(workers), [workers] * workers, [STATES // workers + 1] * workers)
        assert sum(opened) >= STATES


def _live(first: int, step: int, states: int) -> int:
    """Live the lives of these seeds until so many disks were opened."""
    opened, seed = 0, first
    while opened < states:
        life = PowerCutLife(seed)
        try:
            life.run(STEPS)
        except BrokenPromiseError as exc:
            raise BrokenPromiseError(f"life {seed}: {exc}") from exc
        opened += life.states
        seed += step
    return opened


def _sync_places() -> list[str]:
    places: set[str] = set()
    for seed in range(20, 23):
        life = PowerCutLife(seed, states_each=2)
        life.run(STEPS)
        places |= life.sync_places
    return sorted(places)


@pytest.mark.timeout(1800)
def test_taking_out_any_one_sync_call_breaks_a_promise() -> None:
    places = _sync_places()
    assert len(places) >= 13, places
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        noticed = list(pool.map(_is_noticed, places))
    unnoticed = [place for place, is_noticed in zip(places, noticed, strict=True) if not is_noticed]
    assert not unnoticed, f"these syncs could be left out, or the model is blind: {unnoticed}"


@pytest.mark.timeout(600)
def test_a_claim_told_before_the_mark_is_on_the_disk_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueueWriter, "_is_noted", lambda _self, _claims: True)
    assert _is_noticed()


@pytest.mark.timeout(600)
def test_reading_before_the_mark_is_on_the_disk_breaks_a_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueueReader, "_note_handed_out", lambda _self, _found: None)
    assert _is_noticed()


def _is_noticed(*deaf_to: str) -> bool:
    for seed in range(20, 60):
        try:
            PowerCutLife(seed, deaf_to=frozenset(deaf_to), states_each=12).run(STEPS)
        except BrokenPromiseError:
            return True
    return False
