"""Made-up video plays for the contract `user_event`: people who start, pause, resume, seek in and stop videos.

The events look like those of a real service in what matters to a pipeline. Some users and videos are far more busy
than others, many sessions go on at once, so that the events of different keys interleave, and within a session they
follow each other as they must. A session is played in fast motion: `timestamp` is the time of the making, at whatever
pace the caller asks, while `position_ms` moves on by what somebody would have watched.

Who asks decides about the pace (`RateLimiter`); a generator never waits.
"""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from enum import StrEnum
from itertools import repeat
from typing import TYPE_CHECKING, Final, NamedTuple

from postroom.libs.clock import SYSTEM_CLOCK
from postroom.libs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from postroom.libs.clock import Clock


class InvalidKind(StrEnum):
    """A way in which a generated event can break the contract. Each breaks it in exactly one place."""

    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    UNEXPECTED_NULL = "unexpected_null"
    WRONG_TYPE = "wrong_type"
    NUMBER_AS_TEXT = "number_as_text"
    BOOLEAN_AS_NUMBER = "boolean_as_number"
    OUT_OF_RANGE = "out_of_range"
    NOT_FINITE = "not_finite"
    NOT_IN_ENUM = "not_in_enum"


class GeneratedEvent(NamedTuple):
    """An event and, if it was broken on purpose, how."""

    event: dict[str, object]
    broken: InvalidKind | None


_COUNTRIES: Final = ("US", "IN", "BR", "DE", "GB", "JP", "FR", "MX", "KR", "NL", "PL", "SE", "ZA", "NZ", "IS", "MT")
_DEVICES: Final = ("phone", "desktop", "phone", "tv", "tablet", "phone", "console", "desktop")
_APP_VERSIONS: Final = ("7.2.0", "7.1.3", "7.1.2", "6.9.8")
_BIT_RATES_KBPS: Final = (2_500.0, 4_500.0, 1_200.5, 8_000.0)


class _User:
    """Somebody with a country and one to three devices, the same ones in every run."""

    __slots__ = ("country", "devices", "user_id")

    def __init__(self, number: int) -> None:
        # Scrambled by a multiplicative hash, so that neighbours differ; no random number, so that a user is the
        # same person whatever happened before he came.
        bits = ((number + 1) * 0x9E37_79B9_7F4A_7C15) >> 16
        self.user_id = f"user-{number:06d}"
        # The smaller of two draws: the first countries of the list are the frequent ones.
        self.country = _COUNTRIES[min(bits & 15, bits >> 4 & 15)]
        self.devices = tuple(
            (_DEVICES[(bits >> 8) + 3 * index & 7], _APP_VERSIONS[(bits >> 11) + index & 3])
            for index in range(1 + (bits >> 13) % 3)
        )


class _Session:
    """One video being watched by one user on one device."""

    __slots__ = ("app_version", "device", "duration_ms", "paused", "position_ms", "session_id", "user", "video_id")

    def __init__(self, user: _User, video: int, rng: random.Random) -> None:
        bits = rng.getrandbits(64)
        self.user = user
        self.device, self.app_version = user.devices[(bits & 0xFF) % len(user.devices)]
        self.session_id = f"{bits:016x}"
        self.video_id = f"video-{video:05d}"
        # Every sixteenth video is a live stream; the others last 1 minute to 2 hours, each always the same.
        self.duration_ms = None if video % 16 == 15 else 60_000 + video * 7_919_001 % 7_140_000
        self.position_ms = 0
        self.paused = False


