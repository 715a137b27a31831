"""Dead letters: what is kept, what fits, what comes back, and that a sent one is acknowledged."""

from __future__ import annotations

import json
import random
import threading
import zlib
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.libs.event import DeadLettered, DeadLetterReason, FailedReason, Record, Violation, is_event_id
from postroom.libs.exceptions import (
    InvalidMetadataError,
    KafkaConnectionError,
    NotRepresentableError,
    QueueFullError,
    RecordTooLargeError,
    TopicNotFoundError,
)
from postroom.libs.settings import Config
from postroom.observability.metrics import Metrics
from postroom.streaming import lossless_json
from postroom.streaming.dead_letter_format import (
    MAX_PACKED_FROM_BYTES,
    OWN_HEADER_BYTES,
    ProducerIdentity,
    Stage,
    dead_letter_record,
    is_reserved_header,
)
from postroom.streaming.dead_letter_queue import DeadLetterQueue, producer_identity
from postroom.streaming.dead_letter_rebuild import rebuild
from postroom.streaming.delivery import DELIVERED, Action, Decision
from postroom.streaming.publisher import Condition, Report
from postroom.testing.manual_clock import ManualClock
from tests.unit.streaming.test_lossless_json import events, same

if TYPE_CHECKING:
    from postroom.streaming.publisher import OnDone

ME = ProducerIdentity("checkout", "host-1", "1.2.3")
NOW_MS = 1_795_416_182_091
BROKEN = Violation("device.os", "wrong_type", "string", "int")


def letter(event: object = None, **changes: object) -> Record:
    """A dead letter with everything at its plainest, but for `changes`."""
    fields: dict[str, object] = {
        "topic": "user_events",
        "reason": "validation_failed",
        "stage": Stage.VALIDATE,
        "event_id": "id-1",
        "producer": ME,
        "now_ms": NOW_MS,
    }
    chosen: object = {"user_id": "u1"} if event is None else event
    return dead_letter_record(chosen, **(fields | changes))  # type: ignore[arg-type]  # any of them, by name


def headers_of(record: Record) -> dict[str, str]:
    """The headers as text, the last of a name."""
    return {name: value.decode() for name, value in record.headers}


def header_bytes(record: Record) -> int:
    """What the budget counts."""
    return sum(len(name.encode()) + len(value) for name, value in record.headers)


ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=256)
users_headers = st.lists(
    st.tuples(st.text(max_size=20).filter(lambda name: not is_reserved_header(name)), st.binary(max_size=50)),
    max_size=5,
).map(tuple)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
violations = st.lists(st.builds(Violation, texts, texts, texts, texts), max_size=5)
moments = st.integers(min_value=-(10**12), max_value=10**13)


@given(
    event=st.one_of(events, st.binary(max_size=500)),
    key=st.none() | st.binary(max_size=100),
    headers=users_headers,
    event_id=ids,
    event_type=st.none() | texts,
    reason=st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True),
    stage=st.sampled_from(Stage),
    found=violations,
    schema_id=st.none() | st.integers(0, 2**29),
    attempts=st.integers(1, 10**6),
    first_seen_ms=moments,
    now_ms=moments,
)
@settings(max_examples=200, deadline=None)
def test_a_rebuilt_dead_letter_is_the_original(event: object, found: list[Violation], **given_: object) -> None:
    """Event, key, headers, id and all that was said come back, equal and of equal types."""
    record = letter(event, violations=found, contract="user_event:3", **given_)
    back = rebuild(record)
    assert same(back.event, event)
    assert back.rebuildable
    assert back.violations == tuple(found)
    assert back.violations_total == len(back.violations)
    assert (back.topic, back.contract, back.producer) == ("user_events", "user_event:3", ME)
    assert back.failed_at_ms == given_.pop("now_ms")
    for name, value in given_.items():
        assert getattr(back, name) == value, name


