"""What each delivery signal of librdkafka means for a record. Pure: no client, no clock, no state.

The table has one row for every code that librdkafka can put into a delivery report or raise from `produce`
(numbers from librdkafka's `rd_kafka_resp_err_t` and Kafka's protocol error codes). Three questions are answered:
did Kafka take the record, whose fault is it if not, and may a copy be in the log all the same.

The last one is answered carefully. The client library sends a record again by itself, and only its last word
is seen here: `NOT_ENOUGH_REPLICAS` after a lost reply says nothing about the first try. So "nothing of it is in
Kafka" is claimed only where no request can have been sent at all.

Two more facts about batches are kept here (docs/design/0006): which refusals blame a whole batch for one of its
records, and after which ones the client library goes on with the records behind.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from postroom.libs.event import DeadLetterReason, FailedReason


class Action(Enum):
    """What to do with a record after its delivery signal."""

    DELIVERED = "delivered"
    HOLD = "hold"  # Kafka did not take it for now: keep it, or tell the caller that it failed
    DEAD_LETTER = "dead_letter"  # this record alone is at fault: sending it again cannot help


class Decision(msgspec.Struct, frozen=True):
    """The meaning of one delivery signal.

    `may_be_in_kafka`: a copy may have been written. `rebuild`: the producer object is of no more use.
    `operator`: nothing but a person can mend it (a missing topic, a right, a certificate).
    """

    action: Action
    reason: FailedReason | DeadLetterReason | None = None
    may_be_in_kafka: bool = False
    rebuild: bool = False
    operator: bool = False


DELIVERED = Decision(Action.DELIVERED)

_AWAY_MAYBE = Decision(Action.HOLD, FailedReason.KAFKA_UNAVAILABLE, may_be_in_kafka=True)
_AWAY_NEVER_SENT = Decision(Action.HOLD, FailedReason.KAFKA_UNAVAILABLE)
_BROKER_ERROR = Decision(Action.HOLD, FailedReason.BROKER_ERROR, may_be_in_kafka=True)
_TOPIC_MISSING = Decision(Action.HOLD, FailedReason.TOPIC_MISSING, operator=True)
_TOPIC_GONE = Decision(Action.HOLD, FailedReason.TOPIC_MISSING, may_be_in_kafka=True, operator=True)
_NOT_AUTHORIZED = Decision(Action.HOLD, FailedReason.NOT_AUTHORIZED, may_be_in_kafka=True, operator=True)
_OPERATOR = Decision(Action.HOLD, FailedReason.BROKER_ERROR, may_be_in_kafka=True, operator=True)
_FATAL = Decision(Action.HOLD, FailedReason.PRODUCER_FATAL, may_be_in_kafka=True, rebuild=True)
_TOO_LARGE = Decision(Action.DEAD_LETTER, DeadLetterReason.MESSAGE_TOO_LARGE)
_REJECTED = Decision(Action.DEAD_LETTER, DeadLetterReason.REJECTED_BY_BROKER)
_INTERNAL = Decision(Action.HOLD, FailedReason.INTERNAL, may_be_in_kafka=True)
_INNOCENT = Decision(Action.HOLD, FailedReason.BROKER_ERROR)

UNPROVEN = Decision(Action.HOLD, FailedReason.BROKER_ERROR, may_be_in_kafka=True)
"""What a success without an offset means. The client library concludes it from the success of a later batch, which is
wrong where the broker knew nothing of this producer yet: then the record is not in the log."""

RECALLED = Decision(Action.HOLD, FailedReason.BROKER_ERROR, may_be_in_kafka=True)
"""What a record means that was called back so that it does not overtake one before it."""

REFUSED_TOGETHER = _INNOCENT
"""What a record means whose batch was refused, if it is not known for the sake of which record. Nothing was written."""

# Codes that have no business in a producer's reports (consumer groups, transactions, shares, Raft, telemetry,
# administration) still get an answer: an unexplained broker error, nothing assumed about the log.
_FOREIGN = _BROKER_ERROR

NO_ERROR = 0
INVALID_TIMESTAMP = 32
INVALID_DIFFERENT_RECORD = -138
INCONSISTENT = -149
PURGE_QUEUE = -152
PURGE_INFLIGHT = -151
FATAL = -150
QUEUE_FULL = -184
ALL_BROKERS_DOWN = -187

TABLE: dict[int, Decision] = {
    NO_ERROR: DELIVERED,
    # -- the client library's own words
    -199: _INTERNAL,  # _BAD_MSG: a reply that cannot be read
    -198: _INTERNAL,  # _BAD_COMPRESSION
    -197: _AWAY_MAYBE,  # _DESTROY: the producer went away under the record
    -196: _AWAY_MAYBE,  # _FAIL
    -195: _AWAY_MAYBE,  # _TRANSPORT: the connection broke, before or after the write
    -194: _INTERNAL,  # _CRIT_SYS_RESOURCE
    -193: _AWAY_MAYBE,  # _RESOLVE
    -192: _AWAY_MAYBE,  # _MSG_TIMED_OUT: says nothing about the log (10 of 200 were in it when measured)
    -191: _FOREIGN,  # _PARTITION_EOF
    -190: _TOPIC_MISSING,  # _UNKNOWN_PARTITION
    -189: _INTERNAL,  # _FS
    -188: _TOPIC_MISSING,  # _UNKNOWN_TOPIC: no leader was ever known, so nothing was sent
    ALL_BROKERS_DOWN: _AWAY_MAYBE,
    -186: Decision(Action.HOLD, FailedReason.INTERNAL),  # _INVALID_ARG: `produce` refused the call itself
    -185: _AWAY_MAYBE,  # _TIMED_OUT
    QUEUE_FULL: _AWAY_NEVER_SENT,
    -183: _AWAY_MAYBE,  # _ISR_INSUFF
    -182: _AWAY_MAYBE,  # _NODE_UPDATE
    -181: Decision(Action.HOLD, FailedReason.KAFKA_UNAVAILABLE, may_be_in_kafka=True, operator=True),  # _SSL
    -180: _AWAY_MAYBE,  # _WAIT_COORD
    -179: _FOREIGN,  # _UNKNOWN_GROUP
    -178: _INTERNAL,  # _IN_PROGRESS
    -177: _INTERNAL,  # _PREV_IN_PROGRESS
    -176: _FOREIGN,  # _EXISTING_SUBSCRIPTION
    -175: _FOREIGN,  # _ASSIGN_PARTITIONS
    -174: _FOREIGN,  # _REVOKE_PARTITIONS
    -173: _INTERNAL,  # _CONFLICT
    -172: _INTERNAL,  # _STATE
    -171: _INTERNAL,  # _UNKNOWN_PROTOCOL
    -170: _INTERNAL,  # _NOT_IMPLEMENTED
    -169: _NOT_AUTHORIZED,  # _AUTHENTICATION
    -168: _FOREIGN,  # _NO_OFFSET
    -167: _INTERNAL,  # _OUTDATED
    -166: _AWAY_MAYBE,  # _TIMED_OUT_QUEUE
    -165: _OPERATOR,  # _UNSUPPORTED_FEATURE
    -164: _AWAY_MAYBE,  # _WAIT_CACHE
    -163: _AWAY_MAYBE,  # _INTR
    -162: _INTERNAL,  # _KEY_SERIALIZATION
    -161: _INTERNAL,  # _VALUE_SERIALIZATION
    -160: _FOREIGN,  # _KEY_DESERIALIZATION
    -159: _FOREIGN,  # _VALUE_DESERIALIZATION
    -158: _INTERNAL,  # _PARTIAL
    -157: _INTERNAL,  # _READ_ONLY
    -156: _INTERNAL,  # _NOENT
    -155: _INTERNAL,  # _UNDERFLOW
    -154: _INTERNAL,  # _INVALID_TYPE
    -153: _AWAY_MAYBE,  # _RETRY
    # A record that waits for a retry after a lost reply is purged with the code of the queue, so the code alone
    # does not clear it: the client adds what it knows about its connections (`was_never_sent`).
    PURGE_QUEUE: _AWAY_MAYBE,
    PURGE_INFLIGHT: _AWAY_MAYBE,
    FATAL: _FATAL,
    INCONSISTENT: _INTERNAL,
    -148: _FATAL,  # _GAPLESS_GUARANTEE
    -147: _FOREIGN,  # _MAX_POLL_EXCEEDED
    -146: _AWAY_MAYBE,  # _UNKNOWN_BROKER
    -145: _INTERNAL,  # _NOT_CONFIGURED
    -144: _FATAL,  # _FENCED
    -143: _INTERNAL,  # _APPLICATION
    -142: _FOREIGN,  # _ASSIGNMENT_LOST
    -141: _INTERNAL,  # _NOOP
    -140: _FOREIGN,  # _AUTO_OFFSET_RESET
    -139: _FOREIGN,  # _LOG_TRUNCATION
    # Its batch was refused for the sake of other records in it; nothing of the batch was written, and sent
    # again in another batch this record goes through.
    INVALID_DIFFERENT_RECORD: _INNOCENT,
    -137: _AWAY_MAYBE,  # _DESTROY_BROKER
    # -- the brokers' words (Kafka protocol error codes)
    -1: _BROKER_ERROR,  # UNKNOWN
    1: _FOREIGN,  # OFFSET_OUT_OF_RANGE
    2: _REJECTED,  # INVALID_MSG: checksum or size of this record
    3: _TOPIC_GONE,  # UNKNOWN_TOPIC_OR_PART
    4: _REJECTED,  # INVALID_MSG_SIZE
    5: _AWAY_MAYBE,  # LEADER_NOT_AVAILABLE
    6: _AWAY_MAYBE,  # NOT_LEADER_FOR_PARTITION
    7: _AWAY_MAYBE,  # REQUEST_TIMED_OUT
    8: _AWAY_MAYBE,  # BROKER_NOT_AVAILABLE
    9: _AWAY_MAYBE,  # REPLICA_NOT_AVAILABLE
    10: _TOO_LARGE,  # MSG_SIZE_TOO_LARGE
    11: _AWAY_MAYBE,  # STALE_CTRL_EPOCH
    12: _FOREIGN,  # OFFSET_METADATA_TOO_LARGE
    13: _AWAY_MAYBE,  # NETWORK_EXCEPTION
    14: _AWAY_MAYBE,  # COORDINATOR_LOAD_IN_PROGRESS
    15: _AWAY_MAYBE,  # COORDINATOR_NOT_AVAILABLE
    16: _AWAY_MAYBE,  # NOT_COORDINATOR
    17: _OPERATOR,  # TOPIC_EXCEPTION: a name that this cluster does not allow
    18: _TOO_LARGE,  # RECORD_LIST_TOO_LARGE
    19: _AWAY_MAYBE,  # NOT_ENOUGH_REPLICAS
    20: _AWAY_MAYBE,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
    21: _OPERATOR,  # INVALID_REQUIRED_ACKS
    **dict.fromkeys(range(22, 29), _FOREIGN),  # consumer groups
    29: _NOT_AUTHORIZED,  # TOPIC_AUTHORIZATION_FAILED
    30: _FOREIGN,  # GROUP_AUTHORIZATION_FAILED
    31: _NOT_AUTHORIZED,  # CLUSTER_AUTHORIZATION_FAILED
    INVALID_TIMESTAMP: _REJECTED,  # too far from the broker's clock; it is ours that is wrong, or the caller's time
    33: _NOT_AUTHORIZED,  # UNSUPPORTED_SASL_MECHANISM
    34: _NOT_AUTHORIZED,  # ILLEGAL_SASL_STATE
    35: _OPERATOR,  # UNSUPPORTED_VERSION
    **dict.fromkeys(range(36, 42), _FOREIGN),  # administration of topics
    42: _BROKER_ERROR,  # INVALID_REQUEST
    43: _OPERATOR,  # UNSUPPORTED_FOR_MESSAGE_FORMAT: headers on a topic of the oldest format
    44: _REJECTED,  # POLICY_VIOLATION
    45: _FATAL,  # OUT_OF_ORDER_SEQUENCE_NUMBER
    46: _BROKER_ERROR,  # DUPLICATE_SEQUENCE_NUMBER: librdkafka counts it as delivered and never reports it
    47: _FATAL,  # INVALID_PRODUCER_EPOCH
    **dict.fromkeys(range(48, 53), _FOREIGN),  # transactions
    53: _NOT_AUTHORIZED,  # TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    54: _NOT_AUTHORIZED,  # SECURITY_DISABLED
    55: _BROKER_ERROR,  # OPERATION_NOT_ATTEMPTED
    56: _AWAY_MAYBE,  # KAFKA_STORAGE_ERROR
    57: _AWAY_MAYBE,  # LOG_DIR_NOT_FOUND
    58: _NOT_AUTHORIZED,  # SASL_AUTHENTICATION_FAILED
    59: _FATAL,  # UNKNOWN_PRODUCER_ID
    60: _AWAY_MAYBE,  # REASSIGNMENT_IN_PROGRESS
    **dict.fromkeys(range(61, 68), _NOT_AUTHORIZED),  # delegation tokens and principals
    **dict.fromkeys(range(68, 74), _FOREIGN),  # groups, fetch sessions, listeners, deletion
    74: _AWAY_MAYBE,  # FENCED_LEADER_EPOCH
    75: _AWAY_MAYBE,  # UNKNOWN_LEADER_EPOCH
    76: _OPERATOR,  # UNSUPPORTED_COMPRESSION_TYPE
    77: _AWAY_MAYBE,  # STALE_BROKER_EPOCH
    78: _FOREIGN,  # OFFSET_NOT_AVAILABLE
    79: _FOREIGN,  # MEMBER_ID_REQUIRED
    80: _AWAY_MAYBE,  # PREFERRED_LEADER_NOT_AVAILABLE
    81: _FOREIGN,  # GROUP_MAX_SIZE_REACHED
    82: _FOREIGN,  # FENCED_INSTANCE_ID
    83: _AWAY_MAYBE,  # ELIGIBLE_LEADERS_NOT_AVAILABLE
    84: _FOREIGN,  # ELECTION_NOT_NEEDED
    85: _FOREIGN,  # NO_REASSIGNMENT_IN_PROGRESS
    86: _FOREIGN,  # GROUP_SUBSCRIBED_TO_TOPIC
    87: _REJECTED,  # INVALID_RECORD: no key on a compacted topic, for example
    88: _FOREIGN,  # UNSTABLE_OFFSET_COMMIT
    89: _AWAY_MAYBE,  # THROTTLING_QUOTA_EXCEEDED
    90: _FATAL,  # PRODUCER_FENCED
    **dict.fromkeys(range(91, 100), _FOREIGN),  # resources, credentials, voters, features
    100: _TOPIC_GONE,  # UNKNOWN_TOPIC_ID
    103: _TOPIC_GONE,  # INCONSISTENT_TOPIC_ID
    **dict.fromkeys(range(110, 134), _FOREIGN),  # groups, telemetry, shares, voters, streams
}
del TABLE[98], TABLE[99]

BLAMES_THE_BATCH = frozenset({INVALID_DIFFERENT_RECORD, 2, 4, 10, 18, 32, 44, 87})
"""Codes that a broker gives to a whole batch, and the client library to each of its records, though one record alone
may be at fault, or none but the batch's own size. Only when the broker names two or more culprits are they told apart:
then the others have `_INVALID_DIFFERENT_RECORD`."""

# After these nothing more is sent to the topic, or nothing at all: what stands behind shares the fate.
_NOTHING_FOLLOWS = frozenset(
    {
        PURGE_QUEUE,
        PURGE_INFLIGHT,
        FATAL,
        QUEUE_FULL,
        -197,  # _DESTROY: follows TOPIC_AUTHORIZATION_FAILED for what was in flight behind it
        -190,  # _UNKNOWN_PARTITION
        -188,  # _UNKNOWN_TOPIC
        3,  # UNKNOWN_TOPIC_OR_PART
        29,  # TOPIC_AUTHORIZATION_FAILED
        100,  # UNKNOWN_TOPIC_ID
        103,  # INCONSISTENT_TOPIC_ID
    }
)


def lets_others_pass(code: int) -> bool:
    """Return whether records behind a held one with this code may be in the log before it comes again."""
    return decide(code).action is Action.HOLD and code not in _NOTHING_FOLLOWS


def decide(code: int, *, fatal: bool = False) -> Decision:
    """Say what the delivery signal `code` means; `fatal` is the client library's own flag on the error.

    A code that the table does not know (a newer broker's) is a broker error about which nothing is assumed.
    """
    if fatal:
        return _FATAL
    return TABLE.get(code, _BROKER_ERROR)


def was_never_sent(decision: Decision) -> Decision:
    """The same decision for a record that cannot have left this machine: no connection was up since it came."""
    if decision.action is not Action.HOLD or not decision.may_be_in_kafka:
        return decision
    return Decision(
        decision.action,
        decision.reason,
        may_be_in_kafka=False,
        rebuild=decision.rebuild,
        operator=decision.operator,
    )
