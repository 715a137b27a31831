"""Every error that postroom raises, in one tree. The class tells the caller what to do.

    PostroomError
    |- ConfigurationError            the settings are wrong; nothing started
    |- ContractError                 a contract is missing or broken
    |  |- ContractNotFoundError
    |  |- InvalidContractError
    |  |- RulesUnavailableError      a contract has rules, and what runs them is not installed
    |- EventError                    the event itself is wrong; sending it again as it is cannot help
    |  |- DecodeError                the bytes are not what they claim to be
    |  |- ValidationError            it breaks its contract; holds every violation
    |  |- NotRepresentableError      it holds something that no dead letter can keep
    |  |- InvalidMetadataError       what comes with it (id, type, header, reason) breaks its rule
    |- SchemaRegistryError
    |  |- RegistryUnavailableError   retriable
    |  |- RegistryAuthError
    |  |- SubjectNotFoundError
    |  |- IncompatibleSchemaError
    |  |- InvalidSchemaError
    |  |- UnsupportedByRegistryError
    |- PublishError
    |  |- KafkaConnectionError       retriable
    |  |- RecordTooLargeError
    |  |- TopicNotFoundError         retriable once the topic exists
    |  |- AuthorizationError         retriable once the right is granted
    |  |- QueueFullError             retriable
    |  |- ProducerFatalError         retriable; the producer is made anew
    |- OutcomeError                  raised by `receipt.raise_for_outcome()`
    |  |- EventRefusedError
    |  |- EventFailedError           retriable under the same event id
    |  |- DeadLetteredError
    |- ReceiptTimeoutError           the outcome is not known yet (also a TimeoutError)
    |- LifecycleError                misuse: closed, not started, wrong process
    |- JournalError                  the journal of accepted events cannot be read or written
    |- SpoolError                    the spool did not keep a record
    |  |- SpoolFullError             retriable after `retry_after_s`
    |  |- SpoolUnavailableError      retriable after `retry_after_s`
    |- StackError                    the local Kafka or registry did not come up

`code` is stable and meant for machines; `retriable` says whether the same call can succeed later;
`remedy` says what to do. No message holds a payload value or a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.libs.event import Violation


class PostroomError(Exception):
    """The root: `except PostroomError` catches everything that postroom raises on purpose."""

    code: ClassVar[str] = "postroom_error"
    retriable: bool = False

    def __init__(self, message: str, *, remedy: str = "", retriable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        if retriable is not None:
            self.retriable = retriable

    def __str__(self) -> str:
        if not self.remedy:
            return self.message
        joint = " " if self.message.endswith((".", "!", "?")) else ". "
        return f"{self.message}{joint}{self.remedy[0].upper()}{self.remedy[1:]}."


class ConfigurationError(PostroomError):
    """A setting is wrong, missing or contradicts another one; nothing was started."""

    code = "configuration_invalid"


class ContractError(PostroomError):
    """Something is wrong with a contract."""

    code = "contract_error"


class ContractNotFoundError(ContractError):
    """No contract of that name is known."""

    code = "contract_not_found"


class InvalidContractError(ContractError):
    """The contract file or its schema breaks the rules for contracts."""

    code = "contract_invalid"


class RulesUnavailableError(ContractError):
    """A contract has rules, and the packages that run them are not installed."""

    code = "rules_unavailable"


class EventError(PostroomError):
    """The event itself is at fault: sending it again unchanged cannot help."""

    code = "event_error"


class DecodeError(EventError):
    """Bytes or text could not be read as what they should be.

    `reason` is a stable code for what was wrong (`truncated`, `duplicate_key`, ...), `position` the byte where it
    was noticed, counted from 0, where that is known.
    """

    code = "decode_failed"

    def __init__(
        self, message: str, *, reason: str = "malformed", position: int | None = None, remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason
        self.position = position


class ValidationError(EventError):
    """The event breaks its contract. `violations` holds every way in which it does, without its values."""

    code = "validation_failed"

    def __init__(self, event_type: str, violations: Sequence[Violation]) -> None:
        self.event_type = event_type
        self.violations = tuple(violations)
        count = len(self.violations)
        shown = "; ".join(str(violation) for violation in self.violations[:5])
        more = f"; and {count - 5} more" if count > 5 else ""
        ways = "1 violation" if count == 1 else f"{count} violations"
        super().__init__(f"{event_type}: {ways}: {shown}{more}")

    def __reduce__(self) -> tuple[type[ValidationError], tuple[str, tuple[Violation, ...]]]:
        """Let it travel between processes (Celery, multiprocessing): pickled as what it was made from."""
        return type(self), (self.event_type, self.violations)


class NotRepresentableError(EventError):
    """The event holds a Python value that cannot be written down without loss."""

    code = "not_representable"


class InvalidMetadataError(EventError):
    """What was handed in with an event breaks its rule: its id, type, headers, content type or reason."""

    code = "invalid_metadata"


class SchemaRegistryError(PostroomError):
    """The Schema Registry said no, or something that could not be understood."""

    code = "registry_error"


class RegistryUnavailableError(SchemaRegistryError):
    """The registry did not answer in time, or answered that it cannot. Asking again can help."""

    code, retriable = "registry_unavailable", True


class RegistryAuthError(SchemaRegistryError):
    """The registry does not know these credentials, or they may not do this."""

    code = "registry_not_authorized"


class SubjectNotFoundError(SchemaRegistryError):
    """The registry knows no such subject, version or schema id."""

    code = "subject_not_found"


class IncompatibleSchemaError(SchemaRegistryError):
    """The registry refuses the schema: it breaks the subject's compatibility rule."""

    code = "schema_incompatible"


