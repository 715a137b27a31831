"""The entry point of the guide: generate or read events, publish them, account for each of them.

`python src/postroom/services/producer_main.py [OPTIONS]` and `postroom run [OPTIONS]` are the same thing.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import msgspec

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.event import Failed, FailedReason, Refused
from postroom.libs.exceptions import ConfigurationError, PostroomError
from postroom.services.addressing import by_all_names, unknown_type
from postroom.services.cloud_events import STRUCTURED_TYPE
from postroom.services.event_source import Format, csv_rows_of, format_of, generated, lines_of
from postroom.services.journal import AcceptedJournal
from postroom.services.producer_service import ProducerService
from postroom.services.spool_view import paths_of, spool_of
from postroom.services.stoppable_input import InputStoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from postroom.libs.config_loader import Config
    from postroom.libs.event import Event, Outcome
    from postroom.schemas.data_contracts import Contract
    from postroom.services.receipt import Receipt
    from postroom.services.spool_view import PathView, SpoolSummary

OK, FAILED, REFUSED, SPOOLED, INTERRUPTED = 0, 1, 3, 4, 130

# An event of a run waits for pace as long as it takes; this bounds the wait for room in the queue, which is
# emptied after `delivery.hand_over_after_s` at the latest.
_PATIENCE_S = 3600.0
# So long the last event of a run that was stopped waits for room; a Kafka that works makes some in far less.
_ROOM_AFTER_STOP_S = 1.0
# Longer waits for pace are waited for here, where a signal ends them at once.
_LONG_WAIT_S = 0.2

# After an event that was refused for now the run goes on no sooner than it was told, and no later than this.
_RETRY_S = 1.0
_LONGEST_RETRY_S = 60.0
# So long it then waits for the answer to the next event before it hands in more.
_ANSWER_S = 10.0
_LOOK_S = 0.005

_STRUCTURED = (("content-type", STRUCTURED_TYPE),)


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does. `count` or `duration_s` ends it, whichever comes first; without both only a signal does.

    The name of a file says its format unless `format` does.
    At its end it waits up to `drain_timeout_s` seconds for its spool to empty.
    """

    source: str = "generator"
    format: Format | None = None
    count: int | None = None
    duration_s: float | None = None
    invalid_ratio: float = 0.0
    seed: int | None = None
    event_type: str | None = None
    accepted: Path | None = None
    fail_on_dead_letters: bool = False
    drain_timeout_s: float = 60.0


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from hand-in to safe; None as long as nothing was safe."""

    p50: float | None
    p95: float | None
    p99: float | None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run, as `postroom run --json` prints it.

    `taken_over` of the received events were accepted by an earlier process and lay in the spool; the others were
    handed in by this run.
    """

    received: int
    taken_over: int
    accepted: int
    delivered: int
    dead_lettered: int
    spooled: int
    quarantined: int
    in_flight: int
    pending: int
    refused: int
    failed: int
    unaccounted: int
    elapsed_s: float
    events_per_s: float
    error_rate: float
    latency_ms: Latency
    dead_letters_by_reason: dict[str, int]
    refused_by_reason: dict[str, int]
    failed_by_reason: dict[str, int]