def test_the_record_is_the_documented_one() -> None:
    """Topic, key, value and every header, in their order."""
    record = letter(
        {"user_id": 7},
        key=b"k",
        headers=(("tenant", b"\xff"), ("tenant", b"b")),
        event_type="user_event",
        contract="user_event:1",
        schema_id=42,
        violations=[BROKEN],
        attempts=2,
        first_seen_ms=NOW_MS - 60_000,
    )
    assert (record.topic, record.key, record.value) == ("user_events.dlq", b"k", b'{"user_id":7}')
    assert (record.event_id, record.timestamp_ms, record.attempt) == ("id-1", NOW_MS, 1)
    assert record.headers[:2] == (("tenant", b"\xff"), ("tenant", b"b"))
    assert headers_of(msgspec.structs.replace(record, headers=record.headers[2:])) == {
        "ce_id": "id-1",
        "dlq.reason": "validation_failed",
        "dlq.stage": "validate",
        "dlq.topic": "user_events",
        "dlq.event_id": "id-1",
        "dlq.event_type": "user_event",
        "dlq.contract": "user_event:1",
        "dlq.schema_id": "42",
        "dlq.violations": '[{"path":"device.os","rule":"wrong_type","expected":"string","found":"int"}]',
        "dlq.attempts": "2",
        "dlq.first_seen": "2026-11-23T06:42:02.091Z",
        "dlq.failed_at": "2026-11-23T06:43:02.091Z",
        "dlq.producer": '{"service":"checkout","host":"host-1","version":"1.2.3"}',
        "dlq.content_type": "application/vnd.postroom.event+json",
        "__connect.errors.topic": "user_events",
        "__connect.errors.connector.name": "checkout",
        "__connect.errors.stage": "TRANSFORMATION",
        "__connect.errors.exception.class.name": "postroom.libs.exceptions.ValidationError",
        "__connect.errors.exception.message": ("validation_failed; device.os: wrong_type, expected string, found int"),
    }


def test_a_contract_may_name_another_dead_letter_topic() -> None:
    """Where the event was going is said all the same."""
    record = letter(dead_letter_topic="broken")
    assert (record.topic, rebuild(record).topic) == ("broken", "user_events")


def test_bytes_stay_the_bytes_they_are() -> None:
    """Bytes are not read or changed; the caller may say what they are."""
    record = letter(b'{"a":NaN', content_type="application/json", stage=Stage.DECODE, reason="decode_failed")
    assert record.value == b'{"a":NaN'
    assert headers_of(record)["dlq.content_type"] == "application/json"
    assert rebuild(record).event == b'{"a":NaN'
    assert headers_of(letter(b""))["dlq.content_type"] == "application/octet-stream"
    assert rebuild(letter(b"")).event == b""


def test_a_null_key_stays_null_and_an_empty_one_empty() -> None:
    """Kafka tells the two apart, and so does a dead letter."""
    assert letter(key=None).key is None
    assert letter(key=b"").key == b""


def test_a_dead_letter_of_a_dead_letter_takes_no_more_room() -> None:
    """A replay that fails again replaces what the last failure said, and keeps when it was first seen."""
    first = letter(key=b"k", headers=(("tenant", b"a"),), violations=[BROKEN] * 3)
    record = first
    for _ in range(5):
        back = rebuild(record)
        record = letter(
            back.event,
            key=back.key,
            headers=record.headers,  # all of them: the last failure's are left out
            violations=back.violations,
            attempts=back.attempts + 1,
            first_seen_ms=back.first_seen_ms,
            now_ms=record.timestamp_ms + 1000,
        )
    assert len(record.headers) == len(first.headers)
    assert header_bytes(record) == header_bytes(first)
    back = rebuild(record)
    assert (back.attempts, back.first_seen_ms, back.failed_at_ms) == (6, NOW_MS, NOW_MS + 5000)
    assert back.headers == (("tenant", b"a"),)


@pytest.mark.parametrize("name", ["dlq.reason", "dlq.anything", "__connect.errors.topic", "ce_id", "x-attempt"])
def test_reserved_names_cannot_be_forged(name: str) -> None:
    """What a caller puts under postroom's names never stands in the record."""
    record = letter(headers=((name, b"forged"), ("mine", b"1")))
    assert b"forged" not in [value for _, value in record.headers]
    assert rebuild(record).headers == (("mine", b"1"),)


def test_no_header_holds_anything_of_the_payload() -> None:
    """Values of the event, the key and the caller's headers stay where they are."""
    record = letter({"name": "secret"}, key=b"secret", violations=[BROKEN])
    assert all(b"secret" not in value for _, value in record.headers)


