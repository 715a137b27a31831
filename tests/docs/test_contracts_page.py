"""The page about contracts shows what the commands print, and explains every code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.__main__ import main
from postroom.schemas.compatibility import RULES
from postroom.schemas.contract_lint import CODES
from tests.docs.pages import DOCS, blocks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PAGE = DOCS / "contracts.md"


def test_the_diff_of_the_page_is_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = [block.text for block in blocks(PAGE) if block.language == "yaml"][:2]
    (tmp_path / "order-1.yaml").write_text(old)
    (tmp_path / "order-2.yaml").write_text(new)
    assert main(["contracts", "diff", "order-1.yaml", "order-2.yaml"]) == 1
    (shown,) = (block.text for block in blocks(PAGE) if block.language == "text")
    assert capsys.readouterr().out == shown


def test_every_code_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert {code for code in (*RULES, *CODES) if f"`{code}`" not in text} == set()
