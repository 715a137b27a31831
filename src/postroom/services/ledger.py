"""The ledger: the running balance of every event that was handed in.

    received = accepted + refused + failed + pending
    accepted = delivered + dead_lettered + spooled + in_flight + quarantined

Each number is counted where its event happens: `received` at the entry, `delivered` and `dead_lettered` where the
broker's report arrives, `spooled` where the disk has answered and again where the drain's report arrives, `accepted`,
`refused` and `failed` where the receipt leaves the table of open receipts, whose length is `pending`. `in_flight` is
the length of the table of events that were written ahead and are with the client library now. No number is derived
from the others, so the two equations can fail, and `unaccounted` says by how many events: 0, or something is wrong.
They are judged for each topic, so that a surplus in one cannot hide a loss in another.

With a spool the books of a process begin with what it finds there: received, accepted and spooled by an earlier one.
`taken_over` says how many these were, `drained` how many events have left the spool for Kafka; neither is part of an
equation. Whoever reads the books watches them: when they stop balancing, and when they balance again, a line says so.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from postroom.observability.books_watch import BooksWatch
from postroom.observability.histogram import Histogram
from postroom.observability.metric_table import (
    ACCEPTED,
    DEAD_LETTERED,
    DELIVERED,
    DRAINED,
    FAILED,
    HIDDEN,
    IN_FLIGHT,
    LATENCY,
    NOT_KNOWN,
    PENDING,
    QUARANTINED,
    RECEIVED,
    REFUSED,
    SPOOLED,
    TAKEN_OVER,
    UNACCOUNTED,
)
from postroom.observability.metrics import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.services.receipt import Receipt


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """The books at one instant. All numbers are events since the start of the process.

    `hidden` of the dead-lettered ones cannot be sent again, since the settings hide private values: dropped on purpose.
    `taken_over` of the received ones were accepted by an earlier process, `drained` came out of the spool into Kafka.
    `unaccounted`: by how many events the books are off, 0 when both equations hold. One event that is lost can be
    missing in both of them and counts once.
    """

    received: int = 0
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    pending: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    spooled: int = 0
    in_flight: int = 0
    unaccounted: int = 0
    quarantined: int = 0
    taken_over: int = 0
    drained: int = 0
    hidden: int = 0

    def __add__(self, other: Balance) -> Balance:
        return Balance(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Book:
    """The account of one topic. Every method is atomic; the lock is the ledger's."""

    __slots__ = (
        "_lock",
        "accepted",
        "ahead",
        "dead_letter_reasons",
        "dead_lettered",
        "delivered",
        "drained",
        "failed",
        "failed_reasons",
        "hidden",
        "latency",
        "open",
        "quarantined",
        "received",
        "refused",
        "refused_reasons",
        "spooled",
        "taken_over",
        "topic",
    )

    def __init__(self, topic: str, lock: threading.Lock, latency: Histogram) -> None:
        self.topic = topic
        self._lock = lock
        self.latency = latency
        self.received = self.accepted = self.refused = self.failed = 0
        self.delivered = self.dead_lettered = self.spooled = 0
        self.taken_over = self.drained = self.quarantined = self.hidden = 0
        self.open: set[Receipt] = set()
        self.ahead: set[Receipt] = set()
        self.refused_reasons: Counter[str] = Counter()
        self.failed_reasons: Counter[str] = Counter()
        self.dead_letter_reasons: Counter[str] = Counter()

    def receive(self, receipt: Receipt) -> None:
        """Count an event that was handed in, and keep its receipt open."""
        with self._lock:
            self.received += 1
            self.open.add(receipt)

    def write_ahead(self, receipt: Receipt, latency_s: float) -> bool:
        """Count the acceptance of an event that is on the disk and not sent yet; False if the event is not open.

        `latency_s`: seconds from hand-in to this moment.
        """
        with self._lock:
            if not self._close(receipt):
                return False
            self.ahead.add(receipt)
            self.accepted += 1
            self.latency.observe(latency_s)
            return True

    def deliver(self, receipt: Receipt, latency_s: float) -> bool:
        """Count a delivery report, and the acceptance of its event; False if the event is not open.

        `latency_s`: seconds from hand-in to this moment.
        """
        with self._lock:
            self.delivered += 1
            return self._accept(receipt, latency_s)

    def dead_letter(self, receipt: Receipt, reason: str, latency_s: float, *, hidden: bool = False) -> bool:
        """Count an acknowledged dead letter, and the acceptance of its event; False if the event is not open.

        `hidden`: it cannot be sent again, since private values were hidden in it.
        """
        with self._lock:
            self.hidden += hidden
            self.dead_lettered += 1
            self.dead_letter_reasons[reason] += 1
            return self._accept(receipt, latency_s)

    def spool(self, receipt: Receipt, latency_s: float) -> bool:
        """Count a record that the spool holds, and the acceptance of its event; False if the event is not open."""
        with self._lock:
            self.spooled += 1
            return self._accept(receipt, latency_s)

    def carry_over(self, count: int) -> None:
        """Take events into the books that an earlier process accepted and left in the spool."""
        with self._lock:
            self.received += count
            self.accepted += count
            self.spooled += count
            self.taken_over += count

    def set_aside(self, count: int) -> None:
        """Count records of the spool that turned out unreadable: they lie in quarantine, and nobody will send them."""
        with self._lock:
            self.spooled -= count
            self.quarantined += count

    def drain(self) -> None:
        """Count the delivery report of a record that came from the spool."""
        with self._lock:
            self.spooled -= 1
            self.delivered += 1
            self.drained += 1

    def drain_dead_letter(self, reason: str, *, hidden: bool = False) -> None:
        """Count the acknowledged dead letter of an event that was in the spool; `hidden` as of `dead_letter`."""
        with self._lock:
            self.hidden += hidden
            self.spooled -= 1
            self.dead_lettered += 1
            self.drained += 1
            self.dead_letter_reasons[reason] += 1

    def refuse(self, receipt: Receipt, reason: str) -> bool:
        """Count a refusal; False if the event is not open."""
        with self._lock:
            if not self._close(receipt):
                return False
            self.refused += 1
            self.refused_reasons[reason] += 1
            return True

    def fail(self, receipt: Receipt, reason: str) -> bool:
        """Count an event that could not be made safe; False if the event is not open."""
        with self._lock:
            if not self._close(receipt):
                return False
            self.failed += 1
            self.failed_reasons[reason] += 1
            return True

    def _accept(self, receipt: Receipt, latency_s: float) -> bool:
        """Take an event out of its table; it became safe now, unless it was when it was written ahead."""
        if receipt in self.ahead:
            self.ahead.remove(receipt)
            return True
        if not self._close(receipt):
            return False
        self.accepted += 1
        self.latency.observe(latency_s)
        return True

    def _close(self, receipt: Receipt) -> bool:
        try:
            self.open.remove(receipt)
        except KeyError:
            return False
        return True

    def is_open(self, receipt: Receipt) -> bool:
        """Return whether the event has been received and not counted out yet."""
        return receipt in self.open or receipt in self.ahead

    def _balance(self) -> Balance:
        at_the_door = self.received - (self.accepted + self.refused + self.failed + len(self.open))
        at_rest = self.delivered + self.dead_lettered + self.spooled + self.quarantined
        inside = self.accepted - (at_rest + len(self.ahead))
        return Balance(
            received=self.received,
            accepted=self.accepted,
            refused=self.refused,
            failed=self.failed,
            pending=len(self.open),
            delivered=self.delivered,
            dead_lettered=self.dead_lettered,
            spooled=self.spooled,
            in_flight=len(self.ahead),
            unaccounted=max(abs(at_the_door), abs(inside)),
            quarantined=self.quarantined,
            taken_over=self.taken_over,
            drained=self.drained,
            hidden=self.hidden,
        )


