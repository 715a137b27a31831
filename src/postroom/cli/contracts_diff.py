"""`postroom contracts diff`: what is different between versions of a contract, and what that breaks."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli.border import FAILED, write_json
from postroom.cli.options import AsJson, ConfigFile, Environment, Registry, settings_from_options
from postroom.cli.words import many, printable
from postroom.schemas.registry_protocol import Compatibility

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.schemas.contract_changes import Change
    from postroom.schemas.contract_diff import Side
    from postroom.schemas.schema_registry_client import SchemaRegistryClient

_VERSION = re.compile(r"(?P<subject>.+)@(?P<version>[1-9][0-9]*|latest|all)")


def diff(
    old: Annotated[
        list[str],
        typer.Argument(metavar="OLD... NEW", help="Contract files; with --registry also SUBJECT@VERSION."),
    ],
    compatibility: Annotated[
        Compatibility | None,
        typer.Option("--compatibility", help="Judge by this word instead of the one in the new contract."),
    ] = None,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """List every change between versions of a contract and what it breaks; exit code 1 if it is breaking.

    The word is the new contract's `compatibility`, else BACKWARD. With --registry a name that is no file is a version
    of a subject or topic: user_events@3, user_events@latest (also without @), user_events@all.

    Examples: `postroom contracts diff main/order.yaml order.yaml`,
    `postroom contracts diff orders@all order.yaml --registry http://localhost:8081 --compatibility FULL_TRANSITIVE`
    """
    from postroom.libs.exceptions import ConfigurationError
    from postroom.schemas import contract_diff

    sides = _from_files(old) if registry is None else _with_registry(old, registry, config, env)
    if len(sides) < 2:
        raise ConfigurationError("a diff needs two versions", remedy="name the old one and the new one")
    *earlier, new = sides
    changes = contract_diff.diff(new, earlier)
    stated = new.contract.governance.compatibility if new.contract else None
    level = compatibility or stated or Compatibility.BACKWARD
    broken = contract_diff.breaking(changes, level)
    if as_json:
        write_json(_as_json(earlier, new, changes, level))
    else:
        _show(earlier[-1], new, changes)
        _tell_verdict(changes, level, broken)
    if broken:
        raise typer.Exit(FAILED)


def _from_files(names: "Sequence[str]") -> "list[Side]":
    return [_file_side(Path(name)) for name in names]


def _file_side(path: Path) -> "Side":
    from postroom.schemas.contract_diff import Side
    from postroom.schemas.data_contracts import load_contract

    contract = load_contract(path)
    return Side(f"{contract.name} version {contract.version} ({path})", contract.schema, contract)


def _with_registry(names: "Sequence[str]", registry: str, config: Path | None, env: str | None) -> "list[Side]":
    from postroom.schemas.schema_registry_client import SchemaRegistryClient

    settings = settings_from_options(registry=registry, config=config, env=env)
    sides: list[Side] = []
    with SchemaRegistryClient(settings=settings.schema_registry) as client:
        for name in names:
            sides += [_file_side(Path(name))] if _is_there(Path(name)) else _registered(client, name)
    return sides


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # reading it says so
        return True


def _registered(client: "SchemaRegistryClient", name: str) -> "list[Side]":
    """The versions that a name such as `user_events@3` or `user_events@all` stands for."""
    match = _VERSION.fullmatch(name)
    subject, version = (match["subject"], match["version"]) if match else (name, "latest")
    if version != "all":
        return [_registered_side(client, subject, version)]
    return registered_versions(client, client.get_schema(subject).subject)


def registered_versions(client: "SchemaRegistryClient", subject: str) -> "list[Side]":
    """All versions of a subject, oldest first. Raises SubjectNotFoundError."""
    return [_registered_side(client, subject, str(number)) for number in client.versions(subject)]


def _registered_side(client: "SchemaRegistryClient", subject: str, version: str) -> "Side":
    import json

    from postroom.schemas.avro_schema import parse_schema
    from postroom.schemas.contract_diff import Side

    found = client.get_schema(subject, "latest" if version == "latest" else int(version))
    raw = json.loads(found.schema)
    parse_schema(raw)
    return Side(f"{found.subject} version {found.version} (registered)", raw)


# -- words


def _effect(reasons: "Sequence[str]", silent: bool) -> str:
    return "ok" if not reasons else "silent" if silent else "breaks"


def _show(old: "Side", new: "Side", changes: "Sequence[Change]") -> None:
    """A line for each change, the effects in front: texts are long, and logs of builds wrap nothing."""
    typer.echo(f"{printable(old.label)} -> {printable(new.label)}: {many(len(changes), 'change')}")
    if changes:
        typer.echo(_row("BACKWARD", "FORWARD", "FULL", "change"))
    for change in changes:
        both = (*change.backward, *change.forward)
        backward, forward, full = (
            _effect(reasons, change.silent) for reasons in (change.backward, change.forward, both)
        )
        against = f"against {change.against}: " if change.against else ""
        typer.echo(_row(backward, forward, full, f"{against}{change.path or 'schema'}: {change.text}"))
        for reason in change.backward:
            typer.echo(_row("", "", "", f"  new readers of old events: {reason}"))
        for reason in change.forward:
            typer.echo(_row("", "", "", f"  old readers of new events: {reason}"))
        if change.producers:
            typer.echo(_row("", "", "", f"  producers of this version: {change.producers}"))
        if change.note:
            typer.echo(_row("", "", "", f"  {change.note}"))


def _row(backward: str, forward: str, full: str, text: str) -> str:
    return f"{backward:<9} {forward:<9} {full:<9} {printable(text)}"


def _tell_verdict(changes: "Sequence[Change]", level: Compatibility, broken: "Sequence[Change]") -> None:
    verdicts = ", ".join(f"{word} {'ok' if fits else 'breaking'}" for word, fits in _verdicts(changes).items())
    typer.echo(verdicts)
    if any(change.silent for change in broken):
        typer.echo("silent: no registry refuses it, but readers fail on some values or take them for others")
    stricter = sum(bool(change.producers) for change in changes)
    if stricter:
        typer.echo(
            f"Producers: {many(stricter, 'change')} may stop events that pass today; no reader is broken by that"
        )
    says = f"breaking, by {many(len(broken), 'change')}" if broken else "not breaking"
    typer.echo(f"Under {level}: {says}")


def _verdicts(changes: "Sequence[Change]") -> dict[str, bool]:
    return {
        level.value: not any(change.is_breaking(level) for change in changes)
        for level in Compatibility
        if level is not Compatibility.NONE
    }


def _as_json(
    earlier: "Sequence[Side]", new: "Side", changes: "Sequence[Change]", level: Compatibility
) -> dict[str, Any]:
    verdicts = _verdicts(changes)
    return {
        "old": [side.label for side in earlier],
        "new": new.label,
        "compatibility": level.value,
        "breaking": not verdicts.get(level.value, True),
        "verdicts": verdicts,
        "changes": [_change_as_json(change) for change in changes],
    }


def _change_as_json(change: "Change") -> dict[str, Any]:
    return {
        "path": change.path,
        "code": change.code,
        "text": change.text,
        "breaks_backward": list(change.backward),
        "breaks_forward": list(change.forward),
        "silent": change.silent,
        "producers": change.producers,
        "note": change.note,
        "against": change.against or None,
    }
