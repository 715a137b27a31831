"""`postroom contracts`: draft, check, compare and register contracts."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli import (
    contracts_diff,
    contracts_draft,
    contracts_lint,
    contracts_pages,
    contracts_register,
    contracts_registered,
    event_lines,
)
from postroom.cli.border import FAILED, stdout_console, write_json
from postroom.cli.options import AsJson, ConfigFile, Environment, Registry, settings_from_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.libs.event import Violation
    from postroom.schemas.data_contracts import Contract

app = typer.Typer(help="Draft, check, compare and register contracts.", no_args_is_help=True)


class CheckedFormat(StrEnum):
    """What a file of events to check holds."""

    NDJSON = "ndjson"
    CSV = "csv"


@app.command("list")
def list_contracts(config: ConfigFile = None, env: Environment = None, as_json: AsJson = False) -> None:
    """List the contracts that the settings name, one a line.

    Examples: `postroom contracts list`, `postroom contracts list --config config/kafka.yaml --json`
    """
    from postroom.schemas.data_contracts import configured_contracts

    contracts = list(configured_contracts(settings_from_options(config=config, env=env).contracts.path).values())
    if as_json:
        write_json([_summary(contract) for contract in contracts])
        return
    from rich.table import Table

    table = Table("name", "version", "topic", "key", "fields", "owner", box=None, pad_edge=False)
    for contract in contracts:
        fields = str(len(contract.schema["fields"]))
        key = contract.key_field or "-"
        table.add_row(contract.name, str(contract.version), contract.topic, key, fields, contract.owner or "-")
    stdout_console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A contract of the settings, such as user_event.")],
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Show one contract: topic, key, owner and every field.

    Examples: `postroom contracts show user_event`, `postroom contracts show user_event --json`
    """
    from postroom.schemas.data_contracts import configured_contracts, find_contract

    path = settings_from_options(config=config, env=env).contracts.path
    contract = find_contract(configured_contracts(path), name)
    if as_json:
        write_json({**_summary(contract), "schema": contract.schema})
        return
    console = stdout_console()
    for key, value in _summary(contract).items():
        console.print(f"{key}: {_shown(value)}", markup=False)
    console.print("fields:")
    from postroom.schemas.avro_nodes import Record

    assert isinstance(contract.avro.root, Record)
    for field in contract.avro.root.fields:
        default = f" (default {_shown(field.default)})" if field.has_default else ""
        console.print(f"  {field.name}: {field.type}{default}", markup=False)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The contract's file, or a folder of them.")],
    events: Annotated[
        Path | None, typer.Argument(help="Events as NDJSON or CSV, each checked against the contract; - is stdin.")
    ] = None,
    file_format: Annotated[
        CheckedFormat | None, typer.Option("--format", help="What EVENTS holds; csv if its name ends so, else ndjson.")
    ] = None,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Check a contract file and, if given, events against it; exit code 1 if anything is wrong.

    Works offline. With --registry it asks whether the contracts may follow what is registered; it registers nothing.

    Examples: `postroom contracts check contracts/order.yaml`,
    `postroom contracts check contracts/order.yaml events.ndjson`,
    `postroom contracts check contracts/order.yaml - --format csv`,
    `postroom contracts check contracts/ --registry http://localhost:8081`
    """
    from postroom.libs.exceptions import ConfigurationError
    from postroom.schemas.data_contracts import load_contracts

    contracts = list(load_contracts([file]).values())
    if registry is not None:
        if events is not None:
            raise ConfigurationError("events are checked without a registry", remedy="leave out --registry")
        contracts_registered.check_registered(contracts, registry=registry, config=config, env=env, as_json=as_json)
        return
    if events is None:
        _tell_contracts(contracts, as_json=as_json)
        return
    if len(contracts) != 1:
        raise ConfigurationError("events need one contract to be checked against", remedy="name one contract file")
    checked, wrong = 0, 0
    from postroom.services.event_source import format_of

    is_csv = format_of(str(events), None if file_format is None else file_format.value) == "csv"
    for number, problems in (_check_rows if is_csv else _check_lines)(contracts[0], events):
        checked += 1
        wrong += bool(problems)
        if problems:
            _tell_line(number, problems, as_json=as_json)
    if as_json:
        write_json({"ok": wrong == 0, "contract": contracts[0].name, "events": checked, "invalid": wrong})
    else:
        typer.echo(f"{checked} event{'' if checked == 1 else 's'} checked against {contracts[0].name}: {wrong} invalid")
    if wrong:
        raise typer.Exit(FAILED)


def _summary(contract: "Contract") -> dict[str, Any]:
    return {
        "name": contract.name,
        "version": contract.version,
        "description": contract.description,
        "owner": contract.owner,
        "topic": contract.topic,
        "partitions": _set(contract.partitions),
        "replication": _set(contract.replication),
        "retention_ms": contract.retention_ms,
        "dead_letter_topic": contract.dead_letter_topic,
        "key": contract.key_field,
        "headers": contract.headers,
        "compatibility": contract.governance.compatibility,
        "tombstones": contract.tombstones,
        "record": contract.record_name,
        "references": [one.as_json() for one in contract.references],
        "rules": [rule.as_json() for rule in contract.rules],
        "metadata": contract.metadata.shown().as_json(),
        "source": None if contract.source is None else str(contract.source),
    }


def _set(number: int) -> int | None:
    """None for what is left to the cluster."""
    return None if number == -1 else number


def _shown(value: object) -> str:
    if isinstance(value, list) and value:
        return ", ".join(_short(one) for one in value)
    return "-" if value in (None, "", [], {}) else str(value)


def _short(one: dict[str, Any]) -> str:
    """A reference, or a rule, in a few words."""
    return f"{one['name']} ({one['subject']} version {one['version']})" if "subject" in one else str(one["name"])


def _tell_contracts(contracts: "list[Contract]", *, as_json: bool) -> None:
    if as_json:
        write_json({"ok": True, "contracts": [_summary(contract) for contract in contracts]})
        return
    for contract in contracts:
        typer.echo(
            f"OK: {contract.name} version {contract.version}, {len(contract.schema['fields'])} fields{_rules(contract)}"
        )


def _rules(contract: "Contract") -> str:
    """How many rules there are, and which of them do not run."""
    if not contract.rules:
        return ""
    running = sum(rule.runs_here for rule in contract.rules)
    off = ", ".join(rule.name for rule in contract.rules if rule.disabled)
    readers = ", ".join(rule.name for rule in contract.rules if not rule.disabled and not rule.runs_here)
    told = f", {running} rule{'' if running == 1 else 's'} tried on known-bad events"
    return told + (f", disabled: {off}" if off else "") + (f", for readers: {readers}" if readers else "")


def _check_lines(contract: "Contract", path: Path) -> "Iterator[tuple[int, list[Violation]]]":
    """Each line that is not blank by its number, and what is wrong with the event in it."""
    from postroom.libs.event import Violation
    from postroom.libs.exceptions import DecodeError
    from postroom.schemas.json_reader import from_json, read_json
    from postroom.schemas.schema_validator import SchemaValidator

    validator = SchemaValidator({contract.name: contract})
    for number, line in event_lines.event_lines(path):
        try:
            event = from_json(contract, read_json(line, max_bytes=event_lines.MAX_LINE_BYTES))
        except DecodeError as error:
            yield number, [Violation("", error.reason, "the JSON of one event", error.message)]
            continue
        yield number, validator.validate(contract.name, event)


def _check_rows(contract: "Contract", path: Path) -> "Iterator[tuple[int, list[Violation]]]":
    """Each row of CSV by the number of its first line, and what is wrong with the event in it."""
    from postroom.libs.event import Violation
    from postroom.libs.exceptions import DecodeError
    from postroom.schemas.schema_validator import SchemaValidator
    from postroom.services.event_source import csv_rows_of

    validator = SchemaValidator({contract.name: contract})
    for event in csv_rows_of(str(path), contract):
        try:
            found = validator.validate(contract.name, event.read(contract))
        except DecodeError as error:
            yield event.row.line, [Violation("", error.reason, "a row of CSV", error.message)]
            continue
        yield event.row.line, event.located(found)


def _tell_line(number: int, problems: "list[Violation]", *, as_json: bool) -> None:
    if as_json:
        told = [{"path": v.path, "rule": v.rule, "expected": v.expected, "found": v.found} for v in problems]
        write_json({"line": number, "violations": told})
        return
    for problem in problems:
        typer.echo(f"line {number}: {problem}")


for _name, _command in (
    ("register", contracts_register.register),
    ("diff", contracts_diff.diff),
    ("lint", contracts_lint.lint),
    ("test", contracts_lint.examples),
    ("new", contracts_draft.new),
    ("infer", contracts_draft.infer),
    ("types", contracts_pages.types),
    ("docs", contracts_pages.docs),
):
    app.command(_name)(_command)