class Ledger:
    """All books of one producer service, and the latency from hand-in to safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latency = Histogram()
        self._books: dict[str, Book] = {}
        self._watch = BooksWatch()

    def book(self, topic: str) -> Book:
        """Return the account of `topic`, opened at the first call. "" is for events without a known contract."""
        with self._lock:
            book = self._books.get(topic)
            if book is None:
                book = self._books[topic] = Book(topic, self._lock, self._latency)
            return book

    def by_topic(self) -> dict[str, Balance]:
        """Return the balance of each topic, all of one instant."""
        with self._lock:
            balances, news = self._read()
        self._watch.tell(news)
        return balances

    def _read(self) -> tuple[dict[str, Balance], list[tuple[str, int]]]:
        """Return the balance of each topic and what is new about their balancing. The lock is held."""
        balances = {topic: book._balance() for topic, book in self._books.items()}  # noqa: SLF001 - same module
        return balances, self._watch.compare((topic, balance.unaccounted) for topic, balance in balances.items())

    def total(self) -> Balance:
        """Return the balance over all topics, of one instant."""
        return sum(self.by_topic().values(), Balance())

    def reasons(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Return the counts by reason: of dead letters, refusals, failures."""
        dead_letters: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        with self._lock:
            for book in self._books.values():
                dead_letters += book.dead_letter_reasons
                refused += book.refused_reasons
                failed += book.failed_reasons
        return dict(dead_letters), dict(refused), dict(failed)

    def disown(self) -> list[Receipt]:
        """Empty the table of open receipts and return them: nobody will ever report them.

        They are counted nowhere, so that the books say how many events lost their way.
        """
        with self._lock:
            orphans = [receipt for book in self._books.values() for receipt in (*book.open, *book.ahead)]
            for book in self._books.values():
                book.open.clear()
                book.ahead.clear()
            return orphans

    def open_receipts(self) -> list[Receipt]:
        """Return the receipts without an outcome. Takes no lock: for a forked child, where nobody else runs."""
        return [receipt for book in self._books.values() for receipt in (*book.open, *book.ahead)]

    def readings(self) -> Iterator[Reading]:
        """Give the books to the metrics, as one of their sources."""
        latency = Histogram()
        with self._lock:
            latency.add(self._latency)
            balances, news = self._read()
            reasons = [
                (row, topic, reason, count)
                for topic, book in self._books.items()
                for row, counts in (
                    (DEAD_LETTERED, book.dead_letter_reasons),
                    (REFUSED, book.refused_reasons),
                    (FAILED, book.failed_reasons),
                )
                for reason, count in counts.items()
            ]
        self._watch.tell(news)
        yield Reading(LATENCY, latency)
        for topic, balance in balances.items():
            label = (topic or NOT_KNOWN,)
            yield Reading(RECEIVED, balance.received, label)
            yield Reading(ACCEPTED, balance.accepted, label)
            yield Reading(DELIVERED, balance.delivered, label)
            yield Reading(SPOOLED, balance.spooled, label)
            yield Reading(PENDING, balance.pending, label)
            yield Reading(IN_FLIGHT, balance.in_flight, label)
            yield Reading(UNACCOUNTED, balance.unaccounted, label)
            yield Reading(TAKEN_OVER, balance.taken_over, label)
            yield Reading(DRAINED, balance.drained, label)
            yield Reading(QUARANTINED, balance.quarantined, label)
            yield Reading(HIDDEN, balance.hidden, label)
        for row, topic, reason, count in reasons:
            yield Reading(row, count, (topic or NOT_KNOWN, reason))

    def latency(self) -> Histogram:
        """Return a copy of the histogram of seconds from hand-in to safe."""
        latency = Histogram()
        with self._lock:
            latency.add(self._latency)
        return latency
