"""`postroom run`: the whole way of many events."""

import os
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated

import typer

from postroom.cli.border import stdout_console, write_json
from postroom.cli.options import (
    DRAIN_TIMEOUT_S,
    AcceptedFile,
    AsJson,
    Broker,
    ConfigFile,
    DrainTimeout,
    Environment,
    EventType,
    InFormat,
    Rate,
    Registry,
    SpoolDir,
    WriteAheadMode,
    refuse_embedded_with_spool,
    settings_from_options,
    spool_settings,
)
from postroom.cli.run_view import Lines, Live, tell_summary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rich.console import Console

    from postroom.libs.config_loader import Config
    from postroom.services.producer_main import Run

app = typer.Typer(help="Generate or read events and publish them, with a live view.")

_SAMPLE = 3
# Said at the start if it is known by then; a large spool is counted while the run goes on.
_COUNTED_IN_S = 0.5


class FailOn(StrEnum):
    """What makes a run fail although every event is safe."""

    DEAD_LETTERS = "dead_letters"


@app.command()
def run(
    count: Annotated[int | None, typer.Option(min=0, help="End after so many events.")] = None,
    rate: Rate = None,
    duration: Annotated[float | None, typer.Option(min=0.0, help="End after so many seconds.")] = None,
    invalid_ratio: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of generated events that break their contract.")
    ] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Generate the same events again.")] = None,
    source: Annotated[
        str,
        typer.Option(
            metavar="generator|FILE|-", help="Where events come from; files hold one JSON a line, or CSV (.csv)."
        ),
    ] = "generator",
    file_format: InFormat = None,
    event_type: EventType = None,
    accepted: AcceptedFile = None,
    fail_on: Annotated[FailOn | None, typer.Option(help="Exit with 1 if there is any.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Serve /metrics, /livez, /readyz, /status there.")
    ] = None,
    spool: SpoolDir = None,
    write_ahead: WriteAheadMode = None,
    drain_timeout: DrainTimeout = DRAIN_TIMEOUT_S,
    broker: Broker = None,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Generate or read events and publish them, with a live view.

    Contracts are registered and missing topics created at the start. With no broker named anywhere (file, variable,
    option) the embedded broker inside this process is used, and said so.

    With `--spool` what Kafka cannot take waits on this disk. A run takes over what an earlier process left there, and
    waits at its end for the spool to empty; Ctrl-C twice, or SIGTERM, ends that waiting, and what is left stays safe.
    When the spool is full too, events are refused: one, and the next no sooner than there may be room again.

    Exit codes: 0 every event accepted, none left in the spool; 1 some failed, lost or unaccounted; 2 usage or settings;
    3 some refused; 4 all safe but some still spooled; 130 interrupted.

    Examples: `postroom run --count 10000 --rate 1000 --invalid-ratio 0.02`, `postroom run --source events.ndjson
    --broker localhost:9092 --registry http://localhost:8081 --json`, `postroom run --broker localhost:9092
    --spool ./spool --write-ahead fsync --drain-timeout 300`
    """
    from rich.console import Console

    from postroom.services.producer_main import Run, RunOptions

    if file_format is not None and source == "generator":
        raise typer.BadParameter("--format says what a file holds: name one with --source")
    more: dict[str, tuple[str, object]] = {
        "--rate": ("rate_limit.events_per_second", rate),
        "--metrics-port": ("metrics.port", metrics_port),
        **spool_settings(spool, write_ahead),
    }
    if rate is not None:
        # A tenth of a second's worth at once: enough for batches, and the view shows an even flow.
        more["--rate "] = ("rate_limit.burst", max(1, int(rate / 10)))
    settings = _for_a_run(settings_from_options(broker=broker, registry=registry, config=config, env=env, more=more))
    options = RunOptions(
        source=source,
        format=None if file_format is None else file_format.value,
        count=count,
        duration_s=duration,
        invalid_ratio=invalid_ratio,
        seed=seed,
        event_type=event_type,
        accepted=accepted,
        fail_on_dead_letters=fail_on is FailOn.DEAD_LETTERS,
        drain_timeout_s=drain_timeout,
    )
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    job = Run(settings, options)
    with job:
        job.handle_signals()
        where = _say_where(notes, settings, job)
        _say_topics(notes, job)
        _say_taken_over(notes, job)
        with _endpoint(job, settings, notes), _view(job, notes, where):
            job.feed()
            job.finish()
        if job.service.parts.embedded is not None and not as_json:
            _show_samples(stdout_console(), job)
    summary = job.summary()
    if as_json:
        import msgspec

        write_json(msgspec.to_builtins(summary))
    else:
        out = stdout_console()
        tell_summary(out, summary)
        _say_next(out, settings, options.accepted, summary.spooled)
    raise typer.Exit(job.exit_code())


def _for_a_run(settings: "Config") -> "Config":
    """The settings of a run: it registers contracts, creates topics, and is embedded when no broker is named."""
    from postroom.libs.settings import OriginKind

    changes: dict[str, object] = {
        "schema_registry": settings.schema_registry.model_copy(update={"auto_register": True}),
        "contracts": settings.contracts.model_copy(update={"create_topics": True}),
    }
    if settings.origin("broker").kind is OriginKind.PACKAGED:
        changes["broker"] = "embedded"
    settings = settings.model_copy(update=changes)
    refuse_embedded_with_spool(settings)
    return settings


def _say_topics(notes: "Console", job: "Run") -> None:
    topics = job.service.parts.topics
    if topics is not None and topics.waiting_for:
        notes.print("Kafka does not answer: what it cannot take goes to the spool; topics are created once it does.")


def _say_where(notes: "Console", settings: "Config", job: "Run") -> str:
    parts = job.service.parts
    if parts.embedded is None:
        notes.print(f"Publishing to {parts.config.broker} (named by {settings.origin('broker')}).", style="dim")
        return parts.config.broker
    notes.print(
        "Using the embedded broker inside this process: nothing to install, gone when this command ends. "
        "It keeps at most 100,000 records a partition; for a real Kafka: postroom stack up",
        style="dim",
    )
    return f"embedded broker at {parts.config.broker}"


def _say_taken_over(notes: "Console", job: "Run") -> None:
    spool = job.spool()
    if spool is None:
        return
    if not job.wait_until_counted(_COUNTED_IN_S):
        notes.print(f"Taking over what earlier processes left in {spool.directory}; it is being counted.", style="dim")
    elif count := job.summary().taken_over:
        notes.print(f"Taking over {count:,} events that earlier processes left in {spool.directory}.", style="dim")


def _view(job: "Run", notes: "Console", where: str) -> "AbstractContextManager[object]":
    return Live(job, notes, where) if notes.is_terminal else Lines(job, sys.stderr.write)


@contextmanager
def _endpoint(job: "Run", settings: "Config", notes: "Console") -> "Iterator[None]":
    if settings.metrics.port is None:
        yield
        return
    from postroom.observability.http_endpoint import HttpEndpoint
    from postroom.observability.metrics import METRICS
    from postroom.services.health_checks import health_of

    with HttpEndpoint(METRICS, health_of(job.service), settings.metrics.host, settings.metrics.port) as endpoint:
        notes.print(f"Metrics and health: {endpoint.url}/metrics, /livez, /readyz, /status", style="dim")
        yield


def _show_samples(out: "Console", job: "Run") -> None:
    """Read a few events and dead letters back from the embedded broker, before it is gone."""
    from rich.table import Table
    from rich.text import Text

    from postroom.cli.words import printable
    from postroom.services.samples import Sample, read_samples

    def cells(sample: Sample) -> "list[Text]":  # what others wrote is no markup, and commands no terminal
        return [Text(printable(part)) for part in (sample.place, sample.key, sample.text)]

    events, dead_letters = read_samples(job.service, _SAMPLE)
    if events:
        table = Table("partition, offset", "key", "event", title="Read back from Kafka", title_justify="left")
        for event in events:
            table.add_row(*cells(event), style="green")
        out.print(table)
    if dead_letters:
        table = Table("partition, offset", "reason", "what is wrong", title="Dead letters", title_justify="left")
        for letter in dead_letters:
            table.add_row(*cells(letter), style="yellow")
        out.print(table)


def _say_next(out: "Console", settings: "Config", accepted: Path | None, spooled: int) -> None:
    # In a virtual environment that is not active, as `make demo` leaves it, the bare name is not found.
    command = "postroom" if which("postroom") else os.path.relpath(Path(sys.executable).with_name("postroom"))
    if settings.broker == "embedded":
        out.print("\nTry next, the first in a terminal of its own:")
        out.print(f"  {command} stack up        a real Kafka and Schema Registry on this machine")
        out.print(f"  {command} run --broker HOST:PORT --registry URL --count 100000 --accepted accepted.ndjson")
        out.print(f"  {command} verify --accepted accepted.ndjson --broker HOST:PORT")
        return
    if spooled:
        from postroom.cli.words import printable

        where = printable(str(settings.spool.dir))
        out.print(f"\nSend what is left: {command} spool drain --spool {where} --broker {settings.broker}")
    if accepted is not None:
        out.print(f"\nProve it: {command} verify --accepted {accepted} --broker {settings.broker}")
