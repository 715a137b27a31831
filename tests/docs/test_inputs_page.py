"""Everything that docs/inputs.md shows, done as it says."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest

from postroom.__main__ import main
from postroom.libs.config_loader import load_config
from postroom.schemas.data_contracts import load_contracts
from postroom.testing.recording_service import RecordingService
from tests.docs.pages import DOCS, blocks

if TYPE_CHECKING:
    from pathlib import Path

PAGE = blocks(DOCS / "inputs.md")


def texts(language: str) -> list[str]:
    return [block.text for block in PAGE if block.language == language]


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    for name, text in zip(("profile", "moved"), texts("yaml"), strict=True):
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def test_its_programs_say_what_it_shows(contracts: Path) -> None:
    config = load_config(overrides={"schema_registry.subject_strategy": "record_name"}, environ={})
    out = StringIO()
    with RecordingService(load_contracts([contracts]), config=config) as post, redirect_stdout(out):
        known: dict[str, Any] = {"post": post}
        for program in texts("python"):
            exec(program, known)
        assert [one.event_type for one in post.published] == ["profile", "moved", "profile", "profile"]
        assert [record.key for record in post.tombstones] == [b"u1"]
        assert post.dead_letters == []
    ids, refused, _ = texts("text")
    assert out.getvalue().splitlines() == [*ids.splitlines(), *refused.splitlines()]


def test_its_csv_has_the_violation_that_it_shows(contracts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (contracts / "moves.csv").write_text(texts("text")[-1], encoding="utf-8")
    assert main(["contracts", "check", str(contracts)]) == 0
    assert main(["contracts", "check", str(contracts / "moved.yaml"), str(contracts / "moves.csv")]) == 1
    told = capsys.readouterr().out
    assert "line 3: at: wrong_type" in told
    assert "found str in line 3, column 3" in told
