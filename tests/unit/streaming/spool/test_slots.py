"""Who owns which folder: processes, their death, their forked children."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from postroom.libs.exceptions import LifecycleError, SpoolUnavailableError
from postroom.streaming.spool.file_system import Entry, OsFileSystem
from postroom.streaming.spool.record_format import Kind
from postroom.streaming.spool.spool import Spool
from tests.unit.streaming.spool.spools import abandon, drained, ids, quiet, record

HOLDER = """
import sys
from postroom.streaming.spool.spool import Spool
from tests.unit.streaming.spool.spools import record
spool = Spool(sys.argv[1])
spool.start()
spool.append(record(int(sys.argv[2]))).wait()
print(spool.status().slots[0].name, flush=True)
sys.stdin.read()
"""


def _holder(root: Path, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
    )


def test_two_processes_on_one_root_have_a_slot_each_and_a_dead_ones_is_taken_over(tmp_path: Path) -> None:
    with _holder(tmp_path, 7) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0001\n"
        spool = quiet(tmp_path)
        assert spool.status().slots[0].name == "0002"
        assert spool.take_over_unclaimed() == 0, "a living owner's slot is nobody's"
        other.send_signal(signal.SIGKILL)
        other.wait()
    spool.append(record(8)).wait()
    assert spool.take_over_unclaimed() == 1
    assert spool.take_over_unclaimed() == 0
    assert [slot.name for slot in spool.status().slots] == ["0002", "0001"]
    assert spool.holds_key("topic", b"key")
    found = drained(spool)
    assert ids(found) == ["id-7", "id-8"], "what was taken over comes first"
    for waiting in found:
        assert spool.ack(waiting)
    assert spool.is_empty
    spool.tend()
    assert [slot.name for slot in spool.status().slots] == ["0002"], "an emptied slot is given back"
    spool.stop()


def test_a_start_prefers_the_slot_with_records_that_nobody_has(tmp_path: Path) -> None:
    first, second = quiet(tmp_path), quiet(tmp_path)
    second.append(record(1)).wait()
    first.stop()
    second.stop()
    spool = quiet(tmp_path)
    assert spool.status().slots[0].name == "0002"
    assert ids(drained(spool)) == ["id-1"]
    spool.stop()


def test_a_forked_child_holds_no_lock_and_no_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.start()
    spool.append(record(1)).wait()
    report, reported = os.pipe()
    release, released = os.pipe()
    child = os.fork()
    if not child:
        try:
            spool.append(record(2))
            said = b"taken"
        except LifecycleError:
            said = b"refused"
        spool.stop()
        os.write(reported, said)
        os.read(release, 1)
        os._exit(0)
    try:
        assert os.read(report, 10) == b"refused"
        # As if this process died and was started again, while its child lives on.
        spool.stop()
        again = quiet(tmp_path)
        assert again.status().slots[0].name == "0001"
        assert ids(drained(again)) == ["id-1"]
        again.stop()
    finally:
        os.write(released, b"x")
        os.waitpid(child, 0)
        for descriptor in (report, reported, release, released):
            os.close(descriptor)


def test_a_child_forked_from_a_process_that_is_killed_does_not_keep_its_slot(tmp_path: Path) -> None:
    forked = (  # the child is past all that is done in it at a fork, when its parent says where it is
        "import os\nhears, says = os.pipe()\n"
        "if not os.fork():\n    os.write(says, b'x'); sys.stdin.read(); os._exit(0)\n"
        "os.read(hears, 1)\nprint("
    )
    code = HOLDER.replace("print(", forked)
    owner = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "0001\n"
        os.kill(owner.pid, signal.SIGKILL)
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
        spool = quiet(tmp_path)
        assert spool.status().slots[0].name == "0001"
        assert ids(drained(spool)) == ["id-1"]
        spool.stop()


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "0001").symlink_to(elsewhere)
    spool = quiet(root)
    assert spool.status().slots[0].name == "0002"
    spool.stop()
    (root / "0002" / "LOCK").unlink()
    (root / "0002" / "LOCK").symlink_to(elsewhere / "file")
    spool = quiet(root)
    assert spool.status().slots[0].name == "0003"
    spool.stop()
    assert list(elsewhere.iterdir()) == []
    link = root / "link"
    link.symlink_to(elsewhere)
    assert OsFileSystem().entry(str(link)) is Entry.FOREIGN
    with pytest.raises(OSError, match="symbolic links"):
        OsFileSystem().open_to_write(str(link))


def test_a_root_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnavailableError) as caught:
        quiet(tmp_path / "file" / "root")
    assert "ENOTDIR" in str(caught.value)


def unopenable(root: Path, slot: str) -> None:
    """Let the disk give no more of one of its queues than an error."""
    shutil.rmtree(root / slot / "dead_letters")
    (root / slot / "dead_letters").write_text("")


def test_a_slot_that_cannot_be_opened_holds_up_no_other(tmp_path: Path) -> None:
    own, *dead = [quiet(tmp_path) for _ in range(4)]
    for number, spool in enumerate(dead):
        spool.append(record(number))
        abandon(spool)
    unopenable(tmp_path, "0003")
    assert own.take_over_unclaimed() == 2
    assert ids(drained(own)) == ["id-0", "id-2"]
    own.stop()


@pytest.mark.parametrize("records", [0, 1])
def test_a_start_works_in_another_slot_where_one_cannot_be_opened(records: int, tmp_path: Path) -> None:
    dead = [quiet(tmp_path) for _ in range(2)]
    for number, spool in enumerate(dead):
        if number < 1 + records:
            spool.append(record(number))
        abandon(spool)
    unopenable(tmp_path, "0001")
    spool = quiet(tmp_path)
    assert spool.status().slots[0].name == "0002"
    assert ids(drained(spool)) == ["id-1"][:records]
    spool.stop()
    unopenable(tmp_path, "0002")
    spool = quiet(tmp_path)
    assert spool.status().slots[0].name == "0003"
    spool.stop()


def test_acknowledgements_of_a_slot_that_was_taken_over_are_kept(tmp_path: Path) -> None:
    own, dead = quiet(tmp_path), quiet(tmp_path)
    dead.append_many([record(number) for number in range(5)])
    abandon(dead)
    own.take_over_unclaimed()
    found = own.read(Kind.RECORD)
    for waiting in found[:3]:
        own.ack(waiting)
    own.stop()
    spool = quiet(tmp_path)
    assert spool.status().slots[0].name == "0002"
    assert ids(drained(spool)) == ["id-3", "id-4"]
    spool.stop()
