"""A refused password is looked for in its file, by a thread that lives no longer than it is needed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from postroom.libs.config_loader import Config, load_config
from postroom.libs.logger import get_logger
from postroom.streaming import password_file
from postroom.streaming.librdkafka_settings import client_settings
from postroom.streaming.password_file import PasswordFile
from postroom.testing.manual_clock import ManualClock

LOG = get_logger("test")


def config_of(secret: Path) -> Config:
    overrides = {
        "producer.security.protocol": "SASL_SSL",
        "producer.security.sasl_mechanism": "PLAIN",
        "producer.security.sasl_username": "alice",
    }
    return load_config(overrides=overrides, environ={"POSTROOM_PRODUCER_SECURITY_SASL_PASSWORD_FILE": str(secret)})


class Used:
    """Takes the passwords that are handed over; the first `failing` times it raises."""

    def __init__(self, failing: int = 0) -> None:
        self.all: list[tuple[str, str]] = []
        self.came = threading.Event()
        self._failing = failing

    def __call__(self, user: str, password: str) -> None:
        if self._failing:
            self._failing -= 1
            raise RuntimeError(password)
        self.all.append((user, password))
        self.came.set()


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_file, "_LOOK_EVERY_S", 0.01)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("old\n")
    return file


def has_ended(within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while threads := [one for one in threading.enumerate() if one.name == "postroom-password"]:
        threads[0].join(max(0.0, end - time.monotonic()))
        if time.monotonic() >= end:
            return False
    return True


def test_one_that_changed_is_used_once_a_broker_has_refused_the_old_one(secret: Path) -> None:
    used = Used()
    file = PasswordFile.of(config_of(secret), ManualClock(), LOG, used)
    assert file is not None
    secret.write_text("new\n")
    assert not used.all
    file.refused()
    assert used.came.wait(5)
    file.refused()
    file.close()
    assert has_ended()
    assert used.all == [("alice", "new")]


def test_one_that_changes_after_the_refusal_is_used_as_well(secret: Path) -> None:
    """Files are often changed later than brokers."""
    used = Used()
    file = PasswordFile.of(config_of(secret), ManualClock(), LOG, used)
    assert file is not None
    file.refused()
    secret.unlink()
    assert not used.came.wait(0.1)
    secret.write_text("new")
    assert used.came.wait(5)
    file.close()


def test_one_that_could_not_be_used_is_tried_again(secret: Path) -> None:
    used = Used(failing=2)
    file = PasswordFile.of(config_of(secret), ManualClock(), LOG, used)
    assert file is not None
    secret.write_text("new")
    file.refused()
    assert used.came.wait(5)
    file.close()


def test_a_minute_after_the_last_refusal_nobody_looks_any_more(secret: Path) -> None:
    clock = ManualClock()
    file = PasswordFile.of(config_of(secret), clock, LOG, Used())
    assert file is not None
    file.refused()
    assert not has_ended(0.1)
    clock.advance(61)
    assert has_ended()
    file.refused()
    assert not has_ended(0.1)
    file.close()
    assert has_ended()
    file.refused()
    assert has_ended(0)


def test_without_a_file_there_is_nothing_to_read_again() -> None:
    overrides = {
        "producer.security.protocol": "SASL_SSL",
        "producer.security.sasl_mechanism": "PLAIN",
        "producer.security.sasl_username": "alice",
        "producer.security.sasl_password": "old",
    }
    config = load_config(overrides=overrides, environ={})
    assert PasswordFile.of(config, ManualClock(), LOG, Used()) is None


def test_every_client_that_is_made_later_shows_what_stands_in_the_file_then(secret: Path) -> None:
    config = config_of(secret)
    assert client_settings(config)["sasl.password"] == "old"
    secret.write_text("new")
    assert client_settings(config)["sasl.password"] == "new"
    secret.write_text("")
    assert client_settings(config)["sasl.password"] == "old"
