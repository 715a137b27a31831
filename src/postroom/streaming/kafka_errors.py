"""What a broker's or the client library's error means for who reads or administers, in our own exceptions. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.event import FailedReason
from postroom.libs.exceptions import AuthorizationError, KafkaConnectionError, TopicNotFoundError
from postroom.streaming.delivery import decide

if TYPE_CHECKING:
    from postroom.libs.exceptions import PublishError

AUTHENTICATION = -169
SSL = -181
REFUSED_LOGINS = frozenset({AUTHENTICATION, 58})  # what the library says, and the broker: SASL_AUTHENTICATION_FAILED


def passes_by_itself(code: int) -> bool:
    """True for an error that the client library goes on trying about: only time shows whether it matters."""
    decision = decide(code)
    return decision.reason is FailedReason.KAFKA_UNAVAILABLE and not decision.operator


def client_error(doing: str, code: int, name: str) -> PublishError:
    """Return the exception for error `code`, called `name`, while `doing` something ("read user_events")."""
    match decide(code).reason:
        case FailedReason.TOPIC_MISSING:
            return TopicNotFoundError(
                f"could not {doing}: no such topic ({name})", remedy="create it: postroom topics create"
            )
        case FailedReason.NOT_AUTHORIZED:
            return AuthorizationError(
                f"could not {doing}: not allowed ({name})", remedy="check user, password and ACLs"
            )
        case _:
            return KafkaConnectionError(
                f"could not {doing}: {name}", remedy="check that Kafka runs at the address in broker"
            )
