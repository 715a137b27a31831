"""Importing postroom costs next to nothing: what is heavy is loaded when it is used."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

import postroom

HEAVY = (
    "structlog", "prometheus_client", "confluent_kafka", "pydantic", "fastavro", "httpx", "yaml", "typer", "rich",
    "msgspec", "asyncio",
)  # fmt: skip


def loaded_after(code: str) -> set[str]:
    """The modules of a fresh interpreter that has run this."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_importing_postroom_loads_nothing_heavy() -> None:
    assert loaded_after("import postroom") & set(HEAVY) == set()


def test_the_error_tree_loads_nothing_heavy() -> None:
    assert loaded_after("import postroom.libs.exceptions, postroom.libs.logger") & set(HEAVY) == set()


def test_the_pytest_plugin_stays_light() -> None:
    """Every run of pytest in an environment with postroom loads it, whether it uses it or not."""
    pytest_alone = loaded_after("import pytest")
    assert (loaded_after("import pytest, postroom.testing.pytest_plugin") - pytest_alone) & set(HEAVY) == set()


def test_the_pipeline_without_a_command_line_needs_no_typer_and_no_prometheus() -> None:
    code = "from postroom.testing.recording_service import RecordingService as R\nwith R() as r: r.publish_event({})"
    assert loaded_after(code) & {"typer", "rich", "prometheus_client", "confluent_kafka", "httpx", "asyncio"} == set()


@pytest.mark.parametrize("name", postroom.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(postroom, name) is getattr(import_module(postroom._HOMES[name]), name)
    assert name in dir(postroom)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = postroom.no_such_name


def test_the_lists_of_public_names_agree() -> None:
    assert sorted(postroom._HOMES) == postroom.__all__ == sorted(postroom.__all__)
