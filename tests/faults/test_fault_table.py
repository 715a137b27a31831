"""The table of faults is complete, and every test that it names exists."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.faults.fault_table import FAULTS, TABLE, Row

_ROOT = Path(__file__).parents[2]
_HERE = "tests/faults/"


@cache
def names_in(file: Path) -> frozenset[str]:
    """The tests of a file, `Class::test` for those of a class; none that is never run."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        within = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for one in within:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_"):
                marks = {ast.unparse(mark).partition("(")[0] for mark in one.decorator_list}
                if not marks & {"pytest.mark.skip", "pytest.mark.xfail"}:
                    found.add(prefix + one.name)
    return frozenset(found)


def test_there_is_a_row_for_every_fault() -> None:
    assert [row.number for row in TABLE] == list(range(1, FAULTS + 1))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row.number))
def test_each_row_says_what_proves_it_and_its_tests_exist(row: Row) -> None:
    assert row.tests
    assert row.fault
    assert row.must_end_in
    assert row.evidence
    for test in row.tests:
        path, _, name = test.partition("::")
        assert (_ROOT / path).is_file(), path
        assert name in names_in(_ROOT / path), test
    assert len(set(row.tests)) == len(row.tests)


def test_every_test_of_this_folder_proves_a_row() -> None:
    named = {test for row in TABLE for test in row.tests}
    own = Path(__file__).name
    files = [file for file in sorted(Path(__file__).parent.glob("test_*.py")) if file.name != own]
    there = {f"{_HERE}{file.name}::{name}" for file in files for name in names_in(file)}
    assert there == {test for test in named if test.startswith(_HERE)}
