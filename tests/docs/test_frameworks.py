"""The programs in examples/ do what their pages say: each is run, with the framework it is for."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from itertools import islice
from typing import TYPE_CHECKING, Any

import django  # type: ignore[import-untyped]  # Django comes without types
import pytest
from django.conf import settings as django_settings  # type: ignore[import-untyped]  # as above
from fastapi.testclient import TestClient

from postroom import AsyncProducerService, ProducerService, get_service, load_config
from postroom.libs.event import FailedReason, RefusedReason
from postroom.streaming.kafka_client import KafkaClient
from postroom.streaming.kafka_reader import KafkaReader
from postroom.streaming.librdkafka_settings import client_settings
from postroom.testing.recording_service import RecordingService
from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

EVENT = {"user_id": "u1", "timestamp": 1795416182091}


@pytest.fixture
def post() -> Iterator[RecordingService]:
    with RecordingService() as service:
        yield service


# -- consumers


def test_the_consumer_decodes_events_in_fifteen_lines(postroom_stack: LocalStack) -> None:
    from examples import consumer

    topic = f"consumer-{uuid.uuid4().hex[:8]}"
    postroom_stack.create_topic(topic)
    config = load_config(
        overrides={
            "broker": postroom_stack.bootstrap,
            "schema_registry.url": postroom_stack.registry_url,
            "schema_registry.auto_register": True,
            "topics.user_events": topic,
        },
        environ={},
    )
    with KafkaClient(config) as client:
        client.publish({"this record": "is no Avro and must not stop the consumer"})
    with ProducerService(config) as service:
        assert service.publish_many(EVENT | {"timestamp": moment} for moment in range(100)).ok
    reading = consumer.events(postroom_stack.bootstrap, postroom_stack.registry_url, topic, group=topic)
    found = list(islice(reading, 100))
    reading.close()  # type: ignore[attr-defined]  # a generator, as its annotation need not say
    assert sorted(event["timestamp"] for event in found) == list(range(100))
    lines = inspect.getsource(consumer.events).splitlines()
    assert len(lines) <= 15


def test_the_consumer_without_a_registry_decodes_the_same_events(desk: Path) -> None:
    from examples import consumer_without_registry

    with ProducerService() as service:
        ids = [service.publish_event(EVENT | {"timestamp": moment}).event_id for moment in range(100)]
    reading = consumer_without_registry.events(load_config().broker)
    found = dict(islice(reading, 100))
    reading.close()  # type: ignore[attr-defined]  # as above
    assert [found[event_id]["timestamp"] for event_id in ids] == list(range(100))


# -- FastAPI


def test_fastapi_answers_with_what_became_of_the_event(post: RecordingService) -> None:
    from examples.fastapi_app import create_app

    with TestClient(create_app(AsyncProducerService(post))) as client:
        good = client.post("/plays", json=EVENT)
        broken = client.post("/plays", json={"user_id": "u1"})
        no_json = client.post("/plays", content=b"{")
        post.fail_next(RefusedReason.QUEUE_FULL, times=1000)
        busy = client.post("/plays", json=EVENT)
        post.clear()
        post.fail_next(FailedReason.KAFKA_UNAVAILABLE)
        away = client.post("/plays", json=EVENT, headers={"Idempotency-Key": "order-17"})
        again = client.post("/plays", json=EVENT, headers={"Idempotency-Key": "order-17"})
        assert [one.event_id for one in post.published] == ["order-17"]
    assert good.status_code == 201
    assert broken.status_code == 422
    assert broken.json()["violations"] == ["timestamp: missing_field, expected long, found absent"]
    assert (no_json.status_code, no_json.json()["reason"]) == (422, "decode_failed")
    assert (busy.status_code, busy.json()["reason"], int(busy.headers["Retry-After"])) == (503, "queue_full", 2)
    assert (away.status_code, away.json()["event_id"]) == (503, "order-17")
    assert again.status_code == 201


def test_fastapi_publishes_to_a_broker(desk: Path) -> None:
    from examples.fastapi_app import create_app

    with TestClient(create_app(AsyncProducerService())) as client:
        assert client.post("/plays", json=EVENT).status_code == 201
    assert len(list(KafkaReader(client_settings(load_config())).read(["user_events"]))) == 1


# -- Django


@pytest.fixture(scope="module")
def plays() -> Iterator[Any]:
    """The example's module, with a database in memory that has its table."""
    if not django_settings.configured:
        django_settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            DEFAULT_CHARSET="utf-8",
        )
        django.setup()
    from django.db import connection  # type: ignore[import-untyped]  # as above
    from examples import django_app

    with connection.schema_editor() as editor:
        editor.create_model(django_app.Play)
    yield django_app
    connection.close()


def request(body: dict[str, Any]) -> Any:
    from django.test import RequestFactory  # type: ignore[import-untyped]  # as above

    return RequestFactory().post("/plays", data=json.dumps(body), content_type="application/json")


def test_django_publishes_when_the_row_is_committed(
    plays: Any, post: RecordingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plays, "get_service", lambda: post)
    answer = plays.start_play(request(EVENT))
    assert answer.status_code == 201
    (published,) = post.published
    assert published.event_id == json.loads(answer.content)["id"]
    assert published.event["action"] == "start"


