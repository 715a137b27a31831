"""The schema id of each contract: asked for at the start, kept on the disk, asked for again beside the events.

No event ever waits here: its lane has an id, or it has none. docs/design/0009-when-the-registry-is-away.md says why
each question is asked when it is.
"""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from postroom.libs.clock import rfc3339
from postroom.libs.exceptions import (
    ConfigurationError,
    IncompatibleSchemaError,
    InvalidSchemaError,
    PostroomError,
    RegistryUnavailableError,
    SchemaRegistryError,
    SubjectNotFoundError,
)
from postroom.libs.logger import get_logger
from postroom.observability.metric_table import SCHEMA_STALE, SCHEMA_STATE
from postroom.observability.metrics import Reading
from postroom.schemas.contract_copies import ContractCopies, Copy
from postroom.schemas.registration import register_and_read_back, registration_of
from postroom.schemas.registry_protocol import subject_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from postroom.libs.clock import Clock
    from postroom.libs.settings import SchemaRegistrySettings
    from postroom.services.lane import Lane
    from postroom.services.registry_asking import Askers, Registry

CLOSED_PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses between questions that nobody answers, for a contract without an id; the last one repeats."""

STALE_PAUSES_S = (5.0, 10.0, 20.0, 40.0, 60.0)
"""The same for a contract with one."""

REFUSED_CLOSED_S, REFUSED_STALE_S = 30.0, 60.0
"""How long a no is kept before it is asked for again."""

GAP_S, QUIET_GAP_S = 0.2, 1.0
"""The shortest time between two questions beside the events: after one for a closed lane, and after another.

A question takes 1 to 3 ms of the interpreter, for which an event may wait: once a second is one in a hundred at most
where a hundred events come.
"""

_JOIN_S = 0.5  # a question that is just being asked is not waited for: the closed client ends it


class SchemaIdView(msgspec.Struct, frozen=True):
    """The id of one contract: `state` is `fresh`, `stale` or `closed`; `confirmed` the last good answer (RFC 3339).

    `stale_s` is the age of that answer in seconds, 0 while fresh; `problem` the code of what the last question met.
    """

    contract: str
    subject: str
    schema_id: int | None
    state: str
    confirmed: str | None
    stale_s: float
    problem: str | None


class _Pin:
    """What is known of one contract's id. `confirmed_at` is on the monotonic clock, reckoned back for a copy."""

    __slots__ = (
        "confirmed_at",
        "copy",
        "due",
        "failures",
        "is_registered",
        "lane",
        "problem",
        "registration",
        "subject",
    )

    def __init__(self, lane: Lane, subject: str) -> None:
        self.lane = lane
        self.subject = subject
        self.registration = registration_of(lane.contract)
        self.copy: Copy | None = None
        self.confirmed_at: float | None = None
        self.problem = ""
        self.failures = 0
        self.due = 0.0
        self.is_registered = False

    @property
    def is_open(self) -> bool:
        return self.lane.schema_id is not None


