"""`postroom contracts new`, `infer`, `lint` and `test`: from nothing or samples to a contract that says everything."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from postroom.__main__ import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)


class TestNew:
    def test_a_new_contract_passes_check_lint_and_test(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "new", "order_placed"]) == 0
        assert capsys.readouterr().out.startswith("order_placed.yaml is written")
        assert main(["contracts", "check", "order_placed.yaml"]) == 0
        assert main(["contracts", "lint", "order_placed.yaml"]) == 0
        assert main(["contracts", "test", "order_placed.yaml"]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == ["0 findings", "order_placed: 1 example, 0 failed"]

    @pytest.mark.parametrize("name", ["2024", "true", "null", "1e3", "-"])
    def test_a_name_that_yaml_would_take_for_something_else_is_quoted(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("samples.ndjson").write_text('{"id": "a"}\n')
        assert main(["contracts", "new", "--file", "new.yaml", "--", name]) == 0
        assert main(["contracts", "check", "new.yaml"]) == 0
        capsys.readouterr()
        assert main(["contracts", "infer", "samples.ndjson", f"--name={name}"]) == 0
        Path("draft.yaml").write_text(capsys.readouterr().out)
        assert main(["contracts", "check", "draft.yaml", "samples.ndjson"]) == 0
        assert capsys.readouterr().out == f"1 event checked against {name}: 0 invalid\n"

    def test_a_file_that_exists_is_left_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("mine.yaml").write_text("mine")
        assert main(["contracts", "new", "order", "--file", "mine.yaml"]) == 2
        assert Path("mine.yaml").read_text() == "mine"
        assert "mine.yaml exists already" in capsys.readouterr().err

    def test_what_cannot_be_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "new", "a b"]) == 2
        assert main(["contracts", "new", "order", "--file", "no/such/folder/x.yaml"]) == 2
        assert "cannot be written" in capsys.readouterr().err
        assert main(["contracts", "new", "order", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"contract": "order", "file": "order.yaml"}


class TestInfer:
    SAMPLES = '{"id": "a", "n": 1}\n\n{"id": "b", "n": null}\n[1]\nnonsense\n'

    def test_a_draft_goes_to_stdout_and_the_samples_are_valid_by_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("new orders.ndjson").write_text(self.SAMPLES)
        assert main(["contracts", "infer", "new orders.ndjson"]) == 0
        out, err = capsys.readouterr()
        assert "name: new_orders\n" in out
        assert err == "2 lines left out: not the JSON object of an event\n"
        Path("draft.yaml").write_text(out)
        Path("good.ndjson").write_text("".join(self.SAMPLES.splitlines(keepends=True)[:3]))
        assert main(["contracts", "check", "draft.yaml", "good.ndjson"]) == 0

    def test_a_line_that_is_too_long_is_one_line_left_out(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("postroom.cli.event_lines.MAX_LINE_BYTES", 100)
        Path("long.ndjson").write_text('{"id": "' + "x" * 1000 + '"}\n{"id": "a"}\n')
        assert main(["contracts", "infer", "long.ndjson", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["samples"], told["skipped"]) == (1, 1)

    def test_it_reads_stdin_and_writes_json(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(self.SAMPLES.encode())))
        assert main(["contracts", "infer", "-", "--name", "order", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["contract"], told["samples"], told["skipped"]) == ("order", 2, 2)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["gone.ndjson"], "cannot be read"),
            (["empty.ndjson"], "holds no event"),
            (["-"], "has no name"),
            (["empty.ndjson", "--name", "a b"], "the name of the contract"),
        ],
    )
    def test_what_cannot_be_read_or_named_is_said(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
    ) -> None:
        Path("empty.ndjson").write_text("\n")
        assert main(["contracts", "infer", *arguments]) == 2
        assert says in capsys.readouterr().err


class TestLintAndTest:
    TEXT = "name: order\nversion: 1\ntopic: orders\nschema: {id: string}\nexamples: [{id: a}, {id: 7, more: 1}]\n"

    def test_findings_end_with_1_and_have_codes(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("order.yaml").write_text(self.TEXT)
        assert main(["contracts", "lint", "order.yaml"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("order.yaml: description: is not said.")
        assert lines[-1] == f"{len(lines) - 1} findings"
        assert main(["contracts", "lint", "order.yaml", "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert told["ok"] is False
        assert {"contract", "path", "code", "text", "remedy"} == set(told["findings"][0])

    def test_a_bad_example_is_named_by_its_number_and_its_value_is_not_shown(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("order.yaml").write_text(self.TEXT)
        assert main(["contracts", "test", "order.yaml"]) == 1
        assert capsys.readouterr().out.splitlines() == [
            "order: example 2: id: wrong_type, expected string, found int",
            "order: example 2: more: unknown_field, expected only fields of record order, found int",
            "order: 2 examples, 1 failed",
        ]
        assert main(["contracts", "test", "order.yaml", "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert told["contracts"][0]["failed"][0]["example"] == 2


def test_on_a_terminal_a_long_file_shows_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("many.ndjson").write_text('{"a": 1}\n' * 3)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("postroom.cli.contracts_draft._PROGRESS_S", 0.0)
    assert main(["contracts", "infer", "many.ndjson"]) == 0
    out, err = capsys.readouterr()
    assert "\r3 events read" in err
    assert err.endswith("\r")
    assert "events read" not in out
