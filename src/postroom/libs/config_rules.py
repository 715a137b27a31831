"""Which settings contradict each other. Each rule is a function from the settings to clashes; none has effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from postroom.libs.settings import Config

MAX_TOPIC_NAME = 249
"""Kafka's limit for the name of a topic, in characters."""


@dataclass(frozen=True, slots=True)
class Clash:
    """Two settings that do not go together: "`one` `what`, but `other` `but`: `reason`". Holds no secret."""

    one: str
    what: str
    other: str
    but: str
    reason: str
    remedy: str


Rule: TypeAlias = Callable[[Config], Iterator[Clash]]


def clashes(config: Config) -> Iterator[Clash]:
    """Every contradiction in `config`, in the order of the rules."""
    for rule in RULES:
        yield from rule(config)


def _idempotence(config: Config) -> Iterator[Clash]:
    producer = config.producer
    if not producer.idempotent:
        return
    on = ("producer.idempotent", "is true")
    if producer.acks != "all":
        reason = "the broker only removes duplicates when all replicas acknowledge"
        yield Clash("producer.acks", f"is {producer.acks}", *on, reason, "set acks to all")
    if producer.max_in_flight > 5:
        reason = "the broker only remembers the last five requests of a producer"
        yield Clash(
            "producer.max_in_flight", f"is {producer.max_in_flight}", *on, reason, "set max_in_flight to 5 or less"
        )
    if producer.retries == 0:
        reason = "removing duplicates has no sense without repeats"
        yield Clash("producer.retries", "is 0", *on, reason, "set retries to 1 or more")


def _bounds(config: Config) -> Iterator[Clash]:
    producer, dead = config.producer, config.dead_letters
    if producer.retry_backoff_max_ms < producer.retry_backoff_ms:
        yield Clash(
            "producer.retry_backoff_max_ms", f"is {producer.retry_backoff_max_ms}",
            "producer.retry_backoff_ms", f"is {producer.retry_backoff_ms}",
            "the longest wait is shorter than the first", "raise retry_backoff_max_ms or lower retry_backoff_ms",
        )  # fmt: skip
    if producer.queue_max_bytes < producer.max_message_bytes:
        yield Clash(
            "producer.queue_max_bytes", f"is {producer.queue_max_bytes}",
            "producer.max_message_bytes", f"is {producer.max_message_bytes}",
            "the largest record would never fit into the queue", "raise queue_max_bytes",
        )  # fmt: skip
    if dead.max_header_bytes >= producer.max_message_bytes:
        yield Clash(
            "dead_letters.max_header_bytes", f"is {dead.max_header_bytes}",
            "producer.max_message_bytes", f"is {producer.max_message_bytes}",
            "the headers of a dead letter would leave no room for the event", "lower max_header_bytes",
        )  # fmt: skip
    limit = config.hand_over_after_s * 1000
    if producer.linger_ms >= limit:
        yield Clash(
            "producer.linger_ms", f"is {producer.linger_ms:g}",
            "delivery.hand_over_after_s", f"is {config.hand_over_after_s:g}",
            "records would be given back before they were ever sent", "lower linger_ms",
        )  # fmt: skip


def _sasl(config: Config) -> Iterator[Clash]:
    security = config.producer.security
    protocol = ("producer.security.protocol", f"is {security.protocol}")
    names = ("sasl_mechanism", "sasl_username", "sasl_password")
    for name in names:
        key, value = f"producer.security.{name}", security[name]
        if security.protocol.startswith("SASL_") and value is None:
            yield Clash(*protocol, key, "is null", f"SASL needs {', '.join(names)}", f"set {name}")
        elif not security.protocol.startswith("SASL_") and value is not None:
            yield Clash(
                key, "is set", *protocol, "without SASL nobody asks for it", "set protocol to SASL_SSL, or remove it"
            )


def _tls(config: Config) -> Iterator[Clash]:
    security = config.producer.security
    for name in ("ssl_ca", "ssl_certificate", "ssl_key", "ssl_key_password"):
        if security[name] is not None and not security.protocol.endswith("SSL"):
            yield Clash(
                f"producer.security.{name}", "is set",
                "producer.security.protocol", f"is {security.protocol}",
                "without TLS nothing is encrypted or checked", "set protocol to SSL or SASL_SSL, or remove it",
            )  # fmt: skip
    yield from _pair(config, "producer.security.ssl_certificate", "producer.security.ssl_key")
    if security.ssl_key_password is not None and security.ssl_key is None:
        yield Clash(
            "producer.security.ssl_key_password", "is set", "producer.security.ssl_key", "is null",
            "there is no key to open with it", "set ssl_key, or remove the password",
        )  # fmt: skip


