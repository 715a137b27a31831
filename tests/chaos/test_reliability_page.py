"""docs/reliability.md says what a run really gave: no figure by hand, and what failed stands there as failing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import Verdict
from tests.chaos.scenarios import Kind

_PATH = Path(__file__).parents[2] / "docs" / "make_reliability.py"


@pytest.fixture(scope="module")
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_reliability", _PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one_round(number: int, name: str, faults: list[dict[str, Any]], verdict: Verdict, **more: Any) -> dict[str, Any]:
    ending = {"exit_code": 0, "drained_s": 1.5, "unaccounted": 0, "books": "long"}
    fixed = {"number": number, "write_ahead": "off", "threads": 1, "seconds": 30.0, "error": None, "began": "x"}
    return {**fixed, "name": name, "faults": faults, "verdict": verdict.as_json(), "ending": ending, **more}


def results(*rounds: dict[str, Any]) -> dict[str, Any]:
    head = {"format": 1, "seed": "7", "kills": 2, "bounces": 0, "began": "a", "ended": "b"}
    return {**head, "planned_rounds": len(rounds), "versions": {"Python": "3"}, "rounds": list(rounds)}


def kill(unacknowledged: int, **more: Any) -> dict[str, Any]:
    fixed = {"row": Kind.KILL.value, "pid": 1, "exit_code": -9, "restarted_after_s": 0.7, "uncounted": []}
    return {**fixed, "seconds": 0, "proved": True, "unacknowledged": unacknowledged, **more}


def good_verdict() -> Verdict:
    verdict = Verdict()
    verdict.facts.handed, verdict.facts.accepted, verdict.facts.duplicates_marked = 5_000, 4_800, 12
    return verdict


def row_of(page: str, name: str) -> list[str]:
    [line] = [
        line for line in page.splitlines() if line.startswith(f"| {name} |") and "good" not in line and " of " in line
    ]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_made_of_the_figures_that_are_kept(maker: Any) -> None:
    if not maker.KEPT.exists():
        pytest.skip("no run of `python -m tests.chaos` has been kept yet")
    assert maker.page(json.loads(maker.KEPT.read_text(encoding="utf-8"))) == maker.PAGE.read_text(encoding="utf-8")


def test_a_good_run_is_shown_with_zeros_and_the_proofs(maker: Any) -> None:
    page = maker.page(maker.kept(results(one_round(0, "worker killed", [kill(120), kill(300)], good_verdict()))))
    assert "1 rounds in 0 minutes. **All of them kept every promise.**" in page
    assert row_of(page, "worker killed") == ["worker killed", "2", "2, 0", "5,000", *["0"] * 6, "12", "1 of 1"]
    assert "unacknowledged 120 to 300, median 210" in page
    assert "Nothing else that the checker looks for was found." in page


def test_what_was_broken_stands_there_with_an_example(maker: Any) -> None:
    verdict = good_verdict()
    verdict.note("lost", "event-9 (key-1 #3, run 0; told: spooled)")
    verdict.note("refused_but_there", "event-8")
    page = maker.page(maker.kept(results(one_round(0, "worker killed", [kill(120)], verdict))))
    assert "**1 of them did not keep every promise.**" in page
    assert row_of(page, "worker killed")[4] == "**1**"
    assert row_of(page, "worker killed")[-1] == "**0 of 1**"
    assert "**Also found:** refused_but_there 1." in page
    assert "  - `lost`: event-9 (key-1 #3, run 0; told: spooled)" in page


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"error": "StackError: broker 1 was not ready\nits log"}, "broken off: StackError: broker 1 was not ready"),
        ({"ending": {"exit_code": 0, "drained_s": None, "unaccounted": 0}}, "the spool was not empty"),
        ({"ending": {"exit_code": None, "drained_s": 1.0, "unaccounted": None}}, "the worker ended with None"),
        ({"ending": {"exit_code": 0, "drained_s": 1.0, "unaccounted": 4}}, "4 events unaccounted"),
    ],
)
def test_a_round_that_did_not_end_well_is_named(maker: Any, more: dict[str, Any], text: str) -> None:
    page = maker.page(maker.kept(results(one_round(3, "mix", [kill(120)], good_verdict(), **more))))
    assert "- round 4, mix" in page
    assert text in page


def test_a_fault_without_proof_and_a_plan_that_is_not_finished_are_named(maker: Any) -> None:
    rounds = results(one_round(0, "worker killed", [kill(120), kill(3, proved=False)], good_verdict()))
    rounds["planned_rounds"] = 5
    page = maker.page(maker.kept(rounds))
    assert row_of(page, "worker killed")[1] == "1 (+1 without proof)"
    assert "4 planned rounds are missing" in page


def test_every_kind_of_fault_has_a_proof_and_every_breach_a_place(maker: Any) -> None:
    assert set(maker.PROOFS) == set(Kind)
    columns = [name for names in maker.BREACHES.values() for name in names]
    assert set(columns) <= set(Verdict().breaches.__slots__)
    assert len(columns) == len(set(columns))
