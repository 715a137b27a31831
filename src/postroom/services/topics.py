"""The topics that contracts name, each with its dead letter topic beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.services.lane import dead_letter_topic
from postroom.streaming.kafka_admin import KafkaAdmin, TopicResult, TopicSpec
from postroom.streaming.librdkafka_settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract


def topic_specs(
    contracts: Iterable[Contract],
    config: Config,
    *,
    partitions: int | None = None,
    replication: int | None = None,
) -> list[TopicSpec]:
    """Return the topics that `contracts` ask for, under their actual names; `partitions` and `replication` win.

    A topic that several contracts share stands there once, with what any of them says: they agree where they say it.
    """
    specs: dict[str, TopicSpec] = {}
    for contract in contracts:
        wanted = (
            (
                config.topic(contract.topic),
                contract.partitions,
                contract.replication,
                contract.retention_ms,
            ),
            (
                dead_letter_topic(contract, config),
                contract.dead_letter_partitions,
                contract.dead_letter_replication,
                contract.dead_letter_retention_ms,
            ),
        )
        for name, its_partitions, its_replication, retention_ms in wanted:
            settings = {} if retention_ms is None else {"retention.ms": str(retention_ms)}
            spec = TopicSpec(name, partitions or its_partitions, replication or its_replication, settings)
            specs[name] = _together(specs[name], spec) if name in specs else spec
    return list(specs.values())


def _together(first: TopicSpec, other: TopicSpec) -> TopicSpec:
    return TopicSpec(
        first.name,
        other.partitions if first.partitions == -1 else first.partitions,
        other.replication if first.replication == -1 else first.replication,
        {**other.config, **first.config},
    )


def create_contract_topics(contracts: Iterable[Contract], config: Config) -> list[TopicResult]:
    """Make the topics of `contracts` exist; see `KafkaAdmin.create_topics`. One that exists is left as it is."""
    return KafkaAdmin(client_settings(config)).create_topics(topic_specs(contracts, config))
