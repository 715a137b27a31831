"""Every metric of postroom, declared once: the exporter, the reference page and the checks are made from this table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from postroom.libs.event import FailedReason, RefusedReason


class Kind(StrEnum):
    """What kind of number a metric is, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """A label and what it may say: one of `values`, or, without them, a configured name."""

    name: str
    help: str
    values: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, eq=False)  # compared and hashed by identity: a row is a dictionary key per event
class Metric:
    """One row: the name as it is exported, its kind, its unit, what it means, its labels in order."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[Label, ...] = ()


NOT_KNOWN = "none"
"""The label value where there is nothing to say: the topic of an event that was refused before it had a contract."""

OTHER = "other"
"""The label value that takes in everything above the cap or outside the list."""

_TOPIC = Label("topic", f"logical topic of the event's contract, `{NOT_KNOWN}` when it is not known")
_DEAD_LETTER_REASON = Label("reason", "a `DeadLetterReason`, or the code that the caller of `send_to_dlq` gave")
_REFUSED_REASON = Label("reason", "a `RefusedReason`", frozenset(RefusedReason))
_FAILED_REASON = Label("reason", "a `FailedReason`", frozenset(FailedReason))
_ERROR_CODE = Label("code", "name of the client library's error, or the stable code of a postroom error")
_QUEUE = Label("queue", "queue of the spool", frozenset({"records", "dead_letters"}))
_CONTRACT = Label("contract", "name of the contract")
_RULE = Label("rule", "name of the rule in its contract")
_RULE_ACTION = Label(
    "action", "what becomes of such an event: refused, a dead letter, published", frozenset({"ERROR", "DLQ", "NONE"})
)
_CLUSTER_TOPIC = Label("topic", "name of the topic on the cluster")
_CONTRACT = Label("contract", "name of a contract")
_SCHEMA_STATE = Label("state", "state of a contract's schema id", frozenset({"fresh", "stale", "closed"}))
_PATH_STATE = Label("state", "state of the path", frozenset({"direct", "handing_over", "spooling", "draining"}))

RECEIVED = Metric("postroom_events_received_total", Kind.COUNTER, "events", "Events handed in.", (_TOPIC,))
ACCEPTED = Metric("postroom_events_accepted_total", Kind.COUNTER, "events", "Events that became safe.", (_TOPIC,))
DELIVERED = Metric(
    "postroom_events_delivered_total", Kind.COUNTER, "events", "Events that Kafka acknowledged.", (_TOPIC,)
)
DEAD_LETTERED = Metric(
    "postroom_events_dead_lettered_total",
    Kind.COUNTER,
    "events",
    "Events kept for repair in an acknowledged dead letter.",
    (_TOPIC, _DEAD_LETTER_REASON),
)
REFUSED = Metric(
    "postroom_events_refused_total",
    Kind.COUNTER,
    "events",
    "Events not taken; nothing of them reached a topic.",
    (_TOPIC, _REFUSED_REASON),
)
FAILED = Metric(
    "postroom_events_failed_total",
    Kind.COUNTER,
    "events",
    "Events that could not be made safe.",
    (_TOPIC, _FAILED_REASON),
)
SPOOLED = Metric(
    "postroom_events_spooled",
    Kind.GAUGE,
    "events",
    "Accepted events that lie in the local spool now, to be sent later.",
    (_TOPIC,),
)
PENDING = Metric("postroom_events_pending", Kind.GAUGE, "events", "Events whose outcome is not known yet.", (_TOPIC,))
IN_FLIGHT = Metric(
    "postroom_events_in_flight",
    Kind.GAUGE,
    "events",
    "Accepted events that are with the client library now.",
    (_TOPIC,),
)
UNACCOUNTED = Metric(
    "postroom_events_unaccounted",
    Kind.GAUGE,
    "events",
    "What is missing in the books: 0, or something is wrong.",
    (_TOPIC,),
)
TAKEN_OVER = Metric(
    "postroom_events_taken_over_total",
    Kind.COUNTER,
    "events",
    "Events that an earlier process left in the spool; they count as received and accepted here too.",
    (_TOPIC,),
)
DRAINED = Metric(
    "postroom_events_drained_total",
    Kind.COUNTER,
    "events",
    "Events that left the spool: delivered, or an acknowledged dead letter.",
    (_TOPIC,),
)
QUARANTINED = Metric(
    "postroom_events_quarantined_total",
    Kind.COUNTER,
    "events",
    "Events that were accepted and turned out unreadable in the spool; their bytes lie in its quarantine.",
    (_TOPIC,),
)
HIDDEN = Metric(
    "postroom_dead_letters_hidden_total",
    Kind.COUNTER,
    "events",
    "Dead letters in which private values were hidden: they cannot be sent again, as `dead_letters.privacy` asks.",
    (_TOPIC,),
)
LATENCY = Metric(
    "postroom_event_latency_seconds",
    Kind.HISTOGRAM,
    "seconds",
    "Time from handing an event in until it was safe.",
)
RULE_FAILURES = Metric(
    "postroom_rule_failures_total",
    Kind.COUNTER,
    "failures",
    "Rules of contracts that events broke, each once for an event.",
    (_CONTRACT, _RULE, _RULE_ACTION),
)
RETRIES = Metric("postroom_retries_total", Kind.COUNTER, "attempts", "Sendings that were repeated after an error.")
CONNECTION_FAILURES = Metric(
    "postroom_connection_failures_total",
    Kind.COUNTER,
    "failures",
    "Connections to a broker that failed or broke.",
)
PUBLISH_ERRORS = Metric(
    "postroom_publish_errors_total",
    Kind.COUNTER,
    "errors",
    "Records that were reported back with an error.",
    (_ERROR_CODE,),
)
RATE_LIMIT_WAITS = Metric(
    "postroom_rate_limit_waits_total", Kind.COUNTER, "waits", "Events that waited for the rate limit."
)
RATE_LIMIT_WAIT_SECONDS = Metric(
    "postroom_rate_limit_wait_seconds_total",
    Kind.COUNTER,
    "seconds",
    "Time that events have waited for the rate limit.",
)
CLIENT_QUEUE_MESSAGES = Metric(
    "postroom_client_queue_messages",
    Kind.GAUGE,
    "records",
    "Records in the client library's queue, not acknowledged yet.",
)
CLIENT_QUEUE_BYTES = Metric(
    "postroom_client_queue_bytes", Kind.GAUGE, "bytes", "Size of the records in the client library's queue."
)
SPOOL_RECORDS = Metric(
    "postroom_spool_records", Kind.GAUGE, "records", "Records in the spool that are not acknowledged.", (_QUEUE,)
)
SPOOL_BYTES = Metric("postroom_spool_bytes", Kind.GAUGE, "bytes", "Size of the spool's files.")
SPOOL_LIMIT_BYTES = Metric(
    "postroom_spool_limit_bytes",
    Kind.GAUGE,
    "bytes",
    "What the spool may hold now: `spool.max_bytes`, its share of the disk, or what is free.",
)
SPOOL_OLDEST_AGE = Metric(
    "postroom_spool_oldest_age_seconds",
    Kind.GAUGE,
    "seconds",
    "Age of the oldest record in the spool; 0 when it is empty.",
    (_QUEUE,),
)
SPOOL_FULL = Metric("postroom_spool_full", Kind.GAUGE, "1 or 0", "1 while the spool has reached its limit.")
SPOOL_REFUSES = Metric(
    "postroom_spool_refuses", Kind.GAUGE, "1 or 0", "1 while the spool's disk takes nothing, by its last answer."
)
SPOOL_QUARANTINED = Metric(
    "postroom_spool_quarantined",
    Kind.GAUGE,
    "files",
    "Files that hold what could not be read in the spool; kept for people.",
)
SPOOL_REJECTED = Metric(
    "postroom_spool_rejected_dead_letters",
    Kind.GAUGE,
    "records",
    "Dead letters that the broker refused: they stay in the spool, and the next start tries them again.",
)
PATH_STATE = Metric(
    "postroom_path_state",
    Kind.GAUGE,
    "1",
    "1 for the state in which the path to a topic is now.",
    (_CLUSTER_TOPIC, _PATH_STATE),
)
PATH_PROBLEM = Metric(
    "postroom_path_problem",
    Kind.GAUGE,
    "1",
    "1 with the reason why Kafka did not take the last record for a topic; gone when it takes them.",
    (_CLUSTER_TOPIC, _FAILED_REASON),
)
HAND_OVERS = Metric(
    "postroom_hand_overs_total",
    Kind.COUNTER,
    "times",
    "Times that the path to a topic was closed and its records were handed over to the spool.",
    (_CLUSTER_TOPIC,),
)
REPEATS = Metric(
    "postroom_repeats_total",
    Kind.COUNTER,
    "records",
    "Records of the spool sent although a copy may be in Kafka: marked with `x-attempt` above 1.",
    (_QUEUE,),
)
SCHEMA_STALE = Metric(
    "postroom_schema_registry_stale_seconds",
    Kind.GAUGE,
    "seconds",
    "Age of the Schema Registry's last good answer about a contract, while it does not give another; 0 while it does.",
    (_CONTRACT,),
)
SCHEMA_STATE = Metric(
    "postroom_schema_id_state",
    Kind.GAUGE,
    "1",
    "1 for the state of a contract's schema id: `stale` is used while the registry is away, `closed` refuses events.",
    (_CONTRACT, _SCHEMA_STATE),
)
SOURCE_ERRORS = Metric(
    "postroom_metrics_source_errors_total",
    Kind.COUNTER,
    "errors",
    "Times a source of metrics raised an error or gave a reading that does not fit its row of the table.",
)
REJECTED = Metric(
    "postroom_metrics_rejected_total",
    Kind.COUNTER,
    "values",
    "Values handed to a metric that were no finite number, or would have made a counter fall.",
)

METRIC_TABLE: tuple[Metric, ...] = (
    RECEIVED, ACCEPTED, DELIVERED, DEAD_LETTERED, REFUSED, FAILED, SPOOLED, PENDING, IN_FLIGHT, UNACCOUNTED,
    TAKEN_OVER, DRAINED, QUARANTINED, HIDDEN, LATENCY, RULE_FAILURES, RETRIES, CONNECTION_FAILURES, PUBLISH_ERRORS,
    RATE_LIMIT_WAITS,
    RATE_LIMIT_WAIT_SECONDS, CLIENT_QUEUE_MESSAGES, CLIENT_QUEUE_BYTES, SPOOL_RECORDS, SPOOL_BYTES, SPOOL_LIMIT_BYTES,
    SPOOL_OLDEST_AGE, SPOOL_FULL, SPOOL_REFUSES, SPOOL_QUARANTINED, SPOOL_REJECTED, PATH_STATE, PATH_PROBLEM,
    HAND_OVERS, REPEATS, SCHEMA_STALE, SCHEMA_STATE, SOURCE_ERRORS, REJECTED,
)  # fmt: skip
"""All of them, in the order of the reference page."""


def reference_page() -> str:
    """The reference page of the documentation, in Markdown; `docs/metrics.md` is exactly this."""
    rows = "\n".join(
        f"| `{metric.name}` | {metric.kind} | {metric.unit} | {_label_names(metric)} | {metric.help} |"
        for metric in METRIC_TABLE
    )
    labels = "\n".join(f"| `{label.name}` | {uses} | {_label_values(label)} |" for label, uses in _label_uses())
    return _PAGE.format(rows=rows, labels=labels, other=OTHER)


def _label_names(metric: Metric) -> str:
    return ", ".join(f"`{label.name}`" for label in metric.labels) or "none"


def _label_uses() -> list[tuple[Label, str]]:
    uses: dict[Label, list[str]] = {}
    for metric in METRIC_TABLE:
        for label in metric.labels:
            uses.setdefault(label, []).append(f"`{metric.name}`")
    everywhere = "all `postroom_events_...`"
    return [(label, everywhere if label is _TOPIC else ", ".join(names)) for label, names in uses.items()]


def _label_values(label: Label) -> str:
    if label.values is None:
        return label.help
    return f"{label.help}: " + ", ".join(f"`{value}`" for value in sorted(label.values))


_PAGE = """\
# Metrics

