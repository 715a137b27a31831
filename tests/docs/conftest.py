"""What the examples of the documentation find when they run: servers as `postroom stack up` would start them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from postroom.schemas.data_contracts import packaged_contracts
from postroom.schemas.schema_registry_client import SchemaRegistryClient
from postroom.streaming.embedded_broker import EmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a kafka.yaml that names a broker and a registry; topics and contracts are there."""
    for variable in [variable for variable in os.environ if variable.startswith("POSTROOM_")]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    contract = packaged_contracts()["user_event"]
    with EmbeddedBroker() as broker, SchemaRegistryClient(tmp_path / "schemas") as registry:
        registry.register("user_events-value", contract.schema_json)
        for topic in ("user_events", "user_events.dlq"):
            broker.create_topic(topic)
        (tmp_path / "kafka.yaml").write_text(f'broker: "{broker.bootstrap}"\nschema_registry: {{url: ./schemas}}\n')
        yield tmp_path
