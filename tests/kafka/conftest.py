"""Shorter names for the servers in the tests that need them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from postroom.testing.local_stack import LocalStack


@pytest.fixture(scope="session")
def stack(postroom_stack: LocalStack) -> LocalStack:
    """One broker and the registry."""
    return postroom_stack


@pytest.fixture(scope="session")
def cluster(postroom_cluster: LocalStack) -> LocalStack:
    """Three brokers and the registry."""
    return postroom_cluster