<!-- Made by postroom.observability.metric_table.reference_page(); a test fails when it is old. -->

postroom counts in plain integers and shows them when somebody asks: `postroom run --metrics-port 9464` serves them to
Prometheus at `/metrics` beside `/livez`, `/readyz` and `/status`; in a program,
`postroom.observability.metrics.get_summary()` gives the most important ones as a dictionary.

| name | kind | unit | labels | meaning |
|---|---|---|---|---|
{rows}

## Labels

| label | of | values |
|---|---|---|
{labels}

A label never holds an id, a key or a text of an event. What is not in the list of an enumerated label, what is no
name (letters, digits, `._:-`), and everything beyond 100 combinations of one metric is counted under `{other}`.

## How they fit together

For each topic, at every moment (`spooled`, `pending` and `in_flight` are what there is now, the others count from the
start):

    received = accepted + refused + failed + pending
    accepted = delivered + dead_lettered + spooled + in_flight

What is missing is `postroom_events_unaccounted`. It is 0; alert on anything else.

With a spool the books begin with what an earlier process left there: `postroom_events_taken_over_total` of the received
and accepted events were received and accepted before, so what callers handed in here is
`postroom_events_received_total - postroom_events_taken_over_total`. `postroom_events_drained_total` counts how many
delivered and dead-lettered events came out of the spool.

