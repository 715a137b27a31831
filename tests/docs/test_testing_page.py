"""The test that docs/testing.md shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom import ProducerService, load_config

if TYPE_CHECKING:
    from postroom.testing.local_stack import LocalStack


def test_an_event_survives_the_death_of_its_leader(postroom_cluster: LocalStack, postroom_cluster_topic: str) -> None:
    config = load_config(
        overrides={
            "broker": postroom_cluster.bootstrap,
            "schema_registry.url": postroom_cluster.registry_url,
            "schema_registry.auto_register": True,
            "topics.user_events": postroom_cluster_topic,
        }
    )
    with ProducerService(config) as post:
        assert post.publish_many({"user_id": f"u{number}", "timestamp": number} for number in range(100)).ok
        postroom_cluster.leader(postroom_cluster_topic, 0).kill()
        assert post.publish_many({"user_id": f"u{number}", "timestamp": number} for number in range(100)).ok
