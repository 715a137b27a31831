"""Dead letters that cannot go where they belong, and records that fail for ever: the others go on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not re-exported
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from postroom.libs.event import Delivered, Spooled
from tests.faults.conftest import new_topic
from tests.faults.post import Judgement, Post, Said, until
from tests.faults.test_topics import admin_of, exists, noise

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack


def broken(post: Post, count: int, *, size: int = 0, begin: int = 0) -> list[str]:
    """Hand in events that break their contract; return their ids."""
    names = [f"broken:{begin + number}" for number in range(count)]
    for name in names:
        post.hand_in({"user_id": "broken", "session_id": noise(size) if size else None}, name)
    return names


def set_limit(stack: LocalStack, topic: str, limit: int) -> None:
    admin = admin_of(stack)
    entry = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(20)


def test_without_a_topic_for_dead_letters_they_wait_in_their_own_queue_and_hold_up_nobody(
    stack: LocalStack, spool: Path, said: Said
) -> None:
    """Row 39."""
    topic = new_topic(stack, dead_letters=False)
    with Post(stack.bootstrap, topic, spool) as post:
        post.publish(20)
        names = broken(post, 10)
        outcomes = post.outcomes([post.receipts[name] for name in names], 20)
        assert not exists(stack, f"{topic}.dlq")
        assert {(type(one), one.dead_letter) for one in outcomes if isinstance(one, Spooled)} == {
            (Spooled, "validation_failed")
        }
        assert said.events("path_closed", topic=f"{topic}.dlq", error="topic_missing")
        assert post.service.parts.spooling is not None
        status = post.service.parts.spooling.spool.status().slots[0]
        assert (status.records.records, status.dead_letters.records) == (0, 10)

        began = time.monotonic()
        beside = post.publish(50)
        assert set(map(type, post.outcomes(beside, 5))) == {Delivered}
        assert time.monotonic() - began < 2.0
        assert post.state() == "direct"
        assert post.path().hand_overs == 0

        stack.create_topic(f"{topic}.dlq", partitions=1)
        post.settle()
        assert post.balance.dead_lettered == 10
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert set(judgement.dead_ids) == set(names)


def test_a_dead_letter_that_its_topic_refuses_stays_in_the_spool_and_holds_up_no_other(
    stack: LocalStack, spool: Path, said: Said
) -> None:
    """Row 39: too big for the topic. It stays until a start finds that it fits."""
    topic = new_topic(stack)
    set_limit(stack, f"{topic}.dlq", 3_000)
    with Post(stack.bootstrap, topic, spool) as post:
        [large] = broken(post, 1, size=20_000)
        assert isinstance(post.receipts[large].result(20), Spooled)
        until(lambda: said.events("dead_letter_rejected", event_id=large), "the broker took it")
        small = broken(post, 5, begin=1)
        post.publish(30)
        until(lambda: post.balance.delivered == 30, f"{post.balance}")
        until(lambda: post.balance.dead_lettered == 5, f"{post.balance}")
        assert post.balance.spooled == 1
    assert set(Judgement(stack.bootstrap, topic).dead_ids) == set(small)
    set_limit(stack, f"{topic}.dlq", 1_000_000)
    with Post(stack.bootstrap, topic, spool) as later:
        until(lambda: later.balance.dead_lettered == 1, f"{later.balance}")
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert judgement.dead_ids == dict.fromkeys([*small, large], 1)
