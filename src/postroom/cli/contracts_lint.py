"""`postroom contracts lint` and `test`: what a contract could say better, and whether its examples hold."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from postroom.cli.border import FAILED, write_json
from postroom.cli.options import AsJson
from postroom.cli.words import many, printable

if TYPE_CHECKING:
    from postroom.schemas.data_contracts import Contract

_Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Contract files, or folders of them.")]


def lint(files: _Files, as_json: AsJson = False) -> None:
    """Say what contracts could say better, rules and private fields included; exit code 1 if anything is found.

    A finding has a code, which silences it in the contract file: `lint_ignore: [key_missing, doc_missing device]`.

    Examples: `postroom contracts lint contracts/`, `postroom contracts lint order.yaml --json`
    """
    from postroom.schemas.contract_lint import lint as findings_of
    from postroom.schemas.data_contracts import load_contracts

    found = [(contract, finding) for contract in load_contracts(files).values() for finding in findings_of(contract)]
    if as_json:
        told = [
            {"contract": contract.name, "path": it.path, "code": it.code, "text": it.text, "remedy": it.remedy}
            for contract, it in found
        ]
        write_json({"ok": not found, "findings": told})
    else:
        for contract, finding in found:
            typer.echo(printable(f"{contract.source}: {finding}"))
        typer.echo(f"{many(len(found), 'finding')}")
    if found:
        raise typer.Exit(FAILED)


def examples(files: _Files, as_json: AsJson = False) -> None:
    """Try the examples and the rules of contracts; exit code 1 if an example is not the good event it should be.

    Each rule is tried on its known-bad event, and its outcome is told. A rule that does not stop its event, or an event
    that breaks more than its rule, is an error of the contract: exit code 1, with file and line.

    Examples: `postroom contracts test contracts/`, `postroom contracts test order.yaml --json`
    """
    from postroom.schemas.data_contracts import load_contracts

    told = [_tried(contract) for contract in load_contracts(files).values()]
    failed = sum(len(one["failed"]) for one in told)
    if as_json:
        write_json({"ok": failed == 0, "contracts": told})
    else:
        for one in told:
            for bad in one["failed"]:
                for violation in bad["violations"]:
                    typer.echo(f"{one['contract']}: example {bad['example']}: {_words(violation)}")
            for rule in one["rules"]:
                typer.echo(f"{one['contract']}: rule {rule['rule']}: {_result(rule)}")
            count = many(one["examples"], "example")
            ruled = f"; {many(len(one['rules']), 'rule')}" if one["rules"] else ""
            typer.echo(f"{one['contract']}: {count}, {len(one['failed'])} failed{ruled}")
    if failed:
        raise typer.Exit(FAILED)


def _tried(contract: "Contract") -> dict[str, Any]:
    from postroom.schemas.contract_examples import try_examples, try_known_bad

    tried = try_examples(contract)
    failed = [
        {
            "example": one.number,
            "violations": [
                {"path": v.path, "rule": v.rule, "expected": v.expected, "found": v.found} for v in one.violations
            ],
        }
        for one in tried
        if one.violations
    ]
    rules = [
        {
            "rule": one.rule.name,
            "tried": not one.not_tried,
            "result": one.not_tried or "broken as it should be",
            "paths": list(one.paths),
            "action": None if one.not_tried else one.rule.action.value,
        }
        for one in try_known_bad(contract)
    ]
    return {"contract": contract.name, "examples": len(tried), "failed": failed, "rules": rules}


def _result(rule: dict[str, Any]) -> str:
    if not rule["tried"]:
        return f"not tried, it is {rule['result']}"
    return printable(f"its known-bad event breaks it at {', '.join(rule['paths'])} ({rule['action']})")


def _words(violation: dict[str, str]) -> str:
    from postroom.libs.event import Violation

    return printable(str(Violation(**violation)))
