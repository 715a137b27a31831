"""The one place where librdkafka's own key names stand: from postroom's settings to the client library's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.settings import OriginKind

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.libs.config_loader import Config

SASL_PASSWORD = "producer.security.sasl_password"  # noqa: S105 - the name of the setting
# A topic that is missing is reported after this time instead of the library's 30 s: one started by hand or by
# `postroom topics create` is visible within one or two seconds, and a wrong name should be heard of early.
_UNKNOWN_TOPIC_AFTER_MS = 5_000

# How often the client library tells about its connections: nothing else says that one is up again. One report costs
# about 0.1 ms.
_STATISTICS_EVERY_MS = 500


# Connections are not records: the first one to a broker counts as a reconnection too, and with a backoff of one
# second the first record of every process took 1.0 s instead of 0.05 s (measured with librdkafka 2.16). The longest
# pause bounds how late Kafka's return is noticed.
_RECONNECT_FIRST_MS = 100
_RECONNECT_LONGEST_MS = 1_000

# A probe of the drain is repeated inside the library while brokers answer "not now". The first record from the spool is
# to follow by 5 s when they take records again: with 8 s between two repeats it took 8.0 s (broker short of replicas).
_LONGEST_PAUSE_OF_A_PROBE_MS = 4_000


def client_settings(config: Config) -> dict[str, object]:
    """Return what every client needs: addresses, identity, security, and the allow-listed keys of the user's own.

    A password that has a file of its own is what stands there now.
    """
    producer = config.producer
    security = producer.security
    named: dict[str, object] = {
        "bootstrap.servers": config.broker,
        "client.id": producer.client_id,
        "security.protocol": security.protocol,
        "sasl.mechanism": security.sasl_mechanism,
        "sasl.username": security.sasl_username,
        "sasl.password": config.secret(SASL_PASSWORD),
        "ssl.ca.location": _text(security.ssl_ca),
        "ssl.certificate.location": _text(security.ssl_certificate),
        "ssl.key.location": _text(security.ssl_key),
        "ssl.key.password": security.ssl_key_password.get_secret_value() if security.ssl_key_password else None,
        "socket.keepalive.enable": True,
    }
    return {key: value for key, value in named.items() if value is not None} | dict(producer.librdkafka)


def producer_settings(config: Config) -> dict[str, object]:
    """Return the settings of the producer, each chosen on purpose.

    Waiting for the network is bounded by `delivery.hand_over_after_s` (the client purges then); the library's
    own timeout is the backstop behind it and four times as long, at least an hour, because a record that it times out
    says nothing about where it is, and a full queue may take long to empty where a broker's quota is small.
    """
    producer = config.producer
    return client_settings(config) | {
        "enable.idempotence": producer.idempotent,
        "acks": producer.acks,
        "compression.type": producer.compression,
        "linger.ms": producer.linger_ms,
        "retries": producer.retries,
        "retry.backoff.ms": producer.retry_backoff_ms,
        "retry.backoff.max.ms": _longest_pause_ms(config),
        "reconnect.backoff.ms": _RECONNECT_FIRST_MS,
        "reconnect.backoff.max.ms": _RECONNECT_LONGEST_MS,
        "max.in.flight.requests.per.connection": producer.max_in_flight,
        "message.timeout.ms": int(max(3600.0, 4 * config.hand_over_after_s) * 1000),
        "message.max.bytes": producer.max_message_bytes,
        "queue.buffering.max.messages": producer.queue_max_messages,
        "queue.buffering.max.kbytes": max(1, producer.queue_max_bytes // 1024),
        # Keys land where Java clients and Kafka Streams put them; librdkafka's own default does not.
        "partitioner": "murmur2_random",
        "allow.auto.create.topics": False,
        "topic.metadata.propagation.max.ms": _UNKNOWN_TOPIC_AFTER_MS,
        "statistics.interval.ms": _STATISTICS_EVERY_MS,
    }


def _longest_pause_ms(config: Config) -> int:
    """Return what the settings say; where nobody says it, and there is a spool, a pause that suits its drain."""
    producer = config.producer
    is_said = config.origin("producer.retry_backoff_max_ms").kind is not OriginKind.PACKAGED
    if config.spool.dir is None or is_said:
        return producer.retry_backoff_max_ms
    return max(producer.retry_backoff_ms, min(producer.retry_backoff_max_ms, _LONGEST_PAUSE_OF_A_PROBE_MS))


def one_by_one(settings: dict[str, object]) -> dict[str, object]:
    """Return the settings of a producer that sends each record in a request of its own, and the next one after it."""
    return settings | {"batch.num.messages": 1, "linger.ms": 0, "max.in.flight.requests.per.connection": 1}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
