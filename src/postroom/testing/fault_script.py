"""Trouble on demand: what Kafka and the disk of the spool do to a service under test, from when on, until when.

    faults = FaultScript()
    with RecordingService(faults=faults, spool_dir=tmp_path) as post:
        faults.away()
        post.publish_event(event)
        faults.back()
        post.wait_until_drained()

A script is obeyed by `MemoryPublisher` (everything about Kafka) and by `FaultyFileSystem` (everything about the disk).
"""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

Step: TypeAlias = Literal[
    "before_publish",  # the client library is about to take a record
    "after_publish",  # it has the record, Kafka has not
    "before_ack",  # Kafka has the record, nobody knows yet
    "after_ack",  # the report that says so has been dealt with
    "before_append",  # records are about to be written to a segment of the spool
    "after_append",  # written, not synced
    "before_sync",  # the segment is about to be synced
    "after_sync",  # synced, and nobody knows yet
    "before_cursor",  # the notes about what was handed out and acknowledged are about to be written
    "after_cursor",  # written and synced
    "before_unlink",  # a segment of which all is acknowledged is about to be removed
    "after_unlink",  # removed
]
"""The moments at which something can be made to happen."""

STEPS: tuple[Step, ...] = get_args(Step)

DiskOperation: TypeAlias = Literal[
    "open", "create", "write", "read", "truncate", "sync", "make_folder", "entries", "unlink", "rename", "sync_folder"
]
"""What the spool asks of a disk. `sync` is that of a file's content, `sync_folder` that of the names in a folder."""

DISK_OPERATIONS: tuple[DiskOperation, ...] = get_args(DiskOperation)

TopicTrouble: TypeAlias = Literal["gone", "not_allowed"]

_NEED_A_HANDLE: tuple[DiskOperation, ...] = ("open", "create", "entries", "sync_folder")
_CHANGE_THE_DISK: tuple[DiskOperation, ...] = ("create", "write", "truncate", "make_folder", "unlink", "rename")


@dataclass(frozen=True, slots=True)
class KafkaState:
    """How Kafka, and the client library in front of it, are now.

    `delay_s` is what every report takes; `loss_share` the share of acknowledgements that get lost, `loss_is_silent`
    says that nothing at all is heard of those.
    """

    is_away: bool = False
    delay_s: float = 0.0
    is_queue_full: bool = False
    loss_share: float = 0.0
    loss_is_silent: bool = False
    topics: Mapping[str, TopicTrouble] | None = None

    def trouble_of(self, topic: str) -> TopicTrouble | None:
        """Return what is wrong with one topic."""
        return None if self.topics is None else self.topics.get(topic)


class _DiskError:
    """An error that operations meet, for ever (`left` is None) or so many times more."""

    __slots__ = ("code", "left")

    def __init__(self, code: int, left: int | None) -> None:
        self.code = code
        self.left = left


class _Armed:
    """Something to do when a step is reached for the `left`-th time from now."""

    __slots__ = ("action", "left")

    def __init__(self, action: Callable[[], object], left: int) -> None:
        self.action = action
        self.left = left


