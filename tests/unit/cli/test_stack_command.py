"""`postroom stack` as far as it needs no servers: what is refused, and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from postroom.__main__ import main
from postroom.cli.stack_command import _watch, _welcome
from postroom.libs.exceptions import StackError
from postroom.testing import stack_install
from postroom.testing.manual_clock import ManualClock
from postroom.testing.stack_install import Installation

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.testing.local_stack import LocalStack


class Server:
    """A server that ends at a time of the clock."""

    def __init__(self, name: str, pid: int, running: Callable[[], bool] = lambda: True) -> None:
        self.name, self.pid, self._running = name, pid, running

    @property
    def running(self) -> bool:
        return self._running()

    def log_tail(self) -> str:
        return "the last words"


class Stack:
    bootstrap = "127.0.0.1:9092"
    registry_url = "http://127.0.0.1:8081/apis/ccompat/v7"

    def __init__(self, *brokers: Server) -> None:
        self.brokers = brokers
        self.servers = (*brokers, Server("the registry", 99))


def as_stack(stack: Stack) -> LocalStack:
    return cast("LocalStack", stack)


@pytest.mark.parametrize("brokers", ["0", "2", "5", "-1"])
def test_another_number_of_brokers_is_a_usage_error(brokers: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "up", "--brokers", brokers]) == 2
    assert "Write --brokers 1 or --brokers 3" in capsys.readouterr().err


def test_the_addresses_come_with_commands_that_use_them() -> None:
    text = _welcome(as_stack(Stack(Server("broker 1", 11))), with_registry=True, directory=None)
    where = "--broker 127.0.0.1:9092 --registry http://127.0.0.1:8081/apis/ccompat/v7"
    assert f"postroom run {where}" in text
    assert f"postroom tail user_events {where}" in text
    assert "thrown away" in text
    assert "kill -9" not in text


def test_without_a_registry_a_folder_takes_its_place() -> None:
    stack = Stack(Server("broker 1", 11), Server("broker 2", 12), Server("broker 3", 13))
    text = _welcome(as_stack(stack), with_registry=False, directory=Path("data"))
    assert "--registry ./schemas" in text
    assert "8081" not in text
    assert "kept in data" in text
    assert "kill -9 11" in text


def test_a_server_that_ends_is_named_once_and_the_last_broker_ends_all(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ManualClock(start_s=0)
    stack = Stack(
        Server("broker 1", 11, lambda: clock.monotonic() < 5), Server("broker 2", 12, lambda: clock.monotonic() < 20)
    )
    with pytest.raises(StackError, match="the last words"):
        _watch(as_stack(stack), clock)
    assert 20 <= clock.monotonic() < 22
    assert capsys.readouterr().err.splitlines() == ["stack: broker 1 has ended, the others go on"]


@pytest.mark.parametrize("registry", [True, False])
def test_install_says_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, *, registry: bool
) -> None:
    def installed(*, registry: bool, progress: Callable[[str], None]) -> Installation:
        progress("downloading")
        return Installation(Path("java"), (Path("a.jar"),), Path("registry") if registry else None)

    monkeypatch.setattr(stack_install, "install", installed)
    monkeypatch.setenv("POSTROOM_STACK_CACHE", str(tmp_path))
    option = "--registry" if registry else "--no-registry"
    assert main(["stack", "install", option, "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == {"cache": str(tmp_path), "jars": 1, "registry": registry}
    assert "stack: downloading" in output.err
    assert main(["stack", "install", option]) == 0
    assert "postroom stack up" in capsys.readouterr().out
