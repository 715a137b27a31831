"""What every test of ours gets: marks by folder, and a wall between unit tests and real servers.

The fixtures with the real servers are the ones that users get: `postroom.testing.pytest_plugin`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from postroom.libs import logger
from postroom.testing.stack_install import cache_folder

# How long an example takes says something about the machine, and nothing about a promise.
settings.register_profile("promises", deadline=None)
settings.load_profile("promises")

_TESTS = Path(__file__).parent
_SERVERS = {"postroom_stack": "kafka", "postroom_cluster": "cluster"}


def pytest_configure(config: pytest.Config) -> None:
    """Keep the copies of registries that live for one test out of the user's cache; the servers stay where they are."""
    os.environ["POSTROOM_STACK_CACHE"] = str(cache_folder())
    os.environ["XDG_CACHE_HOME"] = folder = tempfile.mkdtemp(prefix="postroom-cache-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real servers (`-m "not kafka and not cluster"` leaves it out); refuse it in tests/unit."""
    for item in items:
        asked = [mark for name, mark in _SERVERS.items() if name in getattr(item, "fixturenames", ())]
        if asked and item.path.is_relative_to(_TESTS / "unit"):
            raise pytest.UsageError(f"{item.nodeid} is a unit test and may not start a real Kafka")
        for mark in asked:
            item.add_marker(mark)


def pytest_runtest_setup() -> None:
    """Begin every test with logging as a library has it: a command that ran in this process configured it for good."""
    logger._State.output = logger._Output()
