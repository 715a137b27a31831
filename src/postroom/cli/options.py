"""The options that commands share, and how they become settings.

A command that talks to a server takes the first five and hands them on:

    def tail(topic: str, broker: Broker = None, registry: Registry = None, config: ConfigFile = None,
             env: Environment = None, as_json: AsJson = False) -> None:
        settings = settings_from_options(broker=broker, registry=registry, config=config, env=env)

typer reads the annotations of commands while it runs: modules of commands go without `from __future__ import
annotations`. Heavy modules are imported inside the functions: `--help` and tab completion must be quick.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.libs.config_loader import Config

_PANEL = "Where to connect"

Broker: TypeAlias = Annotated[
    str | None,
    typer.Option("--broker", metavar="HOST:PORT", help="Kafka; several joined by commas.", rich_help_panel=_PANEL),
]
Registry: TypeAlias = Annotated[
    str | None,
    typer.Option("--registry", metavar="URL|FOLDER", help="Schema Registry.", rich_help_panel=_PANEL),
]
ConfigFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings; found by itself if not given.", rich_help_panel=_PANEL),
]
Environment: TypeAlias = Annotated[
    str | None,
    typer.Option("--env", metavar="NAME", help="Section of `environments` in the file.", rich_help_panel=_PANEL),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Write JSON; the last line of stdout is one object.", show_default=False)
]

Rate: TypeAlias = Annotated[
    float | None, typer.Option("--rate", min=0.001, help="Events per second; no limit if not given.")
]
EventType: TypeAlias = Annotated[
    str | None, typer.Option("--type", metavar="NAME", help="The contract of the events; else the default one.")
]
AcceptedFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--accepted", metavar="FILE", help="Write a line for each accepted event, for postroom verify."),
]


class FileFormat(StrEnum):
    """What a file of events holds."""

    NDJSON = "ndjson"
    CSV = "csv"
    CLOUDEVENTS = "cloudevents"


InFormat: TypeAlias = Annotated[
    FileFormat | None, typer.Option("--format", help="What the file holds; csv if its name ends so, else ndjson.")
]

_SPOOL_PANEL = "When Kafka is away"


class WriteAhead(StrEnum):
    """When an event is written to the spool."""

    OFF = "off"
    FSYNC = "fsync"


SpoolDir: TypeAlias = Annotated[
    Path | None,
    typer.Option("--spool", metavar="DIR", help="Keep there what Kafka cannot take now.", rich_help_panel=_SPOOL_PANEL),
]
WriteAheadMode: TypeAlias = Annotated[
    WriteAhead | None,
    typer.Option(
        "--write-ahead",
        help="fsync: every event is on that disk before it is sent; off: only what Kafka does not take.",
        rich_help_panel=_SPOOL_PANEL,
    ),
]
DrainTimeout: TypeAlias = Annotated[
    float,
    typer.Option(
        "--drain-timeout",
        metavar="SECONDS",
        min=0.0,
        help="Wait so long at the end for the spool to empty.",
        rich_help_panel=_SPOOL_PANEL,
    ),
]
DRAIN_TIMEOUT_S = 60.0
"""What `--drain-timeout` is when nobody says it."""


def spool_settings(spool: Path | None, write_ahead: WriteAhead | None) -> "dict[str, tuple[str, object]]":
    """`--spool` and `--write-ahead` of a command that publishes, for `more` of `settings_from_options`."""
    return {
        "--spool": ("spool.dir", spool),
        "--write-ahead": ("spool.write_ahead", None if write_ahead is None else write_ahead.value),
    }


def settings_from_options(
    *,
    broker: str | None = None,
    registry: str | None = None,
    config: Path | None = None,
    env: str | None = None,
    more: "Mapping[str, tuple[str, object]] | None" = None,
) -> "Config":
    """The settings with the options of the command line on top; logging is set up as they say.

    An option that is None was not given. `more` maps further options to the key they set and its value:
    `{"--rate": ("rate_limit.events_per_second", 100.0)}`. Errors name the option. Raises ConfigurationError.
    """
    from postroom.libs.config_loader import FromOption, load_config
    from postroom.libs.logger import configure_logging

    given = {"--broker": ("broker", broker), "--registry": ("schema_registry.url", registry), **(more or {})}
    overrides = {key: FromOption(value, name) for name, (key, value) in given.items() if value is not None}
    settings = load_config(config, env=env, overrides=overrides)
    configure_logging(settings.logging.level, settings.logging.format)
    return settings


def refuse_embedded_with_spool(settings: "Config") -> None:
    """Raise ConfigurationError for a spool with the embedded broker: events drained into it would be lost with it."""
    from postroom.libs.exceptions import ConfigurationError

    if settings.broker == "embedded" and settings.spool.dir is not None:
        raise ConfigurationError(
            f"the spool {settings.spool.dir} would be drained into the embedded broker, which ends with this command",
            remedy="name a broker with --broker, or set spool.dir to null",
        )


def refuse_embedded(settings: "Config") -> None:
    """Raise ConfigurationError for the embedded broker: what another process keeps inside it cannot be reached."""
    from postroom.libs.exceptions import ConfigurationError

    if settings.broker == "embedded":
        raise ConfigurationError(
            "the embedded broker lives inside the process that runs it", remedy="name a broker with --broker"
        )
