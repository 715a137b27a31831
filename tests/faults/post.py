"""A producer service under a fault: what it was handed, what it said, and the judgement of what came of it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.config_loader import Config, load_config
from postroom.libs.event import DeadLettered, Delivered, Failed, Refused, Spooled
from postroom.libs.logger import configure_logging
from postroom.observability.metric_table import PUBLISH_ERRORS
from postroom.observability.metrics import Metrics
from postroom.services.health_checks import health_of
from postroom.services.producer_service import ProducerService
from postroom.testing.recording_service import MemoryRegistry
from tests.chaos.topic_logs import Entry, read_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from postroom.libs.event import Outcome
    from postroom.services.ledger import Balance
    from postroom.services.paths import Path as TopicPath
    from postroom.services.receipt import Receipt
    from postroom.streaming.publisher import Publisher
    from postroom.streaming.spool.file_system import FileSystem

PATIENCE_S = 40.0
WRITE_AHEAD = os.environ.get("POSTROOM_FAULTS_WRITE_AHEAD", "off")
"""How services write ahead where a test does not say: the whole folder can be run with `fsync`, too."""

_LOOK_S = 0.005


def pause(seconds: float) -> None:
    """Let real time pass, for loads that have a pace; never to wait for something to happen."""
    threading.Event().wait(seconds)


def until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> float:
    """Return the seconds until the condition held; fail after `timeout_s`."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < timeout_s, f"after {timeout_s:g} s: {what}"
        pause(_LOOK_S)
    return time.monotonic() - began


