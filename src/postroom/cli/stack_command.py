"""`postroom stack`: start a real Kafka and a real Schema Registry on this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroom.cli.border import sigterm_like_ctrl_c, write_json
from postroom.cli.options import AsJson
from postroom.libs.clock import SYSTEM_CLOCK, Clock
from postroom.libs.exceptions import ConfigurationError, StackError

if TYPE_CHECKING:
    from postroom.testing.local_stack import LocalStack

app = typer.Typer(help="Start a real Kafka and a real Schema Registry on this machine.", no_args_is_help=True)

# The addresses that everybody's examples name, taken where they are free: brokers, then the registry.
_USUAL_PORTS = {1: (9092, 8081), 3: (9092, 9093, 9094, 8081)}
_LOOK_EVERY_S = 0.5


@app.command()
def up(
    brokers: Annotated[int, typer.Option("--brokers", help="1, or 3 with every record in three copies.")] = 1,
    registry: Annotated[
        bool, typer.Option("--registry/--no-registry", help="With a Schema Registry, or without.")
    ] = True,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory", metavar="DIR", help="Keep topics, events and schemas there. Else all is thrown away."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start Kafka and the registry, say where they are, and stop them on Ctrl-C.

    Needs no Docker and no Java: only postroom's extra `stack`. The first start downloads about 200 MB, every
    file of which is compared with a committed SHA-256. Everything listens on this machine only.

    Examples: `postroom stack up`, `postroom stack up --brokers 3 --no-registry --directory ./kafka-data`
    """
    if brokers not in _USUAL_PORTS:
        raise ConfigurationError(f"--brokers is {brokers}", remedy="write --brokers 1 or --brokers 3")
    from postroom.testing.local_stack import LocalStack

    stack = LocalStack(
        brokers,
        registry=registry,
        directory=directory,
        progress=_tell,
        preferred_ports=_USUAL_PORTS[brokers],
    )
    with sigterm_like_ctrl_c(), stack:
        if as_json:
            write_json(_addresses(stack, with_registry=registry))
        else:
            typer.echo(_welcome(stack, with_registry=registry, directory=directory))
        sys.stdout.flush()
        try:
            _watch(stack)
        except KeyboardInterrupt:  # the way to end it, and no failure
            _tell("stopping")


@app.command()
def install(
    registry: Annotated[
        bool, typer.Option("--registry/--no-registry", help="The Schema Registry too, or Kafka only.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Download and verify what `postroom stack up` needs, and start nothing.

    Examples: `postroom stack install`, `POSTROOM_STACK_CACHE=/srv/cache postroom stack install --no-registry`
    """
    from postroom.testing.stack_install import cache_folder
    from postroom.testing.stack_install import install as install_stack

    found = install_stack(registry=registry, progress=_tell)
    if as_json:
        write_json({"cache": str(cache_folder()), "jars": len(found.kafka), "registry": found.registry is not None})
    else:
        typer.echo(f"Installed and verified in {cache_folder()}. Start it with: postroom stack up")


def _tell(line: str) -> None:
    sys.stderr.write(f"stack: {line}\n")
    sys.stderr.flush()


def _watch(stack: "LocalStack", clock: Clock = SYSTEM_CLOCK) -> None:
    """Say which server has ended, as people kill some on purpose. Raises StackError when no broker is left."""
    ended: set[str] = set()
    while any(broker.running for broker in stack.brokers):
        for server in stack.servers:
            if not server.running and server.name not in ended:
                ended.add(server.name)
                _tell(f"{server.name} has ended, the others go on")
        clock.sleep(_LOOK_EVERY_S)
    raise StackError(f"No broker is left. The log of the last one ends:\n{stack.brokers[-1].log_tail()}")


def _addresses(stack: "LocalStack", *, with_registry: bool) -> dict[str, object]:
    return {
        "broker": stack.bootstrap,
        "registry": stack.registry_url if with_registry else None,
        "pids": {server.name: server.pid for server in stack.servers},
    }


def _welcome(stack: "LocalStack", *, with_registry: bool, directory: Path | None) -> str:
    """Where everything is, and what to do with it, to be copied as it stands."""
    where = f"--broker {stack.bootstrap} --registry {stack.registry_url if with_registry else './schemas'}"
    lines = [f"Kafka      {stack.bootstrap}"]
    if with_registry:
        lines.append(f"Registry   {stack.registry_url}")
    lines += [
        f"Data       {f'kept in {directory}' if directory else 'thrown away at the end'}",
        "Processes  " + ", ".join(f"{server.name}: {server.pid}" for server in stack.servers),
        "",
        "In another terminal:",
        f"  postroom run {where} --count 10000 --invalid-ratio 0.02",
        f"  postroom tail user_events {where}",
        f"  postroom dlq list {where}",
    ]
    if len(stack.brokers) > 1:
        lines.append(f"  kill -9 {stack.brokers[0].pid}    # and watch how the run goes on")
    return "\n".join([*lines, "", "Ctrl-C stops everything."])