class Run:
    """One run of the pipeline, from the start of its service to its summary.

    Use it as a context manager: inside, the service runs. SIGTERM and SIGINT (when `handle_signals` was called) end
    the feeding. SIGTERM, and a second SIGINT, also end the waiting for the spool to empty: what is in it stays there.

    `service` is for tests: it takes the place of the one that is made of `config`, and knows of no journal.
    """

    def __init__(
        self,
        config: Config,
        options: RunOptions,
        *,
        clock: Clock = SYSTEM_CLOCK,
        service: ProducerService | None = None,
    ) -> None:
        self.options = options
        self._journal = AcceptedJournal(options.accepted) if options.accepted is not None else None
        self.service = service or ProducerService(config, journal=self._journal, clock=clock)
        self._clock = clock
        self._stop = threading.Event()
        self._hurry = False
        self._terminated = False
        self._refusal: Outcome | None = None
        self._feed_until: float | None = None
        self._no_room_after_stop: float | None = None
        self._finish_by: float | None = None
        self.interrupted = False
        self._handlers_before: dict[int, Any] = {}
        self._started = clock.monotonic()
        self._ended: float | None = None

    # -- life

    def __enter__(self) -> Self:
        self.service.start()
        if self._journal is not None:
            try:
                self._journal.open()
            except PostroomError:
                self.service.close(0.0)
                raise
        self._started = self._clock.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close(0.0 if self._hurry else None)
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        if self._journal is not None:
            self._journal.close()

    def handle_signals(self) -> None:
        """Let SIGINT and SIGTERM end the run in good order, until it is over. Call it from the main thread."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers_before[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._hurry = self.interrupted
            self.interrupted = True
        else:
            self._terminated = True
        self.stop()

    def stop(self) -> None:
        """End the feeding; what was handed in gets its outcome."""
        self._stop.set()

    # -- work

    def feed(self, on_receipt: Callable[[Receipt], None] | None = None) -> None:
        """Hand in every event of the source, at the pace of the rate limit, until the run ends or is stopped.

        `on_receipt` gets each receipt in the order of the input.
        """
        options, service = self.options, self.service
        limiter = service.parts.limiter
        paced = limiter.events_per_second is not None
        if options.duration_s is not None:
            self._feed_until = self._clock.monotonic() + options.duration_s
        is_held_up = False
        headers = _STRUCTURED if self._format() == "cloudevents" else None
        for event in self._events():
            if paced and (wait_s := limiter.retry_after()) > _LONG_WAIT_S:
                self._stop.wait(wait_s - _LONG_WAIT_S / 2)
            if self._is_over():
                return
            # Not `publish_event`, which would wait for the disk for each of them when it writes ahead.
            item = service.admit(event, options.event_type, None, None, None, headers)
            service.hand_over(item, _PATIENCE_S, self._gives_up_waiting)
            item.receipt.listen(self._note_refusal)
            if on_receipt is not None:
                on_receipt(item.receipt)
            if is_held_up or self._refusal is not None:
                is_held_up = self._hold_up(item.receipt)

    def _gives_up_waiting(self) -> bool:
        """Return whether the event that waits for room is the last one, and has waited long enough."""
        if not self._stop.is_set():
            return False
        now = self._clock.monotonic()
        if self._no_room_after_stop is None:  # not in the signal's handler: a clock may take a lock
            self._no_room_after_stop = now
        return self._hurry or now - self._no_room_after_stop >= _ROOM_AFTER_STOP_S

    def _is_over(self) -> bool:
        """Return whether no more events are to be handed in."""
        return self._stop.is_set() or self._feed_left_s() <= 0

    def _feed_left_s(self) -> float:
        """Return for how many seconds more events may be handed in."""
        return math.inf if self._feed_until is None else self._feed_until - self._clock.monotonic()

    def _note_refusal(self, receipt: Receipt) -> None:
        """Remember that an event was refused for now; a disk's answer may come when others were handed in behind it."""
        outcome = receipt.outcome
        is_for_now = isinstance(outcome, Refused) and outcome.retry_after_s is not None
        if is_for_now or (isinstance(outcome, Failed) and outcome.reason is FailedReason.SPOOL_UNAVAILABLE):
            self._refusal = outcome

    def _hold_up(self, receipt: Receipt) -> bool:
        """Let the run not burn through its source while nothing takes events: no room in spool or queue, no registry.

        Waits for the answer to the event of `receipt` and, if it was refused for now, as long as it says. Returns
        whether it was: then the next event is a trial again, and nothing is handed in behind it.
        """
        end = self._clock.monotonic() + _ANSWER_S
        while not (receipt.safe or receipt.done() or self._stop.is_set()) and self._clock.monotonic() < end:
            self._stop.wait(_LOOK_S)
        outcome, self._refusal = self._refusal, None
        if outcome is None:
            return False
        told_s = outcome.retry_after_s if isinstance(outcome, Refused) else None
        self._stop.wait(max(0.0, min(told_s or _RETRY_S, _LONGEST_RETRY_S, self._feed_left_s())))
        return True

    def _format(self) -> Format | None:
        """Return what the source holds; None for the generator, whose events are no text."""
        options = self.options
        return None if options.source == "generator" else format_of(options.source, options.format)

    def _events(self) -> Iterator[Event | bytes]:
        with suppress(InputStoppedError):
            yield from self._source()

    def _source(self) -> Iterator[Event | bytes]:
        options = self.options
        match self._format():
            case None:
                yield from generated(options.seed, options.invalid_ratio, options.count)
            case "csv":
                yield from islice(csv_rows_of(options.source, self._contract(), self._is_over), options.count)
            case _:
                yield from islice(lines_of(options.source, self._is_over), options.count)

    def _contract(self) -> Contract:
        """Return the one contract that a header row is compared with before the first event."""
        parts = self.service.parts
        name = self.options.event_type or parts.config.contracts.default
        lane = by_all_names(parts.lanes).get(name)
        if lane is None:
            remedy = "name one of them with --type"
            raise ConfigurationError(f"no contract for the rows; {unknown_type(parts.lanes, name)}", remedy=remedy)
        return lane.contract

    def finish(self) -> None:
        """Wait until every event has its outcome and the spool is empty, or somebody is in a hurry, or time is up.

        Time is `drain_timeout_s` with a spool, else the time for closing.
        """
        parts = self.service.parts
        with_spool = parts.spooling is not None
        patience_s = self.options.drain_timeout_s if with_spool else parts.config.delivery.close_timeout_s
        end = self._finish_by = self._clock.monotonic() + patience_s
        while not (self._hurry or self._terminated) and self._clock.monotonic() < end and self._is_waiting():
            parts.publisher.flush(0.1)
            # Nothing is with the client library while Kafka is away: then it is only looked at now and then.
            self._clock.sleep(0.02 if with_spool else 0.001)
        self._ended = self._clock.monotonic()

    def _is_waiting(self) -> bool:
        """Return whether any event is on its way, or waits in the spool for more than the next start."""
        balance = self.service.ledger.total()
        if balance.pending or balance.in_flight:
            return True
        spool = self.spool()
        return spool is not None and not (spool.is_counted and spool.waiting <= spool.rejected)

    @property
    def finishing_for_s(self) -> float | None:
        """For how many seconds more `finish` will wait at most; None while it does not wait."""
        if self._finish_by is None or self._ended is not None:
            return None
        return max(0.0, self._finish_by - self._clock.monotonic())

    # -- looking

    def spool(self) -> SpoolSummary | None:
        """Return what the spool says, None for a run without one."""
        return spool_of(self.service.parts, self._clock)

    def paths(self) -> list[PathView]:
        """Return the paths to the topics, those that are not direct first."""
        return paths_of(self.service.parts, self._clock)

    def wait_until_counted(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds until what an earlier process left is in the books; False if it is not."""
        end = self._clock.monotonic() + timeout_s
        while (spool := self.spool()) is not None:
            if spool.is_counted and (self.service.ledger.total().taken_over or not spool.waiting):
                return True
            if self._clock.monotonic() >= end:
                return False
            self._clock.sleep(0.01)
        return True

    # -- result

    def summary(self) -> RunSummary:
        """Return the numbers so far."""
        balance = self.service.ledger.total()
        dead_letters, refused, failed = self.service.ledger.reasons()
        latency = self.service.ledger.latency()
        elapsed_s = max((self._ended or self._clock.monotonic()) - self._started, 1e-9)
        bad = balance.dead_lettered + balance.refused + balance.failed
        return RunSummary(
            received=balance.received,
            taken_over=balance.taken_over,
            accepted=balance.accepted,
            delivered=balance.delivered,
            dead_lettered=balance.dead_lettered,
            spooled=balance.spooled,
            quarantined=balance.quarantined,
            in_flight=balance.in_flight,
            pending=balance.pending,
            refused=balance.refused,
            failed=balance.failed,
            unaccounted=balance.unaccounted,
            elapsed_s=round(elapsed_s, 3),
            events_per_s=round((balance.accepted - balance.taken_over) / elapsed_s, 1),
            error_rate=round(bad / max(balance.received, 1), 6),
            latency_ms=Latency(*(_milliseconds(latency.percentile(share)) for share in (0.5, 0.95, 0.99))),
            dead_letters_by_reason=dead_letters,
            refused_by_reason=refused,
            failed_by_reason=failed,
        )

    def exit_code(self) -> int:
        """Return the code that says how the run ended; ask after the service was closed."""
        balance = self.service.ledger.total()
        lost = balance.failed or balance.unaccounted or balance.pending or balance.quarantined
        broken = lost or self.service.settlement.journal_failures
        if broken or (self.options.fail_on_dead_letters and balance.dead_lettered):
            return FAILED
        if self.interrupted:
            return INTERRUPTED
        if balance.refused:
            return REFUSED
        return SPOOLED if balance.spooled else OK


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def main() -> None:
    """Run `postroom run` with this process's arguments."""
    import runpy

    sys.argv[:1] = ["postroom", "run"]
    runpy.run_module("postroom", run_name="__main__")


if __name__ == "__main__":
    from pathlib import Path

    # Started as a file: its own folder must not stand for the package's.
    sys.path[0] = str(Path(__file__).parents[2])
    main()
