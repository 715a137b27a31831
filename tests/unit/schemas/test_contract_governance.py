"""The keys `compatibility`, `examples` and `lint_ignore` of a contract file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postroom.libs.exceptions import InvalidContractError
from postroom.schemas.contract_governance import Governance
from postroom.schemas.data_contracts import load_contract
from postroom.schemas.registry_protocol import Compatibility

if TYPE_CHECKING:
    from pathlib import Path


class TestGovernance:
    def test_compatibility_examples_and_lint_ignore_are_read(self, tmp_path: Path) -> None:
        text = "compatibility: FULL\nexamples:\n  - {id: a}\nlint_ignore: [doc_missing, 'union_of_many  a.b']\n"
        path = tmp_path / "c.yaml"
        path.write_text(f"name: order\nversion: 1\ntopic: orders\nschema: {{id: string}}\n{text}")
        governance = load_contract(path).governance
        assert governance.compatibility is Compatibility.FULL
        assert governance.examples == ({"id": "a"},)
        assert governance.lint_ignore == ("doc_missing", "union_of_many a.b")

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("compatibility: full", ":5: compatibility is none of Confluent's words. Did you mean FULL?"),
            ("compatibility: 3", "compatibility is none of Confluent's words. Write one of NONE, BACKWARD"),
            ("examples: {id: a}", "examples is a mapping. Write a list of events"),
            ("examples:\n  - {id: a}\n  - 7", ":7: examples[1] is a whole number. Write an event"),
            ("lint_ignore: [a b c]", "lint_ignore[0] is no code of contracts lint"),
            ("lint_ignore: [7]", "lint_ignore[0] is no code of contracts lint"),
            ("examples: [" + ", ".join(["{}"] * 1001) + "]", "examples holds more than 1000 events"),
        ],
    )
    def test_what_is_wrong_is_told_with_line_and_remedy(self, tmp_path: Path, text: str, says: str) -> None:
        path = tmp_path / "c.yaml"
        path.write_text(f"name: order\nversion: 1\ntopic: orders\nschema: {{id: string}}\n{text}\n")
        with pytest.raises(InvalidContractError) as caught:
            load_contract(path)
        assert says in str(caught.value)

    def test_without_them_nothing_is_said(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yaml"
        path.write_text("name: order\nversion: 1\ntopic: orders\nschema: {id: string}\ncompatibility:\nexamples:\n")
        assert load_contract(path).governance == Governance()
