"""The one state machine for trouble: where the records of a topic go now. See docs/design/0005.

A path belongs to one topic of the cluster. Its state is circuit breaker, gate and drain in one; what leads from state
to state is the table below, and nothing else. The dispatcher and the drain act on it, under the order lock.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

from postroom.libs.event import FailedReason

if TYPE_CHECKING:
    from random import Random

    from postroom.libs.event import DeadLetterReason
    from postroom.services.item import Item
    from postroom.streaming.publisher import Report
    from postroom.streaming.spool.queue_reader import SpooledRecord
    from postroom.streaming.spool.record_format import Kind

BACKOFF_S = (1.0, 2.0, 4.0)
"""The waits between probes of a topic that does not take records, at most: jitter shortens them.

The longest one bounds how late it is noticed that Kafka takes records again where a connection was up all the time: the
first record from the spool has to be there 5 s later, so a second is left for the probe itself.
"""

_JITTER = 0.2


class State(Enum):
    """Where new records of the topic go, and who publishes."""

    DIRECT = "direct"  # to the client library
    HANDING_OVER = "handing_over"  # nowhere for a moment: what is with the client library comes back
    SPOOLING = "spooling"  # to the spool; the drain probes
    DRAINING = "draining"  # to the spool if their key waits there, else to the client library; the drain sends


class Signal(Enum):
    """What happened to the path."""

    TROUBLE = "trouble"  # Kafka does not take records of this topic
    HANDED_OVER = "handed_over"  # nothing is with the client library any more, the rest is in the spool
    FOUND = "found"  # there is something in the spool that the drain has to send
    DELIVERED = "delivered"  # a record from the spool was acknowledged
    EMPTIED = "emptied"  # nothing of the topic waits in the spool, and Kafka is there


_NEXT: dict[tuple[State, Signal], State] = {
    (State.DIRECT, Signal.TROUBLE): State.HANDING_OVER,
    (State.DRAINING, Signal.TROUBLE): State.HANDING_OVER,
    (State.HANDING_OVER, Signal.HANDED_OVER): State.SPOOLING,
    (State.DIRECT, Signal.FOUND): State.DRAINING,
    (State.SPOOLING, Signal.DELIVERED): State.DRAINING,
    (State.SPOOLING, Signal.EMPTIED): State.DIRECT,
    (State.DRAINING, Signal.EMPTIED): State.DIRECT,
}


def next_state(state: State, signal: Signal) -> State:
    """Return the state after `signal`; a signal that says nothing new to a state leaves it."""
    return _NEXT.get((state, signal), state)


class Path:
    """The way to one topic. Everything that changes is guarded by the order lock, except where it says otherwise.

    `out` holds the items that callers' records are with the client library for, `held` those that came back with the
    report that said so, `drain_out` is how many of the drain's are there. `since` is when the state began (seconds of
    the monotonic clock), `hand_overs` how often the path was closed; `problem` why Kafka did not take a record last,
    None when it takes them; it is forgotten at `problem_ends`, where nobody probes.
    """

    __slots__ = (
        "drain_out",
        "hand_overs",
        "held",
        "is_put_back",
        "kind",
        "next_try_at",
        "out",
        "probe",
        "problem",
        "problem_ends",
        "since",
        "stamps_anew",
        "state",
        "topic",
        "tries",
        "unexplained",
    )

    def __init__(self, topic: str, kind: Kind, now: float) -> None:
        self.topic = topic
        self.kind = kind
        self.state = State.DIRECT
        self.since = now
        self.problem: FailedReason | None = None
        self.problem_ends = math.inf
        self.out: set[Item] = set()  # taken out by whoever brings a report, after the report is dealt with
        self.held: list[tuple[Item, Report]] = []
        self.drain_out = 0
        self.hand_overs = 0
        # The drain's own notes.
        self.probe: SpooledRecord | None = None  # the oldest record of a topic whose later ones were put back
        self.is_put_back = False
        self.tries = 0
        self.next_try_at = 0.0
        self.unexplained = 0
        self.stamps_anew = False  # brokers refuse the time that stands in its dead letters

    @property
    def is_direct(self) -> bool:
        """True when callers may hand records to the client library without asking the spool."""
        return self.state is State.DIRECT

    def signal(self, signal: Signal, now: float) -> bool:
        """Take a signal; True if the state changed."""
        state = next_state(self.state, signal)
        if state is self.state:
            return False
        self.state, self.since = state, now
        self.hand_overs += state is State.HANDING_OVER
        return True

    def failed(self, reason: FailedReason | DeadLetterReason | None, now: float, random: Random) -> None:
        """Note that a probe was not taken, and when the next one is due."""
        self.note_problem(reason)
        wait_s = BACKOFF_S[min(self.tries, len(BACKOFF_S) - 1)]
        self.tries += 1
        self.next_try_at = now + wait_s * (1 - _JITTER * random.random())

    def note_problem(self, reason: FailedReason | DeadLetterReason | None, ends: float = math.inf) -> None:
        """Note why Kafka did not take a record, and when that is forgotten."""
        self.problem_ends = ends
        self.problem = reason if isinstance(reason, FailedReason) else FailedReason.BROKER_ERROR

    def problem_at(self, now: float) -> FailedReason | None:
        """Return the problem, as far as it is not forgotten."""
        return self.problem if now < self.problem_ends else None

    def try_now(self) -> None:
        """End the waiting: whatever was wrong may be over."""
        self.tries, self.next_try_at = 0, 0.0

    def works(self) -> None:
        """Note that Kafka took a record of this topic."""
        self.try_now()
        self.problem, self.unexplained = None, 0
