"""What the client library is told where the settings leave it to us."""

from __future__ import annotations

from pathlib import Path

import pytest

from postroom.libs.config_loader import load_config
from postroom.streaming.librdkafka_settings import producer_settings


@pytest.mark.parametrize(
    ("given", "with_spool", "longest_ms"),
    [
        ({}, False, 8000),
        ({}, True, 4000),
        ({"producer.retry_backoff_max_ms": 8000}, True, 8000),
        ({"producer.retry_backoff_max_ms": 2000}, True, 2000),
        ({"producer.retry_backoff_ms": 6000}, True, 6000),
    ],
)
def test_with_a_spool_repeats_come_often_enough_for_the_drain_unless_somebody_said_how_often(
    given: dict[str, object], with_spool: bool, longest_ms: int, tmp_path: Path
) -> None:
    overrides = {**given, **({"spool.dir": str(tmp_path)} if with_spool else {})}
    settings = producer_settings(load_config(overrides=overrides, environ={}))
    assert settings["retry.backoff.max.ms"] == longest_ms