class DummyDataGenerator:
    """Makes events one at a time, without end.

    The same `seed` gives the same events but for their timestamps, which are the clock's; the events that are valid
    do not depend on `invalid_ratio`. None takes a new seed each time. `users` and `videos` are how many there are,
    `sessions` how many go on at once. Each event is broken with the probability `invalid_ratio`, in one of
    `invalid_kinds`, all equally likely. Not for several threads at once.

    Raises ConfigurationError for numbers out of range. About 2 us for an event.
    """

    def __init__(
        self,
        seed: int | None = None,
        *,
        users: int = 10_000,
        videos: int = 2_000,
        sessions: int = 500,
        invalid_ratio: float = 0.0,
        invalid_kinds: Sequence[InvalidKind] = tuple(InvalidKind),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        for name, number in (("users", users), ("videos", videos), ("sessions", sessions)):
            if number < 1:
                raise ConfigurationError(f"generator: {name} is {number}", remedy="give at least 1")
        if not 0.0 <= invalid_ratio <= 1.0:
            raise ConfigurationError(
                f"generator: invalid_ratio is {invalid_ratio}", remedy="give a share from 0 to 1, such as 0.02"
            )
        if not invalid_kinds:
            raise ConfigurationError("generator: invalid_kinds is empty", remedy="name one kind or leave it out")
        # Two sources of chance: breaking events must not change which events there are.
        self._rng = random.Random(seed)  # noqa: S311  made-up data, nothing secret
        self._breaking = random.Random(None if seed is None else ~seed)  # noqa: S311  as above
        self._random = self._rng.random
        self._users = users
        self._videos = videos
        self._invalid_ratio = invalid_ratio
        self._invalid_kinds = tuple(invalid_kinds)
        self._time_ms = clock.time_ms
        self._known_users: dict[int, _User] = {}
        self._sessions: list[_Session | None] = [None] * sessions
        self._broken: Counter[InvalidKind] = Counter()

    @property
    def broken(self) -> dict[InvalidKind, int]:
        """How many events of each kind were broken so far."""
        return dict(self._broken)

    def generate_event(self) -> dict[str, object]:
        """The next event; broken with the probability that was asked for."""
        return self.generate().event

    def generate(self) -> GeneratedEvent:
        """The next event and how it was broken, if it was."""
        event = self._valid_event()
        if self._invalid_ratio == 0.0 or self._breaking.random() >= self._invalid_ratio:
            return GeneratedEvent(event, None)
        kind = self._breaking.choice(self._invalid_kinds)
        _BREAKERS[kind](event, self._breaking)
        self._broken[kind] += 1
        return GeneratedEvent(event, kind)

    def events(self, count: int | None = None) -> Iterator[dict[str, object]]:
        """The next `count` events, each made when it is asked for; without end for None."""
        for _ in repeat(None) if count is None else repeat(None, count):
            yield self.generate().event

    def _valid_event(self) -> dict[str, object]:
        at = int(self._random() * len(self._sessions))
        session = self._sessions[at]
        if session is None:
            session = self._sessions[at] = self._new_session()
            action = "start"
        else:
            action = self._moved_on(session)
            if action in {"stop", "complete"}:
                self._sessions[at] = None
        user = session.user
        return {
            "user_id": user.user_id,
            "timestamp": self._time_ms(),
            "video_id": session.video_id,
            "session_id": session.session_id,
            "action": action,
            "position_ms": session.position_ms,
            "duration_ms": session.duration_ms,
            "device": session.device,
            "country": user.country,
            "app_version": session.app_version,
            "bitrate_kbps": None if session.paused else _BIT_RATES_KBPS[session.position_ms & 3],
            "is_live": session.duration_ms is None,
        }

    def _new_session(self) -> _Session:
        # A power of a number below 1 crowds towards 0: with 10,000 users the first one makes 1 % of the sessions,
        # with 2,000 videos the first one is played in 8 % of them.
        number = int(self._random() ** 2 * self._users)
        user = self._known_users.get(number)
        if user is None:
            user = self._known_users[number] = _User(number)
        return _Session(user, int(self._random() ** 3 * self._videos), self._rng)

    def _moved_on(self, session: _Session) -> str:
        """What the viewer does next; the session is changed by it."""
        chance = self._random()
        if session.paused:
            if chance < 0.8:
                session.paused = False
                return "resume"
            return "stop"
        session.position_ms += 1_000 + int(self._random() * 180_000)
        duration_ms = session.duration_ms
        if duration_ms is not None and session.position_ms >= duration_ms:
            session.position_ms = duration_ms
            return "complete"
        if chance < 0.45:
            session.paused = True
            return "pause"
        if chance < 0.7 and duration_ms is not None:
            session.position_ms = int(self._random() * duration_ms)
            return "seek"
        return "stop"


_REQUIRED: Final = ("user_id", "timestamp")
_NEVER_NULL: Final = (
    "user_id", "timestamp", "video_id", "session_id", "action", "position_ms", "device", "is_live"
)  # fmt: skip
_TEXTS: Final = ("user_id", "video_id", "session_id")
_WHOLE_NUMBERS: Final = ("timestamp", "position_ms")
_LEFT_OVERS: Final = ("debug_info", "userId", "ts", "experiment")
_INVENTED: Final = (("action", "rewind"), ("action", "START"), ("device", "fridge"), ("device", ""))


def _drop(event: dict[str, object], rng: random.Random) -> None:
    del event[rng.choice(_REQUIRED)]


def _add(event: dict[str, object], rng: random.Random) -> None:
    event[rng.choice(_LEFT_OVERS)] = "left over"


def _set_null(event: dict[str, object], rng: random.Random) -> None:
    event[rng.choice(_NEVER_NULL)] = None


def _change_type(event: dict[str, object], rng: random.Random) -> None:
    event[rng.choice(_TEXTS)] = rng.randrange(100_000)


def _write_number_as_text(event: dict[str, object], rng: random.Random) -> None:
    name = rng.choice(_WHOLE_NUMBERS)
    event[name] = str(event[name])


def _write_number_as_boolean(event: dict[str, object], rng: random.Random) -> None:
    event[rng.choice(_WHOLE_NUMBERS)] = rng.random() < 0.5


def _overflow(event: dict[str, object], rng: random.Random) -> None:
    event[rng.choice(_WHOLE_NUMBERS)] = 2**63 + rng.randrange(1_000)


def _divide_by_zero(event: dict[str, object], rng: random.Random) -> None:
    event["bitrate_kbps"] = rng.choice((math.inf, math.nan))


def _invent_symbol(event: dict[str, object], rng: random.Random) -> None:
    name, symbol = rng.choice(_INVENTED)
    event[name] = symbol


_BREAKERS: Final[dict[InvalidKind, Callable[[dict[str, object], random.Random], None]]] = {
    InvalidKind.MISSING_FIELD: _drop,
    InvalidKind.UNKNOWN_FIELD: _add,
    InvalidKind.UNEXPECTED_NULL: _set_null,
    InvalidKind.WRONG_TYPE: _change_type,
    InvalidKind.NUMBER_AS_TEXT: _write_number_as_text,
    InvalidKind.BOOLEAN_AS_NUMBER: _write_number_as_boolean,
    InvalidKind.OUT_OF_RANGE: _overflow,
    InvalidKind.NOT_FINITE: _divide_by_zero,
    InvalidKind.NOT_IN_ENUM: _invent_symbol,
}

_shared: DummyDataGenerator | None = None
_shared_lock = threading.Lock()


def generate_event() -> dict[str, object]:
    """One valid event, from a generator that all callers in the process share; different in every run."""
    global _shared  # noqa: PLW0603  made at the first call, so that importing costs nothing
    with _shared_lock:
        if _shared is None:
            _shared = DummyDataGenerator()
        return _shared.generate_event()
