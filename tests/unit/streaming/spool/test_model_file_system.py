"""The model keeps to the rules it states: otherwise what it proves about the spool is worth nothing."""

from __future__ import annotations

import errno
from random import Random
from typing import TYPE_CHECKING

import pytest

from postroom.streaming.spool.file_system import Entry
from postroom.testing.model_file_system import ModelFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable


def _contents(disk: ModelFileSystem, path: str) -> set[bytes | None]:
    states = list(disk.crash_states(Random(1)))
    return {state.content(path) if state.entry(path) is Entry.FILE else None for state in states}


def _with_file(content: bytes) -> ModelFileSystem:
    disk = ModelFileSystem()
    disk.make_folder("/f")
    disk.sync_folder("/")
    file = disk.create("/f/file")
    file.write_at(content, 0)
    file.sync()
    disk.sync_folder("/f")
    return disk


def test_what_is_synced_with_its_name_is_in_every_state() -> None:
    assert _contents(_with_file(b"safe"), "/f/file") == {b"safe"}


def test_a_synced_file_whose_name_is_not_synced_may_be_gone() -> None:
    disk = ModelFileSystem()
    disk.make_folder("/f")
    file = disk.create("/f/file")
    file.write_at(b"data", 0)
    file.sync()
    assert _contents(disk, "/f/file") == {None, b"data"}
    disk.sync_folder("/f")
    assert None in _contents(disk, "/f/file"), "the folder's own name is not synced"
    disk.sync_folder("/")
    assert _contents(disk, "/f/file") == {b"data"}


def test_an_unsynced_write_may_be_gone_whole_cut_zeroed_or_behind_a_hole() -> None:
    disk = _with_file(b"old|")
    disk.open_to_write("/f/file").write_at(b"abcd", 4)
    found = _contents(disk, "/f/file")
    assert {b"old|", b"old|abcd", b"old|\0\0\0\0", b"old|a", b"old|ab", b"old|ab\0\0", b"old|\0\0cd"} <= found
    assert all(content is not None and content.startswith(b"old|") for content in found)


def test_a_later_write_may_be_there_without_an_earlier_one() -> None:
    disk = _with_file(b"")
    file = disk.open_to_write("/f/file")
    file.write_at(b"one", 0)
    file.write_at(b"two", 3)
    assert b"\0\0\0two" in _contents(disk, "/f/file")


def test_a_truncation_may_be_undone_until_it_is_synced() -> None:
    disk = _with_file(b"abcdef")
    file = disk.open_to_write("/f/file")
    file.truncate(2)
    assert _contents(disk, "/f/file") == {b"abcdef", b"ab"}
    file.sync()
    assert _contents(disk, "/f/file") == {b"ab"}


def test_an_unlinked_file_may_come_back_and_a_renamed_one_is_never_in_both_or_neither() -> None:
    disk = _with_file(b"x")
    disk.make_folder("/g")
    disk.sync_folder("/")
    disk.rename("/f/file", "/g/moved")
    seen = {(state.entry("/f/file"), state.entry("/g/moved")) for state in disk.crash_states(Random(1))}
    assert seen == {(Entry.FILE, Entry.ABSENT), (Entry.ABSENT, Entry.FILE)}
    disk.sync_folder("/g")
    assert _contents(disk, "/g/moved") == {b"x"}
    disk.unlink("/g/moved")
    assert _contents(disk, "/g/moved") == {b"x", None}


def test_errors_are_those_of_an_operating_system() -> None:
    disk = _with_file(b"x")
    calls: list[tuple[Callable[[], object], int]] = [
        (lambda: disk.create("/f/file"), errno.EEXIST),
        (lambda: disk.open_to_read("/f/none"), errno.ENOENT),
        (lambda: disk.open_to_read("/f"), errno.EISDIR),
        (lambda: disk.unlink("/f/none"), errno.ENOENT),
        (lambda: disk.rename("/f/none", "/f/other"), errno.ENOENT),
        (lambda: disk.make_folder("/f"), errno.EEXIST),
        (lambda: disk.entries("/none"), errno.ENOENT),
        (lambda: disk.create("/f/file/deeper"), errno.ENOTDIR),
    ]
    for call, code in calls:
        with pytest.raises(OSError, match=r"E[A-Z]+") as caught:
            call()
        assert caught.value.errno == code


def test_a_full_model_writes_what_fits_and_then_refuses() -> None:
    disk = _with_file(b"")
    disk.free_bytes = 5
    file = disk.open_to_write("/f/file")
    assert file.write_at(b"12345678", 0) == 5
    with pytest.raises(OSError, match="ENOSPC"):
        file.write_at(b"678", 5)
    assert file.write_at(b"abcde", 0) == 5, "overwriting needs no room"


def test_a_lock_is_for_one_open_file_and_ends_with_it() -> None:
    disk = _with_file(b"")
    first, second = disk.open_to_write("/f/file"), disk.open_to_write("/f/file")
    assert first.try_lock()
    assert not second.try_lock()
    second.close()
    first.close()
    assert disk.open_to_write("/f/file").try_lock()


def test_a_deaf_sync_says_it_did_and_did_not() -> None:
    disk = _with_file(b"old")
    file = disk.open_to_write("/f/file")
    for deaf in (False, True):
        file.write_at(b"%d" % deaf, 3)
        disk.deaf_to = frozenset(disk.sync_places) if deaf else frozenset()
        file.sync()  # the same place in the code both times
    assert len(disk.sync_places) == 4
    assert _contents(disk, "/f/file") >= {b"old0", b"old1"}
