"""The programs in examples/ do what their pages say: each is run, with the framework it is for."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import signal
import sqlite3
import sys
import time
import uuid
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import django  # type: ignore[import-untyped]  # Django comes without types
import httpx
import pytest
from django.conf import settings as django_settings  # type: ignore[import-untyped]  # as above
from fastapi.testclient import TestClient

from postroom import AsyncProducerService, ProducerService, get_service, load_config
from postroom.libs.event import FailedReason, RefusedReason
from postroom.streaming.kafka_client import KafkaClient
from postroom.streaming.kafka_reader import KafkaReader
from postroom.streaming.librdkafka_settings import client_settings
from postroom.testing.recording_service import RecordingService
from tests.chaos.spool_files import read_spool
from tests.docs.pages import ROOT
from tests.kafka.programs import Kafka, Process, living_of, until
from tests.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    with CeleryWorker(desk, {}) as worker:
        worker.enqueue(20)
        assert _until_there_are(20) == {f"task-{number}" for number in range(20)}
        worker.process.signal(signal.SIGTERM)
        worker.process.ends()


class CeleryWorker:
    """A worker of the example with two processes; its mail goes through files."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        from examples.celery_app import publish_play

        self._task = publish_play
        self._mail, self._outgoing, control = (folder / name for name in ("mail", "outgoing", "control"))
        for one in (self._mail, self._outgoing, control):
            one.mkdir()
        settings = {"data_folder_in": str(self._mail), "data_folder_out": str(self._mail),
                    "control_folder": str(control), "polling_interval": 0.1}  # fmt: skip
        (folder / "worker.py").write_text(
            "import os, signal\n"
            "from examples.celery_app import app\n"
            f"app.conf.update(broker_url='filesystem://', broker_transport_options={settings!r})\n"
            "@app.task(name='die')\n"
            "def die():\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        publish_play.app.conf.update(broker_url="memory://")
        self._connection = publish_play.app.connection_for_write(
            "filesystem://", transport_options={**settings, "data_folder_out": str(self._outgoing)}
        )
        words = ["-A", "worker:app", "worker", "--pool", "prefork", "-c", "2", "--without-gossip", "--without-mingle"]
        self.process = Process(
            [sys.executable, "-m", "celery", *words],
            folder=folder,
            environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", **environment},
        )
        self.enqueued = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.release()
        self.process.__exit__(*error)

    def children(self) -> set[int]:
        """The numbers of the processes that there are."""
        return {int(row.split()[0]) for row in living_of(self.process.pid)} - {self.process.pid}

    def enqueue(self, count: int) -> None:
        """Hand in so many tasks more."""
        for number in range(self.enqueued, self.enqueued + count):
            arguments = (EVENT | {"timestamp": number}, f"task-{number}")
            self._task.apply_async(arguments, connection=self._connection)
        self.enqueued += count
        self._send()

    def have_one_killed(self) -> None:
        """Hand in a task in which its process is killed: one that waits for a task would hold the pool's own lock."""
        self._task.app.send_task("die", connection=self._connection)
        self._send()

    def _send(self) -> None:
        for letter in self._outgoing.iterdir():  # Celery writes in place, and reads what is half written
            letter.rename(self._mail / letter.name)


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


# -- real workers with a spool, and a Kafka that comes late


@pytest.fixture
def kafka(tmp_path: Path, postroom_stack: LocalStack, postroom_topic: str) -> Iterator[Kafka]:
    """A real Kafka that is away at first; the settings beside it name a spool that is written ahead."""
    with TcpProxy(0, postroom_stack.broker(1).port) as relay:
        yield Kafka(tmp_path, postroom_stack, postroom_topic, relay)


class Workers:
    """A server with two worker processes, asked by HTTP; each answer names the process that gave it."""

    def __init__(self, kafka: Kafka, words: list[str], *, says: str, **settings: object) -> None:
        self.kafka = kafka
        self.spool = kafka.desk.spool
        self.accepted: set[str] = set()
        path = kafka.desk.settings_file(**{"spool__write_ahead": "fsync", **settings})
        self.server = Process(
            [sys.executable, "-m", *words],
            folder=kafka.desk.folder,
            environment={"POSTROOM_CONFIG": str(path), "PYTHONPATH": f"{ROOT}{os.pathsep}{kafka.desk.folder}"},
        )
        self._says = re.compile(says)

    def __enter__(self) -> Self:
        self.server.__enter__()
        until(lambda: self._says.search(self.server.said), "the server listens")
        found = self._says.search(self.server.said)
        assert found is not None
        self.url = found[1]
        return self

    def __exit__(self, *error: object) -> None:
        self.server.__exit__(*error)

    def post(self, path: str = "/plays", expected: int = 201) -> int:
        """Hand in one event; return the number of the process that took it."""
        event_id = f"event-{uuid.uuid4().hex}"
        body = EVENT | {"user_id": f"u{len(self.accepted) % 10}"}
        answer = httpx.post(f"{self.url}{path}", json=body, headers={"Idempotency-Key": event_id}, timeout=30)
        assert answer.status_code == expected, answer.text
        self.accepted.add(event_id)
        return int(answer.headers["X-Worker"])

    def post_until(self, condition: Callable[[Counter[int]], object]) -> Counter[int]:
        """Hand in events until the numbers of events by process are as asked for."""
        by_process: Counter[int] = Counter()

        def handed_in() -> object:
            try:
                by_process[self.post()] += 1
            except httpx.TransportError:  # to a process that was just killed: that event was not accepted
                return False
            return condition(by_process)

        until(handed_in, "every worker has had events")
        return by_process

    def owners(self) -> dict[int, str]:
        """Which slot each process holds, as the slots' own notes say."""
        return {self.kafka.desk.owner(slot.name): slot.name for slot in sorted(self.spool.iterdir())}

    def check_a_killed_worker_is_replaced(self) -> None:
        """Each worker has a slot; one is killed, and the next one takes its slot over with all that is in it."""
        by_process = self.post_until(lambda found: len(found) == 2 and min(found.values()) >= 20)
        owners = self.owners()
        assert set(owners) == set(by_process)
        stored = {slot: sum(counts.values()) for slot, counts in self.kafka.desk.slots().items()}
        assert stored == {owners[pid]: count for pid, count in by_process.items()}
        victim, survivor = by_process
        os.kill(victim, signal.SIGKILL)
        later = self.post_until(lambda found: len(set(found) - {victim}) == 2)
        (replacement,) = set(later) - {victim, survivor}
        assert self.owners() == {replacement: owners[victim], survivor: owners[survivor]}

    def check_all_is_sent_once(self) -> None:
        """Kafka comes: what was accepted is in it, once, while the workers live."""
        self.kafka.comes()
        until(lambda: not read_spool(self.spool).waiting, "the spool is empty")
        assert set(self.kafka.ids()) == self.accepted


APP_THAT_NAMES_ITS_PROCESS = """
import os
from postroom import get_service
from examples.wsgi_app import app as plays

def app(environ, start_response):
    def start(status, headers):
        return start_response(status, [*headers, ("X-Worker", str(os.getpid()))])
    if environ["PATH_INFO"] == "/later":  # hands in, and waits for nothing
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        get_service().publish_event(body, event_type="user_event", event_id=environ["HTTP_IDEMPOTENCY_KEY"])
        start("202 Accepted", [])
        return []
    return plays(environ, start)
"""


def gunicorn(kafka: Kafka, *more: str, **settings: object) -> Workers:
    (kafka.desk.folder / "serve.py").write_text(APP_THAT_NAMES_ITS_PROCESS)
    words = ["gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", *more, "serve:app"]
    return Workers(kafka, words, says=r"Listening at: (http://127.0.0.1:\d+)", **settings)


def test_a_killed_worker_of_gunicorn_leaves_its_slot_to_the_next_and_all_is_sent_once(kafka: Kafka) -> None:
    with gunicorn(kafka) as workers:
        workers.check_a_killed_worker_is_replaced()
        workers.check_all_is_sent_once()
        workers.post()
        workers.server.signal(signal.SIGTERM)
        workers.server.ends()
    assert not workers.owners().keys() & {workers.server.pid}
    assert set(kafka.ids()) == workers.accepted


@pytest.mark.parametrize("write_ahead", ["off", "fsync"])
def test_workers_of_gunicorn_that_are_recycled_leave_all_on_the_disk(kafka: Kafka, write_ahead: str) -> None:
    """Kafka is away, nobody waits for an outcome, and each worker ends after five requests; so does the server."""
    with gunicorn(kafka, "--max-requests", "5", spool__write_ahead=write_ahead) as workers:
        pids = {workers.post("/later", 202) for _ in range(24)}
        assert len(pids) >= 4
        workers.server.signal(signal.SIGTERM)
        workers.server.ends(within_s=30)
    assert {one.event_id for one in read_spool(workers.spool).waiting} == workers.accepted
    assert len(list(workers.spool.iterdir())) <= 4
    kafka.drain()
    assert set(kafka.ids()) == workers.accepted


def test_a_killed_worker_of_uvicorn_leaves_its_slot_to_the_next_and_all_is_sent_once(kafka: Kafka) -> None:
    (kafka.desk.folder / "serve.py").write_text("""
import os
from examples.fastapi_app import app

@app.middleware("http")
async def name_the_process(request, call_next):
    response = await call_next(request)
    response.headers["X-Worker"] = str(os.getpid())
    return response
""")
    words = ["uvicorn", "--workers", "2", "--port", "0", "serve:app"]
    with Workers(kafka, words, says=r"running on (http://127.0.0.1:\d+)") as workers:
        workers.check_a_killed_worker_is_replaced()
        workers.check_all_is_sent_once()
        workers.post()
        workers.server.signal(signal.SIGTERM)
        workers.server.ends()
    assert set(kafka.ids()) == workers.accepted


def test_a_killed_child_of_celery_leaves_its_slot_to_the_next_and_all_is_sent_once(kafka: Kafka) -> None:
    """Kafka is away; when it has come, another twenty tasks and the end of the worker lose nothing, too."""
    desk = kafka.desk

    def is_busy() -> bool:
        worker.enqueue(4)
        return len(desk.slots()) == 2 and min(counts["task"] for counts in desk.slots().values()) >= 2

    def owners() -> dict[int, str]:
        return {desk.owner(slot.name): slot.name for slot in sorted(desk.spool.iterdir())}

    def has_new_owner() -> bool:
        worker.enqueue(1)
        return owners().keys() <= worker.children()

    settings = {"POSTROOM_CONFIG": str(desk.settings_file(spool__write_ahead="fsync"))}
    with CeleryWorker(desk.folder, settings) as worker:
        until(is_busy, "both children have had tasks", each_s=0.5)
        until(lambda: sum(desk.waiting().values()) == worker.enqueued, "all tasks are done")
        before = owners()
        assert before.keys() <= worker.children()
        worker.have_one_killed()
        until(lambda: not before.keys() <= worker.children(), "one is dead")
        until(has_new_owner, "its slot has a new owner", each_s=0.5)
        after = owners()
        assert len(before.keys() & after.keys()) == 1
        assert sorted(before.values()) == sorted(after.values())
        kafka.comes()
        worker.enqueue(20)
        until(lambda: len(kafka.ids()) == worker.enqueued, "all tasks are done", each_s=0.5)
        worker.process.signal(signal.SIGTERM)
        worker.process.ends()
    assert desk.waiting() == {}
    assert set(kafka.ids()) == {f"task-{number}" for number in range(worker.enqueued)}


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
