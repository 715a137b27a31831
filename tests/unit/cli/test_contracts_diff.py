"""`postroom contracts diff` stands in a check of pull requests: it lists changes, and its exit code is the verdict."""

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
key: id
schema: {type: record, name: Order, fields: [{name: id, type: string}, {name: total, type: double}]}
"""
V2 = V1.replace("version: 1", "version: 2").replace(
    "type: double}", "type: double}, {name: note, type: string, default: ''}"
)
V3 = V2.replace("version: 2", "version: 3").replace(
    "{name: note, type: string, default: ''}", "{name: note, type: int, default: 0}"
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)
    for name, text in (("v1.yaml", V1), ("v2.yaml", V2), ("v3.yaml", V3)):
        Path(name).write_text(text)


class TestFiles:
    def test_a_compatible_change_is_listed_and_fine(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "diff", "v1.yaml", "v2.yaml"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "order version 1 (v1.yaml) -> order version 2 (v2.yaml): 2 changes"
        assert lines[2].split(maxsplit=3) == ["ok", "ok", "ok", 'note: field of type string added, default ""']
        assert lines[-1] == "Under BACKWARD: not breaking"

    def test_a_breaking_one_ends_with_1_and_says_why(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "diff", "v2.yaml", "v3.yaml"]) == 1
        out = capsys.readouterr().out
        assert "breaks    breaks    breaks    note: type changed from string to int" in out
        assert "new readers of old events: the reader wants int, the writer wrote string" in out
        assert "old readers of new events: the reader wants string, the writer wrote int" in out
        assert out.endswith("Under BACKWARD: breaking, by 1 change\n")

    @pytest.mark.parametrize(("word", "code"), [("BACKWARD", 0), ("BACKWARD_TRANSITIVE", 1), ("NONE", 0)])
    def test_the_word_decides_and_transitive_ones_look_at_all(self, word: str, code: int) -> None:
        Path("v2.yaml").write_text(V1.replace("version: 1", "version: 2"))
        Path("v1.yaml").write_text(V3.replace("type: int", "type: string").replace("default: 0", "default: x"))
        assert main(["contracts", "diff", "v1.yaml", "v2.yaml", "v3.yaml", "--compatibility", word]) == code

    def test_the_contract_s_own_word_holds_unless_another_is_given(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("v2.yaml").write_text(V1 + "compatibility: FORWARD\n")
        Path("v1.yaml").write_text(V2)
        assert main(["contracts", "diff", "v1.yaml", "v2.yaml"]) == 0
        assert "Under FORWARD" in capsys.readouterr().out
        assert main(["contracts", "diff", "v2.yaml", "v1.yaml", "--compatibility", "FULL"]) == 0
        assert main(["contracts", "diff", "v2.yaml", "v1.yaml", "--compatibility", "SIDEWAYS"]) == 2

    def test_json_is_one_object(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "diff", "v2.yaml", "v3.yaml", "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert (told["compatibility"], told["breaking"]) == ("BACKWARD", True)
        assert told["verdicts"]["FULL_TRANSITIVE"] is False
        assert [change["code"] for change in told["changes"]] == ["default_changed", "type_changed", "version_raised"]
        assert main(["contracts", "diff", "v3.yaml", "v3.yaml", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["changes"] == []

    def test_what_no_registry_refuses_is_breaking_and_called_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        for name, scale in (("v1.yaml", 2), ("v2.yaml", 3)):
            kind = f"{{type: bytes, logicalType: decimal, precision: 9, scale: {scale}}}"
            Path(name).write_text(V1.replace("type: double", f"type: {kind}"))
        assert main(["contracts", "diff", "v1.yaml", "v2.yaml"]) == 1
        assert "silent: no registry refuses it" in capsys.readouterr().out

    def test_one_version_is_no_diff_and_a_missing_file_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "diff", "v1.yaml"]) == 2
        assert "a diff needs two versions" in capsys.readouterr().err
        assert main(["contracts", "diff", "v1.yaml", "gone.yaml"]) == 1
        assert "gone.yaml does not exist" in capsys.readouterr().err


class TestRegistry:
    @pytest.fixture(autouse=True)
    def _registered(self) -> None:
        with SchemaRegistryClient("registry") as client:
            for name in ("v1.yaml", "v2.yaml"):
                client.register("orders-value", load_contract(name).schema_json)

    @pytest.mark.parametrize("name", ["orders", "orders@latest", "orders@2", "orders-value@2", "orders@all"])
    def test_registered_versions_stand_beside_files(self, capsys: pytest.CaptureFixture[str], name: str) -> None:
        assert main(["contracts", "diff", name, "v3.yaml", "--registry", "registry"]) == 1
        assert capsys.readouterr().out.startswith("orders-value version 2 (registered) -> order version 3 (v3.yaml)")

    def test_two_registered_versions(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "diff", "orders@all", "--registry", "registry", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [change["code"] for change in told["changes"]] == ["field_added"]
        assert main(["contracts", "diff", "orders@1", "orders@7", "--registry", "registry"]) == 1


class TestRules:
    RULED = V2 + (
        "ruleSet: {domainRules: [{name: positive, type: CEL, expr: message.total > 0.0}]}\n"
        "known_bad: {positive: {id: a, total: -1}}\n"
    )

    def test_a_new_rule_is_told_to_producers_and_breaks_no_reader(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("v2.yaml").write_text(self.RULED)
        assert main(["contracts", "diff", "v1.yaml", "v2.yaml"]) == 0
        out = capsys.readouterr().out
        assert "ok        ok        ok        ruleSet.positive: rule of type CEL and mode WRITE added\n" in out
        assert "  producers of this version: an event that breaks it becomes a dead letter\n" in out
        assert "\nProducers: 1 change may stop events that pass today; no reader is broken by that\n" in out
        assert main(["contracts", "diff", "v1.yaml", "v2.yaml", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["changes"]
        assert [bool(change["producers"]) for change in told if change["code"] == "rule_added"] == [True]
