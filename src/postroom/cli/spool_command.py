"""`postroom spool`: look into the durable local queue, and send what waits in it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from postroom.cli.border import FAILED, sigterm_like_ctrl_c, stdout_console, write_json
from postroom.cli.options import (
    AsJson,
    Broker,
    ConfigFile,
    Environment,
    refuse_embedded,
    settings_from_options,
)

if TYPE_CHECKING:
    from postroom.libs.config_loader import Config

app = typer.Typer(help="Look into the spool, send what waits in it, adopt another host's.", no_args_is_help=True)

_SHOWN = 20

SpoolFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option("--spool", metavar="DIR", help="The folder of the spool; spool.dir of the settings if not given."),
]
# One set of words for all four: a script need not know which of them send something, or decode what they show.
UnusedBroker: TypeAlias = Annotated[
    str | None, typer.Option("--broker", metavar="HOST:PORT", help="Not asked: nothing is sent.", hidden=True)
]
UnusedRegistry: TypeAlias = Annotated[
    str | None,
    typer.Option("--registry", metavar="URL|FOLDER", help="Not asked: what is spooled is encoded.", hidden=True),
]


@app.command()
def status(
    spool: SpoolFolder = None,
    broker: UnusedBroker = None,
    registry: UnusedRegistry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Show each slot of the spool: whose it is, what waits in it and since when, what could not be read.

    Only looks: a process that is at work is not disturbed, and nothing is changed.

    Examples: `postroom spool status --spool /var/lib/postroom/spool`, `postroom spool status --json`
    """
    from postroom.cli.spool_folder import print_folder, told_folder

    _, folder = _settings_and_folder(spool, broker=broker, registry=registry, config=config, env=env)
    told = told_folder(folder)
    if as_json:
        write_json(told)
    else:
        print_folder(stdout_console(), told)


@app.command()
def inspect(
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="TOPIC", help="Only those for this topic of the cluster.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show so many, the oldest of each slot.")] = _SHOWN,
    values: Annotated[
        bool,
        typer.Option("--values", help="Show what is in them, too: the values of fields, keys and headers."),
    ] = False,
    spool: SpoolFolder = None,
    broker: UnusedBroker = None,
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry", metavar="URL|FOLDER", help="Name the fields of each event, by its schema from this registry."
        ),
    ] = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """List the records that wait in the spool: where, for which topic and contract, since when. No field's value.

    Nothing but the disk is asked, unless `--registry` or `--values` is given; `--values` takes the registry of the
    settings where no other is named. With `--json` each record is one object a line, and the last line says how many
    there are.

    Examples: `postroom spool inspect --limit 100`, `postroom spool inspect --topic user_events --json`,
    `postroom spool inspect --registry http://localhost:8081`
    """
    from contextlib import closing
    from itertools import islice

    from postroom.cli.spool_content import SpoolContent, content_lines
    from postroom.cli.spool_folder import count_waiting, record_line, told_records
    from postroom.schemas.schema_registry_client import SchemaRegistryClient

    settings, folder = _settings_and_folder(spool, broker=broker, registry=registry, config=config, env=env)
    shown = 0
    with closing(SchemaRegistryClient(settings=settings.schema_registry)) as schemas:
        is_asked = values or registry is not None
        content = SpoolContent(schemas, with_values=values) if is_asked else None
        for told in islice(told_records(folder, topic, content), limit):
            shown += 1
            if as_json:
                write_json(told)
                continue
            for line in (record_line(told), *content_lines(told)):
                typer.echo(line)
    # Counted apart: what is not shown need not be read.
    waiting = max(shown, count_waiting(folder, topic))
    if as_json:
        write_json({"summary": {"shown": shown, "waiting": waiting}})
    elif waiting > shown:
        typer.echo(f"{waiting - shown:,} more: --limit {waiting} shows all")
    elif not waiting:
        typer.echo("Nothing waits.")


@app.command()
def drain(
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0.0, help="End after so long; else when it is empty."),
    ] = None,
    spool: SpoolFolder = None,
    broker: Broker = None,
    registry: UnusedRegistry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Send what waits in the spool, dead letters included, until it is empty.

    Takes over the slots that are nobody's. A slot in use is drained by its own process: with `--timeout` it is waited
    for, else it is only named. While Kafka is away it waits. Records that may be in Kafka already are marked with
    `x-attempt`. Ctrl-C ends it at any time: what was not acknowledged stays.

    Exit codes: 0 empty; 1 something will not go without a person (a missing topic or right, a dead letter that the
    broker refuses, a slot of another user, files that cannot be read); 2 usage or settings; 3 a slot in use is not
    empty; 4 something is left at the timeout; 130 interrupted.

    Examples: `postroom spool drain --spool ./spool --broker localhost:9092`, `postroom spool drain --timeout 600`
    """
    from postroom.cli.spool_drain import drain_folder

    settings, folder = _settings_and_folder(spool, broker=broker, registry=registry, config=config, env=env)
    refuse_embedded(settings)
    with sigterm_like_ctrl_c():
        result = drain_folder(settings, folder, timeout)
    if as_json:
        write_json(result.told())
    else:
        for line in result.lines():
            typer.echo(line)
    raise typer.Exit(result.code)


@app.command()
def adopt(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a spool that came from another host.")],
    spool: SpoolFolder = None,
    broker: UnusedBroker = None,
    registry: UnusedRegistry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Take the slots of another host's spool into this one, where the next process finds and sends them.

    For a disk that was moved, or a folder that was restored or copied. The process that wrote it must be gone for good:
    what it would still send, it would send twice. A slot that is in use is left, as is one of a newer version.

    Exit codes: 0 all that waits there was adopted; 1 some slot was left; 2 usage or settings.

    Examples: `postroom spool adopt /mnt/old-host/spool --spool /var/lib/postroom/spool`
    """
    from postroom.cli.spool_folder import adopt_folder, adoption_lines

    _, folder = _settings_and_folder(spool, broker=broker, registry=registry, config=config, env=env)
    told = adopt_folder(source, folder)
    if as_json:
        write_json(told)
    else:
        for line in adoption_lines(told):
            typer.echo(line)
    if told["refused"]:
        raise typer.Exit(FAILED)


def _settings_and_folder(spool: Path | None, **options: Any) -> "tuple[Config, Path]":
    """The settings, and the folder that is meant. Raises a usage error when nobody names one."""
    settings = settings_from_options(**options, more={"--spool": ("spool.dir", spool)})
    if settings.spool.dir is None:
        raise typer.BadParameter("no spool is named: give its folder, or set spool.dir", param_hint="--spool")
    return settings, settings.spool.dir
