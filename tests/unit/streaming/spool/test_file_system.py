"""What the operating system's files promise beyond bytes: a sync says when it saved something that nobody can find."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from postroom.streaming.spool.file_system import OsFileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.streaming.spool.file_system import File


@pytest.fixture(params=["with /proc", "without /proc"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[File]:
    """A written file, `data`; also on a system that cannot be asked which name a descriptor stands for."""
    if request.param == "without /proc":

        def refuse(_path: str) -> str:
            raise FileNotFoundError(errno.ENOENT, "no such file")

        monkeypatch.setattr(os, "readlink", refuse)
    opened = OsFileSystem().create(str(tmp_path / "data"))
    assert opened.write_at(b"content", 0) == 7
    yield opened
    opened.close()


def _sync_says(file: File) -> int | None:
    try:
        file.sync()
    except OSError as exc:
        return exc.errno
    return None


def test_a_sync_of_a_file_whose_name_was_removed_is_an_error(file: File, tmp_path: Path) -> None:
    assert _sync_says(file) is None
    (tmp_path / "data").unlink()
    assert _sync_says(file) == errno.ESTALE


def test_so_is_one_of_a_file_whose_name_was_given_to_another(file: File, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").rename(tmp_path / "data")
    assert _sync_says(file) == errno.ESTALE


def test_a_file_that_has_another_name_or_looks_like_a_removed_one_is_synced(file: File, tmp_path: Path) -> None:
    for name in ("moved", "data (deleted)"):
        here = next(iter(tmp_path.iterdir()))
        here.rename(tmp_path / name)
        assert _sync_says(file) is None


def test_whoever_syncs_does_not_ask_for_the_times_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That would make the next sync dearer, see `OsFile`."""
    opened = OsFileSystem().create(str(tmp_path / "data"))
    asked: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", asked.append)
        opened.sync()
    assert not asked
    opened.close()
