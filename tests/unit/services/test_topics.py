"""Topics that a service creates exist at its start or once Kafka is there; what Kafka says against it is told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.exceptions import AuthorizationError, KafkaConnectionError
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.services.topics import TopicsInTime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.streaming.kafka_admin import TopicSpec

CLICKS = contract_from_short_form("clicks", {"user_id": "string"}, key_field="user_id")
AWAY, FORBIDDEN = KafkaConnectionError("nobody answers"), AuthorizationError("no")


class Cluster:
    """Answers each try with the next of its answers; None is yes."""

    def __init__(self, *answers: Exception | None, embedded: bool = False) -> None:
        self._answers = list(answers)
        self._embedded = embedded
        self.created: list[str] = []
        self.is_asked_for_the_last_time = threading.Event()

    def __call__(self, _settings: object, *, timeout_s: float) -> Any:
        assert timeout_s > 0
        return self

    def is_embedded(self) -> bool:
        return self._embedded

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        answer = self._answers.pop(0)
        if not self._answers:
            self.is_asked_for_the_last_time.set()
        if answer is not None:
            raise answer
        self.created = [spec.name for spec in specs]


def topics_on(cluster: Cluster) -> TopicsInTime:
    return TopicsInTime([CLICKS], load_config(environ={}), make_admin=cluster, again_s=(0.0,))


def test_where_kafka_is_there_they_exist_when_the_start_returns() -> None:
    cluster = Cluster(None)
    topics = topics_on(cluster)
    topics.start()
    assert (cluster.created, topics.waiting_for) == (["clicks", "clicks.dlq"], "")
    topics.stop()


def test_where_it_is_away_they_are_created_later_whatever_it_says_in_between() -> None:
    cluster = Cluster(AWAY, AWAY, FORBIDDEN, RuntimeError(), None)
    topics = topics_on(cluster)
    topics.start()
    assert cluster.is_asked_for_the_last_time.wait(30)
    topics.stop()
    assert (cluster.created, topics.waiting_for) == (["clicks", "clicks.dlq"], "")


def test_what_kafka_says_against_it_at_the_start_stops_the_start() -> None:
    with pytest.raises(AuthorizationError):
        topics_on(Cluster(FORBIDDEN)).start()


def test_an_embedded_broker_is_asked_for_nothing() -> None:
    topics = topics_on(Cluster(embedded=True))
    topics.start()
    assert not topics.waiting_for
