"""The public interface is typed: what is right passes mypy's strict mode, what is wrong is found by it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

from postroom.schemas.contract_types import types_module
from postroom.schemas.data_contracts import packaged_contracts

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What mypy says about both files."""
    cache = tmp_path_factory.mktemp("mypy")
    misuse = cache / "misuse.py"  # not kept as .py: the project's own check would find what it is meant to hold
    misuse.write_text((HERE / "misuse.txt").read_text())
    files = [str(HERE / "outcomes.py"), str(misuse)]
    settings = str(HERE / "strict.ini")
    output, errors, _ = api.run(["--config-file", settings, "--cache-dir", str(cache), "--no-error-summary", *files])
    assert errors == ""
    return output


def lines_told(told: str, name: str) -> set[int]:
    return {int(line) for line in re.findall(rf"{name}:(\d+):(?:\d+:)? error", told)}


def test_what_users_may_rely_on_is_so(told: str) -> None:
    assert lines_told(told, "outcomes.py") == set(), told


def test_every_misuse_is_found(told: str) -> None:
    source = (HERE / "misuse.txt").read_text().splitlines()
    wrong = {number for number, line in enumerate(source, start=1) if line.endswith("# wrong")}
    assert lines_told(told, "misuse.py") == wrong, told


def test_types_made_from_a_contract_are_accepted_where_events_are_published(tmp_path: Path) -> None:
    (tmp_path / "made_events.py").write_text(types_module(list(packaged_contracts().values())))
    source = (HERE / "made_types.txt").read_text()
    (tmp_path / "made_types.py").write_text(source)
    files = [str(tmp_path / "made_events.py"), str(tmp_path / "made_types.py")]
    settings = ["--config-file", str(HERE / "strict.ini"), "--cache-dir", str(tmp_path / "cache")]
    output, errors, _ = api.run([*settings, "--no-error-summary", *files])
    assert errors == ""
    assert lines_told(output, "made_events.py") == set(), output
    wrong = {number for number, line in enumerate(source.splitlines(), start=1) if line.endswith("# wrong")}
    assert lines_told(output, "made_types.py") == wrong, output


def test_the_package_says_that_it_is_typed() -> None:
    import postroom

    assert (Path(postroom.__file__).parent / "py.typed").is_file()
