"""`postroom contracts check` and `show` for contracts with rules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from postroom.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

RULED = """\
name: ruled
version: 1
topic: ruled
schema: {id: string}
ruleSet:
  domainRules:
    - {name: named, type: CEL, expr: "message.id != ''"}
    - {name: later, type: CEL, expr: whatever, disabled: true}
    - {name: theirs, type: ENCRYPT, kind: TRANSFORM, mode: READ}
known_bad: {named: {id: ""}}
"""


def test_check_tells_which_rules_run_and_which_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ruled.yaml"
    path.write_text(RULED, encoding="utf-8")
    assert main(["contracts", "check", str(path)]) == 0
    told = ", 1 rule tried on known-bad events, disabled: later, for readers: theirs\n"
    assert capsys.readouterr().out == f"OK: ruled version 1, 1 fields{told}"
    assert main(["contracts", "check", str(path), "--json"]) == 0
    rules = json.loads(capsys.readouterr().out)["contracts"][0]["rules"]
    assert [rule["name"] for rule in rules] == ["named", "later", "theirs"]


def test_events_are_checked_against_rules_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, events = tmp_path / "ruled.yaml", tmp_path / "events.ndjson"
    path.write_text(RULED, encoding="utf-8")
    events.write_text('{"id": "a"}\n{"id": ""}\n', encoding="utf-8")
    assert main(["contracts", "check", str(path), str(events)]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "line 2: id: named, expected the condition of the rule, found condition not met"


def test_rows_of_csv_are_checked_against_rules_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, events = tmp_path / "ruled.yaml", tmp_path / "events.csv"
    path.write_text(RULED.replace("id != ''", "id != 'no'").replace('{id: ""}', "{id: no}"), encoding="utf-8")
    events.write_text("id\na\nno\n", encoding="utf-8")
    assert main(["contracts", "check", str(path), str(events)]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("line 3: id: named, expected the condition of the rule, found condition not met")


def test_test_tries_each_rule_on_its_known_bad_event_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ruled.yaml"
    path.write_text(f"{RULED}examples: [{{id: a}}]\n", encoding="utf-8")
    assert main(["contracts", "test", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ruled: rule named: its known-bad event breaks it at id (DLQ)",
        "ruled: rule later: not tried, it is disabled",
        "ruled: rule theirs: not tried, it is for readers",
        "ruled: 1 example, 0 failed; 3 rules",
    ]
    assert main(["contracts", "test", str(path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["contracts"]
    assert told["rules"][0] == {
        "rule": "named", "tried": True, "result": "broken as it should be", "paths": ["id"], "action": "DLQ",
    }  # fmt: skip
    assert (told["rules"][1]["tried"], told["rules"][1]["result"]) == (False, "disabled")


def test_a_rule_that_its_known_bad_event_meets_is_an_error_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ruled.yaml"
    path.write_text(RULED.replace('{id: ""}', "{id: a}"), encoding="utf-8")
    assert main(["contracts", "test", str(path)]) == 1
    assert "ruled.yaml:10: known_bad.named meets the rule" in capsys.readouterr().err