class SchemaIds:
    """Gives the lanes of one service their ids. Inert until `open()`; `start()` keeps them right from then on.

    Without `copies` nothing is kept on the disk, and what was answered is not asked for again.
    """

    def __init__(
        self,
        lanes: Iterable[Lane],
        settings: SchemaRegistrySettings,
        askers: Askers,
        *,
        clock: Clock,
        copies: ContractCopies | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._askers = askers
        self._clock = clock
        self._copies = copies
        self._chance = chance
        self._log = get_logger("postroom.schema_ids")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._pins = [
            _Pin(lane, subject_name(settings.subject_strategy, lane.topic, lane.contract.record_name)) for lane in lanes
        ]

    # -- at the start

    def open(self) -> None:
        """Ask for every contract's id once, and take the copies where the registry does not answer.

        Raises ConfigurationError when the registry does not have a schema. What it answers otherwise is raised when
        asking again cannot help and there is no copy at all: then nothing has ever worked with these settings. On
        return every lane has its id or is closed.
        """
        settings = self._settings
        end = self._clock.monotonic() + settings.timeout_s * (settings.retries + 1)
        trouble: SchemaRegistryError | None = None
        for pin in self._pins:
            pin.copy = self._usable_copy(pin)
        for pin in self._pins:
            if trouble is not None and (pin.copy is not None or self._clock.monotonic() >= end):
                self._use_copy(pin, trouble)
                self._note(pin, trouble, pause_s=0.0)
            else:
                trouble = self._open_one(pin) or trouble

    def _open_one(self, pin: _Pin) -> SchemaRegistryError | None:
        """Ask for one id; return why there is no answer to go by."""
        lane = pin.lane
        try:
            schema_id = self._ask(self._askers.at_start if pin.copy is None else self._askers.with_copy, pin)
        except SubjectNotFoundError as exc:
            if exc.remedy:  # a type that it refers to is not there
                raise
            raise ConfigurationError(
                f"contract {lane.name} version {lane.contract.version} is not registered under {pin.subject}",
                remedy=f"register it: postroom contracts register {lane.name}",
            ) from exc
        except SchemaRegistryError as exc:
            is_about_the_schema = isinstance(exc, (IncompatibleSchemaError, InvalidSchemaError))
            if is_about_the_schema or not (exc.retriable or any(other.copy for other in self._pins)):
                raise
            self._use_copy(pin, exc)
            self._fail(pin, exc)
            return exc
        self._confirm(pin, schema_id)
        return None

    def _usable_copy(self, pin: _Pin) -> Copy | None:
        if self._copies is None:
            return None
        copy = self._copies.read(self._settings.url, pin.subject, pin.registration.fingerprint)
        if copy is None:
            return None
        age_s = max(0.0, (self._clock.time_ms() - copy.confirmed_ms) / 1000)
        pin.confirmed_at = self._clock.monotonic() - age_s
        if not self._is_too_old(pin):
            return copy
        pin.lane.close(self._why_too_old(pin))
        return None

    def _use_copy(self, pin: _Pin, trouble: SchemaRegistryError) -> None:
        """Open the lane with its copy, if there is one, since the registry gave no answer to go by."""
        if pin.copy is None:
            return
        pin.lane.use_schema_id(pin.copy.schema_id, self._settings.url)
        self._log.warning(
            "schema_id_from_copy", operation="start", contract=pin.lane.name, since=self._since(pin), error=trouble.code
        )

    # -- one question and what follows from the answer

    def _ask(self, registry: Registry, pin: _Pin) -> int:
        if not self._settings.auto_register or pin.is_registered:
            return registry.lookup(pin.subject, pin.registration)
        got = register_and_read_back(registry, pin.subject, pin.registration)
        pin.is_registered = True
        if got.dropped:
            self._log.warning("registry_dropped", contract=pin.lane.name, parts=", ".join(got.dropped))
        return got.schema_id

    def _confirm(self, pin: _Pin, schema_id: int) -> None:
        before = pin.lane.schema_id
        if before != schema_id:
            pin.lane.use_schema_id(schema_id, self._settings.url)
            if before is not None:
                self._log.warning("schema_id_changed", contract=pin.lane.name, before=before, now=schema_id)
        now = self._clock.monotonic()
        if pin.problem:
            self._log.info("registry_answers", contract=pin.lane.name)
            for other in self._pins:
                if other.problem == RegistryUnavailableError.code:  # it is back: for the others, too
                    other.due = min(other.due, now)
        pin.problem, pin.failures, pin.confirmed_at = "", 0, now
        pin.due = now + self._about(self._settings.refresh_s)
        self._keep_copy(pin, schema_id)

    def _keep_copy(self, pin: _Pin, schema_id: int) -> None:
        now_ms, old, contract = self._clock.time_ms(), pin.copy, pin.lane.contract
        if self._copies is None:
            return
        if old is not None and old.schema_id == schema_id:
            age_s = (now_ms - old.confirmed_ms) / 1000
            if 0 <= age_s < self._settings.refresh_s / 2:  # a program that starts every second need not write as often
                return
        copy = Copy(
            registry=self._settings.url,
            subject=pin.subject,
            fingerprint=pin.registration.fingerprint,
            schema_id=schema_id,
            confirmed_ms=now_ms,
            contract=contract.name,
            version=contract.version,
        )
        if self._copies.write(copy):
            pin.copy = copy

    def _fail(self, pin: _Pin, error: PostroomError) -> None:
        if error.retriable:
            pauses = STALE_PAUSES_S if pin.is_open else CLOSED_PAUSES_S
            pause_s = pauses[min(pin.failures, len(pauses) - 1)]
        else:
            pause_s = REFUSED_STALE_S if pin.is_open else REFUSED_CLOSED_S
        if isinstance(error, SubjectNotFoundError):
            pin.is_registered = False
        pin.failures += 1
        self._note(pin, error, pause_s=self._about(pause_s))

    def _note(self, pin: _Pin, error: PostroomError, *, pause_s: float) -> None:
        """Keep the trouble, and tell it when it is another one than before: the rest is in metrics and health."""
        pin.due = self._clock.monotonic() + pause_s
        if pin.problem == error.code:
            return
        pin.problem = error.code
        contract = pin.lane.name
        if error.retriable:
            self._log.warning("registry_unavailable", operation="schema_id", contract=contract, error=error.code)
        else:
            self._log.error(
                "contract_unavailable", operation="schema_id", contract=contract, error=error.code, remedy=error.remedy
            )

    def _about(self, seconds: float) -> float:
        """Between three and five quarters of it, so that processes that started together ask apart."""
        return seconds * (0.75 + self._chance() / 2)

    # -- beside the events

    def start(self) -> None:
        """Keep the ids right on a thread of its own, if there is anything to keep right."""
        if self._pins and (self._copies is not None or self.problem):
            self._thread = threading.Thread(target=self._run, name="postroom-registry", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask nothing more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        pause_s: float | None = 0.0
        while pause_s is not None and not self._stopping.wait(pause_s):
            try:
                pause_s = self.look()
            except Exception as exc:  # noqa: BLE001 - what ends this thread would leave the ids as they are for good
                self._log.error("schema_ids_failed", operation="look", error=type(exc).__name__)
                pause_s = STALE_PAUSES_S[0]

    def look(self) -> float | None:
        """Close what is too old and ask the one question whose time has come; seconds until the next look.

        None when there is nothing left to ask for.
        """
        self._close_what_is_too_old()
        now = self._clock.monotonic()
        due = [pin for pin in self._pins if pin.due <= now and self._is_asked_again(pin)]
        gap_s = GAP_S
        if due:
            pin = min(due, key=lambda pin: (pin.is_open, pin.due))
            gap_s = QUIET_GAP_S if pin.is_open else GAP_S
            self._ask_again(pin)
        coming = [self._next_look(pin) for pin in self._pins if self._is_asked_again(pin)]
        return max(gap_s, min(coming) - self._clock.monotonic()) if coming else None

    def _is_asked_again(self, pin: _Pin) -> bool:
        return self._copies is not None or bool(pin.problem)

    def _ask_again(self, pin: _Pin) -> None:
        try:
            schema_id = self._ask(self._askers.again, pin)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other contracts are asked for
            if not self._stopping.is_set():
                self._fail(pin, exc if isinstance(exc, PostroomError) else PostroomError(type(exc).__name__))
        else:
            self._confirm(pin, schema_id)

    def _next_look(self, pin: _Pin) -> float:
        limit_s = self._settings.max_stale_s
        if limit_s is None or not pin.problem or not pin.is_open or pin.confirmed_at is None:
            return pin.due
        return min(pin.due, pin.confirmed_at + limit_s)

    def _is_too_old(self, pin: _Pin) -> bool:
        limit_s = self._settings.max_stale_s
        if limit_s is None or pin.confirmed_at is None:
            return False
        return self._clock.monotonic() - pin.confirmed_at >= limit_s

    def _why_too_old(self, pin: _Pin) -> str:
        since = f"the registry has not confirmed its schema id since {self._since(pin)}"
        return f"{since}, for longer than schema_registry.max_stale_s ({self._settings.max_stale_s} s)"

    def _close_what_is_too_old(self) -> None:
        for pin in self._pins:
            if pin.is_open and pin.problem and self._is_too_old(pin):
                pin.lane.close(self._why_too_old(pin))
                pin.failures, pin.due = 0, self._clock.monotonic()
                self._log.error("schema_id_too_old", contract=pin.lane.name, since=self._since(pin), error=pin.problem)

    # -- what is known

    @property
    def problem(self) -> str:
        """The code of what is wrong with one contract's id, of a closed lane first; empty when nothing is."""
        troubled = sorted((pin for pin in self._pins if pin.problem), key=lambda pin: pin.is_open)
        return troubled[0].problem if troubled else ""

    def views(self) -> list[SchemaIdView]:
        """Every contract's id as it is now."""
        now = self._clock.monotonic()
        return [
            SchemaIdView(
                contract=pin.lane.name,
                subject=pin.subject,
                schema_id=pin.lane.schema_id,
                state=("stale" if pin.problem else "fresh") if pin.is_open else "closed",
                confirmed=self._since(pin),
                stale_s=round(now - pin.confirmed_at, 3) if pin.problem and pin.confirmed_at is not None else 0.0,
                problem=pin.problem or None,
            )
            for pin in self._pins
        ]

    def readings(self) -> Iterator[Reading]:
        """Give the ages to the metrics."""
        for view in self.views():
            yield Reading(SCHEMA_STALE, view.stale_s, (view.contract,))
            yield Reading(SCHEMA_STATE, 1, (view.contract, view.state))

    def _since(self, pin: _Pin) -> str | None:
        """When the registry last gave a good answer, by the wall clock of now."""
        if pin.confirmed_at is None:
            return None
        ago_s = self._clock.monotonic() - pin.confirmed_at
        moment = datetime.fromtimestamp(self._clock.time_ms() / 1000 - ago_s, UTC)
        return rfc3339(moment, "seconds")
