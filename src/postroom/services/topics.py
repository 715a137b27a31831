"""The topics that contracts name: each with its dead letter topic beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.streaming.kafka_admin import KafkaAdmin, TopicSpec
from postroom.streaming.librdkafka_settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract
