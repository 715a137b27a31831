"""The settings as frozen, typed values: one class for each section of `kafka.yaml`.

The defaults here are those of the packaged `config/kafka.yaml`; a test holds the two together. Seconds end in
`_s`, milliseconds in `_ms`, bytes in `_bytes`. `config.producer.acks` and `config["producer"]["acks"]` are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    SecretStr,
    Strict,
    ValidationError,
)

from postroom.libs.config_text import read_secret_file
from postroom.libs.exceptions import ConfigurationError
from postroom.libs.librdkafka_keys import refusal
from postroom.libs.safe_yaml import printable
from postroom.libs.setting_formats import (
    FormatError,
    broker_list,
    contract_name,
    host_name,
    registry_url,
    topic_name,
    topic_suffix,
)

EMBEDDED = "embedded"
"""The word that stands for the broker or registry inside this process."""

_V = TypeVar("_V")


class FrozenMapping(Mapping[str, _V]):
    """A mapping that nobody can change; it can be copied and pickled."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, _V]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> _V:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)


class OriginKind(StrEnum):
    """The five places a value can come from, weakest first."""

    PACKAGED = "packaged"
    FILE = "file"
    ENVIRONMENT = "environment"
    VARIABLE = "variable"
    OPTION = "option"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; as text `kafka.yaml:14`, `variable POSTROOM_BROKER` or `--broker`.

    `name` is the environment section, the variable or the option (`override` for one that the program gave).
    `secret_file` is the file that a secret is the whole content of, if there is one: it may change while we run.
    """

    kind: OriginKind
    file: Path | None = None
    line: int | None = None
    name: str | None = None
    secret_file: Path | None = None

    def __str__(self) -> str:
        if self.kind is OriginKind.PACKAGED:
            return "packaged default"
        if self.kind is OriginKind.VARIABLE:
            return f"variable {self.name}"
        if self.kind is OriginKind.OPTION:
            return self.name or "override"
        return f"{self.file}:{self.line}"


PACKAGED = Origin(OriginKind.PACKAGED)


def _acks_text(value: object) -> object:
    """Kafka's `-1` means all; whole numbers are fine as well as texts."""
    if type(value) is int:
        value = str(value)
    return "all" if value == "-1" else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _user_path(path: Path) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for unknown users


def _frozen(value: Mapping[str, str]) -> FrozenMapping[str]:
    return FrozenMapping(value)


_SHORTEST_KEY = 16


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < _SHORTEST_KEY:
        raise FormatError(
            f"has fewer than {_SHORTEST_KEY} bytes", "make one that cannot be guessed: openssl rand -hex 32"
        )
    return value


def _extra_keys(value: Mapping[str, str]) -> FrozenMapping[str]:
    for key in value:
        refused = refusal(key)
        if refused is not None:
            raise FormatError(f"holds {printable(key)}, which {refused.what}", refused.remedy)
    return FrozenMapping(value)


UserPath = Annotated[Path, Strict(strict=False), AfterValidator(_user_path)]
Text = Annotated[str, Field(min_length=1, max_length=512)]
Topics = Annotated[
    Mapping[Annotated[str, AfterValidator(topic_name)], Annotated[str, AfterValidator(topic_name)]],
    AfterValidator(_frozen),
    PlainSerializer(dict),
]
PrivacyByTag = Annotated[
    Mapping[Annotated[str, Field(min_length=1, max_length=256)], Literal["full", "redacted", "hashed"]],
    AfterValidator(_frozen),
    PlainSerializer(dict),
]
ExtraKeys = Annotated[Mapping[str, str], AfterValidator(_extra_keys), PlainSerializer(dict)]


class Section(BaseModel):
    """A section of the settings: attributes and `[...]` give the same values; nothing can be set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    def __getitem__(self, key: str) -> Any:
        if key not in type(self).model_fields:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in type(self).model_fields


class SecuritySettings(Section):
    """How the producer proves who it is and checks who answers."""

    protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)] = (
        "PLAINTEXT"
    )
    sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, BeforeValidator(_upper)] = None
    sasl_username: Text | None = None
    sasl_password: SecretStr | None = None
    ssl_ca: UserPath | None = None
    ssl_certificate: UserPath | None = None
    ssl_key: UserPath | None = None
    ssl_key_password: SecretStr | None = None


class ProducerSettings(Section):
    """The Kafka producer: durability, retries, batching, queue bounds, security."""

    client_id: Text = "postroom"
    acks: Annotated[Literal["all", "1", "0"], BeforeValidator(_acks_text)] = "all"
    idempotent: bool = True
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "lz4"
    linger_ms: Annotated[float, Field(ge=0, le=900_000)] = 5
    retries: Annotated[int, Field(ge=0, le=2_147_483_647)] = 5
    retry_backoff_ms: Annotated[int, Field(ge=1, le=300_000)] = 1000
    retry_backoff_max_ms: Annotated[int, Field(ge=1, le=300_000)] = 8000
    max_in_flight: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    queue_max_messages: Annotated[int, Field(ge=1, le=2_147_483_647)] = 100_000
    queue_max_bytes: Annotated[int, Field(ge=1024, le=2_147_483_647 * 1024)] = 268_435_456
    max_message_bytes: Annotated[int, Field(ge=1000, le=1_000_000_000)] = 1_000_000
    security: SecuritySettings = SecuritySettings()
    librdkafka: ExtraKeys = FrozenMapping({})


class SchemaRegistrySettings(Section):
    """Where schemas are looked up and registered."""

    url: Annotated[str, AfterValidator(registry_url)] = "http://localhost:8081"
    username: Text | None = None
    password: SecretStr | None = None
    ca: UserPath | None = None
    certificate: UserPath | None = None
    key: UserPath | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 5
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    auto_register: bool = False
    subject_strategy: Literal["topic_name", "record_name", "topic_record_name"] = "topic_name"
    copies_dir: UserPath | None = None
    refresh_s: Annotated[float, Field(ge=1, le=86_400)] = 300
    max_stale_s: Annotated[float | None, Field(ge=1, le=1_000_000_000)] = None

    @property
    def is_remote(self) -> bool:
        """True when `url` is an http(s) address; False for a folder and for `embedded`."""
        return "://" in self.url


class ContractsSettings(Section):
    """Which contracts there are and which one an event without a type belongs to."""

    path: Annotated[tuple[UserPath, ...], Field(strict=False)] = ()
    default: Annotated[str, AfterValidator(contract_name)] = "user_event"
    create_topics: bool = False


class RateLimitSettings(Section):
    """How many events may be sent in a second."""

    events_per_second: Annotated[float | None, Field(gt=0, le=100_000_000)] = None
    burst: Annotated[int | None, Field(ge=1, le=100_000_000)] = None


class DeadLettersSettings(Section):
    """Where events go that cannot be delivered as they are."""

    suffix: Annotated[str, AfterValidator(topic_suffix)] = ".dlq"
    max_header_bytes: Annotated[int, Field(ge=4096, le=1_000_000)] = 16_384
    privacy: PrivacyByTag = FrozenMapping({})
    privacy_key: Annotated[SecretStr, AfterValidator(_long_enough)] | None = None

    @property
    def hides(self) -> bool:
        """True when any tag is redacted or hashed."""
        return any(how != "full" for how in self.privacy.values())

    @property
    def hash_key(self) -> bytes:
        """The key for hashed values; empty where none is set."""
        return b"" if self.privacy_key is None else self.privacy_key.get_secret_value().encode()


class SpoolSettings(Section):
    """The durable local queue: what waits for Kafka waits there. Without `dir` there is none."""

    dir: UserPath | None = None
    write_ahead: Literal["off", "fsync"] = "off"
    max_bytes: Annotated[int, Field(ge=1_048_576, le=2**50)] = 10_737_418_240


class DeliverySettings(Section):
    """How long records may stay unacknowledged, and how long closing may take."""

    hand_over_after_s: Annotated[float | None, Field(ge=12, le=86_400)] = None
    on_exhausted: Literal["spool", "dead_letter"] = "spool"
    close_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 20


class LoggingSettings(Section):
    """How the commands of postroom log. A library user's own logging is left alone."""

    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class MetricsSettings(Section):
    """The HTTP port for metrics and health; null for none."""

    port: Annotated[int | None, Field(ge=1, le=65_535)] = None
    host: Annotated[str, AfterValidator(host_name)] = "127.0.0.1"


class Config(Section):
    """All settings, checked. What other components take: `ProducerService(config)`."""

    broker: Annotated[str, AfterValidator(broker_list)] = "localhost:9092"
    topics: Topics = FrozenMapping({"user_events": "user_events"})
    producer: ProducerSettings = ProducerSettings()
    schema_registry: SchemaRegistrySettings = SchemaRegistrySettings()
    contracts: ContractsSettings = ContractsSettings()
    rate_limit: RateLimitSettings = RateLimitSettings()
    dead_letters: DeadLettersSettings = DeadLettersSettings()
    spool: SpoolSettings = SpoolSettings()
    delivery: DeliverySettings = DeliverySettings()
    logging: LoggingSettings = LoggingSettings()
    metrics: MetricsSettings = MetricsSettings()

    _origins: Mapping[str, Origin] = PrivateAttr(default_factory=dict)
    _file: Path | None = PrivateAttr(default=None)
    _environment: str | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """The file that was read, or None for packaged defaults."""
        return self._file

    @property
    def environment(self) -> str | None:
        """The chosen section of `environments`, or None."""
        return self._environment

    @property
    def hand_over_after_s(self) -> float:
        """How long a record may stay unacknowledged, in seconds.

        Where `delivery.hand_over_after_s` is null: 15 with a spool to hand over to, and 30 without, since giving up
        fails events then, and the death of one broker of three has kept records waiting for up to 15 s.
        """
        given = self.delivery.hand_over_after_s
        if given is not None:
            return given
        return 30.0 if self.spool.dir is None else 15.0

    def topic(self, logical: str) -> str:
        """The actual name of the topic called `logical`; the name itself when it is not listed under `topics`."""
        return self.topics.get(logical, logical)

    def origin(self, key: str) -> Origin:
        """Where the value of `key` (`producer.acks`, `topics.user_events`) came from.

        Raises KeyError for a key that is no setting or names a whole section.
        """
        if key not in self.flat():
            raise KeyError(key)
        return self._origins.get(key, PACKAGED)

    def secret(self, key: str) -> str | None:
        """The secret under `key` (`producer.security.sasl_password`) as it is now, or None where there is none.

        One that came from a file of its own is read from there again; what was read at the start counts while the
        file cannot be read. Waits for the disk. Raises KeyError for a key that is no secret.
        """
        held = self.flat()[key]
        if held is not None and not isinstance(held, SecretStr):
            raise KeyError(key)
        file = self.origin(key).secret_file
        if file is not None:
            try:
                return read_secret_file(file)
            except FormatError:  # being written just now, or gone: the old one may still be good
                pass
        return None if held is None else held.get_secret_value()

    def flat(self) -> dict[str, object]:
        """Every setting by its dotted key, in the order of `kafka.yaml`; secrets stay wrapped."""
        return dict(_flat(self, ""))

    def with_overrides(self, overrides: Mapping[str, object]) -> Config:
        """The same settings with other values under the dotted keys of `overrides`; their origin says so.

        For values that a program finds while it runs, such as the port of an embedded broker. Raises
        ConfigurationError for a key that is no setting and for a value that a setting cannot take.
        """
        config = self
        for key, value in overrides.items():
            try:
                config = _replaced(config, key.split("."), value)
            except (KeyError, ValidationError) as exc:
                what = "is no setting" if isinstance(exc, KeyError) else "cannot take this value"
                remedy = "see the settings with: postroom config show"
                raise ConfigurationError(f"override {printable(key)} {what}", remedy=remedy) from None
        given = dict.fromkeys(overrides, Origin(OriginKind.OPTION, name="override"))
        origins = {**self._origins, **given}
        return config.with_origins(origins, file=self._file, environment=self._environment)

    def with_origins(self, origins: Mapping[str, Origin], *, file: Path | None, environment: str | None) -> Config:
        """The same settings that also know where they came from."""
        copy = self.model_copy()
        copy._origins, copy._file, copy._environment = FrozenMapping(origins), file, environment  # noqa: SLF001 - own class
        return copy


_S = TypeVar("_S", bound=Section)


def _replaced(section: _S, path: list[str], value: object) -> _S:
    """`section` made anew, and checked, with `value` at `path`. Raises KeyError and pydantic's ValidationError."""
    name = path[0]
    held = section[name]
    if isinstance(held, Section) and len(path) > 1:
        value = _replaced(held, path[1:], value)
    elif isinstance(held, FrozenMapping) and len(path) > 1:
        value = {**held, ".".join(path[1:]): value}
    elif isinstance(held, (Section, FrozenMapping)) or len(path) > 1:
        raise KeyError(name)
    return type(section).model_validate({**dict(section), name: value})


def _flat(section: Section, prefix: str) -> Iterator[tuple[str, object]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, FrozenMapping):
            yield from ((f"{prefix}{name}.{key}", item) for key, item in value.items())
        else:
            yield f"{prefix}{name}", value
