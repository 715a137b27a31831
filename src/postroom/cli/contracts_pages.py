"""`postroom contracts types` and `docs`: what is made from contracts for programs and for people."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from postroom.cli.border import write_json
from postroom.cli.contracts_diff import registered_versions
from postroom.cli.options import AsJson, ConfigFile, Environment, Registry, settings_from_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.libs.config_loader import Config
    from postroom.schemas.contract_diff import Side
    from postroom.schemas.data_contracts import Contract

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


def docs(
    files: _Files,
    folder: Annotated[Path, typer.Option("--folder", metavar="DIR", help="Where to write the pages.")] = Path(
        "contract-docs"
    ),
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Write a page for each contract, an index, and an AsyncAPI 3 document with Kafka bindings.

    Pages are Markdown, and HTML that needs no other file: fields, key, topic, owner, rules with their known-bad events,
    tagged fields with what the settings do to them in dead letters, references, examples; with --registry also every
    registered version and what it changed. Pages that are there already are replaced.

    Examples: `postroom contracts docs contracts/`,
    `postroom contracts docs contracts/ --folder docs/events --registry http://localhost:8081`
    """
    from postroom.libs.exceptions import ConfigurationError
    from postroom.schemas.asyncapi import asyncapi
    from postroom.schemas.data_contracts import load_contracts

    contracts = list(load_contracts(files).values())
    if any(contract.name == "index" for contract in contracts):
        raise ConfigurationError("a contract named index has the page of the index", remedy="give it another name")
    settings = settings_from_options(registry=registry, config=config, env=env)
    past = {} if registry is None else _past(contracts, settings)
    privacy = None if settings.file is None else settings.dead_letters.privacy
    pages = _pages(contracts, past, privacy)
    pages["asyncapi.json"] = json.dumps(asyncapi(contracts), indent=2, ensure_ascii=False) + "\n"
    _write(folder, pages)
    written = [str(folder / name) for name in pages]
    if as_json:
        write_json({"written": written})
    else:
        typer.echo("\n".join(written))


def _pages(
    contracts: "list[Contract]", past: "dict[str, list[Side]]", privacy: "Mapping[str, str] | None"
) -> dict[str, str]:
    """The text of each page by its file's name: Markdown and HTML of the same, the links of each among themselves."""
    from postroom.schemas.contract_page import index, page
    from postroom.schemas.html_page import html_page

    pages = {}
    for contract in contracts:
        markdown, for_html = (
            page(contract, past.get(contract.name, ()), others=contracts, privacy=privacy, suffix=suffix)
            for suffix in (".md", ".html")
        )
        pages[f"{contract.name}.md"] = markdown
        pages[f"{contract.name}.html"] = html_page(contract.name, for_html, index="index.html")
    pages["index.md"] = index(contracts)
    pages["index.html"] = html_page("Events", index(contracts, suffix=".html"))
    return pages


def _past(contracts: "list[Contract]", settings: "Config") -> "dict[str, list[Side]]":
    """The registered versions of each contract by its name."""
    from postroom.libs.exceptions import SubjectNotFoundError
    from postroom.schemas.registration import subject_of
    from postroom.schemas.schema_registry_client import SchemaRegistryClient

    found: dict[str, list[Side]] = {}
    with SchemaRegistryClient(settings=settings.schema_registry) as client:
        for contract in contracts:
            try:
                found[contract.name] = registered_versions(client, subject_of(contract, settings))
            except SubjectNotFoundError:
                continue
    return found


def _write(folder: Path, pages: dict[str, str]) -> None:
    from postroom.libs.exceptions import ConfigurationError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"{folder} cannot be written to: {reason}", remedy="name another folder") from error
