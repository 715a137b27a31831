"""`postroom contracts new` and `infer`: the first draft of a contract, from nothing or from sample events."""

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroom.cli import event_lines
from postroom.cli.border import write_json
from postroom.cli.options import AsJson
from postroom.cli.words import many

if TYPE_CHECKING:
    from postroom.schemas.contract_infer import Inference

_PROGRESS_S = 1.0


def new(
    name: Annotated[str, typer.Argument(help="The event type, such as order_placed.")],
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Where to write it; NAME.yaml if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented contract file to start from; a file that exists is left alone.

    Examples: `postroom contracts new order_placed`, `postroom contracts new order_placed --file contracts/order.yaml`
    """
    from postroom.libs.exceptions import ConfigurationError
    from postroom.schemas.contract_starter import starter

    path = file or Path(f"{_checked_name(name)}.yaml")
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(starter(_checked_name(name)))
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists already", remedy="name another with --file") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"{path} cannot be written: {reason}", remedy="name another with --file") from error
    if as_json:
        write_json({"contract": name, "file": str(path)})
    else:
        typer.echo(f"{path} is written. Edit it, then: postroom contracts check {path}")


def infer(
    samples: Annotated[Path, typer.Argument(help="Sample events as NDJSON, one a line; - is stdin.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The event type; the file's name if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draft a contract from sample events and write it to stdout, with comments where it is unsure.

    No value of a sample stands in the draft but the symbols of clear enums.

    Examples: `postroom contracts infer samples.ndjson > order.yaml`,
    `jq -c .event export.json | postroom contracts infer - --name order`
    """
    from postroom.libs.exceptions import ConfigurationError

    chosen = name or re.sub(r"[^A-Za-z0-9_.-]+", "_", samples.stem).strip("._-")
    if not chosen:
        raise ConfigurationError("the contract has no name", remedy="name it with --name")
    _checked_name(chosen)
    inference, skipped = _read(samples)
    if not inference.count:
        raise ConfigurationError(f"{samples} holds no event", remedy="name a file with one JSON object a line")
    draft = inference.draft(chosen)
    if as_json:
        write_json({"contract": chosen, "samples": inference.count, "skipped": skipped, "draft": draft})
        return
    sys.stdout.write(draft)
    if skipped:
        sys.stderr.write(f"{many(skipped, 'line')} left out: not the JSON object of an event\n")


def _checked_name(name: str) -> str:
    from postroom.libs.exceptions import ConfigurationError
    from postroom.libs.setting_formats import FormatError, contract_name

    try:
        return contract_name(name)
    except FormatError as error:
        raise ConfigurationError(f"the name of the contract {error.what}", remedy=error.remedy) from None


def _read(path: Path) -> "tuple[Inference, int]":
    """What the file's events have in common, and the number of lines that are none."""
    from postroom.libs.exceptions import DecodeError
    from postroom.schemas.contract_infer import Inference
    from postroom.schemas.json_reader import read_json

    inference, skipped, told = Inference(), 0, time.monotonic()
    for _, line in event_lines.event_lines(path):
        try:
            event = read_json(line, max_bytes=event_lines.MAX_LINE_BYTES)
        except DecodeError:
            event = None
        if isinstance(event, dict):
            inference.add(event)
        else:
            skipped += 1
        if sys.stderr.isatty() and time.monotonic() - told >= _PROGRESS_S:
            told = time.monotonic()
            sys.stderr.write(f"\r{inference.count:,} events read")
            sys.stderr.flush()
    if sys.stderr.isatty():
        sys.stderr.write("\r" + " " * 40 + "\r")
    return inference, skipped
