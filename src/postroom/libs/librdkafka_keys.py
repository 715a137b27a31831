"""Which keys of librdkafka may be set under `producer.librdkafka`, and why the others may not.

Names as in librdkafka 2.16's list of configuration properties; a test asks the library whether it knows each
allowed one. Everything that is not allowed is refused, so that no key can load code, replace the brokers or
undo what a setting of ours promises.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

ALLOWED = frozenset(
    {
        "api.version.request.timeout.ms",
        "batch.num.messages",
        "batch.size",
        "broker.address.family",
        "broker.address.ttl",
        "client.dns.lookup",
        "client.rack",
        "compression.level",
        "connections.max.idle.ms",
        "debug",
        "enable.metrics.push",
        "log.connection.close",
        "log_level",
        "message.copy.max.bytes",
        "metadata.max.age.ms",
        "metadata.recovery.rebootstrap.trigger.ms",
        "metadata.recovery.strategy",
        "queue.buffering.backpressure.threshold",
        "receive.message.max.bytes",
        "request.timeout.ms",
        "socket.connection.setup.timeout.ms",
        "socket.keepalive.enable",
        "socket.max.fails",
        "socket.nagle.disable",
        "socket.receive.buffer.bytes",
        "socket.send.buffer.bytes",
        "socket.timeout.ms",
        "ssl.cipher.suites",
        "ssl.crl.location",
        "ssl.curves.list",
        "ssl.sigalgs.list",
        "sticky.partitioning.linger.ms",
        "topic.metadata.refresh.fast.interval.ms",
        "topic.metadata.refresh.interval.ms",
        "topic.metadata.refresh.sparse",
    }
)
"""Keys that tune sockets, metadata, batching, TLS details and logging, and change no promise."""

_OURS = {
    "bootstrap.servers": "broker",
    "metadata.broker.list": "broker",
    "client.id": "producer.client_id",
    "acks": "producer.acks",
    "request.required.acks": "producer.acks",
    "enable.idempotence": "producer.idempotent",
    "compression.codec": "producer.compression",
    "compression.type": "producer.compression",
    "linger.ms": "producer.linger_ms",
    "queue.buffering.max.ms": "producer.linger_ms",
    "retries": "producer.retries",
    "message.send.max.retries": "producer.retries",
    "retry.backoff.ms": "producer.retry_backoff_ms",
    "retry.backoff.max.ms": "producer.retry_backoff_max_ms",
    "reconnect.backoff.ms": "producer.retry_backoff_ms",
    "reconnect.backoff.max.ms": "producer.retry_backoff_max_ms",
    "max.in.flight": "producer.max_in_flight",
    "max.in.flight.requests.per.connection": "producer.max_in_flight",
    "queue.buffering.max.messages": "producer.queue_max_messages",
    "queue.buffering.max.kbytes": "producer.queue_max_bytes",
    "message.max.bytes": "producer.max_message_bytes",
    "message.timeout.ms": "delivery.hand_over_after_s",
    "delivery.timeout.ms": "delivery.hand_over_after_s",
    "allow.auto.create.topics": "contracts.create_topics",
    "security.protocol": "producer.security.protocol",
    "sasl.mechanism": "producer.security.sasl_mechanism",
    "sasl.mechanisms": "producer.security.sasl_mechanism",
    "sasl.username": "producer.security.sasl_username",
    "sasl.password": "producer.security.sasl_password",
    "ssl.ca.location": "producer.security.ssl_ca",
    "ssl.ca.pem": "producer.security.ssl_ca",
    "ssl.certificate.location": "producer.security.ssl_certificate",
    "ssl.certificate.pem": "producer.security.ssl_certificate",
    "ssl.key.location": "producer.security.ssl_key",
    "ssl.key.pem": "producer.security.ssl_key",
    "ssl.key.password": "producer.security.ssl_key_password",
}

_FORBIDDEN = (
    ("test.mock.", "replaces the brokers by ones in memory", "set broker: embedded if that is meant"),
    ("plugin.library.paths", "loads foreign code", "remove it"),
    ("ssl.engine", "loads foreign code", "remove it"),
    ("ssl.providers", "loads foreign code", "remove it"),
    ("sasl.kerberos.", "runs commands of the shell", "remove it; Kerberos is not supported"),
    ("sasl.oauthbearer.", "needs a mechanism that is not supported", "use PLAIN or SCRAM"),
    ("enable.sasl.oauthbearer.", "weakens the check of who answers", "remove it"),
    ("enable.ssl.certificate.verification", "switches off the check of the broker's certificate", "remove it"),
    ("ssl.endpoint.identification", "switches off the check of the broker's name", "remove it"),
    ("ssl.keystore.", "is the Java way of giving certificates", "use producer.security.ssl_certificate and ssl_key"),
    ("partitioner", "would put keys where other clients do not look for them", "remove it; murmur2_random is fixed"),
    ("transactional.id", "needs transactions, which postroom does not use", "remove it"),
    ("transaction.timeout.ms", "needs transactions, which postroom does not use", "remove it"),
    ("enable.gapless.guarantee", "does not hold what it promises under a timeout", "remove it"),
    ("queuing.strategy", "breaks the order that idempotent producing needs", "remove it"),
    ("statistics.interval.ms", "is set by postroom itself, which reads the statistics", "remove it"),
    ("topic.metadata.propagation.max.ms", "is set by postroom itself", "remove it"),
    ("delivery.report.only.error", "hides the reports that postroom counts", "remove it"),
)


class Refusal(NamedTuple):
    """Why a key is refused (`what` continues "the key ...") and what to do instead."""

    what: str
    remedy: str


def refusal(key: str) -> Refusal | None:
    """None for a key that may be set; otherwise why not, and what to do instead."""
    if key in ALLOWED:
        return None
    if key in _OURS:
        return Refusal("has a setting of its own", f"use {_OURS[key]}")
    for start, what, remedy in _FORBIDDEN:
        if key.startswith(start):
            return Refusal(what, remedy)
    close = get_close_matches(key, sorted(ALLOWED | _OURS.keys()), n=1, cutoff=0.75)
    if close:
        return Refusal("is not among the keys that may be set", f"perhaps {close[0]} is meant")
    return Refusal("is not among the keys that may be set", "remove it, or use a setting of postroom")
