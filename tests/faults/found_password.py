"""Not collected: fails today. A password that was rotated is not read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.config_loader import load_config
from postroom.observability.metrics import Metrics
from postroom.services.producer_service import ProducerService
from postroom.testing.recording_service import MemoryRegistry
from tests.faults.post import until
from tests.faults.secured import PASSWORD, USER, Secured
from tests.faults.test_security import secured

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["secured"]  # the fixture


def test_a_rotated_password_is_read_from_its_file_without_a_restart(
    secured: Secured, spool: Path, tmp_path: Path
) -> None:
    """Row 16: refresh without restart."""
    topic = secured.new_topic()
    secured.allow(topic)
    secret = tmp_path / "kafka_password"
    secret.write_text(PASSWORD)
    overrides = {
        "broker": secured.sasl,
        "topics.user_events": topic,
        "spool.dir": str(spool),
        "producer.security.protocol": "SASL_SSL",
        "producer.security.sasl_mechanism": "SCRAM-SHA-512",
        "producer.security.sasl_username": USER,
        "producer.security.ssl_ca": str(secured.authority.file),
    }
    environ = {"POSTROOM_PRODUCER_SECURITY_SASL_PASSWORD_FILE": str(secret)}
    config = load_config(overrides=overrides, environ=environ)
    with ProducerService(config, registry=MemoryRegistry(), metrics=Metrics()) as service:
        try:
            event = {"user_id": "u", "timestamp": 1}
            assert type(service.publish_event(event).result(20)).__name__ == "Delivered"
            secured.set_password("another")
            secret.write_text("another")
            until(lambda: type(service.publish_event(event).result(20)).__name__ == "Spooled", "the old one goes on")
            until(lambda: not service.ledger.total().spooled, f"{service.ledger.total()}", 30)
        finally:
            secured.set_password(PASSWORD)
