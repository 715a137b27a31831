"""Row 14: records and batches that are too large for the broker. The event at fault alone becomes a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.event import DeadLettered, DeadLetterReason
from tests.faults.conftest import new_topic
from tests.faults.post import Judgement, Post, Said, until
from tests.faults.test_topics import noise

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack


def test_a_record_too_large_for_the_broker_becomes_a_dead_letter_alone(stack: LocalStack, spool: Path) -> None:
    """Row 14: its neighbours in the same batch are delivered, and its dead letter fits."""
    topic = new_topic(stack, partitions=1, max_message_bytes="20000")
    with Post(stack.bootstrap, topic, spool, producer__linger_ms=200) as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        post.publish(10)
        [large] = post.publish(1, extra={"session_id": noise(60_000)})
        post.publish(10)
        post.settle()
        outcome = large.result(0)
        assert isinstance(outcome, DeadLettered)
        assert outcome.reason == DeadLetterReason.MESSAGE_TOO_LARGE
        assert post.errors()["msg_size_too_large"] >= 1
        assert post.kinds() == {"Delivered": 40, "DeadLettered": 1}
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert judgement.dead_ids == {large.event_id: 1}


def test_events_that_fit_alone_are_delivered_although_their_batch_is_too_large_for_the_broker(
    stack: LocalStack, spool: Path, said: Said
) -> None:
    """Row 14: the broker's limit is one for batches; what is at fault is the batch then, and no event."""
    topic = new_topic(stack, partitions=1, max_message_bytes="20000")
    with Post(stack.bootstrap, topic, spool, producer__linger_ms=200) as post:
        assert post.kinds(post.publish(20)) == {"Delivered": 20}
        for number in range(40):
            post.publish(1, extra={"session_id": noise(2_000, number)})
        post.settle()
        assert said.events("batch_refused", error="MSG_SIZE_TOO_LARGE"), "no batch was too large"
        assert post.kinds() == {"Delivered": 60}
    Judgement(stack.bootstrap, topic).check(post)


def test_a_record_too_large_for_the_broker_that_comes_out_of_the_spool_holds_up_no_other(
    stack: LocalStack, spool: Path, said: Said
) -> None:
    """Row 14: during a drain, alone and in the middle of others."""
    topic = new_topic(stack, partitions=1, max_message_bytes="20000")
    stack.broker(1).pause()
    with Post(stack.bootstrap, topic, spool) as post:
        post.publish(10)
        until(lambda: post.state() == "spooling", "it does not spool")
        [large] = post.publish(1, extra={"session_id": noise(60_000)})
        post.publish(10)
        assert post.kinds() == {"Spooled": 21}
        stack.broker(1).resume()
        post.settle()
        assert (post.balance.delivered, post.balance.dead_lettered) == (20, 1)
        assert post.errors()["msg_size_too_large"] >= 1
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert judgement.dead_ids == {large.event_id: 1}
