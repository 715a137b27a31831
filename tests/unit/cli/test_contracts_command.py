"""What `postroom contracts` promises: it lists, shows, checks and registers, and its exit code says how it went."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from postroom.__main__ import main
from postroom.schemas.data_contracts import packaged_contracts
from postroom.schemas.schema_registry_client import SchemaRegistryClient

ORDER = """\
name: order
version: 2
owner: shop
topic: {name: orders, partitions: 3}
key: id
schema: {id: string, total: double, at: {type: long, logicalType: timestamp-millis}}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)
    Path("order.yaml").write_text(ORDER)
    Path("kafka.yaml").write_text("contracts: {path: [order.yaml]}\nschema_registry: {url: registry}\n")
    Path("registry").mkdir()


class TestListAndShow:
    def test_contracts_are_listed_one_a_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "list"]) == 0
        head, line = capsys.readouterr().out.splitlines()
        assert head.split() == ["name", "version", "topic", "key", "fields", "owner"]
        assert line.split() == ["order", "2", "orders", "id", "3", "shop"]

    def test_without_settings_the_packaged_ones_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("kafka.yaml").unlink()
        assert main(["contracts", "list", "--json"]) == 0
        (told,) = json.loads(capsys.readouterr().out)
        assert (told["name"], told["topic"], told["partitions"]) == ("user_event", "user_events", 6)

    def test_one_is_shown_with_its_fields(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "show", "order"]) == 0
        out = capsys.readouterr().out
        assert "topic: orders\n" in out
        assert "  total: double\n" in out
        assert main(["contracts", "show", "order", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [field["name"] for field in told["schema"]["fields"]] == ["id", "total", "at"]
        assert (told["replication"], told["retention_ms"], told["dead_letter_topic"]) == (None, None, None)

    def test_a_sensitive_property_is_named_and_its_value_shown_nowhere(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        metadata = "metadata: {properties: {team: shop, contact: canary}, sensitive: [contact]}\n"
        Path("order.yaml").write_text(ORDER + metadata)
        for words in (["list"], ["show", "order"], ["check", "order.yaml"]):
            for more in ([], ["--json"]):
                assert main(["contracts", *words, *more]) == 0
                assert "canary" not in capsys.readouterr().out
        assert main(["contracts", "show", "order", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)["metadata"]
        assert shown == {"properties": {"team": "shop"}, "sensitive": ["contact"]}

    def test_an_unknown_name_is_told_with_the_nearest(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "show", "orders"]) == 1
        assert "Perhaps order is meant" in capsys.readouterr().err


class TestCheck:
    def test_a_good_file_is_ok(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "check", "order.yaml"]) == 0
        assert capsys.readouterr().out == "OK: order version 2, 3 fields\n"
        assert main(["contracts", "check", "order.yaml", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["ok"] is True

    def test_every_problem_is_told_and_the_exit_code_is_1(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("bad.yaml").write_text("name: a b\nversion: 1\ntopic: t\nkey: x\nschema: {id: strin}\n")
        assert main(["contracts", "check", "bad.yaml"]) == 1
        err = capsys.readouterr().err
        assert "bad.yaml:1: name is no name of a contract" in err
        assert "bad.yaml:5: schema.fields[0].type strin is no type" in err
        assert main(["contracts", "check", "bad.yaml", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "contract_invalid"
        assert main(["contracts", "check", "gone.yaml"]) == 1

    def test_events_are_checked_line_by_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        good = '{"id": "a", "total": 5, "at": "2026-11-23T14:43:02Z"}'
        bad = ['{"id": 1, "total": "secret"}', '{"id": "a", "id": "secret"}', "[1]", '{"id": "a"']
        text = "\n".join([good, "", *bad, f"{good}\r"])
        Path("events.ndjson").write_text(text, encoding="utf-8-sig")  # a byte order mark is no part of the first event
        assert main(["contracts", "check", "order.yaml", "events.ndjson"]) == 1
        out = capsys.readouterr().out
        assert out.splitlines() == [
            "line 3: id: wrong_type, expected string, found int",
            "line 3: total: wrong_type, expected double, found str",
            (
                "line 3: at: missing_field, expected timestamp-millis (datetime with a time zone; in JSON RFC 3339 "
                "text), found absent"
            ),
            "line 4: event: duplicate_key, expected the JSON of one event, found JSON with a key twice in one object",
            "line 5: event: wrong_type, expected record order, found list",
            "line 6: event: truncated, expected the JSON of one event, found line 1, byte 10: the text ends too early",
            "6 events checked against order: 4 invalid",
        ]

    def test_good_events_from_stdin_are_fine(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = b'{"id": "a", "total": 5.5, "at": 0}\n'
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(events)))
        assert main(["contracts", "check", "order.yaml", "-", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"ok": True, "contract": "order", "events": 1, "invalid": 0}

    def test_json_tells_each_bad_line_and_ends_with_one_object(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("events.ndjson").write_text("{}\n")
        assert main(["contracts", "check", "order.yaml", "events.ndjson", "--json"]) == 1
        first, last = map(json.loads, capsys.readouterr().out.splitlines())
        assert [violation["rule"] for violation in first["violations"]] == ["missing_field"] * 3
        assert last == {"ok": False, "contract": "order", "events": 1, "invalid": 1}

    def test_a_line_that_is_too_long_is_one_bad_line(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("postroom.cli.event_lines.MAX_LINE_BYTES", 100)
        Path("events.ndjson").write_text('{"id": "' + "x" * 1000 + '"}\n{"id": "a", "total": 5, "at": 0}\n')
        assert main(["contracts", "check", "order.yaml", "events.ndjson"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert "line 1: event: too_large" in lines[0]
        assert lines[1] == "2 events checked against order: 1 invalid"

    def test_events_need_one_contract_and_a_file_that_can_be_read(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("more").mkdir()
        for name in ("a", "b"):
            Path(f"more/{name}.yaml").write_text(ORDER.replace("order\n", f"{name}\n", 1))
        assert main(["contracts", "check", "more", "order.yaml"]) == 2
        assert main(["contracts", "check", "order.yaml", "gone.ndjson"]) == 2
        assert "gone.ndjson cannot be read" in capsys.readouterr().err
        assert main(["contracts", "check"]) == 2


class TestRegister:
    def test_the_schema_of_each_contract_is_in_the_registry_afterwards(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["contracts", "register", "--json"]) == 0
        (done,) = json.loads(capsys.readouterr().out)["registered"]
        assert (done["contract"], done["subject"]) == ("order", "orders-value")
        with SchemaRegistryClient("registry") as client:
            assert json.loads(client.get_schema("orders").schema)["name"] == "order"
        assert main(["contracts", "register", "order"]) == 0
        assert capsys.readouterr().out == f"order: orders-value has schema id {done['schema_id']}\n"

    def test_the_packaged_contract_can_be_registered_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("kafka.yaml").unlink()
        assert main(["contracts", "register", "user_event", "--registry", "registry"]) == 0
        with SchemaRegistryClient("registry") as client:
            assert client.get_schema("user_events").schema == packaged_contracts()["user_event"].schema_json
        assert "user_event: user_events-value has schema id" in capsys.readouterr().out

    def test_what_the_registry_does_not_keep_is_told_and_is_no_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("order.yaml").write_text(ORDER + "metadata: {properties: {team: shop}, tags: {'order.id': [PII]}}\n")
        assert main(["contracts", "register", "--json"]) == 0
        told = capsys.readouterr()
        dropped = ["metadata.properties", "metadata.tags"]
        assert json.loads(told.out)["registered"][0]["dropped"] == dropped
        assert told.err == f"warning: order: the registry did not keep {', '.join(dropped)}; postroom does\n"

    def test_the_contract_s_word_becomes_the_subject_s_rule(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("order.yaml").write_text(f"{ORDER}compatibility: FULL\n")
        assert main(["contracts", "register"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == "order: orders-value has the rule FULL now"
        with SchemaRegistryClient("registry") as client:
            assert client.get_compatibility("orders-value") == "FULL"
        assert main(["contracts", "register"]) == 0
        assert capsys.readouterr().out == "order: orders-value has schema id 1\n"

    def test_what_is_registered_is_judged_by_its_own_word(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "register"]) == 0
        Path("order.yaml").write_text(ORDER.replace("total: double", "sum: double") + "compatibility: BACKWARD\n")
        assert main(["contracts", "register"]) == 1
        assert "BACKWARD" in capsys.readouterr().err

    def test_a_rule_that_somebody_gave_the_subject_is_overruled_only_when_asked(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with SchemaRegistryClient("registry") as client:
            client.set_compatibility("orders-value", "FULL")
        Path("order.yaml").write_text(f"{ORDER}compatibility: BACKWARD\n")
        assert main(["contracts", "register"]) == 1
        told = capsys.readouterr().err
        assert "orders-value has the rule FULL in the registry, the contract order says BACKWARD" in told
        assert "--set-compatibility" in told
        with SchemaRegistryClient("registry") as client:
            assert client.subjects() == ()
        assert main(["contracts", "register", "--set-compatibility"]) == 0
        assert "has the rule BACKWARD now (it was FULL)" in capsys.readouterr().out
        assert main(["contracts", "register", "--json"]) == 0
        (done,) = json.loads(capsys.readouterr().out)["registered"]
        assert (done["compatibility"], done["compatibility_set"], done["registry_rule_before"]) == (
            "BACKWARD", False, "BACKWARD",
        )  # fmt: skip

    def test_a_contract_without_a_word_leaves_the_rule_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        with SchemaRegistryClient("registry") as client:
            client.set_compatibility("orders-value", "FULL")
        assert main(["contracts", "register", "--json"]) == 0
        (done,) = json.loads(capsys.readouterr().out)["registered"]
        assert (done["compatibility"], done["compatibility_set"]) == (None, False)
        with SchemaRegistryClient("registry") as client:
            assert client.get_compatibility("orders-value") == "FULL"

    def test_an_unknown_name_registers_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["contracts", "register", "order", "gone"]) == 1
        with SchemaRegistryClient("registry") as client:
            assert client.subjects() == ()
        assert "known: order" in capsys.readouterr().err


class TestCheckingCsv:
    def test_rows_are_checked_with_line_and_column(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("events.csv").write_text('total,id,at\n5,a,2026-11-23T14:43:02Z\nx,"a\nb",0\n\n5,a\n')
        assert main(["contracts", "check", "order.yaml", "events.csv"]) == 1
        assert capsys.readouterr().out.splitlines() == [
            "line 3: total: wrong_type, expected double, found str in line 3, column 1",
            "line 6: event: column_count, expected a row of CSV, found line 6: 2 cells, not 3",
            "3 events checked against order: 2 invalid",
        ]

    def test_the_format_may_be_said(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"id,total,at\na,5,0\n")))
        assert main(["contracts", "check", "order.yaml", "-", "--format", "csv", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["events"] == 1

    def test_a_header_that_does_not_fit_is_a_usage_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("events.csv").write_text("id,totl,at\n")
        assert main(["contracts", "check", "order.yaml", "events.csv"]) == 2
        assert "column 2, totl, is no field" in capsys.readouterr().err