class InvalidSchemaError(SchemaRegistryError):
    """The registry cannot read the schema."""

    code = "schema_invalid"


class UnsupportedByRegistryError(SchemaRegistryError):
    """This kind of registry cannot do that."""

    code = "registry_unsupported"


class PublishError(PostroomError):
    """A record could not be published."""

    code = "publish_failed"


class KafkaConnectionError(PublishError):
    """No broker answered in time. Sending again under the same event id is safe."""

    code, retriable = "broker_unavailable", True


class RecordTooLargeError(PublishError):
    """The record is larger than the client or the broker accepts."""

    code = "message_too_large"


class TopicNotFoundError(PublishError):
    """The topic does not exist on this cluster."""

    code, retriable = "topic_missing", True


class AuthorizationError(PublishError):
    """The cluster does not let this client write there."""

    code, retriable = "not_authorized", True


class QueueFullError(PublishError):
    """The local queue of unacknowledged records is full. Wait a little and try again."""

    code, retriable = "queue_full", True


class ProducerFatalError(PublishError):
    """The client library gave up for good; a new producer takes its place."""

    code, retriable = "producer_fatal", True


class OutcomeError(PostroomError):
    """An event ended in something other than delivered or spooled."""

    code = "outcome"


class EventRefusedError(OutcomeError):
    """The event was not taken; nothing of it reached a topic."""

    code = "refused"


class EventFailedError(OutcomeError):
    """The event could not be made safe. Hand it in again under the same event id."""

    code, retriable = "failed", True


class DeadLetteredError(OutcomeError):
    """The event was kept among the dead letters for repair."""

    code = "dead_lettered"


class ReceiptTimeoutError(PostroomError, TimeoutError):
    """The outcome is not known yet; the event is still on its way and will get one."""

    code, retriable = "receipt_timeout", True


class LifecycleError(PostroomError):
    """The object cannot do this in its present state: it is closed, not started, or from another process."""

    code = "lifecycle"


class JournalError(PostroomError):
    """The journal of accepted events could not be opened, written or read."""

    code = "journal_failed"


class SpoolError(PostroomError):
    """The spool did not keep a record, or could not be opened or read.

    `retry_after_s` is when trying again makes sense, in seconds; None where waiting cannot help. `may_resurface` says
    that the record may be on the disk all the same and come back at the next start: then nobody may be told that
    nothing of it will be published.
    """

    code = "spool_error"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, may_resurface: bool = False, remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s
        self.may_resurface = may_resurface


class SpoolFullError(SpoolError):
    """There is no room in the spool or on its disk. What is in it is safe and goes on being sent."""

    code, retriable = "spool_full", True


class SpoolUnavailableError(SpoolError):
    """The disk of the spool does not work, or cannot be written to."""

    code, retriable = "spool_unavailable", True


class StackError(PostroomError):
    """The local Kafka or Schema Registry could not be installed or did not come up."""

    code = "stack_failed"