class TestBudget:
    """All headers together stay within their budget, and what gives way first is decided."""

    def test_violations_are_shortened_from_the_end_and_counted(self) -> None:
        """The first ones stay; how many there were is said."""
        many = [Violation(f"field_{n}", "wrong_type", "string", "int") for n in range(5000)]
        record = letter(violations=many, headers=(("tenant", b"x" * 1000),))
        assert header_bytes(record) <= 16_384
        assert header_bytes(record) > 16_200
        back = rebuild(record)
        assert back.violations == tuple(many[: len(back.violations)])
        assert len(back.violations) > 50
        assert back.violations_total == 5000

    @pytest.mark.parametrize("budget", [4096, 4200, 5000, 16_384])
    @given(count=st.integers(0, 40), text=st.text(max_size=400), user=st.integers(0, 3000))
    @settings(max_examples=50, deadline=None)
    def test_whatever_the_violations_hold_the_budget_is_kept(
        self, budget: int, count: int, text: str, user: int
    ) -> None:
        """Long texts, odd texts, many of them; the caller's headers within what the budget leaves them."""
        room = budget - OWN_HEADER_BYTES
        headers = (("h", b"x" * (min(user, room) - 1)),) if room else ()
        record = letter(
            event_id="i" * 256,
            topic="t" * 245,
            reason="r" * 64,
            event_type="e" * 256,
            contract="c" * 256,
            content_type="application/" + "x" * 116,
            schema_id=2**31,
            attempts=10**9,
            event=b"x",
            producer=ProducerIdentity("s" * 500, "\u00e4" * 500, "v" * 500),
            violations=[Violation(text, text, text, text)] * count,
            headers=headers,
            max_header_bytes=budget,
        )
        assert header_bytes(record) <= budget
        assert rebuild(record).violations_total == count

    def test_the_callers_headers_are_never_dropped(self) -> None:
        """They belong to the original: they stay whole, and postroom's own words give way."""
        headers = tuple((f"h{n}", b"x" * 100) for n in range(1000))
        record = letter(headers=headers, violations=[BROKEN] * 9)
        back = rebuild(record)
        assert back.headers == headers
        assert (back.violations, back.violations_total) == ((), 9)
        assert back.event == {"user_id": "u1"}

    def test_a_violation_with_a_lone_surrogate_is_written_out(self) -> None:
        """A header must be readable by anyone."""
        record = letter(violations=[Violation("a\ud800", "r", "e", "f")])
        assert rebuild(record).violations == (Violation("a\\ud800", "r", "e", "f"),)


class TestSize:
    """The dead letter of an event that was too large fits all the same."""

    def test_a_large_text_is_compressed_and_comes_back(self) -> None:
        """Most events that are too large fit once compressed."""
        event = {"text": "the same again and again " * 100_000}
        record = letter(event)
        assert len(record.value or b"") + header_bytes(record) < 1_000_000
        said = headers_of(record)
        assert said["dlq.content_encoding"] == "gzip"
        assert said["dlq.value_bytes"] == str(len(lossless_json.encode(event)))
        assert "dlq.rebuildable" not in said
        assert rebuild(record).event == event

    def test_what_does_not_fit_even_so_keeps_its_head_and_says_so(self) -> None:
        """Length and checksum tell later whether somebody still has the original."""
        noise = random.Random(1).randbytes(2_000_000)
        record = letter(noise, reason=DeadLetterReason.MESSAGE_TOO_LARGE)
        assert record.value == noise[:65_536]
        said = headers_of(record)
        assert said["dlq.rebuildable"] == "false"
        assert said["dlq.value_bytes"] == "2000000"
        assert len(said["dlq.value_sha256"]) == 64
        back = rebuild(record)
        assert back.event is None
        assert not back.rebuildable
        assert back.damage == "cut to fit: the first 65536 of 2000000 bytes are left"
        assert back.reason == "message_too_large"

    @given(size=st.integers(0, 6000), limit=st.integers(3000, 5000), key=st.none() | st.binary(max_size=200))
    @settings(max_examples=100, deadline=None)
    def test_every_size_around_the_limit_fits(self, size: int, limit: int, key: bytes | None) -> None:
        """At the limit, one above, one below: the record stays under it."""
        record = letter(random.Random(size).randbytes(size), key=key, max_message_bytes=limit, violations=[BROKEN])
        assert len(record.value or b"") + header_bytes(record) + len(key or b"") <= limit - 100

    def test_key_and_headers_that_do_not_fit_alone_are_refused(self) -> None:
        """Then nothing could be kept that would be worth it."""
        with pytest.raises(RecordTooLargeError, match="key and headers alone"):
            letter(key=b"k" * 1_000_000)

    def test_a_value_too_long_to_unpack_is_not_packed(self) -> None:
        """What is written can be read: both sides have the same bound."""
        record = letter(bytes(MAX_PACKED_FROM_BYTES + 1))
        assert headers_of(record)["dlq.rebuildable"] == "false"
        assert rebuild(letter(bytes(MAX_PACKED_FROM_BYTES))).event == bytes(MAX_PACKED_FROM_BYTES)


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "Validation failed"},
        {"reason": ""},
        {"reason": "x" * 65},
        {"reason": "1st"},
        {"topic": ""},
        {"topic": "a/b"},
        {"topic": "t" * 246},
        {"dead_letter_topic": "a b"},
        {"event_id": ""},
        {"event_id": "a b"},
        {"event_id": "x" * 257},
        {"event_type": "x" * 257},
        {"contract": "\u00e4" * 129},
        {"content_type": "text/plain\r\nx: y"},
        {"content_type": ""},
        {"content_type": "application/vnd.postroom.event+json"},
        {"headers": (("a\ud800", b""),)},
    ],
)
def test_names_that_break_their_rule_are_refused(changes: dict[str, object]) -> None:
    """The answer is typed, and nothing is put into a header that a reader would stumble over."""
    with pytest.raises(InvalidMetadataError):
        letter(b"x", **changes)


