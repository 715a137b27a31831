"""`postroom send`: events of others, one outcome a line."""

import sys
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli.border import write_json
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
from postroom.cli.words import many

if TYPE_CHECKING:
    from postroom.libs.event import Outcome
    from postroom.services.receipt import Receipt

app = typer.Typer(help="Publish the events of a file or of stdin, one outcome a line.")

_OPEN_CAP = 20_000


@app.command()
def send(
    source: Annotated[
        str, typer.Argument(metavar="FILE|-", help="One JSON object a line, or CSV; - reads standard input.")
    ],
    event_type: EventType = None,
    file_format: InFormat = None,
    rate: Rate = None,
    accepted: AcceptedFile = None,
    spool: SpoolDir = None,
    write_ahead: WriteAheadMode = None,
    drain_timeout: DrainTimeout = DRAIN_TIMEOUT_S,
    broker: Broker = None,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Publish the events of a file or of stdin, one outcome a line.

    A file of CSV has the names of the fields in its first row; `cloudevents` is one CloudEvent in JSON a line, which
    names its own type.

    The outcomes come in the order of the input. What breaks its contract goes to the dead letter topic. Contracts must
    be registered (`postroom contracts register`) and topics exist (`postroom topics create`).

    With `--spool` what Kafka cannot take waits on this disk; at the end it waits for the spool to empty.

    Exit codes: 0 every event accepted, none left in the spool; 1 some failed, lost or unaccounted; 2 usage or settings;
    3 some refused; 4 all safe but some still spooled; 130 interrupted.

    Examples: `postroom send events.ndjson`, `jq -c .event export.json | postroom send - --type user_event --json`,
    `postroom send orders.csv --type order`
    """
    from postroom.services.producer_main import Run, RunOptions

    more: dict[str, tuple[str, object]] = {
        "--rate": ("rate_limit.events_per_second", rate),
        **spool_settings(spool, write_ahead),
    }
    settings = settings_from_options(broker=broker, registry=registry, config=config, env=env, more=more)
    refuse_embedded_with_spool(settings)
    options = RunOptions(
        source=source,
        format=None if file_format is None else file_format.value,
        event_type=event_type,
        accepted=accepted,
        drain_timeout_s=drain_timeout,
    )
    run = Run(settings, options)
    outcomes = _Outcomes(as_json=as_json)
    with run:
        run.handle_signals()
        run.feed(outcomes.add)
        run.finish()
    outcomes.write_rest()
    summary = run.summary()
    if as_json:
        import msgspec

        write_json({"summary": msgspec.to_builtins(summary)})
    else:
        taken_over = f" ({summary.taken_over:,} of them taken over)" if summary.taken_over else ""
        spooled = f"{summary.spooled:,} spooled, " if summary.spooled else ""
        sys.stderr.write(
            f"{many(summary.received, 'event')}{taken_over}: {summary.delivered:,} delivered, "
            f"{summary.dead_lettered:,} dead-lettered, {spooled}{summary.refused:,} refused, "
            f"{summary.failed:,} failed\n"
        )
    raise typer.Exit(run.exit_code())


class _Outcomes:
    """Writes the outcome of each event in the order of the input, as soon as it and all before it are known."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._open: deque[Receipt] = deque()
        self._number = 0

    def add(self, receipt: "Receipt") -> None:
        self._open.append(receipt)
        while self._open and (self._open[0].done() or len(self._open) > _OPEN_CAP):
            self._write(self._open.popleft())

    def write_rest(self) -> None:
        while self._open:
            self._write(self._open.popleft())

    def _write(self, receipt: "Receipt") -> None:
        self._number += 1
        told = told_outcome(receipt.result())
        if self._as_json:
            write_json({"number": self._number, "event_id": receipt.event_id, **told})
            return
        kind = told.pop("outcome")
        violations = told.pop("violations", [])
        rest = " ".join(f"{name}={value}" for name, value in told.items() if value is not None and value != "")
        if violations:
            rest = f"{rest} violations: {'; '.join(violations)}"
        sys.stdout.write(f"{self._number}\t{kind}\t{receipt.event_id}\t{rest}\n")


def told_outcome(outcome: "Outcome") -> dict[str, Any]:
    """The outcome in plain words: its kind under `outcome`, then its fields; violations as one text each."""
    import msgspec

    from postroom.libs.event import DeadLettered, Delivered, Failed, Refused, Spooled

    kinds = {
        Delivered: "delivered",
        Spooled: "spooled",
        DeadLettered: "dead_lettered",
        Refused: "refused",
        Failed: "failed",
    }
    fields = msgspec.to_builtins(outcome)
    if isinstance(outcome, DeadLettered):
        fields["violations"] = [str(violation) for violation in outcome.violations]
    return {"outcome": kinds[type(outcome)], **fields}
