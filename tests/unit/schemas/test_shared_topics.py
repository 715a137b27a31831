"""Contracts of one topic: what they must agree about, told with file, line and remedy before anything starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.exceptions import ConfigurationError, InvalidContractError
from postroom.schemas.data_contracts import contract_from_short_form, load_contracts
from postroom.schemas.shared_topics import check_shared_topics, topics_with_several_types
from postroom.services.topics import topic_specs

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.libs.config_loader import Config

ORDER = contract_from_short_form("order", {"id": "string"}, topic="shop", key_field="id")
REFUND = contract_from_short_form("refund", {"id": "string", "cents": "long"}, topic="shop", key_field="id")


def config(**overrides: object) -> Config:
    named = {"schema_registry.subject_strategy": "record_name", **overrides}
    return load_config(overrides=named, environ={})


def write(folder: Path, name: str, more: str = "") -> None:
    text = f"name: {name}\nversion: 1\nschema: {{id: string}}\n{more}"
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_several_contracts_may_share_a_topic() -> None:
    check_shared_topics([ORDER, REFUND], config())
    assert topics_with_several_types([ORDER, REFUND], str) == {"shop"}
    assert topics_with_several_types([ORDER], str) == frozenset()


def test_their_schemas_must_not_be_versions_of_one_subject() -> None:
    with pytest.raises(ConfigurationError, match=r"subject_strategy is topic_name, but order, refund share") as told:
        check_shared_topics([ORDER, REFUND], config(**{"schema_registry.subject_strategy": "topic_name"}))
    assert told.value.remedy == "set it to record_name or topic_record_name"
    same = replace(REFUND, record_name=ORDER.record_name)
    with pytest.raises(InvalidContractError, match=r"contract refund: the record has the name of that of order"):
        check_shared_topics([ORDER, same], config())


@pytest.mark.parametrize(
    ("other", "overrides"),
    [
        ({"dead_letter_topic": "shop"}, {}),
        ({"dead_letter_topic": "lost"}, {"topics.shop": "lost"}),
        ({"dead_letter_topic": "shop"}, {"topics.shop": "prod"}),
        ({"topic": "sh"}, {"dead_letters.suffix": "op"}),
    ],
)
def test_no_topic_holds_events_and_dead_letters(other: dict[str, Any], overrides: dict[str, object]) -> None:
    """A replay took every event there for a dead letter; with a spool they were kept and counted as such, too."""
    clicks = replace(contract_from_short_form("click", {"id": "string"}, topic="clicks"), **other)
    with pytest.raises(InvalidContractError, match=r"the dead letters of click go to \w+, the topic of order\."):
        check_shared_topics([ORDER, clicks], config(**overrides))
    check_shared_topics([ORDER, replace(clicks, topic="clicks", dead_letter_topic="shop.dlq")], config())


def test_a_name_of_dead_letters_that_is_another_contract_s_topic_is_told_without_settings(tmp_path: Path) -> None:
    """What a review checks with `contracts check` is what a service refuses later."""
    write(tmp_path, "click", "topic: clicks\ndead_letter_topic: shop")
    write(tmp_path, "order", "topic: shop")
    with pytest.raises(InvalidContractError) as told:
        load_contracts([tmp_path])
    assert str(told.value) == (
        f"{tmp_path}/click.yaml:5: the dead letters of click go to shop, the topic of order. "
        "Name a topic for them that holds nothing else."
    )


def test_two_names_for_one_topic_on_the_cluster_are_one_topic() -> None:
    elsewhere = replace(REFUND, topic="refunds", key_field="cents")
    check_shared_topics([ORDER, elsewhere], config())
    with pytest.raises(InvalidContractError, match="key is not that of order"):
        check_shared_topics([ORDER, elsewhere], config(**{"topics.shop": "prod", "topics.refunds": "prod"}))


@pytest.mark.parametrize(
    ("order", "refund", "line", "key"),
    [
        ("topic: {name: shop, partitions: 3}", "topic: {name: shop, partitions: 6}", 4, "topic.partitions"),
        ("topic: {name: shop, replication: 3}", "topic:\n  name: shop\n  replication: 2", 6, "topic.replication"),
        ("topic: {name: shop, retention: 7d}", "topic: {name: shop, retention: forever}", 4, "topic.retention"),
        ("topic: shop\nkey: id", "topic: shop", 0, "key"),
        (
            "topic: shop\ndead_letter_topic: {name: lost, partitions: 1}",
            "topic: shop\ndead_letter_topic: {name: lost, partitions: 2}",
            5,
            "dead_letter_topic.partitions",
        ),
    ],
)
def test_what_they_say_differently_is_told_with_both_places(
    order: str, refund: str, line: int, key: str, tmp_path: Path
) -> None:
    write(tmp_path, "order", order)
    write(tmp_path, "refund", refund)
    with pytest.raises(InvalidContractError) as told:
        load_contracts([tmp_path])
    (message,) = str(told.value).splitlines()
    place = f"{tmp_path}/refund.yaml:{line}" if line else f"{tmp_path}/refund.yaml:"
    assert message.startswith(place)
    assert f": {key} is not that of order ({tmp_path}/order.yaml:" in message


def test_one_that_says_nothing_agrees_and_the_topic_is_made_as_the_other_says(tmp_path: Path) -> None:
    write(tmp_path, "order", "topic: shop")
    write(tmp_path, "refund", "topic: {name: shop, partitions: 6, replication: 3, retention: 1d}")
    contracts = load_contracts([tmp_path])
    spec = topic_specs(contracts.values(), config())[0]
    assert (spec.name, spec.partitions, spec.replication) == ("shop", 6, 3)
    assert spec.config == {"retention.ms": "86400000"}


def test_a_file_that_is_gone_by_now_is_named_without_a_line(tmp_path: Path) -> None:
    write(tmp_path, "order", "topic: shop\nkey: id")
    write(tmp_path, "refund", "topic: billing")
    order, refund = load_contracts([tmp_path]).values()
    (tmp_path / "order.yaml").unlink()
    with pytest.raises(InvalidContractError, match=rf"\({tmp_path}/order.yaml\)"):
        check_shared_topics([order, replace(refund, topic="shop")], config())