def test_an_event_that_cannot_be_kept_is_refused() -> None:
    """Nothing is kept in part."""
    with pytest.raises(NotRepresentableError, match="tags: a set"):
        letter({"tags": {1}})


def foreign(value: bytes | None = b"v", **headers: bytes) -> Record:
    """A record of somebody else's."""
    named = tuple((name.replace("__", "."), text) for name, text in headers.items())
    return Record("t.dlq", b"k", value, named, "", 0)


class TestForeign:
    """Whatever stands in the topic, reading it says what is known and never raises."""

    def test_a_record_without_our_headers_is_bytes_with_an_unknown_reason(self) -> None:
        """Its own headers are kept."""
        back = rebuild(foreign(mine=b"1"))
        assert (back.event, back.reason, back.topic, back.event_id) == (b"v", "unknown", None, None)
        assert back.headers == (("mine", b"1"),)
        assert back.rebuildable

    def test_a_dead_letter_of_kafka_connect_says_where_it_came_from(self) -> None:
        """Topic and stage are Connect's own words."""
        headers = (("__connect.errors.topic", b"orders"), ("__connect.errors.stage", b"VALUE_CONVERTER"))
        back = rebuild(Record("t.dlq", None, b"{", headers, "", 0))
        assert (back.event, back.topic, back.stage, back.headers) == (b"{", "orders", "VALUE_CONVERTER", ())

    def test_a_record_without_a_value_has_nothing_to_give_back(self) -> None:
        """A tombstone in a dead letter topic is no dead letter."""
        back = rebuild(foreign(None))
        assert (back.event, back.damage) == (None, "the record has no value")

    def test_the_last_header_of_a_name_counts(self) -> None:
        """Ours come after the original ones."""
        back = rebuild(Record("t", None, b"", (("dlq.reason", b"a"), ("dlq.reason", b"b")), "", 0))
        assert back.reason == "b"

    @pytest.mark.parametrize(
        ("name", "value", "field", "expected"),
        [
            ("dlq.reason", b"Not A Code", "reason", "unknown"),
            ("dlq.reason", b"\xff", "reason", "unknown"),
            ("dlq.attempts", b"many", "attempts", 1),
            ("dlq.attempts", b"-3", "attempts", 1),
            ("dlq.attempts", b"9" * 5000, "attempts", 1),
            ("dlq.event_id", b"a b", "event_id", None),
            ("dlq.schema_id", b"x", "schema_id", None),
            ("dlq.violations", b"[{", "violations", ()),
            ("dlq.violations", b'[{"path":1}]', "violations", ()),
            ("dlq.violations", b"[" * 10_000, "violations", ()),
            ("dlq.violations", b'[{"x":' + b"[" * 10_000, "violations", ()),
            ("dlq.producer", b"me", "producer", None),
            ("dlq.first_seen", b"yesterday", "first_seen_ms", None),
            ("dlq.first_seen", b"2026-13-45T00:00:00Z", "first_seen_ms", None),
            ("dlq.failed_at", b"2026-11-23T07:23:02+01:00", "failed_at_ms", None),
        ],
    )
    def test_an_unreadable_header_is_not_known(self, name: str, value: bytes, field: str, expected: object) -> None:
        """The rest of the dead letter is read all the same."""
        back = rebuild(Record("t", None, b"v", ((name, value), ("dlq.topic", b"orders")), "", 0))
        assert getattr(back, field) == expected
        assert (back.event, back.topic) == (b"v", "orders")

    @pytest.mark.parametrize(
        ("value", "headers", "damage"),
        [
            (b"{", {"dlq__content_type": lossless_json.MEDIA_TYPE.encode()}, "lossless JSON: event: not JSON"),
            (b"no gzip", {"dlq__content_encoding": b"gzip"}, "the compressed value is damaged"),
            (zlib.compress(b"x", wbits=31)[:-1], {"dlq__content_encoding": b"gzip"}, "cut"),
            (zlib.compress(b"x", wbits=31) + b"y", {"dlq__content_encoding": b"gzip"}, "goes on"),
            (zlib.compress(bytes(2**24 + 1), wbits=31), {"dlq__content_encoding": b"gzip"}, "too much"),
            (b"x", {"dlq__content_encoding": b"br"}, "unknown content encoding"),
            (b"x", {"dlq__value_sha256": b"0" * 64}, "checksum"),
            (b"x", {"dlq__rebuildable": b"false"}, "the first 1 of more bytes"),
        ],
    )
    def test_a_damaged_value_is_said_to_be_damaged(self, value: bytes, headers: dict[str, bytes], damage: str) -> None:
        """Nothing is given back that is not the original."""
        back = rebuild(foreign(value, **headers))
        assert back.event is None
        assert damage in back.damage

    @given(
        value=st.none() | st.binary(max_size=50),
        headers=st.lists(
            st.tuples(
                st.sampled_from([*sorted(headers_of(letter(violations=[BROKEN] * 500))), "dlq.content_encoding", "x"]),
                st.none() | st.binary(max_size=40) | st.sampled_from([b"gzip", lossless_json.MEDIA_TYPE.encode()]),
            )
        ),
    )
    def test_no_record_makes_reading_raise(self, value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
        """Any value under any headers."""
        record = Record("t", None, value, tuple(headers), "", 0)  # type: ignore[arg-type]  # null values occur in Kafka
        assert rebuild(record).reason


class FakePublisher:
    """Answers each record at once with what it was told to say; full as often as it was told."""

    def __init__(self, answer: Report | None = None, full: int = 0) -> None:
        self.answer = answer
        self.full = full
        self.records: list[Record] = []
        self.closed = False

    def start(self) -> None:
        """Nothing to do."""

    def publish(self, record: Record, on_done: OnDone) -> None:
        """Full, or taken and answered by another thread."""
        if self.full:
            self.full -= 1
            raise QueueFullError("full")
        self.records.append(record)
        if self.answer is not None:
            threading.Thread(target=on_done, args=(self.answer,)).start()

    def wait_for_room(self, timeout_s: float) -> bool:
        """False where it will never be enough."""
        return self.full < 5

    def serve(self) -> None:
        """Nothing to do."""

    def in_flight(self) -> int:
        """Nothing, ever."""
        return 0

    def condition(self) -> Condition:
        """All is well."""
        return Condition(connected=True, since_s=0.0, oldest_s=None, problem="")

    def flush(self, deadline_s: float) -> int:
        """Nothing is missing."""
        return 0

    def purge(self) -> None:
        """Nothing to do."""

    def close(self, timeout_s: float) -> None:
        """Remember it."""
        self.closed = True


ACKNOWLEDGED = Report(DELIVERED, partition=3, offset=7)


def queue(publisher: FakePublisher, metrics: Metrics | None = None) -> DeadLetterQueue:
    """A queue with packaged settings and a clock of its own."""
    config = Config.model_validate({"topics": {"user_events": "prod.user_events"}})
    return DeadLetterQueue(publisher, config, clock=ManualClock(), metrics=metrics or Metrics())


class TestSending:
    """`send_to_dlq` returns when Kafka has the dead letter, and raises when it has not."""

    def test_it_says_where_the_dead_letter_stands(self) -> None:
        """The guide's call, with what the broker answered."""
        publisher, metrics = FakePublisher(ACKNOWLEDGED), Metrics()
        outcome = queue(publisher, metrics).send_to_dlq({"user_id": 7}, reason="validation_failed")
        assert outcome == DeadLettered("validation_failed", "prod.user_events.dlq", 3, 7)
        (record,) = publisher.records
        assert is_event_id(record.event_id)
        back = rebuild(record)
        assert (back.event, back.topic, back.reason) == ({"user_id": 7}, "prod.user_events", "validation_failed")
        assert back.producer == producer_identity("postroom")
        assert metrics.get_summary()["dead_letters_by_reason"] == {"validation_failed": 1}

    def test_everything_said_reaches_the_record(self) -> None:
        """Topic by its logical name, key, headers, id, type, violations."""
        publisher = FakePublisher(ACKNOWLEDGED)
        outcome = queue(publisher).send_to_dlq(
            b"raw",
            "not_wanted",
            topic="user_events",
            stage=Stage.DECODE,
            event_id="id-9",
            event_type="user_event",
            key=b"k",
            headers=(("tenant", b"a"),),
            violations=[BROKEN],
            content_type="text/csv",
        )
        assert outcome.violations == (BROKEN,)
        back = rebuild(publisher.records[0])
        assert (back.event, back.key, back.event_id, back.event_type) == (b"raw", b"k", "id-9", "user_event")
        assert (back.headers, back.violations, back.stage) == ((("tenant", b"a"),), (BROKEN,), "decode")
        assert back.content_type == "text/csv"

    def test_without_an_acknowledgement_it_raises(self) -> None:
        """The error says what to do, and that a copy may arrive."""
        with pytest.raises(KafkaConnectionError, match=r"user_events\.dlq was not acknowledged within 0 s"):
            queue(FakePublisher(None)).send_to_dlq({}, timeout=0)

    def test_a_report_of_failure_becomes_the_error_that_fits(self) -> None:
        """A missing dead letter topic is named."""
        missing = Report(Decision(Action.HOLD, FailedReason.TOPIC_MISSING), code=3, detail="UNKNOWN_TOPIC_OR_PART")
        metrics = Metrics()
        with pytest.raises(TopicNotFoundError, match=r"user_events\.dlq"):
            queue(FakePublisher(missing), metrics).send_to_dlq({})
        assert metrics.get_summary()["dead_letters_by_reason"] == {}

    def test_a_full_queue_is_waited_for(self) -> None:
        """The dead letter goes out as soon as there is room."""
        publisher = FakePublisher(ACKNOWLEDGED, full=3)
        assert queue(publisher).send_to_dlq({}).offset == 7
        with pytest.raises(QueueFullError):
            queue(FakePublisher(ACKNOWLEDGED, full=9)).send_to_dlq({})

    @pytest.mark.parametrize("reason", ["Not a code", "", None, 7])
    def test_a_reason_that_is_no_code_is_refused(self, reason: object) -> None:
        """Before anything is sent."""
        publisher = FakePublisher(ACKNOWLEDGED)
        with pytest.raises(InvalidMetadataError, match="reason"):
            queue(publisher).send_to_dlq({}, reason)  # type: ignore[arg-type]  # wrong on purpose
        assert publisher.records == []

    def test_a_publisher_that_was_handed_in_is_left_open(self) -> None:
        """Its owner closes it."""
        publisher = FakePublisher(ACKNOWLEDGED)
        with queue(publisher) as letters:
            letters.send_to_dlq({})
        assert not publisher.closed

    def test_without_arguments_it_makes_its_own_client_and_closes_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in the guide: settings are found, the client is made at first use."""
        made: list[FakePublisher] = []

        def make(_: Config) -> FakePublisher:
            made.append(FakePublisher(ACKNOWLEDGED))
            return made[-1]

        monkeypatch.setattr("postroom.streaming.kafka_client.KafkaClient", make)
        monkeypatch.setattr("postroom.libs.config_loader.load_config", Config)
        with DeadLetterQueue(metrics=Metrics()) as dlq:
            assert made == []
            assert dlq.send_to_dlq({"a": 1}, reason="validation_failed").topic == "user_events.dlq"
            dlq.send_to_dlq({"a": 2})
            assert len(made) == 1
        assert made[0].closed


def test_the_violations_header_is_json_for_everyone() -> None:
    """Consoles read it without postroom."""
    (found,) = json.loads(headers_of(letter(violations=[BROKEN]))["dlq.violations"])
    assert found == {"path": "device.os", "rule": "wrong_type", "expected": "string", "found": "int"}
