"""The command `postroom`: a table of commands, each loaded when it is called and not before.

To add one: write `cli/<name>_command.py` with `app = typer.Typer()`, and a row in COMMANDS. A module whose `app` has
one command is a plain command; with several it is a group; a group of one needs an `@app.callback()`. The help in
the row is the first sentence of the module's own (a test compares the two), so that `postroom --help` loads nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from postroom.cli.border import NobodyReadsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Row(NamedTuple):
    """One command: its name, the module that holds its `app`, and its help in one line."""

    name: str
    module: str
    help: str


COMMANDS = (
    Row("run", "postroom.cli.run_command", "Generate or read events and publish them, with a live view."),
    Row("send", "postroom.cli.send_command", "Publish the events of a file or of stdin, one outcome a line."),
    Row(
        "tail",
        "postroom.cli.tail_command",
        "Show the events of a topic, decoded.",
    ),
    Row(
        "verify",
        "postroom.cli.verify_command",
        "Read the topics back and prove what arrived.",
    ),
    Row("status", "postroom.cli.status_command", "Show how a running process and its spool are."),
    Row("spool", "postroom.cli.spool_command", "Look into the spool, send what waits in it, adopt another host's."),
    Row("contracts", "postroom.cli.contracts_command", "Draft, check, compare and register contracts."),
    Row("topics", "postroom.cli.topics_command", "Create the topics that the contracts name."),
    Row("dlq", "postroom.cli.dlq_command", "List, show and replay dead letters."),
    Row("stack", "postroom.cli.stack_command", "Start a real Kafka and a real Schema Registry on this machine."),
    Row("config", "postroom.cli.config_command", "Check, show and write the settings."),
)


class LazyGroup(TyperGroup):
    """A group that lists its commands from the table and loads the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Stand-ins that know their names and help: enough for lists, suggestions and completion.
        self.commands = {row.name: TyperCommand(name=row.name, help=row.help) for row in COMMANDS}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, loaded now."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        return name, None if stand_in is None else load(str(name)), rest

    def make_context(self, *words: Any, **extra: Any) -> Any:
        """Read the words of the command line; `--help` and `--version` write here."""
        with _nobody_reads():
            return super().make_context(*words, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _nobody_reads():
            return super().invoke(ctx)


@contextmanager
def _nobody_reads() -> Iterator[None]:
    """Typer would end the process with 1 when stdout is closed; the border knows better."""
    try:
        yield
    except BrokenPipeError as exc:
        raise NobodyReadsError from exc


def load(name: str) -> Any:
    """The command called `name`, from its module. Raises KeyError for one that is not in the table."""
    module = {row.name: row.module for row in COMMANDS}[name]
    command = typer.main.get_command(import_module(module).app)
    command.name = name
    completion = {"install_completion", "show_completion"}  # options of the whole, not of each command
    command.params = [param for param in command.params if param.name not in completion]
    return command


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"postroom {metadata.version('postroom')}")
        raise typer.Exit


app = typer.Typer(
    name="postroom",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its boxes show the values of local variables
    rich_markup_mode="markdown",
)


@app.callback()
def postroom(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Hand postroom an event and it is checked, paced, published to Kafka, retried and accounted for.

    Try: `postroom run --broker embedded --count 1000`
    """


def main(arguments: Sequence[str]) -> Any:
    """Run the command line `arguments` without ending the process; gives the exit code, or None for 0."""
    return typer.main.get_command(app).main(list(arguments), prog_name="postroom", standalone_mode=False)
