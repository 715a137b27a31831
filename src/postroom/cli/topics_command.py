"""`postroom topics`: create the topics that the contracts name."""

from typing import TYPE_CHECKING, Annotated

import typer

from postroom.cli.border import write_json
from postroom.cli.options import AsJson, Broker, ConfigFile, Environment, refuse_embedded, settings_from_options

if TYPE_CHECKING:
    from postroom.streaming.kafka_admin import TopicResult, TopicSpec

app = typer.Typer(help="Create the topics that the contracts name.", no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Create the topics that the contracts name."""


@app.command()
def create(
    names: Annotated[list[str] | None, typer.Argument(help="Contracts of the settings; all of them if none.")] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="Instead of what the contracts say.")] = None,
    replication: Annotated[int | None, typer.Option(min=1, help="Instead of what the contracts say.")] = None,
    broker: Broker = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Create the topics of contracts, each with its dead letter topic; one that exists is left as it is.

    A topic whose partitions or replicas differ from what was asked for is told, not changed: more partitions would move
    keys to other places.

    Examples: `postroom topics create`, `postroom topics create user_event --partitions 6 --replication 3`
    """
    from postroom.schemas.data_contracts import configured_contracts, find_contract
    from postroom.schemas.shared_topics import check_shared_topics
    from postroom.services.topics import topic_specs
    from postroom.streaming.kafka_admin import KafkaAdmin
    from postroom.streaming.librdkafka_settings import client_settings

    settings = settings_from_options(broker=broker, config=config, env=env)
    refuse_embedded(settings)
    contracts = configured_contracts(settings.contracts.path)
    check_shared_topics(contracts.values(), settings)
    chosen = [find_contract(contracts, name) for name in names] if names else list(contracts.values())
    wanted = {spec.name for spec in topic_specs(chosen, settings)}
    every = topic_specs(contracts.values(), settings, partitions=partitions, replication=replication)
    specs = [spec for spec in every if spec.name in wanted]  # what a shared topic needs, another contract may say
    results = KafkaAdmin(client_settings(settings)).create_topics(specs)
    if as_json:
        write_json({"topics": [_told(result) for result in results]})
        return
    for spec, result in zip(specs, results, strict=True):
        typer.echo(_line(spec, result))


def _told(result: "TopicResult") -> dict[str, object]:
    return {
        "topic": result.name,
        "state": result.state.value,
        "partitions": result.partitions,
        "replication": result.replication,
    }


def _line(spec: "TopicSpec", result: "TopicResult") -> str:
    from postroom.streaming.kafka_admin import TopicState

    has = f"{result.partitions} partitions, {result.replication} replicas"
    if result.state is TopicState.CREATED:
        return f"{result.name}: created with {has}"
    if result.state is TopicState.EXISTS:
        return f"{result.name}: exists with {has}"
    return f"{result.name}: exists with {has}; asked for {_asked(spec.partitions)} and {_asked(spec.replication)}"


def _asked(number: int) -> str:
    return "the default" if number == -1 else str(number)
