"""`postroom dlq`: list, show and replay dead letters."""

import sys
from collections import Counter, deque
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli.border import FAILED, stdout_console, write_json
from postroom.cli.options import (
    DRAIN_TIMEOUT_S,
    AsJson,
    Broker,
    ConfigFile,
    DrainTimeout,
    Environment,
    Rate,
    Registry,
    SpoolDir,
    WriteAheadMode,
    refuse_embedded,
    settings_from_options,
    spool_settings,
)
from postroom.cli.words import printable

if TYPE_CHECKING:
    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract
    from postroom.services.replay import OpenLetter
    from postroom.streaming.kafka_reader import KafkaReader

app = typer.Typer(help="List, show and replay dead letters.", no_args_is_help=True)

ContractName = Annotated[
    str | None, typer.Argument(metavar="[CONTRACT]", help="Whose dead letters; the default contract if not given.")
]
Reason = Annotated[str | None, typer.Option("--reason", metavar="CODE", help="Only those with this reason.")]

_SHOWN = 20


@app.command("list")
def list_letters(
    contract: ContractName = None,
    reason: Reason = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Show so many, the newest.")] = _SHOWN,
    broker: Broker = None,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """List the dead letters that wait for somebody, with their reasons.

    Those that were sent again by `postroom dlq replay` are left out.

    Examples: `postroom dlq list`, `postroom dlq list user_event --reason validation_failed --json`
    """
    from postroom.services.replay import open_letters

    settings = settings_from_options(broker=broker, registry=registry, config=config, env=env)
    topic = _topic(settings, _contract(settings, contract))
    reasons: Counter[str] = Counter()
    newest: deque[OpenLetter] = deque(maxlen=count)
    for each in open_letters(lambda: _reader(settings).read([topic])):
        if reason in {None, each.letter.reason}:
            reasons[each.letter.reason] += 1
            newest.append(each)
    if as_json:
        write_json({"topic": topic, "open": reasons.total(), "by_reason": dict(reasons.most_common()),
                    "newest": [_told(each) for each in newest]})  # fmt: skip
        return
    told = ", ".join(f"{name} {number:,}" for name, number in reasons.most_common())
    sys.stdout.write(f"{topic}: {reasons.total():,} open{': ' if told else ''}{told}\n")
    for each in newest:
        row = _told(each)
        when = row["failed_at"] or "-"
        which = f"{row['event_id'] or '-'}  {printable(row['event_type'] or '-')}"
        sys.stdout.write(f"{which}  {row['reason']}  attempt {row['attempts']}  {when}  {row['place']}\n")
        for violation in row["violations"][:1]:
            sys.stdout.write(f"    {printable(violation)}\n")
    if newest:
        sys.stdout.write("One in full: postroom dlq show EVENT_ID. Again: postroom dlq replay --all --dry-run\n")


@app.command()
def show(
    event_id: Annotated[str, typer.Argument(help="As `postroom dlq list` shows it.")],
    contract: ContractName = None,
    broker: Broker = None,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter in full, the original event included.

    Examples: `postroom dlq show 0198c0de-0000-7000-8000-000000000000`
    """
    from postroom.libs.exceptions import ContractNotFoundError
    from postroom.services.record_view import RecordView
    from postroom.services.replay import open_letters

    settings = settings_from_options(broker=broker, registry=registry, config=config, env=env)
    topic = _topic(settings, _contract(settings, contract))
    records = [
        record for record in _reader(settings).read([topic]) if dict(record.headers).get("ce_id") == event_id.encode()
    ]
    if not records:
        raise ContractNotFoundError(
            f"no dead letter of event {event_id!r} in {topic}", remedy="see which there are: postroom dlq list"
        )
    still_open = {(each.partition, each.offset) for each in open_letters(lambda: _reader(settings).read([topic]))}
    view = RecordView(_NoSchemas())
    told = [view.describe(record) | {"open": (record.partition, record.offset) in still_open} for record in records]
    if as_json:
        write_json(told[-1])
        return
    for each in told:
        _print_letter(each)


def _print_letter(told: dict[str, Any]) -> None:
    """All that is known of a dead letter; the lines of a text are kept, and nothing in it can command a terminal."""
    out = stdout_console()
    for name, value in told.items():
        if value not in ("", None, []) and name not in {"kind", "headers"}:
            text = value if isinstance(value, str) else _json(value)
            out.print(f"[bold]{name:16}[/] ", end="")
            out.print("\n".join(map(printable, text.splitlines())), markup=False)


@app.command()
def replay(
    contract: ContractName = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are open.")] = False,
    reason: Reason = None,
    event_id: Annotated[
        list[str] | None, typer.Option("--event-id", metavar="ID", help="Only this one; may be given again.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most, the oldest first.")] = None,
    rate: Rate = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check against today's contract, send nothing.")] = False,
    spool: SpoolDir = None,
    write_ahead: WriteAheadMode = None,
    drain_timeout: DrainTimeout = DRAIN_TIMEOUT_S,
    broker: Broker = None,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again: all of them, or by reason or event id.

    Each is checked against today's contract first; what still breaks it stays a dead letter. What is sent keeps its
    event id and is marked with `x-attempt`. A replay that was cut short is simply started again. With `--spool` what
    Kafka cannot take waits on this disk; at the end it waits for the spool to empty.

    Exit codes: 0 all that were meant are delivered; 1 some are not; 2 usage or settings; 4 all safe but some still
    spooled.

    Examples: `postroom dlq replay --all --dry-run`, `postroom dlq replay --reason validation_failed --rate 100`
    """
    import msgspec

    from postroom.libs.clock import SYSTEM_CLOCK
    from postroom.services.producer_main import SPOOLED
    from postroom.services.producer_service import ProducerService
    from postroom.services.replay import Replay, Selection

    if not (everything or reason or event_id):
        raise typer.BadParameter("say which: --all, --reason CODE or --event-id ID")
    more = {"--rate": ("rate_limit.events_per_second", rate), **spool_settings(spool, write_ahead)}
    settings = settings_from_options(broker=broker, registry=registry, config=config, env=env, more=more)
    topic = _topic(settings, _contract(settings, contract))
    selection = Selection(reason=reason, event_ids=frozenset(event_id or ()), limit=limit)
    with ProducerService(settings) as service:
        job = Replay(service, selection, dry_run=dry_run)
        result = job.run(lambda: _reader(settings).read([topic]), SYSTEM_CLOCK.time_ms)
        spooled = 0 if dry_run else job.wait_for_spool(drain_timeout, SYSTEM_CLOCK)
    if as_json:
        write_json(msgspec.to_builtins(result) | {"spooled": spooled})
    else:
        waiting = f", {spooled:,} wait in the spool" if spooled else ""
        sys.stdout.write(f"{_sentence(result)}{waiting}\n")
    if job.markers_lost:
        sys.stderr.write(f"{job.markers_lost} markers were not written: the next replay sends those again, marked\n")
    if not result.ok:
        raise typer.Exit(FAILED)
    if spooled:
        raise typer.Exit(SPOOLED)


def _sentence(result: Any) -> str:
    would = "would be sent" if result.dry_run else "delivered"
    parts = [f"{result.selected:,} selected", f"{result.delivered:,} {would}"]
    if result.still_failing:
        rules = ", ".join(f"{rule} {count}" for rule, count in result.still_failing_by_rule.items())
        parts.append(f"{result.still_failing:,} still break the contract ({rules})")
    for name in ("not_rebuildable", "dead_lettered", "refused", "failed"):
        count = getattr(result, name)
        if count:
            reasons = result.not_rebuildable_by_reason if name == "not_rebuildable" else {}
            why = ", ".join(f"{reason}: {number}" for reason, number in reasons.items())
            parts.append(f"{count:,} {name.replace('_', ' ')}{f' ({why})' if why else ''}")
    return ", ".join(parts)


class _NoSchemas:
    """Dead letters are described without asking a registry."""

    def by_id(self, schema_id: int) -> str:
        from postroom.libs.exceptions import SubjectNotFoundError

        raise SubjectNotFoundError(f"schema {schema_id} is not asked for here")


def _told(each: "OpenLetter") -> dict[str, Any]:
    from datetime import UTC, datetime

    from postroom.libs.clock import rfc3339

    letter = each.letter
    failed = None if letter.failed_at_ms is None else datetime.fromtimestamp(letter.failed_at_ms / 1000, UTC)
    return {
        "event_id": letter.event_id,
        "event_type": letter.event_type,
        "place": f"{each.topic}[{each.partition}] {each.offset}",
        "failed_at": None if failed is None else rfc3339(failed, "seconds"),
        "attempts": letter.attempts,
        "reason": letter.reason,
        "stage": letter.stage,
        "violations": [str(violation) for violation in letter.violations],
        "rebuildable": letter.rebuildable,
    }


def _json(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def _contract(settings: "Config", name: str | None) -> "Contract":
    from postroom.schemas.data_contracts import configured_contracts, find_contract

    contracts = configured_contracts(settings.contracts.path)
    return find_contract(contracts, name or settings.contracts.default)


def _topic(settings: "Config", contract: "Contract") -> str:
    from postroom.services.lane import dead_letter_topic

    return dead_letter_topic(contract, settings)


def _reader(settings: "Config") -> "KafkaReader":
    from postroom.streaming.kafka_reader import KafkaReader
    from postroom.streaming.librdkafka_settings import client_settings

    refuse_embedded(settings)
    return KafkaReader(client_settings(settings))
