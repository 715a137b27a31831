"""Copies of the registry's answers on the disk: what was written is read, and nothing else ever is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.config_loader import load_config
from postroom.schemas.contract_copies import ContractCopies, Copy, Ignored, copies_folder, decode, encode, file_name

COPY = Copy("http://registry:8081", "clicks-value", "ab" * 32, 7, 1_795_416_182_091, "click", 3)

copies = st.builds(
    Copy,
    registry=st.text(max_size=40),
    subject=st.text(min_size=1, max_size=40),
    fingerprint=st.text("0123456789abcdef", min_size=64, max_size=64),
    schema_id=st.integers(0, 2**32 - 1),
    confirmed_ms=st.integers(0, 2**53),
    contract=st.text(max_size=20),
    version=st.integers(1, 2**31 - 1),
)


def sealed(body: bytes, *, number: int = 1) -> bytes:
    return b"postroom contract copy %d sha256 %s\n%s\n" % (number, hashlib.sha256(body).hexdigest().encode(), body)


class TestTheBytes:
    @given(copy=copies)
    def test_what_was_written_is_read(self, copy: Copy) -> None:
        assert decode(encode(copy)) == copy

    @given(copy=copies)
    def test_a_copy_that_is_cut_anywhere_is_ignored(self, copy: Copy) -> None:
        data = encode(copy)
        assert all(isinstance(decode(data[:length]), Ignored) for length in range(len(data)))

    @given(copy=copies)
    def test_a_copy_with_any_one_bit_flipped_is_ignored(self, copy: Copy) -> None:
        data = bytearray(encode(copy))
        for place in range(8 * len(data)):
            data[place // 8] ^= 1 << place % 8
            assert isinstance(decode(bytes(data)), Ignored), place
            data[place // 8] ^= 1 << place % 8

    @given(data=st.binary(max_size=400), copy=copies)
    def test_whatever_stands_there_is_no_copy_and_raises_nothing(self, data: bytes, copy: Copy) -> None:
        assert isinstance(decode(data), Ignored)
        assert isinstance(decode(encode(copy) + (data or b"x")), Ignored)
        assert isinstance(decode(sealed(data)), Ignored)

    def test_the_bytes_are_as_the_specification_says(self) -> None:
        head, body, end = encode(COPY).split(b"\n")
        assert head == b"postroom contract copy 1 sha256 " + hashlib.sha256(body).hexdigest().encode()
        assert body.startswith(b'{"registry":"http://registry:8081","subject":"clicks-value","fingerprint":"abab')
        assert body.endswith(b'"schema_id":7,"confirmed_ms":1795416182091,"contract":"click","version":3}')
        assert end == b""

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", Ignored.FOREIGN),
            (b"{}\n", Ignored.FOREIGN),
            (b"\0" * 70_000, Ignored.FOREIGN),
            (sealed(b"{}", number=2), Ignored.NEWER),
            (encode(COPY)[:-1], Ignored.TORN),
            (encode(COPY) + b"\n", Ignored.TORN),
            (encode(COPY).replace(b'"schema_id":7', b'"schema_id":8'), Ignored.DAMAGED),
            (sealed(b"[]"), Ignored.DAMAGED),
            (sealed(b"[" * 10_000), Ignored.DAMAGED),
        ],
    )
    def test_each_kind_of_other_file_has_its_reason(self, data: bytes, reason: Ignored) -> None:
        assert decode(data) is reason

    @pytest.mark.parametrize(
        "change",
        [{"schema_id": -1}, {"schema_id": 2**32}, {"schema_id": True}, {"schema_id": "7"}, {"subject": None}, {"x": 1}],
    )
    def test_a_right_checksum_does_not_make_wrong_content_right(self, change: dict[str, Any]) -> None:
        body = json.dumps({**dataclasses.asdict(COPY), **change}).encode()
        assert decode(sealed(body)) is Ignored.DAMAGED


class TestTheFolder:
    def test_what_was_written_is_read_by_the_same_question_only(self, tmp_path: Path) -> None:
        folder = ContractCopies(tmp_path / "deep" / "copies")
        assert folder.read(*COPY.key) is None
        assert folder.write(COPY)
        assert folder.read(*COPY.key) == COPY
        for number in range(3):
            question = list(COPY.key)
            question[number] += "x"
            assert folder.read(*question) is None

    def test_a_newer_answer_takes_the_place_of_the_older_and_nothing_else_stays(self, tmp_path: Path) -> None:
        folder = ContractCopies(tmp_path / "copies")
        newer = dataclasses.replace(COPY, schema_id=9)
        assert folder.write(COPY)
        assert folder.write(newer)
        assert folder.read(*COPY.key) == newer
        (path,) = (tmp_path / "copies").iterdir()
        assert path.name == file_name(*COPY.key)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("kind", ["text", "folder", "link", "pipe", "huge", "other"])
    def test_what_is_no_copy_is_ignored_with_a_line_and_replaced_by_the_next_answer(
        self, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / file_name(*COPY.key)
        other = encode(dataclasses.replace(COPY, subject="another"))
        makes: dict[str, Callable[[], object]] = {
            "text": lambda: path.write_text("mine"),
            "folder": path.mkdir,
            "link": lambda: path.symlink_to(tmp_path / "elsewhere"),
            "pipe": lambda: os.mkfifo(path),
            "huge": lambda: path.write_bytes(encode(COPY)[:-1] + b" " * 2**20),
            "other": lambda: path.write_bytes(other),
        }
        makes[kind]()
        (tmp_path / "elsewhere").write_bytes(encode(COPY))
        folder = ContractCopies(tmp_path)
        assert folder.read(*COPY.key) is None
        assert caplog.text.count("contract_copy_ignored") == 1
        if kind != "folder":
            assert folder.write(COPY)
            assert folder.read(*COPY.key) == COPY

    def test_a_folder_that_cannot_be_is_told_once_until_it_can(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "copies").write_text("a file")
        folder = ContractCopies(tmp_path / "copies")
        assert not folder.write(COPY)
        assert not folder.write(COPY)
        assert folder.read(*COPY.key) is None
        assert caplog.text.count("contract_copy_failed") == 1
        (tmp_path / "copies").unlink()
        assert folder.write(COPY)
        (tmp_path / "copies" / file_name(*COPY.key)).unlink()
        (tmp_path / "copies").rmdir()
        (tmp_path / "copies").write_text("a file")
        assert not folder.write(COPY)
        assert caplog.text.count("contract_copy_failed") == 2

    def test_a_disk_that_takes_nothing_leaves_the_old_copy_and_no_litter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = ContractCopies(tmp_path)
        folder.write(COPY)

        def full(_handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        assert not folder.write(dataclasses.replace(COPY, schema_id=9))
        assert folder.read(*COPY.key) == COPY
        assert len(list(tmp_path.iterdir())) == 1

    def test_every_folder_that_it_makes_is_the_owner_s_and_durable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[Path] = []

        def sync(handle: int) -> None:
            synced.append(Path(f"/proc/self/fd/{handle}").readlink())

        monkeypatch.setattr(os, "fsync", sync)
        folder = tmp_path / "var" / "spool" / "contracts"
        assert ContractCopies(folder).write(COPY)
        for made in (folder.parent.parent, folder.parent, folder):
            assert made.stat().st_mode & 0o777 == 0o700
            assert made.parent in synced

    def test_writers_at_once_leave_one_whole_copy(self, tmp_path: Path) -> None:
        folder = ContractCopies(tmp_path)

        def write(number: int) -> None:
            for _ in range(20):
                assert folder.write(dataclasses.replace(COPY, schema_id=number))
                assert isinstance(folder.read(*COPY.key), Copy)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert isinstance(folder.read(*COPY.key), Copy)
        assert len(list(tmp_path.iterdir())) == 1


class TestWhere:
    @pytest.mark.parametrize(
        ("overrides", "environ", "folder"),
        [
            ({"schema_registry.copies_dir": "/a", "spool.dir": "/b"}, {"XDG_CACHE_HOME": "/c"}, "/a"),
            ({"spool.dir": "/b"}, {"XDG_CACHE_HOME": "/c"}, "/b/contracts"),
            ({}, {"XDG_CACHE_HOME": "/c"}, "/c/postroom/contracts"),
            ({}, {}, os.path.expanduser("~/.cache/postroom/contracts")),  # noqa: PTH111
        ],
    )
    def test_the_settings_then_the_spool_then_the_user(
        self, overrides: dict[str, object], environ: dict[str, str], folder: str
    ) -> None:
        assert copies_folder(load_config(overrides=overrides, environ={}), environ) == Path(folder)

    def test_who_has_no_home_has_no_copies(self) -> None:
        assert copies_folder(load_config(overrides={}, environ={}), {"XDG_CACHE_HOME": "~/.cache"}) is None
