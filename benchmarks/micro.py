"""Single steps of the pipeline, measured by themselves: they say where to look, they do not add up."""

from __future__ import annotations

import json
import threading
import time
from io import BytesIO
from typing import TYPE_CHECKING, Any

import fastavro
import msgspec
from fastavro.validation import validate

from benchmarks.workload import contract, event_pool
from postroom.libs.event import Delivered, EventIds
from postroom.observability.histogram import Histogram
from postroom.schemas.avro_codec import frame
from postroom.schemas.json_reader import from_json, read_json
from postroom.services.ledger import Book
from postroom.services.receipt import Receipt
from postroom.streaming.rate_limiter import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FAST_ENOUGH_TO_NEVER_WAIT = 1e9


def measure_steps(count: int) -> dict[str, float]:
    """Return CPU microseconds for one call of each step, over `count` calls; the loop around it is about 0.03 us."""
    events = event_pool(count)
    texts = [msgspec.json.encode(event) for event in events]
    of_event: dict[str, Callable[[Any], object]] = _codec_steps()
    figures = {name: _per_call(step, events) for name, step in of_event.items()}
    figures |= {name: _per_call(step, texts) for name, step in _json_steps().items()}
    ids = [f"{number:036d}" for number in range(count)]
    figures |= {name: _per_call(step, ids) for name, step in _account_steps().items()}
    return figures


def _per_call(step: Callable[[Any], object], arguments: Sequence[object]) -> float:
    for argument in arguments[:100]:
        step(argument)
    began = time.process_time_ns()
    for argument in arguments:
        step(argument)
    return (time.process_time_ns() - began) / len(arguments) / 1_000


def _codec_steps() -> dict[str, Callable[[Any], object]]:
    schema, codec, prefix = fastavro.parse_schema(contract().schema), contract().codec, frame(1)
    encode, write = codec.encode, fastavro.schemaless_writer

    def fastavro_encode(event: dict[str, Any]) -> bytes:
        body = BytesIO()
        body.write(prefix)
        write(body, schema, event)
        return body.getvalue()

    return {
        "postroom: strict check and Avro, one generated function": lambda event: encode(event, prefix),
        "fastavro.schemaless_writer: Avro without a check": fastavro_encode,
        "fastavro.validate, raise_errors=False: a check without Avro": lambda event: validate(
            event, schema, raise_errors=False
        ),
        "fastavro.validate as it comes": lambda event: validate(event, schema),
    }


def _json_steps() -> dict[str, Callable[[Any], object]]:
    user_event = contract()
    return {
        "postroom: read_json + from_json (strict JSON, read by the contract)": lambda text: from_json(
            user_event, read_json(text)
        ),
        "json.loads: for comparison": json.loads,
    }


def _account_steps() -> dict[str, Callable[[Any], object]]:
    book, ids, histogram = Book("user_events", threading.Lock(), Histogram()), EventIds(), Histogram()
    unlimited, limited = RateLimiter(), RateLimiter(_FAST_ENOUGH_TO_NEVER_WAIT)
    outcome = Delivered("user_events", 0, 0)

    def receipt(event_id: str) -> None:
        Receipt(event_id).resolve(outcome)

    def entry(event_id: str) -> None:
        one = Receipt(event_id)
        book.receive(one)
        book.deliver(one, 0.005)

    return {
        "event id, UUID version 7": lambda _: ids.next(),
        "rate limiter, no limit set": lambda _: unlimited.acquire(),
        "rate limiter, limit set and not reached": lambda _: limited.acquire(),
        "receipt: made and resolved": receipt,
        "receipt made, received and delivered in the ledger": entry,
        "latency histogram": lambda _: histogram.observe(0.005),
    }
