"""A broker that throttles its clients: callers feel it, and nothing is given up for it."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.post import Judgement, Post, Said, pause, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

ALTER_CLIENT_QUOTAS = 49
CLIENT = "throttled"


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def set_producer_quota(address: str, client_id: str, bytes_per_second: float | None) -> None:
    """Ask the broker to let this client write so much and no more; None ends it. By hand: no client of ours can."""
    entity = struct.pack(">i", 1) + _text("client-id") + _text(client_id)
    change = _text("producer_byte_rate") + struct.pack(">d?", bytes_per_second or 0.0, bytes_per_second is None)
    body = struct.pack(">i", 1) + entity + struct.pack(">i", 1) + change + b"\0"
    request = struct.pack(">hhi", ALTER_CLIENT_QUOTAS, 0, 7) + _text("tests") + body
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as broker:
        broker.sendall(struct.pack(">i", len(request)) + request)
        answer = broker.makefile("rb")
        size = struct.unpack(">i", answer.read(4))[0]
        told = answer.read(size)
    correlation, _, entries, error = struct.unpack_from(">iiih", told)
    assert (correlation, entries, error) == (7, 1, 0), told


@pytest.fixture
def quota(stack: LocalStack) -> Iterator[None]:
    """Forty kilobytes a second."""
    address = stack.broker(1)._internal
    set_producer_quota(address, CLIENT, 40_000)
    yield
    set_producer_quota(address, CLIENT, None)


@pytest.mark.usefixtures("quota")
def test_a_throttled_producer_presses_back_on_its_callers_and_times_nothing_out(
    stack: LocalStack, topic: str, spool: Path, said: Said
) -> None:
    """Row 18: a queue of bounded size, callers who wait for room, every event delivered once."""
    settings: dict[str, Any] = {
        "producer__client_id": CLIENT,
        "producer__queue_max_messages": 100,
        "producer__compression": "none",
    }
    with Post(stack.bootstrap, topic, spool, **settings) as post:
        most = 0
        with post.load(1_000, extra={"session_id": "s" * 800}) as load:
            until(lambda: load.longest_call_s > 1.0, "nobody has to wait for long")
            end = time.monotonic() + 4.0
            while time.monotonic() < end:
                most = max(most, post.publisher.in_flight())
                pause(0.02)
        assert said.events("broker_throttles"), "the broker does not throttle"
        handed_in = len(post.receipts)
        post.settle(60)
        assert 90 <= most <= 101
        assert handed_in < 4_000, "callers went on at their own pace"
        assert post.path().hand_overs == 0
        assert post.kinds() == {"Delivered": handed_in}
        assert not post.errors()
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert not judgement.repeated


@pytest.mark.usefixtures("quota")
@pytest.mark.timeout(240)
def test_more_than_a_throttled_broker_takes_in_time_is_not_sent_twice(
    stack: LocalStack, topic: str, spool: Path, said: Said
) -> None:
    """Row 18: no cascade of timeouts. What is ready at once takes the broker longer than our patience."""
    settings: dict[str, Any] = {"producer__client_id": CLIENT, "producer__compression": "none"}
    with Post(stack.bootstrap, topic, spool, **settings) as post:
        post.publish(1_400, extra={"session_id": "s" * 800})
        post.settle(120)
        assert said.events("broker_throttles"), "the broker does not throttle"
        assert post.service.ledger.latency().longest_s > post.config.hand_over_after_s
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert len(judgement.entries) == len(judgement.ids), "copies that nobody needed"
    assert post.path().hand_overs == 0
