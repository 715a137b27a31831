"""`postroom contracts check --registry`: whether contracts may follow what is registered."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from postroom.cli.border import FAILED, write_json
from postroom.cli.options import settings_from_options
from postroom.cli.words import many, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postroom.schemas.data_contracts import Contract
    from postroom.schemas.registration import Registration
    from postroom.schemas.registry_protocol import Compatibility
    from postroom.schemas.schema_registry_client import SchemaRegistryClient


def check_registered(
    contracts: "Iterable[Contract]", *, registry: str, config: Path | None, env: str | None, as_json: bool
) -> None:
    """Say of each contract whether it may be registered, and why not; Exit with 1 if one may not. Registers nothing."""
    from postroom.schemas.registration import subject_of
    from postroom.schemas.schema_registry_client import SchemaRegistryClient

    settings = settings_from_options(registry=registry, config=config, env=env)
    told = []
    with SchemaRegistryClient(settings=settings.schema_registry) as client:
        for contract in contracts:
            subject = subject_of(contract, settings)
            told.append({"contract": contract.name, "subject": subject, **_judged(client, subject, contract)})
    ok = all(one["ok"] for one in told)
    if as_json:
        write_json({"ok": ok, "contracts": told})
    else:
        for one in told:
            _tell(one)
    if not ok:
        raise typer.Exit(FAILED)


def _judged(client: "SchemaRegistryClient", subject: str, contract: "Contract") -> dict[str, Any]:
    """The state of one contract: `new`, `registered`, `compatible` or `incompatible`, and what it breaks."""
    from postroom.libs.exceptions import SubjectNotFoundError
    from postroom.schemas.compatibility import breaks
    from postroom.schemas.registration import registration_of
    from postroom.schemas.schema_shape import shape_of

    try:
        numbers = client.versions(subject)
    except SubjectNotFoundError:
        return _state("new", None, None, contract)
    rule, registration = client.get_compatibility(subject), registration_of(contract)
    try:
        return _state("registered", client.lookup(subject, registration), rule, contract)
    except SubjectNotFoundError:
        accepted = _accepted(client, subject, registration)
    level = contract.governance.compatibility or rule
    ids = [client.get_schema(subject, number).schema_id for number in numbers]
    earlier = [shape_of(json.loads(client.by_id(one))) for one in ids]  # with all that they refer to
    broken = [
        {
            "version": numbers[one.earlier],
            "direction": "backward" if one.backward else "forward",
            "path": one.misfit.path,
            "code": one.misfit.code,
            "text": one.misfit.text,
            "silent": one.misfit.silent,
        }
        for one in breaks(shape_of(contract.schema), earlier, level)
    ]
    state = "incompatible" if broken or accepted is False else "compatible"
    return {**_state(state, None, rule, contract), "accepted_by_registry": accepted, "breaks": broken}


def _accepted(client: "SchemaRegistryClient", subject: str, registration: "Registration") -> bool | None:
    """Whether the registry would take it; None where it cannot say: Apicurio does not judge schemas with references."""
    from postroom.libs.exceptions import InvalidSchemaError

    try:
        return client.check_compatibility(subject, registration)
    except InvalidSchemaError:
        if registration.references:
            return None
        raise


def _state(state: str, schema_id: int | None, rule: "Compatibility | None", contract: "Contract") -> dict[str, Any]:
    word = contract.governance.compatibility
    return {
        "ok": state != "incompatible",
        "state": state,
        "schema_id": schema_id,
        "compatibility": word.value if word else None,
        "registry_rule": rule.value if rule else None,
    }


def _tell(one: dict[str, Any]) -> None:
    head = f"{one['contract']}: {printable(one['subject'])}"
    rule = one["registry_rule"]
    if one["state"] == "new":
        typer.echo(f"{head} is not registered yet")
    elif one["state"] == "registered":
        typer.echo(f"{head} has this schema, id {one['schema_id']}")
    else:
        verdict = "may follow" if one["ok"] else f"breaks what is registered, in {many(len(one['breaks']), 'place')}"
        typer.echo(f"{head}: it {verdict} under {one['compatibility'] or rule}")
        if one["accepted_by_registry"] is None:
            typer.echo("  the registry cannot say whether it would take a schema with references")
        elif not one["accepted_by_registry"]:
            typer.echo(f"  the registry would refuse it under its rule {rule}")
    for broken in one.get("breaks", []):
        reader = "new readers of old events" if broken["direction"] == "backward" else "old readers of new events"
        silent = " (silent: no registry refuses it)" if broken["silent"] else ""
        path = broken["path"] or "schema"
        typer.echo(printable(f"  version {broken['version']}, {reader}: {path}: {broken['text']}{silent}"))
    if rule and one["compatibility"] and rule != one["compatibility"]:
        typer.echo(f"  note: the registry's rule is {rule}, the contract says {one['compatibility']}")
