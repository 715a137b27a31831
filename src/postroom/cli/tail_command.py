"""`postroom tail`: show the events of a topic, decoded."""

import heapq
import json
import sys
from contextlib import closing
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli.border import stdout_console, write_json
from postroom.cli.options import (
    AsJson,
    Broker,
    ConfigFile,
    Environment,
    Registry,
    refuse_embedded,
    settings_from_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from postroom.streaming.kafka_reader import KafkaReader, ReadRecord

app = typer.Typer(help="Show the events of a topic, decoded.")

_LAST = 10


class From(StrEnum):
    """Where to begin."""

    BEGINNING = "beginning"
    END = "end"


@app.command()
def tail(
    topic: Annotated[str, typer.Argument(help="A topic, or its name under `topics` in the settings.")],
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="So many records; the last 10 if nothing is said.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    start: Annotated[
        From, typer.Option("--from", help="From the beginning, or the last ones (--follow: new ones only).")
    ] = From.END,
    broker: Broker = None,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Show the events of a topic, decoded.

    Events are decoded by their schema, dead letters are shown with their reason. What cannot be decoded is described:
    key, size, headers and why. With `--json` each record is one object a line.

    Examples: `postroom tail user_events`, `postroom tail user_events --follow`,
    `postroom tail user_events.dlq --from beginning --count 5 --json`
    """
    from postroom.schemas.schema_registry_client import SchemaRegistryClient
    from postroom.services.record_view import RecordView
    from postroom.streaming.kafka_reader import KafkaReader
    from postroom.streaming.librdkafka_settings import client_settings

    settings = settings_from_options(broker=broker, registry=registry, config=config, env=env)
    refuse_embedded(settings)
    reader = KafkaReader(client_settings(settings))
    console = stdout_console()
    with SchemaRegistryClient(settings=settings.schema_registry) as schemas:
        view = RecordView(schemas)
        for record in _records(reader, settings.topic(topic), count, start, follow=follow):
            told = view.describe(record)
            write_json(told) if as_json else _print(console, told)
            if follow:
                sys.stdout.flush()


def _records(
    reader: "KafkaReader", topic: str, count: int | None, start: From, *, follow: bool
) -> "Iterator[ReadRecord]":
    from_beginning = start is From.BEGINNING
    if follow:
        records = reader.follow([topic], from_beginning=from_beginning, stop=lambda: False)
    else:
        records = reader.read([topic], last=None if from_beginning else count or _LAST)
    with closing(records):
        if follow or from_beginning:
            yield from islice(records, count)
        else:
            yield from reversed(heapq.nlargest(count or _LAST, records, key=_age))


def _age(record: "ReadRecord") -> tuple[int, int, int]:
    return record.timestamp_ms, record.offset, record.partition


def _print(console: "Console", told: dict[str, Any]) -> None:
    """Two or more lines a record: where it stands, then what it says."""
    from rich.text import Text

    place = f"{told['topic']}[{told['partition']}] {told['offset']}"
    key = "-" if told["key"] is None else _one_line(told["key"])
    told_type = dict(told["headers"]).get("ce_type") if told["kind"] in {"event", "tombstone"} else None
    kind = "" if told_type is None else f"  {_one_line(told_type)}"
    console.print(Text.assemble((place, "bold"), f"  {told['timestamp'] or '-'}  key {key}{kind}"))
    match told["kind"]:
        case "dead_letter":
            reason = Text.assemble("  ", (told["reason"], "red"), f"  attempt {told['attempts']}")
            console.print(reason.append(f"  was going to {_one_line(told['going_to'] or '-')}"))
            for violation in told["violations"]:
                what = f"expected {violation['expected']}, found {violation['found']}"
                console.print(Text(_one_line(f"{violation['path'] or 'event'}: {violation['rule']}, {what}", "    ")))
            console.print(Text(_one_line(told["damage"], "  ") if told["damage"] else _one_line(told["event"], "  ")))
        case "marker":
            console.print(Text(f"  settles the dead letters of event {_one_line(told['settles'])}"))
        case "tombstone":
            console.print("  no value (a tombstone)")
        case "bytes":
            console.print(Text(f"  {told['bytes']} bytes not decoded: {_one_line(told['problem'])}", style="yellow"))
            for name, value in told["headers"]:
                console.print(Text(_one_line(f"{name}: {_one_line(value)}", "    ")))
        case _:
            console.print(Text(_one_line(told["event"], "  ")))


def _one_line(value: object, indent: str = "") -> str:
    """`value` on one line, texts as they are and all else as JSON; nothing in it can command a terminal."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return indent + "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
