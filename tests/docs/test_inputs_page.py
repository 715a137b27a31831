"""The commands that docs/inputs.md shows; its programs run with those of the other pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.__main__ import main
from tests.docs.pages import DOCS, blocks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_its_rows_have_the_violation_that_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks(DOCS / "inputs.md")
    for name, block in zip(("profile", "moved"), (block for block in found if block.language == "yaml"), strict=True):
        (tmp_path / f"{name}.yaml").write_text(block.text, encoding="utf-8")
    (tmp_path / "moves.csv").write_text(next(block.text for block in found if block.text.startswith("user_id,")))
    assert main(["contracts", "check", str(tmp_path)]) == 0
    assert main(["contracts", "check", str(tmp_path / "moved.yaml"), str(tmp_path / "moves.csv")]) == 1
    told = capsys.readouterr().out
    assert "line 3: at: wrong_type" in told
    assert "found str in line 3, column 3" in told
