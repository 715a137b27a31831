"""`postroom contracts register`: schemas go to the registry, with the rule that their contracts want kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli.border import write_json
from postroom.cli.options import AsJson, ConfigFile, Environment, Registry, settings_from_options
from postroom.cli.words import printable
from postroom.schemas.registry_protocol import Compatibility

if TYPE_CHECKING:
    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract
    from postroom.schemas.schema_registry_client import SchemaRegistryClient


@dataclass(frozen=True)
class _Plan:
    """A contract, its subject, and the rule that the subject has of its own before anything is done."""

    contract: "Contract"
    subject: str
    own: Compatibility | None

    @property
    def word(self) -> Compatibility | None:
        """The rule that the contract wants."""
        return self.contract.governance.compatibility

    @property
    def sets_rule(self) -> bool:
        """Whether the subject gets the contract's word."""
        return self.word is not None and self.word is not self.own

    @property
    def overrules(self) -> bool:
        """Whether that takes a rule away that somebody gave the subject; a NONE binds nobody."""
        return self.sets_rule and self.own not in (None, Compatibility.NONE)


def register(
    names: Annotated[list[str] | None, typer.Argument(help="Contracts of the settings; all of them if none.")] = None,
    set_compatibility: Annotated[
        bool, typer.Option("--set-compatibility", help="Overrule a rule of the registry by the contract's word.")
    ] = False,
    registry: Registry = None,
    config: ConfigFile = None,
    env: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Register the schemas of contracts in the Schema Registry; one that is there already keeps its id.

    A contract that says its `compatibility` gives its subject that rule first, so that it is judged by it itself. Where
    the subject has another rule of its own, nothing is registered without --set-compatibility.

    What a contract refers to must be there first. Metadata and rules go along; what the registry does not keep of them
    is told on stderr and as `dropped`, and is no error.

    Examples: `postroom contracts register`,
    `postroom contracts register user_event --registry http://localhost:8081`,
    `postroom contracts register order --set-compatibility`
    """
    from postroom.schemas.data_contracts import configured_contracts, find_contract
    from postroom.schemas.schema_registry_client import SchemaRegistryClient
    from postroom.schemas.shared_topics import check_shared_topics

    settings = settings_from_options(registry=registry, config=config, env=env)
    contracts = configured_contracts(settings.contracts.path)
    check_shared_topics(contracts.values(), settings)
    chosen = [find_contract(contracts, name) for name in names] if names else list(contracts.values())
    with SchemaRegistryClient(settings=settings.schema_registry) as client:
        plans = [_plan(client, contract, settings) for contract in chosen]
        if not set_compatibility:
            _refuse_overruling(plans)
        done = [_register(client, plan, quiet=as_json) for plan in plans]
    if as_json:
        write_json({"registered": done})


def _plan(client: "SchemaRegistryClient", contract: "Contract", settings: "Config") -> _Plan:
    from postroom.schemas.registration import subject_of

    subject = subject_of(contract, settings)
    asks = contract.governance.compatibility is not None  # who wants no rule needs no registry that has some
    return _Plan(contract, subject, client.own_compatibility(subject) if asks else None)


def _refuse_overruling(plans: list[_Plan]) -> None:
    """Raise before anything is registered where a rule of somebody else is in the way."""
    from postroom.libs.exceptions import SchemaRegistryError

    wrong = [
        f"{printable(plan.subject)} has the rule {plan.own} in the registry, the contract {plan.contract.name} says "
        f"{plan.word}"
        for plan in plans
        if plan.overrules
    ]
    if wrong:
        raise SchemaRegistryError(
            f"{'; '.join(wrong)}. Nothing is registered",
            remedy="write the registry's word into the contract, or overrule it with --set-compatibility",
        )


def _register(client: "SchemaRegistryClient", plan: _Plan, *, quiet: bool) -> dict[str, Any]:
    from postroom.schemas.registration import register_and_read_back, registration_of

    name, subject = plan.contract.name, printable(plan.subject)
    if plan.sets_rule:
        assert plan.word is not None
        client.set_compatibility(plan.subject, plan.word)
        if not quiet:
            before = f" (it was {plan.own})" if plan.overrules else ""
            typer.echo(f"{name}: {subject} has the rule {plan.word} now{before}")
    got = register_and_read_back(client, plan.subject, registration_of(plan.contract))
    if not quiet:
        typer.echo(f"{name}: {subject} has schema id {got.schema_id}")
    if got.dropped:
        parts = ", ".join(got.dropped)
        typer.echo(f"warning: {name}: the registry did not keep {parts}; postroom does", err=True)
    return {
        "contract": name,
        "subject": plan.subject,
        "schema_id": got.schema_id,
        "compatibility": plan.word.value if plan.word else None,
        "compatibility_set": plan.sets_rule,
        "registry_rule_before": plan.own.value if plan.own else None,
        "dropped": list(got.dropped),
    }