class Said:
    """Takes the log lines of the whole process, each with the moment at which it came."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        configure_logging("debug", "json", self)  # type: ignore[arg-type]  # all that is used of a stream

    def write(self, text: str) -> None:
        for line in text.splitlines():
            self.lines.append({**json.loads(line), "at": time.monotonic()})

    def flush(self) -> None:
        """Do nothing: every line is there."""

    def isatty(self) -> bool:
        return False

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """The lines of one event whose fields are as given, in order."""
        wanted = {"event": name, **fields}
        return [line for line in list(self.lines) if wanted.items() <= line.items()]

    def loud(self) -> list[dict[str, Any]]:
        """The lines that somebody sees who leaves the level as it is: from info on."""
        return [line for line in list(self.lines) if line["level"] != "debug"]

    def text(self) -> str:
        """All of them, as they would stand in a file."""
        return "\n".join(json.dumps(line) for line in self.lines)


class Load:
    """A thread that hands in events at a steady pace, from `with` to its end."""

    def __init__(self, post: Post, per_second: float, **arguments: Any) -> None:
        self._post = post
        self._gap_s = 1 / per_second
        self._arguments = arguments
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.longest_call_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "a caller stands still"

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            due += self._gap_s
            began = time.monotonic()
            self._post.publish(1, **self._arguments)
            self.longest_call_s = max(self.longest_call_s, time.monotonic() - began)


class Post:
    """A service with a spool, on `topic`, from `with` to its end; `settings` are dotted keys with `__` for the dot.

    Events are told apart by an id of their key and their number in it: `user-3:17`. Callers' threads may publish at
    once, but each key belongs to one caller at a time, whose order is the promised one.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        spool: Path | None,
        *,
        keys: int = 20,
        clock: Clock = SYSTEM_CLOCK,
        files: FileSystem | None = None,
        make_publisher: Callable[[Config, Metrics], Publisher] | None = None,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        given = {
            "broker": bootstrap,
            "topics.user_events": topic,
            "spool.dir": spool,
            "spool.write_ahead": WRITE_AHEAD,
            "delivery.hand_over_after_s": 12,
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        self.config = load_config(overrides={k: v for k, v in given.items() if v is not None}, environ=environ or {})
        self.topic = topic
        self.spool = spool
        self.metrics = Metrics()
        self.receipts: dict[str, Receipt] = {}
        self.told: defaultdict[str, list[Outcome]] = defaultdict(list)
        self._keys = keys
        self._count = 0
        self._numbers: Counter[str] = Counter()
        self.service = ProducerService(
            self.config,
            publisher=None if make_publisher is None else make_publisher(self.config, self.metrics),
            registry=MemoryRegistry(),
            spool_files=files,
            clock=clock,
            metrics=self.metrics,
        )

    def __enter__(self) -> Self:
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close()

    # -- handing in

    def publish(
        self, count: int, *, extra: Mapping[str, object] | None = None, timeout: float = 30.0, prefix: str = "user"
    ) -> list[Receipt]:
        """Hand in `count` events, their keys in turn; return their receipts."""
        mine: list[Receipt] = []
        for _ in range(count):
            key = f"{prefix}-{self._count % self._keys}"
            self._count += 1
            number = self._numbers[key] = self._numbers[key] + 1
            event: dict[str, object] = {"user_id": key, "timestamp": number, **(extra or {})}
            mine.append(self.hand_in(event, f"{key}:{number}", timeout=timeout))
        return mine

    def hand_in(self, event: Mapping[str, object], event_id: str, *, timeout: float = 30.0) -> Receipt:
        """Hand in one event and keep its receipt for the judgement."""
        receipt = self.service.publish_event(event, event_id=event_id, timeout=timeout)
        self.receipts[event_id] = receipt
        receipt.add_done_callback(self._note)
        return receipt

    def _note(self, receipt: Receipt) -> None:
        outcome = receipt.outcome
        assert outcome is not None
        self.told[receipt.event_id].append(outcome)

    def load(self, per_second: float, **arguments: Any) -> Load:
        """Hand in events at a pace, beside what else happens."""
        return Load(self, per_second, **arguments)

    # -- looking

    @property
    def balance(self) -> Balance:
        """The books."""
        return self.service.ledger.total()

    def path(self, topic: str | None = None) -> TopicPath:
        """The path to a topic, by default to that of the events."""
        wanted = topic or self.topic
        return next(path for path in self.service.parts.dispatcher.paths() if path.topic == wanted)

    def state(self, topic: str | None = None) -> str:
        """The state of the path to a topic; direct before its first event."""
        wanted = topic or self.topic
        paths = self.service.parts.dispatcher.paths()
        return next((path.state.value for path in paths if path.topic == wanted), "direct")

    @property
    def publisher(self) -> Any:
        """The publisher, with whatever it has beyond the protocol."""
        return self.service.parts.publisher

    def errors(self) -> Counter[str]:
        """How many records were reported back with which error of the client library."""
        return Counter(self.metrics.snapshot().by_label(PUBLISH_ERRORS, "code"))

    def health(self) -> dict[str, Any]:
        """What `/readyz` would say."""
        return health_of(self.service).report().as_json()

    def spooled(self) -> int:
        """How many events lie in the spool."""
        return self.balance.spooled

    def settle(self, timeout_s: float = PATIENCE_S) -> float:
        """Wait until nothing waits any more, here or in the spool; the seconds it took."""

        def is_settled() -> bool:
            balance = self.balance
            return not balance.pending + balance.in_flight + balance.spooled

        return until(is_settled, f"{self.balance} {self._paths()}", timeout_s)

    def _paths(self) -> dict[str, tuple[str, object]]:
        return {path.topic: (path.state.value, path.problem) for path in self.service.parts.dispatcher.paths()}

    def outcomes(self, receipts: Iterable[Receipt] | None = None, timeout_s: float = PATIENCE_S) -> list[Outcome]:
        """The outcomes of these receipts, or of all, in the order of handing in."""
        end = time.monotonic() + timeout_s
        wanted = self.receipts.values() if receipts is None else receipts
        return [receipt.result(max(0.0, end - time.monotonic())) for receipt in list(wanted)]

    def kinds(self, receipts: Iterable[Receipt] | None = None) -> Counter[str]:
        """How many outcomes there are of each kind."""
        return Counter(type(outcome).__name__ for outcome in self.outcomes(receipts))


class Judgement:
    """What stands in the topics, read by a plain consumer, and held against what callers were told."""

    def __init__(self, bootstrap: str, topic: str, *, dead_letters: bool = True) -> None:
        self.entries = list(read_topic(bootstrap, topic).entries)
        self.dead: list[Entry] = []
        if dead_letters:
            self.dead = list(read_topic(bootstrap, f"{topic}.dlq", is_dead_letters=True).entries)

    @property
    def ids(self) -> Counter[str]:
        """How often each event stands in the topic."""
        return Counter(entry.event_id for entry in self.entries)

    @property
    def dead_ids(self) -> Counter[str]:
        """How often each event stands among the dead letters."""
        return Counter(entry.event_id for entry in self.dead)

    @property
    def repeated(self) -> set[str]:
        """The events that stand in the topic more than once."""
        return {event_id for event_id, count in self.ids.items() if count > 1}

    @property
    def marked(self) -> set[str]:
        """The events of which a record with `x-attempt` above 1 stands in the topic."""
        return {entry.event_id for entry in self.entries if entry.attempt > 1}

    def check(self, *posts: Post, waiting: Iterable[str] = ()) -> None:
        """Hold the topics against what the callers of these services were told.

        Nothing safe is missing (but what is known to be `waiting`), nothing refused or failed for sure is there,
        nothing is there that nobody handed in, repeats are marked, first occurrences of a key stand in order, every
        event has one outcome, and the books balance.
        """
        outcomes = {name: receipt.result(0) for post in posts for name, receipt in post.receipts.items()}
        there = set(self.ids) | set(self.dead_ids)
        safe = {name for name, one in outcomes.items() if one.is_safe}
        assert not safe - there - set(waiting), f"lost: {sorted(safe - there)[:5]}"
        never = {name for name, one in outcomes.items() if _is_nowhere(one)}
        assert not never & there, f"said to be nowhere: {sorted(never & there)[:5]}"
        assert not there - set(outcomes), f"nobody handed in: {sorted(there - set(outcomes))[:5]}"
        self.check_marks()
        self.check_order()
        for post in posts:
            check_outcomes(post)
            check_books(post)

    def check_marks(self) -> None:
        """Every record of an event but one carries a mark."""
        for entries in (self.entries, self.dead):
            unmarked = Counter(entry.event_id for entry in entries if entry.attempt == 1)
            twice = [name for name, count in unmarked.items() if count > 1]
            assert not twice, f"repeats without a mark: {twice[:5]}"

    def check_order(self) -> None:
        """Within a partition, the first occurrences of a key rise."""
        seen: set[str] = set()
        firsts: defaultdict[tuple[int, bytes | None], list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.event_id not in seen:
                seen.add(entry.event_id)
                assert entry.key == entry.event_id.partition(":")[0].encode(), entry
                firsts[entry.partition, entry.key].append(entry)
        for found in firsts.values():
            for before, after in pairwise(found):
                assert _number(before) < _number(after), f"out of order: {self._around(before, after)}"

    def _around(self, before: Entry, after: Entry) -> str:
        """All records of a key near the place where it is out of order: offset, number and attempt of each."""
        same = [one for one in self.entries if (one.partition, one.key) == (before.partition, before.key)]
        near = [one for one in same if abs(_number(one) - _number(after)) < 10 or one is before]
        told = " ".join(f"{one.offset}:{_number(one)}x{one.attempt}" for one in near)
        return f"{after.key!r}, partition {after.partition}, offset:number x attempt {told}"


def _number(entry: Entry) -> int:
    return int(entry.event_id.rpartition(":")[2])


def _is_nowhere(outcome: Outcome) -> bool:
    match outcome:
        case Refused():
            return True
        case Failed(may_be_in_kafka=maybe):
            return not maybe
        case Delivered() | Spooled() | DeadLettered():
            return False


def check_outcomes(post: Post) -> None:
    """Every event has been told one outcome, and no second one."""
    until(lambda: len(post.told) == len(post.receipts), "callbacks are missing")
    assert {len(told) for told in post.told.values()} <= {1}
    assert {name: told[0] for name, told in post.told.items()} == {
        name: receipt.result(0) for name, receipt in post.receipts.items()
    }


def check_books(post: Post) -> None:
    """The books balance, topic by topic, and say as many events as were handed in."""
    for balance in post.service.ledger.by_topic().values():
        assert balance.unaccounted == 0, balance
        assert balance.received == balance.accepted + balance.refused + balance.failed + balance.pending
        assert balance.accepted == balance.delivered + balance.dead_lettered + balance.spooled + balance.in_flight
    balance = post.balance
    assert balance.received - balance.taken_over == len(post.receipts), balance
    told = Counter(type(receipt.result(0)).__name__ for receipt in post.receipts.values())
    assert (balance.refused, balance.failed) == (told["Refused"], told["Failed"])


def connected(post: Post) -> bool | None:
    """Whether the client library has a connection; None before it is known."""
    return bool(post.publisher.condition().connected)


def is_ready(post: Post) -> bool:
    """What `/readyz` answers."""
    return bool(post.health()["ready"])


__all__ = [
    "PATIENCE_S", "Judgement", "Load", "Post", "Said", "check_books", "check_outcomes", "connected", "is_ready",
    "pause", "until",
]  # fmt: skip
