"""`postroom contracts types` and `docs`: what is made from contracts for programs and for people."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from postroom.cli.border import write_json
from postroom.cli.options import AsJson

_Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Contract files, or folders of them.")]


def types(files: _Files, as_json: AsJson = False) -> None:
    """Write a Python module with a TypedDict for each contract and each record in it to stdout.

    A type checker then finds a wrong field or type where `publish_event` is called.

    Examples: `postroom contracts types contracts/ > events.py`, `postroom contracts types order.yaml --json`
    """
    from postroom.schemas.contract_types import types_module
    from postroom.schemas.data_contracts import load_contracts

    contracts = list(load_contracts(files).values())
    text = types_module(contracts)
    if as_json:
        write_json({"contracts": [contract.name for contract in contracts], "module": text})
    else:
        sys.stdout.write(text)
