"""Hand postroom an event and it is checked, paced, published to Kafka, retried and accounted for.

from postroom import ProducerService, Delivered, Spooled, DeadLettered, Refused, Failed

with ProducerService.from_config("kafka.yaml") as post:
    receipt = post.publish_event({"user_id": "u1", "timestamp": 1795416182091}, event_type="user_event")
    print(receipt.result(timeout=20))

Every name here is loaded when it is first used, so that importing postroom costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.libs.config_loader import Config, load_config
    from postroom.libs.event import DeadLettered, Delivered, Failed, Outcome, Refused, Spooled, Violation
    from postroom.libs.exceptions import PostroomError
    from postroom.schemas.data_contracts import Contract, load_contract
    from postroom.services.async_service import AsyncProducerService
    from postroom.services.batch import BatchResult
    from postroom.services.producer_service import ProducerService, get_service
    from postroom.services.receipt import Receipt

_HOMES = {
    "AsyncProducerService": "postroom.services.async_service",
    "BatchResult": "postroom.services.batch",
    "Config": "postroom.libs.config_loader",
    "Contract": "postroom.schemas.data_contracts",
    "DeadLettered": "postroom.libs.event",
    "Delivered": "postroom.libs.event",
    "Failed": "postroom.libs.event",
    "Outcome": "postroom.libs.event",
    "PostroomError": "postroom.libs.exceptions",
    "ProducerService": "postroom.services.producer_service",
    "Receipt": "postroom.services.receipt",
    "Refused": "postroom.libs.event",
    "Spooled": "postroom.libs.event",
    "Violation": "postroom.libs.event",
    "get_service": "postroom.services.producer_service",
    "load_config": "postroom.libs.config_loader",
    "load_contract": "postroom.schemas.data_contracts",
}

__all__ = [
    "AsyncProducerService",
    "BatchResult",
    "Config",
    "Contract",
    "DeadLettered",
    "Delivered",
    "Failed",
    "Outcome",
    "PostroomError",
    "ProducerService",
    "Receipt",
    "Refused",
    "Spooled",
    "Violation",
    "get_service",
    "load_config",
    "load_contract",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'postroom' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
