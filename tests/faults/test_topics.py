"""Topics that are missing, remade, changed or too narrow for a record."""

from __future__ import annotations

import time
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from postroom.libs.event import DeadLettered, DeadLetterReason, Delivered, Spooled
from tests.faults.conftest import new_topic
from tests.faults.post import Judgement, Post, Said, is_ready, pause, until

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack
    from tests.chaos.topic_logs import Entry


def admin_of(stack: LocalStack) -> AdminClient:
    return AdminClient({"bootstrap.servers": stack.bootstrap, "log_level": 0})


def exists(stack: LocalStack, topic: str) -> bool:
    return topic in admin_of(stack).list_topics(timeout=10).topics


def delete(stack: LocalStack, *topics: str) -> None:
    admin = admin_of(stack)
    for answer in admin.delete_topics(list(topics)).values():
        answer.result(20)
    until(lambda: not any(exists(stack, topic) for topic in topics), "the topic is still there")


def noise(size: int, salt: int = 0) -> str:
    """Text that no compression makes much smaller."""
    import random

    return random.Random(salt).randbytes(size // 2).hex()


def test_a_missing_topic_is_named_with_its_remedy_and_its_events_wait_for_it(
    stack: LocalStack, spool: Path, said: Said
) -> None:
    """Row 11."""
    topic = new_topic(stack)
    delete(stack, topic)
    with Post(stack.bootstrap, topic, spool) as post:
        receipts = post.publish(30)
        assert not exists(stack, topic)
        assert set(map(type, post.outcomes(receipts, 20))) == {Spooled}
        assert not is_ready(post)
        paths = post.health()["components"]["paths"]
        assert topic in paths["detail"]
        assert "postroom topics create" in paths["detail"]
        assert said.events("path_closed", topic=topic, error="topic_missing")
        since = time.monotonic()
        pause(4.0)
        assert len([line for line in said.loud() if line["at"] > since and topic in str(line)]) <= 2
        assert not exists(stack, topic), "it was created behind the operator's back"
        stack.create_topic(topic, partitions=3)
        post.settle()
        assert is_ready(post)
        assert post.kinds(post.publish(10)) == {"Delivered": 10}
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert post.balance.dead_lettered == 0


@pytest.mark.parametrize("away_s", [0.5, 8.0], ids=["for a moment", "for longer than the client believes in it"])
def test_a_topic_that_is_deleted_and_made_again_while_events_come_in_leaves_the_books_equal(
    stack: LocalStack, topic: str, spool: Path, said: Said, away_s: float
) -> None:
    """Row 12: what is told delivered or spooled after the old topic is gone stands in the new one."""
    with Post(stack.bootstrap, topic, spool) as post:
        assert post.kinds(post.publish(60)) == {"Delivered": 60}
        with post.load(200):
            pause(0.5)
            delete(stack, topic)
            with_it = {name for name, one in list(post.receipts.items()) if isinstance(one.outcome, Delivered)}
            pause(away_s)
            assert not exists(stack, topic)
            assert (post.state() == "spooling") is (away_s > 5), said.text()[-2_000:]
            stack.create_topic(topic, partitions=3)
            made = len(post.receipts)
            until(lambda: post.state() == "direct" and len(post.receipts) > made + 300, "it does not recover", 60)
        post.settle(60)
    judgement = Judgement(stack.bootstrap, topic)
    safe = {name for name, receipt in post.receipts.items() if receipt.result(0).is_safe}
    gone = safe - set(judgement.ids)
    assert len(gone) >= 60, "the old topic is still there"
    assert not gone - with_it, sorted(gone - with_it)[:5]
    judgement.check(post, waiting=gone)
    assert post.balance.dead_lettered == 0
    assert post.kinds()["Failed"] == 0


def test_partitions_added_live_lose_nothing_and_a_key_moves_once(stack: LocalStack, spool: Path) -> None:
    """Row 13: the order of a key holds in each partition, and all of the old one comes before all of the new one."""
    topic = new_topic(stack, partitions=2)
    refreshing: dict[str, Any] = {"producer__librdkafka__topic.metadata.refresh.interval.ms": "1000"}
    with Post(stack.bootstrap, topic, spool, **refreshing) as post:
        assert post.kinds(post.publish(60)) == {"Delivered": 60}
        with post.load(300):
            pause(0.5)
            admin = admin_of(stack)  # held in a name: the answer never comes once the client is collected
            admin.create_partitions([NewPartitions(topic, 6)])[topic].result(20)
            until(lambda: len({one.outcome.partition for one in list(post.receipts.values())
                               if isinstance(one.outcome, Delivered)}) > 2, "the new ones are not used")  # fmt: skip
            pause(0.5)
        post.settle()
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert not judgement.repeated
    places: defaultdict[bytes | None, list[Entry]] = defaultdict(list)
    for entry in judgement.entries:
        places[entry.key].append(entry)
    moved = 0
    for entries in places.values():
        in_order = sorted(entries, key=lambda entry: int(entry.event_id.partition(":")[2]))
        partitions = list(dict.fromkeys(entry.partition for entry in in_order))
        changes = sum(a.partition != b.partition for a, b in pairwise(in_order))
        assert changes == len(partitions) - 1 <= 1
        moved += changes
    assert moved, "no key moved: nothing was shown"


def test_a_record_above_the_limit_of_the_client_is_a_dead_letter_that_fits(
    stack: LocalStack, topic: str, spool: Path
) -> None:
    """Row 14: refused on this machine, before anything is sent."""
    with Post(stack.bootstrap, topic, spool, producer__max_message_bytes=20_000) as post:
        post.publish(5)
        [large] = post.publish(1, extra={"session_id": noise(60_000)})
        post.publish(5)
        post.settle()
        outcome = large.result(0)
        assert isinstance(outcome, DeadLettered)
        assert outcome.reason == DeadLetterReason.MESSAGE_TOO_LARGE
        assert post.errors()["msg_size_too_large"] == 1
        assert post.kinds() == {"Delivered": 10, "DeadLettered": 1}
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert len(judgement.dead[0].value or b"") < 20_000


def test_a_topic_that_will_refuse_what_may_be_sent_is_told_of_after_the_start(
    stack: LocalStack, spool: Path, said: Said
) -> None:
    """Row 14: before the first event is refused. The packaged contract names a key that every event has."""
    topic = new_topic(stack, cleanup_policy="compact", max_message_bytes="20000")
    fine = new_topic(stack)
    with Post(stack.bootstrap, topic, spool) as post, Post(stack.bootstrap, fine, None) as other:
        until(lambda: said.events("topic_unfit"), "nobody says so")
        [line] = said.events("topic_unfit")
        assert (line["topic"], line["level"]) == (topic, "warning")
        assert "max.message.bytes is 20000" in line["detail"]
        part = post.health()["components"]["topics"]
        assert part["state"] == "degraded"
        assert topic in part["detail"]
        assert is_ready(post)
        assert other.health()["components"]["topics"]["state"] == "ok"
