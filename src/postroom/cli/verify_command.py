"""`postroom verify`: read the topics back and prove what arrived."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroom.cli.border import FAILED, stdout_console, write_json
from postroom.cli.options import AsJson, Broker, ConfigFile, Environment, settings_from_options

if TYPE_CHECKING:
    from postroom.libs.config_loader import Config
    from postroom.services.verify import TopicReport, VerifyReport

app = typer.Typer(help="Read the topics back and prove what arrived.")

_COUNTS = (
    "accepted",
    "found",
    "dead_lettered",
    "missing",
    "duplicated",
    "marked",
    "unmarked",
    "out_of_order",
    "foreign",
)


@app.command()
def verify(
    accepted: Annotated[
        Path, typer.Option("--accepted", metavar="FILE", help="What `postroom run --accepted FILE` wrote.")
    ],
    broker: Broker = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Read the topics back and prove what arrived.

    Every accepted event must be there, once, in the order of its key.

    Exit code 1 if anything is missing, repeated without a mark, or out of order. The embedded broker is refused: it
    removes no duplicates and throws old records away.

    Examples: `postroom verify --accepted a.ndjson`,
    `postroom verify --accepted a.ndjson --broker localhost:9092 --json`
    """
    from postroom.streaming.librdkafka_settings import client_settings

    settings = settings_from_options(broker=broker, config=config, env=env)
    _refuse_embedded(settings)
    report = _verified(accepted, client_settings(settings))
    if as_json:
        topics = [{name: getattr(topic, name) for name in ("topic", *_COUNTS)} for topic in report.topics]
        write_json({"ok": report.is_good, "topics": topics})
    else:
        _print(report)
    if not report.is_good:
        raise typer.Exit(FAILED)


def _refuse_embedded(settings: "Config") -> None:
    from postroom.libs.exceptions import ConfigurationError
    from postroom.streaming.kafka_admin import KafkaAdmin
    from postroom.streaming.librdkafka_settings import client_settings

    if settings.broker == "embedded" or KafkaAdmin(client_settings(settings)).is_embedded():
        raise ConfigurationError(
            "the embedded broker cannot be verified: it removes no duplicates and throws old records away",
            remedy="run against a real Kafka: postroom stack up",
        )


def _verified(accepted: Path, client: dict[str, object]) -> "VerifyReport":
    """Check with a running count on a terminal."""
    from rich.console import Console

    from postroom.services.verify import verify as look
    from postroom.streaming.kafka_reader import KafkaReader

    reader = KafkaReader(client)
    if not sys.stderr.isatty():
        return look(accepted, reader)
    with Console(stderr=True).status("reading the journal") as status:
        return look(accepted, reader, lambda count: status.update(f"{count:,} records read"))


def _print(report: "VerifyReport") -> None:
    console = stdout_console()
    for topic in report.topics:
        console.print(_line(topic), markup=False)
    for topic in report.topics:
        for what, examples in (
            ("missing", topic.missing_ids),
            ("repeated without a mark", topic.unmarked_ids),
            ("out of order", topic.out_of_order_at),
        ):
            if examples:
                console.print(f"{topic.topic}: {what}: {', '.join(examples)}", markup=False)
    if not report.topics:
        console.print("Nothing is proven: the journal holds no accepted event.", style="red")
    elif report.is_good:
        console.print("Good: nothing missing, no repeat without a mark, every key in order.", style="green")
    else:
        console.print("Not good: see above.", style="red")


def _line(topic: "TopicReport") -> str:
    letters = " dead letters" if topic.dead_lettered == topic.accepted else f" ({topic.dead_lettered:,} dead letters)"
    return (
        f"{topic.topic}: {topic.accepted:,}{letters if topic.dead_lettered else ''} accepted, {topic.found:,} found,"
        f" {topic.missing:,} missing, {topic.duplicated:,} duplicated ({topic.marked:,} marked,"
        f" {topic.unmarked:,} unmarked), {topic.out_of_order:,} out of order, {topic.foreign:,} of others"
    )
