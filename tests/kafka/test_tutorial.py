"""The tutorial about contracts, run word by word against a real Kafka and a real Schema Registry."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from postroom.libs.config_loader import load_config
from postroom.streaming.kafka_reader import KafkaReader
from postroom.streaming.librdkafka_settings import client_settings
from tests.docs.pages import DOCS
from tests.docs.tutorial import Story, is_as_shown

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

PAGE = DOCS / "tutorial-contracts.md"


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty repository with an origin, as a team has one before its first contract."""
    folder = tmp_path / "shop"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "origin")
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "shop")
    for key, value in (("user.name", "Ann"), ("user.email", "ann@example.com"), ("commit.gpgsign", "false")):
        git(folder, "config", key, value)
    git(folder, "remote", "add", "origin", str(tmp_path / "origin"))
    return folder


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_the_story_goes_as_it_is_told(stack: LocalStack, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_BROKER", stack.bootstrap)
    topic = f"orders-{uuid.uuid4().hex[:8]}"
    names = {
        "http://localhost:8081/apis/ccompat/v7": str(stack.registry_url),
        "localhost:9092": stack.bootstrap,
        "orders: orders": f"orders: {topic}",
        "orders.dlq": f"{topic}.dlq",
    }

    def arrived(typed: str) -> None:
        """The old instance has published before the new version is registered: both run side by side."""
        order_id, until = json.loads(typed)["order_id"].encode(), time.monotonic() + 60
        reader = KafkaReader(client_settings(load_config()))
        found = reader.follow([topic], from_beginning=True, stop=lambda: time.monotonic() > until)
        assert any(record.key == order_id for record in found)

    Story(PAGE, repository, names, arrived).run()


def test_the_comparison_sees_what_differs_and_not_what_varies() -> None:
    one, other = (f"1\tdelivered\t0198c0de-0000-7000-8000-00000000000{n}\tpartition={n} offset=1{n}\n" for n in "12")
    assert is_as_shown(one, other)
    assert not is_as_shown(one, other.replace("delivered", "refused"))
    assert is_as_shown("a\n...\nz\n", "a\nb\nc\nz\n")
    assert is_as_shown("a\n...\nz\n", "a\nz\n")
    assert not is_as_shown("a\n...\nz\n", "a\nb\n")