class FaultScript:
    """Says what is wrong with Kafka and with the disk of the spool. All is well until one of its methods is called.

    Each method can be called at any time and from any thread, holds until it is taken back, and returns the script.
    What is left to chance depends on `seed` and on the order of the records, so that a test fails the same way
    twice. Nonsense raises ValueError.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._kafka = KafkaState()
        self._fatal_errors = 0
        self._chances: dict[str, Random] = {}
        self._disk_errors: dict[DiskOperation, _DiskError] = {}
        self._free_bytes: int | None = None
        self._most_bytes: int | None = None
        self._disk_answers = threading.Event()
        self._disk_answers.set()
        self._no_disk = ""
        self._has_disk = False
        self._topics: frozenset[str] = frozenset()
        self._armed: dict[Step, list[_Armed]] = {}
        self._listeners: list[Callable[[], object]] = []

    # -- Kafka

    def away(self) -> Self:
        """Let all brokers go: records are taken and not reported until `back()`, or until somebody gives them up."""
        return self._change_kafka(is_away=True)

    def back(self, topic: str | None = None) -> Self:
        """Let the brokers return, and take what waited for them; or let one topic be as it should be.

        What has been taken meanwhile is delivered in order, from the publisher's own thread.
        """
        if topic is None:
            return self._change_kafka(is_away=False)
        with self._lock:
            topics = dict(self._kafka.topics or {})
            if topics.pop(topic, None) is None:
                raise ValueError(f"nothing was wrong with the topic {topic}")
            self._kafka = replace(self._kafka, topics=topics)
        return self._tell()

    def slow(self, seconds: float) -> Self:
        """Let every report come `seconds` of the publisher's clock late; 0 ends it, `math.inf` is a frozen broker."""
        if not seconds >= 0:
            raise ValueError("reports are late by a number of seconds, zero or more")
        return self._change_kafka(delay_s=float(seconds))

    def lose_acks(self, share: float = 0.5, *, silently: bool = False) -> Self:
        """Let Kafka take every record, but let this share of the acknowledgements get lost; 0 ends it.

        Such a record stands in Kafka and is reported as timed out, or, `silently`, is not heard of until it is
        given up. Whoever sends it again makes a repeat. The seed decides which ones, for each topic by itself.
        """
        if not 0 <= share <= 1:
            raise ValueError("the share of lost acknowledgements is between 0 and 1")
        with self._lock:
            self._chances.clear()
        return self._change_kafka(loss_share=float(share), loss_is_silent=silently)

    def topic_gone(self, topic: str) -> Self:
        """Let one topic not exist, until `back(topic)`; others go on."""
        return self._change_topic(topic, "gone")

    def not_allowed(self, topic: str) -> Self:
        """Let the right to write to one topic be missing, until `back(topic)`; others go on."""
        return self._change_topic(topic, "not_allowed")

    def queue_full(self) -> Self:
        """Let the client library's queue have no room until `queue_has_room()`: who waits for it waits in vain."""
        return self._change_kafka(is_queue_full=True)

    def queue_has_room(self) -> Self:
        """End `queue_full()`."""
        return self._change_kafka(is_queue_full=False)

    def fatal_error(self) -> Self:
        """Let the next record meet a fatal error of the client library.

        It comes back together with everything unreported; then there is a new producer, and all is well again.
        """
        with self._lock:
            self._fatal_errors += 1
        return self._tell()

    # -- the disk of the spool

    def disk_full(self, free_bytes: int = 0) -> Self:
        """Let the disk take `free_bytes` more and then nothing, until `disk_freed()`.

        What is there can be read, overwritten and removed; what that frees is taken by others at once.
        """
        if free_bytes < 0:
            raise ValueError("a disk has zero or more bytes left")
        with self._lock:
            self._refuse_without_disk()
            self._free_bytes = free_bytes
        return self

    def disk_freed(self) -> Self:
        """End `disk_full()`."""
        with self._lock:
            self._free_bytes = None
        return self

    def disk_error(self, *operations: DiskOperation, code: int = errno.EIO, times: int | None = None) -> Self:
        """Let these operations raise an OSError, the next `times` of each, or all until `disk_mended()`."""
        if not operations or not set(operations) <= set(DISK_OPERATIONS):
            raise ValueError(f"name operations of {', '.join(DISK_OPERATIONS)}")
        if code not in errno.errorcode:
            raise ValueError(f"{code} is no error of this operating system: take one of the module errno")
        if times is not None and times < 1:
            raise ValueError("an error happens once or more")
        with self._lock:
            self._refuse_without_disk()
            for operation in operations:
                self._disk_errors[operation] = _DiskError(code, times)
        return self

    def no_file_handles(self) -> Self:
        """Let nothing be opened any more (EMFILE), until `disk_mended()`; what is open stays open."""
        return self.disk_error(*_NEED_A_HANDLE, code=errno.EMFILE)

    def read_only(self) -> Self:
        """Let nothing be changed any more (EROFS), until `disk_mended()`."""
        return self.disk_error(*_CHANGE_THE_DISK, code=errno.EROFS)

    def short_writes(self, most_bytes: int = 7) -> Self:
        """Let every write take `most_bytes` bytes at most, until `disk_mended()`."""
        if most_bytes < 1:
            raise ValueError("a write takes one byte or more")
        with self._lock:
            self._refuse_without_disk()
            self._most_bytes = most_bytes
        return self

    def disk_hangs(self) -> Self:
        """Let every sync wait until `disk_mended()`: a file server that is away, a volume that hangs."""
        with self._lock:
            self._refuse_without_disk()
            self._disk_answers.clear()
        return self

    def disk_mended(self) -> Self:
        """Let the disk be as it should be, and have room."""
        with self._lock:
            self._disk_errors.clear()
            self._free_bytes = self._most_bytes = None
            self._disk_answers.set()
        return self

    # -- both

    def all_well(self) -> Self:
        """Let everything be as it should be, from now on."""
        with self._lock:
            self._kafka = KafkaState()
            self._fatal_errors = 0
        self.disk_mended()
        return self._tell()

    def at(self, step: Step, action: Callable[[], object], *, nth: int = 1) -> Self:
        """Call `action()` when `step` is reached for the `nth` time from now: once, on the thread that gets there.

        Right for one more fault (`faults.at("before_ack", faults.away)`) or an `Event.set`. That thread may hold locks
        of the service: an action must neither call it nor raise.
        """
        if step not in STEPS:
            raise ValueError(f"{step} is none of the steps {', '.join(STEPS)}")
        if nth < 1:
            raise ValueError("a step is reached for the first time, or for a later one")
        with self._lock:
            self._armed.setdefault(step, []).append(_Armed(action, nth))
        return self

    # -- for those who obey

    @property
    def kafka(self) -> KafkaState:
        """How Kafka is now."""
        return self._kafka

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener()` after every change concerning Kafka, on the thread that makes it; return what ends that."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    def reached(self, step: Step) -> None:
        """Say that `step` is reached, and do what was asked for."""
        if not self._armed:
            return
        with self._lock:
            armed = self._armed.get(step, [])
            for one in armed:
                one.left -= 1
            due = [one.action for one in armed if not one.left]
            if due:
                self._armed[step] = [one for one in armed if one.left]
        for action in due:
            action()

    def loses_ack(self, topic: str) -> bool:
        """Draw whether the acknowledgement of the next record of `topic` gets lost."""
        share = self._kafka.loss_share
        if not share:
            return False
        with self._lock:
            chance = self._chances.get(topic)
            if chance is None:
                # Not for security. A text as the seed, since a tuple's hash differs from run to run.
                chance = self._chances[topic] = Random(f"{self._seed} {topic}")  # noqa: S311
            return chance.random() < share

    def take_fatal_error(self) -> bool:
        """Take note of a fatal error that waits for its record."""
        if not self._fatal_errors:
            return False
        with self._lock:
            found = self._fatal_errors > 0
            self._fatal_errors -= found
            return found

    def disk_refusal(self, operation: DiskOperation, path: str) -> OSError | None:
        """Return the error that an operation meets, None for none."""
        if not self._disk_errors:
            return None
        with self._lock:
            error = self._disk_errors.get(operation)
            if error is None:
                return None
            if error.left is not None:
                error.left -= 1
                if not error.left:
                    del self._disk_errors[operation]
            return OSError(error.code, errno.errorcode[error.code], path)

    def wait_for_disk(self) -> None:
        """Return once the disk answers."""
        self._disk_answers.wait()

    def disk_room(self, count: int, growth: int) -> int:
        """Take room for a write of `count` bytes, of which `growth` make the file longer; return how many fit."""
        with self._lock:
            if self._most_bytes is not None and count > self._most_bytes:
                growth -= min(growth, count - self._most_bytes)
                count = self._most_bytes
            if self._free_bytes is not None:
                short = max(0, growth - self._free_bytes)
                self._free_bytes -= growth - short
                count -= short
            return count

    @property
    def free_bytes(self) -> int | None:
        """What the disk still takes; None without a limit."""
        return self._free_bytes

    def has_disk(self) -> None:
        """Say that there is a disk that obeys."""
        self._has_disk = True

    def has_no_disk(self, remedy: str) -> None:
        """Say that there is none, so that a test which breaks it is told. Raises ValueError if one did already."""
        with self._lock:
            if self._has_disk:
                return
            self._no_disk = remedy
            is_broken = self._disk_errors or not self._disk_answers.is_set()
            if is_broken or self._free_bytes is not None or self._most_bytes is not None:
                self._refuse_without_disk()

    def knows(self, topics: Collection[str]) -> None:
        """Say which topics there are, so that a misspelt one is told. Raises ValueError if one was named already."""
        with self._lock:
            self._topics |= frozenset(topics)
            for topic in self._kafka.topics or ():
                self._check_topic(topic)

    # -- inside

    def _change_kafka(self, **changes: object) -> Self:
        with self._lock:
            self._kafka = replace(self._kafka, **changes)  # type: ignore[arg-type]  # the callers' keywords fit
        return self._tell()

    def _change_topic(self, topic: str, trouble: TopicTrouble) -> Self:
        with self._lock:
            self._check_topic(topic)
            self._kafka = replace(self._kafka, topics={**(self._kafka.topics or {}), topic: trouble})
        return self._tell()

    def _check_topic(self, topic: str) -> None:
        if not topic or (self._topics and topic not in self._topics):
            raise ValueError(f"{topic!r} is none of the topics {', '.join(sorted(self._topics)) or '(a name)'}")

    def _refuse_without_disk(self) -> None:
        if self._no_disk and not self._has_disk:
            raise ValueError(f"there is no disk that could fail: {self._no_disk}")

    def _tell(self) -> Self:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
        return self
