"""A disk under the spool that refuses, vanishes or lies: a clear answer, red where nothing is safe, and no restart."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import pytest

from postroom.libs.event import Failed, FailedReason, Refused, RefusedReason, Spooled
from postroom.libs.exceptions import PostroomError, SpoolError
from postroom.services.health_checks import health_of
from postroom.streaming.spool.file_system import OsFileSystem
from postroom.testing.fault_script import FaultScript
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.recording_service import RecordingService
from tests.faults.post import PATIENCE_S, Post, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postroom.libs.config_loader import Config
    from postroom.libs.event import Outcome
    from postroom.observability.metrics import Metrics
    from postroom.services.receipt import Receipt
    from postroom.streaming.spool.file_system import OsFile
    from postroom.testing.fault_script import DiskOperation
    from postroom.testing.recording_service import WriteAhead

BOTH_WAYS = pytest.mark.parametrize("write_ahead", ["off", "fsync"])
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


class CountingScript(FaultScript):
    """Notes every refusal that the disk gave: the proof that the fault was met."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[tuple[str, str]] = []

    def disk_refusal(self, operation: DiskOperation, path: str) -> OSError | None:
        error = super().disk_refusal(operation, path)
        if error is not None:
            self.refusals.append((operation, errno.errorcode[error.errno or 0]))
        return error


class Desk:
    """A service in memory with a spool on a real disk, Kafka away from the beginning."""

    def __init__(self, folder: Path, write_ahead: WriteAhead = "off") -> None:
        self.faults = CountingScript()
        self.faults.away()
        self.post = RecordingService(faults=self.faults, spool_dir=folder, write_ahead=write_ahead)
        self.accepted: list[str] = []
        self.count = 0

    def __enter__(self) -> Self:
        self.post.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.post.close()

    def hand_in(self) -> Outcome:
        self.count += 1
        receipt = self.post.publish_event({"user_id": "u", "timestamp": self.count}, event_id=f"id-{self.count}")
        outcome = receipt.result(PATIENCE_S)
        if outcome.is_safe:
            self.accepted.append(receipt.event_id)
        return outcome

    def hand_in_until(self, kind: type[Outcome]) -> Outcome:
        """Hand in events until one ends like this."""
        for _ in range(2_000):
            outcome = self.hand_in()
            if isinstance(outcome, kind):
                return outcome
        raise AssertionError(f"none of {self.count} events is {kind.__name__}")

    def health(self) -> dict[str, dict[str, str]]:
        return health_of(self.post).report().as_json()["components"]  # type: ignore[return-value]

    def is_ready(self) -> bool:
        return health_of(self.post).report().ready

    def drain(self) -> None:
        """Let Kafka return, and hold what came against what was accepted."""
        self.faults.back()
        self.post.wait_until_drained(PATIENCE_S)
        found = [one.event_id for one in self.post.published]
        assert [one for one in found if one in self.accepted] == self.accepted
        total = self.post.ledger.total()
        assert total.unaccounted == 0
        assert total.delivered == len(set(found))


@pytest.fixture
def desk(spool: Path) -> Iterator[Desk]:
    with Desk(spool) as made:
        yield made


def files_with(folder: Path, text: bytes) -> list[Path]:
    """The files below a folder that hold this text."""
    return [file for file in folder.rglob("*") if file.is_file() and text in file.read_bytes()]


TROUBLES: dict[str, Callable[[FaultScript], object]] = {
    "read-only": FaultScript.read_only,
    "no permission": lambda faults: faults.disk_error("create", "write", "unlink", code=errno.EACCES),
    "input-output error": lambda faults: faults.disk_error("write", "sync", "create"),
}


@BOTH_WAYS
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_disk_that_takes_nothing_turns_readiness_red_with_a_clear_word_until_it_is_mended(
    spool: Path, trouble: str, write_ahead: WriteAhead
) -> None:
    """Rows 32 and 33."""
    with Desk(spool, write_ahead) as desk:
        assert isinstance(desk.hand_in(), Spooled)
        assert desk.is_ready()
        TROUBLES[trouble](desk.faults)
        for _ in range(4):
            outcome = desk.hand_in()
            assert isinstance(outcome, Refused | Failed)
            assert outcome.reason.value == "spool_unavailable"
            assert outcome.detail
        assert desk.faults.refusals
        outcome = desk.hand_in_until(Refused)
        assert isinstance(outcome, Refused)
        assert outcome.retry_after_s
        assert not desk.is_ready()
        assert "takes nothing" in desk.health()["spool"]["detail"]
        desk.faults.disk_mended()
        until(lambda: isinstance(desk.hand_in(), Spooled), "it takes nothing, though the disk is mended")
        assert desk.is_ready()
        desk.drain()


