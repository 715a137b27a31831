"""The entry point of the guide: generate or read events, publish them, account for each of them.

`python src/postroom/services/producer_main.py [OPTIONS]` and `postroom run [OPTIONS]` are the same thing.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

import msgspec

from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import PostroomError
from postroom.services.event_source import generated, lines_of
from postroom.services.journal import AcceptedJournal
from postroom.services.producer_service import ProducerService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from postroom.libs.config_loader import Config
    from postroom.libs.event import Event
    from postroom.services.receipt import Receipt

OK, FAILED, REFUSED, SPOOLED, INTERRUPTED = 0, 1, 3, 4, 130

# An event of a run waits for pace as long as it takes; this bounds the wait for room in the queue, which is
# emptied after `delivery.hand_over_after_s` at the latest.
_PATIENCE_S = 3600.0
# Longer waits for pace are waited for here, where a signal ends them at once.
_LONG_WAIT_S = 0.2


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does. `count` or `duration_s` ends it, whichever comes first; without both only a signal does."""

    source: str = "generator"
    count: int | None = None
    duration_s: float | None = None
    invalid_ratio: float = 0.0
    seed: int | None = None
    event_type: str | None = None
    accepted: Path | None = None
    fail_on_dead_letters: bool = False


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from hand-in to safe; None as long as nothing was safe."""

    p50: float | None
    p95: float | None
    p99: float | None


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run, as `postroom run --json` prints it."""

    received: int
    accepted: int
    delivered: int
    dead_lettered: int
    spooled: int
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
    the feeding; a second SIGINT ends the waiting as well.
    """

    def __init__(self, config: Config, options: RunOptions, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.options = options
        self._journal = AcceptedJournal(options.accepted) if options.accepted is not None else None
        self.service = ProducerService(config, journal=self._journal, clock=clock)
        self._clock = clock
        self._stop = threading.Event()
        self._hurry = False
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
        self.stop()

    def stop(self) -> None:
        """End the feeding; what was handed in gets its outcome."""
        self._stop.set()

    # -- work

    def feed(self, on_receipt: Callable[[Receipt], None] | None = None) -> None:
        """Hand in every event of the source, at the pace of the rate limit, until the run ends or is stopped.

        `on_receipt` gets each receipt in the order of the input.
        """
        options = self.options
        limiter = self.service.parts.limiter
        paced = limiter.events_per_second is not None
        end = None if options.duration_s is None else self._clock.monotonic() + options.duration_s
        for event in self._events():
            if paced and (wait_s := limiter.retry_after()) > _LONG_WAIT_S:
                self._stop.wait(wait_s - _LONG_WAIT_S / 2)
            if self._stop.is_set() or (end is not None and self._clock.monotonic() >= end):
                return
            receipt = self.service.publish_event(event, event_type=options.event_type, timeout=_PATIENCE_S)
            if on_receipt is not None:
                on_receipt(receipt)

    def _events(self) -> Iterator[Event | bytes]:
        options = self.options
        if options.source == "generator":
            yield from generated(options.seed, options.invalid_ratio, options.count)
            return
        for number, line in enumerate(lines_of(options.source)):
            if number == options.count:
                return
            yield line

    def finish(self) -> None:
        """Wait until every event has its outcome, or somebody is in a hurry, or the time for closing is over."""
        end = self._clock.monotonic() + self.service.parts.config.delivery.close_timeout_s
        publisher = self.service.parts.publisher
        while self.service.ledger.total().pending and not self._hurry and self._clock.monotonic() < end:
            publisher.flush(0.1)
            self._clock.sleep(0.001)
        self._ended = self._clock.monotonic()

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
            accepted=balance.accepted,
            delivered=balance.delivered,
            dead_lettered=balance.dead_lettered,
            spooled=balance.spooled,
            in_flight=balance.in_flight,
            pending=balance.pending,
            refused=balance.refused,
            failed=balance.failed,
            unaccounted=balance.unaccounted,
            elapsed_s=round(elapsed_s, 3),
            events_per_s=round((balance.accepted) / elapsed_s, 1),
            error_rate=round(bad / max(balance.received, 1), 6),
            latency_ms=Latency(*(_milliseconds(latency.percentile(share)) for share in (0.5, 0.95, 0.99))),
            dead_letters_by_reason=dead_letters,
            refused_by_reason=refused,
            failed_by_reason=failed,
        )

    def exit_code(self) -> int:
        """Return the code that says how the run ended; ask after the service was closed."""
        balance = self.service.ledger.total()
        broken = balance.failed or balance.unaccounted or balance.pending or self.service.settlement.journal_failures
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