def test_django_publishes_nothing_for_a_row_that_is_rolled_back(
    plays: Any, post: RecordingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import transaction

    monkeypatch.setattr(plays, "get_service", lambda: post)

    def rolled_back() -> None:
        with transaction.atomic():
            plays.start_play(request(EVENT))
            raise ZeroDivisionError

    rows = plays.Play.objects.count()
    with pytest.raises(ZeroDivisionError):
        rolled_back()
    assert plays.Play.objects.count() == rows
    assert post.published == []


def test_django_keeps_the_row_when_the_publishing_raises(plays: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a commit and a publish cannot promise each other: the row is there, the event is not."""
    closed = RecordingService()
    closed.close()
    monkeypatch.setattr(plays, "get_service", lambda: closed)
    rows = plays.Play.objects.count()
    assert plays.start_play(request(EVENT)).status_code == 201
    assert plays.Play.objects.count() == rows + 1


def test_django_publishes_to_a_broker_with_the_service_of_the_process(plays: Any, desk: Path) -> None:
    try:
        assert plays.start_play(request(EVENT)).status_code == 201
    finally:
        get_service().close()
    assert len(list(KafkaReader(client_settings(load_config())).read(["user_events"]))) == 1


# -- Celery


@pytest.fixture
def tasks(post: RecordingService, monkeypatch: pytest.MonkeyPatch) -> Any:
    from examples import celery_app

    monkeypatch.setattr(celery_app, "get_service", lambda: post)
    return celery_app


def test_a_celery_task_ends_when_its_event_is_safe(tasks: Any, post: RecordingService) -> None:
    assert tasks.publish_play.apply(args=(EVENT, "play-1")).get() == "Delivered"
    assert tasks.publish_play.apply(args=({"user_id": "u1"}, "play-2")).get() == "DeadLettered"
    assert [one.event_id for one in post.published] == ["play-1"]


def test_a_celery_task_is_tried_again_under_the_same_id(tasks: Any, post: RecordingService) -> None:
    post.fail_next(times=2)
    assert tasks.publish_play.apply(args=(EVENT, "play-3")).get() == "Delivered"
    assert [one.event_id for one in post.published] == ["play-3"]


def test_a_prefork_worker_publishes_from_its_children(desk: Path) -> None:
    """A real Celery worker with two processes, which is stopped as soon as its tasks are done."""
    from examples.celery_app import publish_play

    mail = desk / "mail"
    for folder in ("in", "control"):
        (mail / folder).mkdir(parents=True)
    transport = {"data_folder_in": str(mail / "in"), "data_folder_out": str(mail / "in"),
                 "control_folder": str(mail / "control")}  # fmt: skip
    (desk / "worker.py").write_text(
        "from examples.celery_app import app\n"
        f"app.conf.update(broker_url='filesystem://', broker_transport_options={transport!r})\n"
    )
    app = publish_play.app
    app.conf.update(broker_url="filesystem://", broker_transport_options=transport)
    for number in range(20):
        publish_play.delay(EVENT | {"timestamp": number}, f"task-{number}")
    words = ["-A", "worker:app", "worker", "--pool", "prefork", "-c", "2", "--without-gossip", "--without-mingle"]
    with subprocess.Popen(
        [sys.executable, "-m", "celery", *words],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{desk}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            found = _until_there_are(20)
        finally:
            worker.send_signal(signal.SIGTERM)
            _, said = worker.communicate(timeout=60)
    assert found == {f"task-{number}" for number in range(20)}
    assert worker.returncode == 0, said


def _until_there_are(count: int) -> set[str]:
    """The ids of the events in the topic, once there are so many (or after a minute)."""
    reader = KafkaReader(client_settings(load_config()))
    end = time.monotonic() + 60
    found: set[str] = set()
    for record in reader.follow(
        ["user_events"], from_beginning=True, stop=lambda: len(found) >= count or time.monotonic() > end
    ):
        found.add((dict(record.headers)["ce_id"] or b"").decode())
    return found


# -- the outbox


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    from examples.outbox import TABLES

    connection = sqlite3.connect(tmp_path / "plays.db")
    connection.executescript(TABLES)
    yield connection
    connection.close()


def waiting(db: sqlite3.Connection) -> int:
    (count,) = db.execute("SELECT count(*) FROM outbox").fetchone()
    return int(count)


def test_the_outbox_publishes_what_was_committed_in_order(db: sqlite3.Connection, post: RecordingService) -> None:
    from examples.outbox import relay, start_play

    for moment in range(10):
        start_play(db, "u1", moment)
    assert relay(db, post) == 10
    assert [one.event["timestamp"] for one in post.published] == list(range(10))
    assert waiting(db) == 0


def test_the_outbox_keeps_an_event_until_it_is_safe(db: sqlite3.Connection, post: RecordingService) -> None:
    from examples.outbox import relay, start_play

    start_play(db, "u1", 1)
    post.fail_next()
    assert relay(db, post) == 0
    assert waiting(db) == 1
    assert relay(db, post) == 1
    assert len(post.published) == 1


def test_an_outbox_relay_that_dies_after_publishing_repeats_under_the_same_id(
    db: sqlite3.Connection, post: RecordingService
) -> None:
    from examples.outbox import relay, start_play

    start_play(db, "u1", 1)
    db.execute("CREATE TRIGGER die BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'killed here'); END")
    with pytest.raises(sqlite3.IntegrityError):
        relay(db, post)
    db.execute("DROP TRIGGER die")
    assert relay(db, post) == 1
    first, second = post.published
    assert first.event_id == second.event_id


def test_the_asyncio_face_is_the_same_service(post: RecordingService) -> None:
    outcome = asyncio.run(AsyncProducerService(post).publish_event(EVENT))
    assert outcome.is_safe
    assert post.published[0].event["user_id"] == "u1"
