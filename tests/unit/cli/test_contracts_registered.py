"""`postroom contracts check --registry` says whether a contract may follow what is registered. It registers nothing."""

import json
import os
from pathlib import Path

import pytest

from postroom.__main__ import main
from postroom.schemas.data_contracts import load_contract
from postroom.schemas.schema_registry_client import SchemaRegistryClient

V1 = """\
name: order
version: 1
topic: orders
schema: {type: record, name: Order, fields: [{name: id, type: string}, {name: total, type: bytes}]}
"""
ADDED = V1.replace("type: bytes}", "type: bytes}, {name: n, type: int}")
CHECK = ["contracts", "check", "order.yaml", "--registry", "registry"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)
    Path("order.yaml").write_text(V1)


def register(level: str = "") -> None:
    with SchemaRegistryClient("registry") as client:
        client.register("orders-value", load_contract("order.yaml").schema_json)
        if level:
            client.set_compatibility("orders-value", level)


def test_what_is_not_registered_yet_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CHECK) == 0
    assert capsys.readouterr().out == "order: orders-value is not registered yet\n"
    assert not Path("registry").exists()


def test_what_is_registered_is_said_with_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    register()
    assert main(CHECK) == 0
    assert capsys.readouterr().out == "order: orders-value has this schema, id 1\n"


def test_under_no_rule_everything_may_follow(capsys: pytest.CaptureFixture[str]) -> None:
    register()
    Path("order.yaml").write_text(ADDED)
    assert main(CHECK) == 0
    assert capsys.readouterr().out == "order: orders-value: it may follow under NONE\n"


def test_a_breaking_change_is_told_with_version_path_and_who_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    register("BACKWARD")
    Path("order.yaml").write_text(ADDED)
    assert main(CHECK) == 1
    verdict, refused, why = capsys.readouterr().out.splitlines()
    assert verdict == "order: orders-value: it breaks what is registered, in 1 place under BACKWARD"
    assert refused == "  the registry would refuse it under its rule BACKWARD"
    assert why.startswith("  version 1, new readers of old events: n: the reader wants this field")


def test_the_contract_s_word_is_judged_beside_the_registry_s_rule(capsys: pytest.CaptureFixture[str]) -> None:
    register("FORWARD")
    Path("order.yaml").write_text(f"{ADDED}compatibility: FULL\n")
    assert main(CHECK) == 1
    out = capsys.readouterr().out
    assert "the registry would refuse it" not in out
    assert "note: the registry's rule is FORWARD, the contract says FULL" in out


def test_what_no_registry_refuses_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    register("BACKWARD")
    Path("order.yaml").write_text(V1.replace("bytes", "string"))
    assert main([*CHECK, "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)["contracts"]
    assert (told["state"], told["accepted_by_registry"]) == ("incompatible", True)
    assert [(one["path"], one["code"], one["silent"]) for one in told["breaks"]] == [("total", "text_from_bytes", True)]


def test_events_and_a_registry_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CHECK[:3], "events.ndjson", *CHECK[3:]]) == 2
    assert "events are checked without a registry" in capsys.readouterr().err