@BOTH_WAYS
def test_a_disk_that_hangs_holds_nobody_up_for_long_and_closing_ends(spool: Path, write_ahead: WriteAhead) -> None:
    """Rows 27 and 33: a file server that is away, a volume that hangs."""
    is_syncing = threading.Event()
    with Desk(spool, write_ahead) as desk:
        assert isinstance(desk.hand_in(), Spooled)
        desk.faults.at("before_sync", is_syncing.set)
        desk.faults.disk_hangs()
        stuck: list[Receipt] = []
        event = {"user_id": "u", "timestamp": 0}
        caller = threading.Thread(target=lambda: stuck.append(desk.post.publish_event(event)), daemon=True)
        caller.start()
        assert is_syncing.wait(PATIENCE_S)
        until(lambda: not desk.is_ready(), "it is ready, though the disk hangs")
        assert "takes nothing" in desk.health()["spool"]["detail"]
        began = time.monotonic()
        outcome = desk.hand_in()
        assert isinstance(outcome, Refused)
        assert outcome.reason is RefusedReason.SPOOL_UNAVAILABLE
        assert outcome.retry_after_s
        desk.post.close(2.0)
        assert time.monotonic() - began < PATIENCE_S / 2
        caller.join(PATIENCE_S)
        [receipt] = stuck
        told = receipt.result(0)
        assert isinstance(told, Failed)
        assert told.reason is FailedReason.SPOOL_UNAVAILABLE
        assert told.may_be_in_kafka
        assert desk.post.ledger.total().unaccounted == 0
        desk.faults.disk_mended()
    assert files_with(spool, b"id-1")


def test_without_file_handles_what_is_open_goes_on_and_a_start_says_so(spool: Path, tmp_path: Path) -> None:
    """Row 33: nothing can be opened; the segment that is open takes events until there are handles again."""
    with Desk(spool) as desk:
        assert isinstance(desk.hand_in(), Spooled)
        desk.faults.no_file_handles()
        assert isinstance(desk.hand_in(), Spooled)
        other = RecordingService(faults=FaultScript().no_file_handles(), spool_dir=tmp_path / "other")
        with pytest.raises(SpoolError, match="EMFILE"):
            other.start()
        desk.faults.disk_mended()
        desk.drain()