def _pair(config: Config, one: str, other: str) -> Iterator[Clash]:
    values = config.flat()
    if (values[one] is None) == (values[other] is None):
        return
    given, missing = (one, other) if values[other] is None else (other, one)
    yield Clash(given, "is set", missing, "is null", "one is of no use without the other", f"set {missing}")


def _registry(config: Config) -> Iterator[Clash]:
    registry = config.schema_registry
    yield from _pair(config, "schema_registry.username", "schema_registry.password")
    yield from _pair(config, "schema_registry.certificate", "schema_registry.key")
    if registry.max_stale_s is not None and registry.max_stale_s < 2 * registry.refresh_s:
        yield Clash(
            "schema_registry.max_stale_s", f"is {registry.max_stale_s:g}",
            "schema_registry.refresh_s", f"is {registry.refresh_s:g}",
            "an id would be too old although the registry answers each time", "raise max_stale_s or lower refresh_s",
        )  # fmt: skip
    place = "is a URL" if registry.is_remote else "is no URL"
    for name in ("username", "password", "ca", "certificate", "key"):
        if registry[name] is not None and not registry.is_remote:
            yield Clash(
                f"schema_registry.{name}", "is set", "schema_registry.url", place,
                "a folder or an embedded registry asks for nothing", f"remove {name}, or set url to an http(s) URL",
            )  # fmt: skip
        elif registry[name] is not None and name in {"ca", "certificate", "key"} and registry.url[:5] == "http:":
            yield Clash(
                f"schema_registry.{name}", "is set", "schema_registry.url", "begins with http://",
                "without TLS nothing is encrypted or checked", "write https:// in url, or remove it",
            )  # fmt: skip


def _rate_limit(config: Config) -> Iterator[Clash]:
    limit = config.rate_limit
    if limit.burst is not None and limit.events_per_second is None:
        yield Clash(
            "rate_limit.burst", f"is {limit.burst}", "rate_limit.events_per_second", "is null",
            "without a limit there is no burst", "set events_per_second, or set burst to null",
        )  # fmt: skip


def _topics(config: Config) -> Iterator[Clash]:
    suffix = config.dead_letters.suffix
    by_topic = {topic: logical for logical, topic in config.topics.items()}
    for logical, topic in config.topics.items():
        if len(topic + suffix) > MAX_TOPIC_NAME:
            yield Clash(
                f"topics.{logical}", f"has {len(topic)} characters", "dead_letters.suffix", f"adds {len(suffix)}",
                f"Kafka takes names of up to {MAX_TOPIC_NAME} characters", "shorten one of the two",
            )  # fmt: skip
        owner = by_topic.get(topic.removesuffix(suffix)) if topic.endswith(suffix) else None
        if owner is not None:
            yield Clash(
                f"topics.{logical}", f"is {topic}", f"topics.{owner}", f"is {topic.removesuffix(suffix)}",
                "its dead letters go there", "choose another topic, or another dead_letters.suffix",
            )  # fmt: skip


def _spool(config: Config) -> Iterator[Clash]:
    if config.spool.dir is not None:
        if config.broker == "embedded":
            yield Clash(
                "spool.dir", "is set", "broker", "is embedded",
                "what waits would be sent to a broker that is gone with this process",
                "set broker to host:port, or set spool.dir to null",
            )  # fmt: skip
        return
    nowhere = ("spool.dir", "is null")
    if config.spool.write_ahead != "off":
        yield Clash(
            "spool.write_ahead", f"is {config.spool.write_ahead}", *nowhere,
            "there is no disk to write to first", "set spool.dir, or set write_ahead to off",
        )  # fmt: skip
    if config.delivery.on_exhausted == "dead_letter":
        yield Clash(
            "delivery.on_exhausted", "is dead_letter", *nowhere,
            "the dead letter topic is on the same Kafka: until it answers they have to be kept here",
            "set spool.dir, or set on_exhausted to spool",
        )  # fmt: skip


def _privacy(config: Config) -> Iterator[Clash]:
    key = "dead_letters.privacy_key"
    hashed = [tag for tag, how in config.dead_letters.privacy.items() if how == "hashed"]
    if hashed and config.dead_letters.privacy_key is None:
        reason = "without a key anybody could try values until one has the same hash"
        yield Clash(f"dead_letters.privacy.{hashed[0]}", "is hashed", key, "is null", reason, "set privacy_key")
    elif config.dead_letters.privacy_key is not None and not hashed:
        yield Clash(
            key, "is set", "dead_letters.privacy", "hashes nothing",
            "nobody asks for the key", "write hashed for a tag, or remove privacy_key",
        )  # fmt: skip


RULES: tuple[Rule, ...] = (_idempotence, _bounds, _sasl, _tls, _registry, _rate_limit, _topics, _spool, _privacy)
