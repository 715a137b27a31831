"""What `postroom config` promises: it says what is wrong, shows what holds and from where, and tells no secret."""

import json
import os
from pathlib import Path

import pytest

from postroom.__main__ import main
from postroom.libs.config_loader import PACKAGED_FILE, load_config
from postroom.libs.settings_table import settings_table

SECRET = "hunter2-k3y"
GOOD = (
    "broker: h:1\nproducer: {security: {protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: u, "
    f"sasl_password: {SECRET}}}}}\nenvironments: {{prod: {{metrics: {{port: 9000}}}}}}\n"
)
BAD = "broker: h\nproducer:\n  acks: 1\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)


class TestCheck:
    def test_fine_settings_are_ok_with_file_and_environment(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["config", "check"]) == 0
        assert capsys.readouterr().out == "OK: packaged defaults\n"
        Path("kafka.yaml").write_text(GOOD)
        assert main(["config", "check", "--env", "prod"]) == 0
        assert capsys.readouterr().out == "OK: kafka.yaml, environment prod\n"

    def test_every_problem_is_told_and_the_exit_code_is_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("bad.yaml").write_text(BAD)
        assert main(["config", "check", "--config", "bad.yaml"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "bad.yaml: 2 problems"
        assert [line.split(" ")[2] for line in lines[1:]] == ["bad.yaml:1", "bad.yaml:3"]

    def test_json_is_one_object(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("kafka.yaml").write_text(BAD)
        assert main(["config", "check", "--json"]) == 2
        told = json.loads(capsys.readouterr().out)
        assert (told["ok"], told["file"], [item["key"] for item in told["problems"]]) == (
            False, "kafka.yaml", ["broker", "producer.acks"],
        )  # fmt: skip
        assert main(["config", "check", "--config", "gone.yaml", "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "configuration_invalid"

    def test_ignored_variables_are_noted(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POSTROOM_SERVICE_HOST", "10.0.0.1")
        assert main(["config", "check"]) == 0
        assert capsys.readouterr().err == "note: the variable POSTROOM_SERVICE_HOST is no setting and is ignored\n"


class TestShow:
    def test_every_setting_is_shown_with_its_origin(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("kafka.yaml").write_text(GOOD)
        monkeypatch.setenv("POSTROOM_RATE_LIMIT_EVENTS_PER_SECOND", "12.5")
        assert main(["config", "show", "--origin", "--env", "prod"]) == 0
        lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
        assert [part.strip() for part in lines["broker"].split("#")] == ['"h:1"', "kafka.yaml:1"]
        assert lines["metrics.port"].endswith("# kafka.yaml:3")
        assert lines["rate_limit.events_per_second"].endswith("# variable POSTROOM_RATE_LIMIT_EVENTS_PER_SECOND")
        assert lines["delivery.close_timeout_s"].split() == ["20", "#", "packaged", "default"]
        mappings = {"topics", "producer.librdkafka", "dead_letters.privacy"}
        names = {row.name for row in settings_table().values()} - mappings
        assert lines.keys() == names | {"topics.user_events"}

    @pytest.mark.parametrize("words", [[], ["--origin"], ["--json"], ["--json", "--origin"]])
    def test_secrets_are_masked(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        Path("kafka.yaml").write_text(GOOD)
        assert main(["config", "show", *words]) == 0
        captured = capsys.readouterr()
        assert SECRET not in captured.out + captured.err
        assert "producer.security.sasl_password" in captured.out
        assert "********" in captured.out

    def test_json_is_one_line_with_plain_values(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["config", "show", "--json"]) == 0
        plain = json.loads(capsys.readouterr().out)
        assert (plain["producer.retries"], plain["contracts.path"], plain["metrics.port"]) == (5, [], None)
        assert main(["config", "show", "--json", "--origin"]) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        assert json.loads(out)["broker"] == {"value": "localhost:9092", "origin": "packaged default"}

    def test_text_in_brackets_is_shown_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("kafka.yaml").write_text("producer: {client_id: '[red]x[/red]'}")
        assert main(["config", "show"]) == 0
        assert 'producer.client_id: "[red]x[/red]"' in capsys.readouterr().out

    def test_wrong_settings_are_not_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("kafka.yaml").write_text(BAD)
        assert main(["config", "show"]) == 2
        assert "2 problems in the settings:" in capsys.readouterr().err


class TestInit:
    def test_the_commented_defaults_are_written_and_can_be_loaded(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["config", "init"]) == 0
        assert Path("kafka.yaml").read_bytes() == PACKAGED_FILE.read_bytes()
        assert "postroom config check --config kafka.yaml" in capsys.readouterr().out
        assert load_config(environ={}).flat() == load_config(PACKAGED_FILE, environ={}).flat()

    def test_a_folder_gets_a_kafka_yaml(self) -> None:
        Path("config").mkdir()
        assert main(["config", "init", "config"]) == 0
        assert Path("config/kafka.yaml").exists()

    def test_an_existing_file_is_kept_unless_forced(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("kafka.yaml").write_text("mine")
        assert main(["config", "init"]) == 2
        assert "kafka.yaml exists already. Write over it with --force." in capsys.readouterr().err
        assert Path("kafka.yaml").read_text() == "mine"
        assert main(["config", "init", "--force"]) == 0
        assert Path("kafka.yaml").read_bytes() == PACKAGED_FILE.read_bytes()
        assert [path.name for path in Path().iterdir()] == ["kafka.yaml"]

    def test_a_place_that_cannot_be_written_is_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        for words in (["gone/kafka.yaml"], ["gone/kafka.yaml", "--force"]):
            assert main(["config", "init", *words]) == 2
            assert "gone/kafka.yaml cannot be written: No such file" in capsys.readouterr().err
        assert not list(Path().iterdir())
