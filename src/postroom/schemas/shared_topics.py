"""Contracts that share a topic: what they must agree about, told with file and line before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from postroom.libs.exceptions import ConfigurationError, InvalidContractError, PostroomError
from postroom.libs.safe_yaml import read_yaml
from postroom.schemas.contract_file import line_of
from postroom.schemas.registry_protocol import subject_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract

# Attribute of a contract, its key in the file, and the value that says nothing.
_OF_TOPIC: Final = (
    ("partitions", ("topic", "partitions"), -1),
    ("replication", ("topic", "replication"), -1),
    ("retention_ms", ("topic", "retention"), None),
)
_OF_DEAD_LETTERS: Final = (
    ("dead_letter_partitions", ("dead_letter_topic", "partitions"), -1),
    ("dead_letter_replication", ("dead_letter_topic", "replication"), -1),
    ("dead_letter_retention_ms", ("dead_letter_topic", "retention"), None),
)


def disagreements(contracts: Iterable[Contract], topic_of: Callable[[str], str] = str) -> list[str]:
    """Everything about which contracts of one topic differ, a sentence each with place and remedy.

    `topic_of` gives the name of a topic on the cluster. A contract that says nothing about partitions, replicas or
    retention agrees with every other.
    """
    wrong: list[str] = []
    listed = list(contracts)
    for sharing in _groups(listed, lambda contract: topic_of(contract.topic)):
        wrong += _differing(sharing, _OF_TOPIC)
        first = sharing[0]
        wrong += [
            f"{_place(other, 'key')}: key is not that of {first.name} ({_place(first, 'key')}), which has the same "
            f"topic. Give a topic one kind of key: order and compaction go by it."
            for other in sharing[1:]
            if other.key_field != first.key_field
        ]
    for sharing in _groups(listed, lambda contract: _dead_letters_of(contract, topic_of)):
        wrong += _differing(sharing, _OF_DEAD_LETTERS)
    named = [(one, topic_of(one.dead_letter_topic)) for one in listed if one.dead_letter_topic is not None]
    return wrong + _dead_letters_among_events(listed, named, topic_of)


def check_shared_topics(contracts: Iterable[Contract], config: Config) -> None:
    """Refuse contracts that cannot share their topic under these settings.

    Raises InvalidContractError where they differ, where their records have one name, and where the dead letters of one
    go to the topic of another; ConfigurationError where
    `schema_registry.subject_strategy` would make them versions of one subject.
    """
    listed = list(contracts)
    wrong = disagreements(listed, config.topic)
    strategy = config.schema_registry.subject_strategy
    for sharing in _groups(listed, lambda contract: config.topic(contract.topic)):
        if strategy == "topic_name":
            names = ", ".join(contract.name for contract in sharing)
            raise ConfigurationError(
                f"{config.origin('schema_registry.subject_strategy')}: schema_registry.subject_strategy is topic_name, "
                f"but {names} share the topic {sharing[0].topic}: their schemas would be versions of one subject",
                remedy="set it to record_name or topic_record_name",
            )
        for first, *others in _groups(sharing, lambda contract: subject_name(strategy, "", contract.record_name)):
            wrong += [
                f"{_place(other, 'schema', 'name')}: the record has the name of that of {first.name}, which has the "
                f"same topic: they would be versions of one subject. Give each record its own name."
                for other in others
            ]
    suffix = config.dead_letters.suffix
    unnamed = [(one, config.topic(one.topic) + suffix) for one in listed if one.dead_letter_topic is None]
    wrong += _dead_letters_among_events(listed, unnamed, config.topic)
    if wrong:
        raise InvalidContractError("\n".join(wrong))


def _dead_letters_among_events(
    contracts: list[Contract], dead_letters: list[tuple[Contract, str]], topic_of: Callable[[str], str]
) -> list[str]:
    """The contracts whose dead letters go where events go: every event there would be taken for one, and replayed."""
    owners = {topic_of(contract.topic): contract.name for contract in contracts}
    return [
        f"{_place(contract, 'dead_letter_topic')}: the dead letters of {contract.name} go to {topic}, "
        f"the topic of {owners[topic]}. Name a topic for them that holds nothing else."
        for contract, topic in dead_letters
        if topic in owners
    ]


def topics_with_several_types(contracts: Iterable[Contract], topic_of: Callable[[str], str]) -> frozenset[str]:
    """The topics, under their names on the cluster, that more than one contract publishes to."""
    groups = _groups(contracts, lambda contract: topic_of(contract.topic))
    return frozenset(topic_of(sharing[0].topic) for sharing in groups)


def _groups(contracts: Iterable[Contract], by: Callable[[Contract], str]) -> list[list[Contract]]:
    """The contracts that have something in common, two or more at a time."""
    groups: dict[str, list[Contract]] = {}
    for contract in contracts:
        groups.setdefault(by(contract), []).append(contract)
    return [group for group in groups.values() if len(group) > 1]


def _dead_letters_of(contract: Contract, topic_of: Callable[[str], str]) -> str:
    if contract.dead_letter_topic is None:
        return f"beside {topic_of(contract.topic)}"  # no topic's name has a space
    return topic_of(contract.dead_letter_topic)


def _differing(sharing: list[Contract], rows: tuple[tuple[str, tuple[str, str], int | None], ...]) -> list[str]:
    wrong = []
    for attribute, path, unsaid in rows:
        saying = [contract for contract in sharing if getattr(contract, attribute) != unsaid]
        wrong += [
            f"{_place(other, *path)}: {'.'.join(path)} is not that of {saying[0].name} ({_place(saying[0], *path)}), "
            f"which has the same topic. Say it once, or the same in both."
            for other in saying[1:]
            if getattr(other, attribute) != getattr(saying[0], attribute)
        ]
    return wrong


def _place(contract: Contract, *path: str) -> str:
    """File and line of what the contract says; read again, since only a contract that is wrong needs it."""
    if contract.source is None:
        return f"contract {contract.name}"
    try:
        line = line_of(read_yaml(contract.source, error=InvalidContractError), path)
    except PostroomError:  # the file is another one by now
        return str(contract.source)
    return f"{contract.source}:{line}"
