"""The reason and the remedy of a trouble with Kafka are told where people look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.event import Spooled
from tests.faults.conftest import new_topic
from tests.faults.post import Post, Said, until
from tests.faults.secured import Authority, Secured
from tests.faults.test_security import secured
from tests.faults.test_topics import delete

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

__all__ = ["secured"]  # the fixture


def loud(said: Said) -> str:
    """What an operator reads who leaves the level of the logs as it is."""
    return "\n".join(str(line) for line in said.loud())


@pytest.mark.parametrize("which", ["tls_expired", "tls_elsewhere", "tls_good with a foreign authority"])
def test_a_refused_certificate_is_told_with_the_reason(
    secured: Secured, spool: Path, tmp_path: Path, said: Said, which: str
) -> None:
    """Row 17: the client library says `certificate verify failed`; the log of postroom says `_SSL` or `_TRANSPORT`."""
    listener, _, foreign = which.partition(" ")
    trusted = Authority(tmp_path, "stranger").file if foreign else secured.authority.file
    settings: dict[str, Any] = {"producer__security__protocol": "SSL", "producer__security__ssl_ca": str(trusted)}
    with Post(secured.tls[listener], "events", spool, **settings) as post:
        assert set(map(type, post.outcomes(post.publish(5), 15))) == {Spooled}
        assert "certificate verify failed" in said.text()
        detail = post.health()["components"]["kafka_client"]["detail"]
    assert "certificate" in loud(said), loud(said)
    assert "certificate" in detail or "_SSL" in detail, detail


def test_a_wrong_password_is_what_readiness_names(secured: Secured, spool: Path, said: Said) -> None:
    """Row 16: `_ALL_BROKERS_DOWN` takes the place of `_AUTHENTICATION`, which came first and says more."""
    with Post(secured.sasl, "events", spool, **secured.login("wrong")) as post:
        assert set(map(type, post.outcomes(post.publish(5), 15))) == {Spooled}
        assert "_AUTHENTICATION" in said.text()
        detail = post.health()["components"]["kafka_client"]["detail"]
    assert "_AUTHENTICATION" in detail, detail


def test_the_line_about_a_missing_topic_says_what_to_do(stack: LocalStack, spool: Path, said: Said) -> None:
    """Row 11: `/readyz` says it, the log names the topic only."""
    topic = new_topic(stack)
    delete(stack, topic)
    with Post(stack.bootstrap, topic, spool) as post:
        post.publish(5)
        until(lambda: post.state() == "spooling", f"it is {post.state()}")
        lines = said.events("path_closed", topic=topic, error="topic_missing")
        stack.create_topic(topic)
    assert "postroom topics create" in str(lines), lines
