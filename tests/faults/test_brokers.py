"""All brokers die and come back: what is not acknowledged goes to the spool, and comes out of it by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from postroom.libs.event import Spooled
from tests.faults.post import Judgement, Post, Said, connected, is_ready, pause, until

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack


def test_after_a_long_freeze_the_first_record_from_the_spool_follows_the_thaw_by_five_seconds(
    stack: LocalStack, topic: str, spool: Path, said: Said
) -> None:
    """Row 3: the connection stays up, so that nothing but a probe tells that the broker is there again."""
    with Post(stack.bootstrap, topic, spool) as post:
        assert post.kinds(post.publish(200)) == {"Delivered": 200}
        stack.broker(1).pause()
        with post.load(50):
            until(lambda: post.state() == "spooling", f"the path is {post.state()}")
            until(lambda: len(said.events("probe_failed")) >= 1, "no probe has failed")
            pause(4.0)
            drained = post.balance.drained
            stack.broker(1).resume()
            back_at = time.monotonic()
            until(lambda: post.balance.drained > drained, "nothing was drained")
            first_drained_s = time.monotonic() - back_at
        post.settle()
    print({"first drained after, s": round(first_drained_s, 2), "drained": post.balance.drained})  # noqa: T201
    assert first_drained_s < 5
    Judgement(stack.bootstrap, topic).check(post)
    assert post.kinds()["Failed"] == 0


def test_all_brokers_dead_the_path_spools_in_two_seconds_and_drains_five_seconds_after_their_return(
    stack: LocalStack, topic: str, spool: Path, said: Said
) -> None:
    """Rows 2 and 9: what was handed in while no connection was up was never sent, and carries no mark."""
    with Post(stack.bootstrap, topic, spool) as post:
        assert post.kinds(post.publish(200)) == {"Delivered": 200}
        with post.load(200):
            stack.broker(1).kill()
            until(lambda: connected(post) is False, "the connection stands")
            gone_at = time.monotonic()
            until(lambda: post.state() == "spooling", f"the path is {post.state()}")
            assert time.monotonic() - gone_at < 2.5
            during = [post.publish(1, prefix="beside")[0] for _ in range(50)]
            assert {type(one) for one in post.outcomes(during, 2.0)} == {Spooled}
            pause(3.0)
            assert said.events("path_spools", topic=topic)
            assert not stack.broker(1).running
            assert is_ready(post), post.health()
            stack.broker(1).start(wait=False)
            until(lambda: connected(post), "no connection")
            back_at = time.monotonic()
            until(lambda: post.balance.drained, "nothing was drained")
            first_drained_s = time.monotonic() - back_at
        post.settle()
        until(lambda: post.state() == "direct", f"the path is {post.state()}")
    print({"first drained after, s": round(first_drained_s, 2), "drained": post.balance.drained})  # noqa: T201
    assert first_drained_s < 5
    judgement = Judgement(stack.bootstrap, topic)
    judgement.check(post)
    assert post.kinds()["Failed"] == 0
    assert not {receipt.event_id for receipt in during} & judgement.marked