def in_a_child(work: Callable[[], str]) -> str:
    """What `work` returns in a forked process that is nobody."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgid(65534)
            os.setuid(65534)
            told = work()
        except BaseException as exc:  # noqa: BLE001 - told to the parent
            told = f"{type(exc).__name__}: {exc}"
        os.write(writing, pickle.dumps(told))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        answered = answer.read()
    os.waitpid(child, 0)
    return str(pickle.loads(answered))


@needs_root
def test_a_folder_that_belongs_to_somebody_else_is_said_at_the_start(tmp_path: Path) -> None:
    """Row 33: a real folder without rights, asked by a process that is not root."""
    folder = tmp_path / "shut"
    folder.mkdir(mode=0o700)

    def start() -> str:
        try:
            RecordingService(spool_dir=folder / "spool").start()
        except PostroomError as exc:
            return f"{exc.code} {exc}"
        return "it started"

    told = in_a_child(start)
    assert told.startswith("spool_unavailable"), told
    assert "EACCES" in told, told
    assert "rights of its folder" in told, told


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@needs_root
def test_a_read_only_mount_is_said_at_the_start(tmp_path: Path) -> None:
    """Row 33: a real one."""
    with mounted(tmp_path / "disk", "size=8m,ro") as place:
        with pytest.raises(OSError, match="ead-only"):
            (place / "probe").touch()
        service = RecordingService(spool_dir=place / "spool")
        with pytest.raises(SpoolError, match=r"EROFS.*Check the disk"):
            service.start()
        service.close()


@needs_root
def test_a_disk_without_inodes_refuses_like_a_full_one(tmp_path: Path) -> None:
    """Row 33: room for bytes, none for names."""
    with mounted(tmp_path / "disk", "size=64m,nr_inodes=40") as place, Desk(place / "spool", "fsync") as desk:
        for number in range(os.statvfs(place).f_ffree):
            (place / f"name-{number}").touch()
        assert os.statvfs(place).f_ffree == 0
        outcome = desk.hand_in_until(Refused)
        assert isinstance(outcome, Refused)
        assert outcome.reason is RefusedReason.SPOOL_FULL
        assert outcome.retry_after_s
        assert not desk.is_ready()
        for number in range(10):
            (place / f"name-{number}").unlink()
        until(lambda: isinstance(desk.hand_in(), Spooled), "it takes nothing, though there are names")
        desk.drain()


@BOTH_WAYS
def test_a_flipped_bit_costs_its_record_and_the_others_are_delivered(spool: Path, write_ahead: WriteAhead) -> None:
    """Row 35: between two processes. The damage is set aside, counted, and shown."""
    with Desk(spool, write_ahead) as desk:
        for _ in range(20):
            assert isinstance(desk.hand_in(), Spooled)
    [segment] = files_with(spool, b"id-10")
    data = bytearray(segment.read_bytes())
    data[data.index(b"id-10")] ^= 0x04
    segment.write_bytes(data)
    with RecordingService(spool_dir=spool, write_ahead=write_ahead) as later:
        until(lambda: len(later.published) == 19, "the others do not come")
        found = [one.event_id for one in later.published]
        assert found == [f"id-{number}" for number in range(1, 21) if number != 10]
        spool_health = health_of(later).report().as_json()["components"]["spool"]  # type: ignore[index]
        assert "1 files in quarantine" in spool_health["detail"]
        assert later.parts.spooling is not None
        until(lambda: later.parts.spooling.spool.is_empty, "something waits")  # type: ignore[union-attr]
    assert [file for file in spool.rglob("*") if "quarantine" in str(file) and file.is_file()]


def test_a_slot_of_a_newer_version_is_left_alone_and_named_and_the_service_works(spool: Path) -> None:
    """Row 37: it is read when the newer version is back."""
    with Desk(spool) as desk:
        assert isinstance(desk.hand_in(), Spooled)
    [segment] = files_with(spool, b"id-1")
    (spool / "README.txt").write_text("mine")
    ours = segment.read_bytes()
    newer = bytearray(ours)
    newer[8] = newer[72] = 2
    segment.write_bytes(newer)
    slot = segment.relative_to(spool).parts[0]
    with Desk(spool) as desk:
        assert isinstance(desk.hand_in(), Spooled)
        assert "1 slots of a newer version" in desk.health()["spool"]["detail"]
        assert desk.health()["spool"]["state"] == "degraded"
        assert desk.is_ready()
        desk.drain()
    assert segment.read_bytes() == newer, f"{slot} was changed"
    assert (spool / "README.txt").read_text() == "mine"
    segment.write_bytes(ours)
    with RecordingService(spool_dir=spool) as later:
        later.wait_until_drained(PATIENCE_S)
        assert [one.event_id for one in later.published] == ["id-1"]


class NoMemory(OsFileSystem):
    """A disk where the next new file meets the end of the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.is_armed = False
        self.met = threading.Event()

    def create(self, path: str) -> OsFile:
        if self.is_armed and path.endswith(".seg"):
            self.is_armed = False
            self.met.set()
            raise MemoryError
        return super().create(path)


@BOTH_WAYS
def test_an_end_of_memory_while_the_spool_writes_fails_those_events_and_the_next_are_taken(
    spool: Path, write_ahead: WriteAhead
) -> None:
    """Row 29: not the thread that writes; every event has its outcome."""
    disk, faults = NoMemory(), FaultScript()

    def publisher(config: Config, _: Metrics) -> MemoryPublisher:
        return MemoryPublisher(faults=faults, hand_over_after_s=config.hand_over_after_s)

    with Post(
        "nowhere:1", "events", spool, files=disk, make_publisher=publisher, spool__write_ahead=write_ahead
    ) as post:
        faults.away()
        disk.is_armed = True
        post.publish(3, timeout=1.0)
        until(disk.met.is_set, "the memory was not asked for")
        outcomes = post.outcomes(timeout_s=20)
        assert not all(isinstance(one, Spooled) for one in outcomes), "nobody was told"
        again = post.publish(3, timeout=1.0)
        assert set(map(type, post.outcomes(again, 20))) == {Spooled}
        faults.back()
        post.settle()
    assert post.balance.unaccounted == 0