## Latency

`postroom_event_latency_seconds` is kept in buckets that are 8 to 11 % apart, from 10 us to 1,000 s. The percentiles of
`get_summary()` are read from them and are at most 11 % off (up to 10 us: at most 10 us); `max` is exact. To
Prometheus every eighth bucket is shown, three a decade from 100 us: what `histogram_quantile` makes of those is
coarser.

## Questions worth a panel or an alert

The share of events that did not get through in the last five minutes (`error_rate` of `get_summary()` is the same since
the start):

    (sum(rate(postroom_events_dead_lettered_total[5m])) + sum(rate(postroom_events_refused_total[5m]))
      + sum(rate(postroom_events_failed_total[5m]))) / sum(rate(postroom_events_received_total[5m]))

Dead letters by reason: `sum by (topic, reason) (rate(postroom_events_dead_lettered_total[5m]))`

The 95th percentile of the latency:

    histogram_quantile(0.95, sum by (le) (rate(postroom_event_latency_seconds_bucket[5m])))

The books do not balance: `postroom_events_unaccounted != 0`

Topics that Kafka does not take records for, and why: `postroom_path_state{{state!="direct"}}`, `postroom_path_problem`

The Schema Registry has been away for an hour, or a contract takes no events because of it:

    max(postroom_schema_registry_stale_seconds) > 3600
    max by (contract) (postroom_schema_id_state{{state="closed"}}) > 0

How full the spool is, and when it will be at the present rate:

    postroom_spool_bytes / postroom_spool_limit_bytes
    (postroom_spool_limit_bytes - postroom_spool_bytes) / deriv(postroom_spool_bytes[10m])

How fast it drains: `sum(rate(postroom_events_drained_total[1m]))`; what waits longest:
`max(postroom_spool_oldest_age_seconds)`
"""
