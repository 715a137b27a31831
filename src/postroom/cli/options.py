"""The options that commands share, and how they become settings.

A command that talks to a server takes all five and hands them on:

    def tail(topic: str, broker: Broker = None, registry: Registry = None, config: ConfigFile = None,
             env: Environment = None, as_json: AsJson = False) -> None:
        settings = settings_from_options(broker=broker, registry=registry, config=config, env=env)

typer reads the annotations of commands while it runs: modules of commands go without `from __future__ import
annotations`. Heavy modules are imported inside the functions: `--help` and tab completion must be quick.
"""

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


def refuse_embedded(settings: "Config") -> None:
    """Raise ConfigurationError for the embedded broker: what another process keeps inside it cannot be reached."""
    from postroom.libs.exceptions import ConfigurationError

    if settings.broker == "embedded":
        raise ConfigurationError(
            "the embedded broker lives inside the process that runs it", remedy="name a broker with --broker"
        )
