"""The key `tombstones` of a contract file: true, false, or a problem with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import InvalidContractError
from postroom.schemas.data_contracts import load_contract

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "name: a\nversion: 1\ntopic: t\nschema: {id: string}\n"


@pytest.mark.parametrize(("line", "allowed"), [("", False), ("tombstones: true", True), ("tombstones: false", False)])
def test_it_says_yes_or_no_and_no_by_default(line: str, allowed: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(HEAD + line, encoding="utf-8")
    assert load_contract(file).tombstones is allowed


@pytest.mark.parametrize("value", ["yes please", "1", "[true]"])
def test_anything_else_is_told_with_its_line(value: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"{HEAD}tombstones: {value}", encoding="utf-8")
    with pytest.raises(InvalidContractError, match=r"a.yaml:5: tombstones is .*Write true or false\."):
        load_contract(file)
