"""What the command line promises: quick, lazy, one message for each error, the right exit code, no traceback."""

import json
import os
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from postroom.__main__ import main
from postroom.cli import app as module
from postroom.cli.app import COMMANDS, Row
from postroom.cli.border import wants_json
from postroom.cli.options import settings_from_options
from postroom.libs import logger as logger_module
from postroom.libs.exceptions import ConfigurationError, KafkaConnectionError, PostroomError

HEAVY = ("confluent_kafka", "pydantic", "structlog", "httpx", "fastavro", "prometheus_client", "yaml")


def process(*words: str, **given: Any) -> subprocess.CompletedProcess[str]:
    given.setdefault("capture_output", True)
    return subprocess.run([sys.executable, "-m", "postroom", *words], text=True, timeout=60, check=False, **given)


def command_that(action: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `postroom try [--json]` do `action`."""
    one = typer.Typer()

    @one.command()
    def attempt(as_json: bool = typer.Option(False, "--json")) -> Any:
        """Try it."""
        return action()

    monkeypatch.setitem(sys.modules, "postroom.cli.try_command", SimpleNamespace(app=one))
    monkeypatch.setattr(module, "COMMANDS", (*COMMANDS, Row("try", "postroom.cli.try_command", "Try it.")))


def raising(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


class TestHelp:
    def test_it_lists_every_command_and_loads_none(self) -> None:
        code = (
            "import sys; from postroom.__main__ import main; main(['--help'])\n"
            f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules], "
            "[name for name in sys.modules if name.startswith('postroom.cli.') and name.endswith('_command')])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.splitlines()[-1] == "LOADED [] []"
        for row in COMMANDS:
            assert row.name in done.stdout
            assert row.help in done.stdout

    def test_no_words_show_the_help_and_are_a_usage_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([]) == 2
        assert "Commands" in capsys.readouterr().out

    def test_the_version_is_the_packages(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"postroom {metadata.version('postroom')}\n"

    @pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
    def test_the_table_says_what_the_module_says(self, row: Row) -> None:
        command = typer.main.get_command(import_module(row.module).app)
        assert (command.help or "").strip().partition("\n")[0] == row.help
        loaded = module.load(row.name)
        assert loaded.name == row.name
        assert not {"install_completion", "show_completion"} & {param.name for param in loaded.params}

    def test_names_are_unique(self) -> None:
        assert len({row.name for row in COMMANDS}) == len({row.module for row in COMMANDS}) == len(COMMANDS)


class TestCompletion:
    @pytest.mark.parametrize(
        ("words", "offered"),
        [
            ("postroom con", ["contracts", "config"]),
            ("postroom config ", ["check", "show", "init"]),
            ("postroom sp", ["spool"]),
            ("postroom spool ", ["status", "inspect", "drain", "adopt"]),
        ],
    )
    def test_commands_and_their_parts_are_completed(self, words: str, offered: list[str]) -> None:
        given = {
            "_POSTROOM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        done = process(env={**os.environ, **given})
        assert done.stdout.split() == offered


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ConfigurationError("broker is odd", remedy="write host:port"), 2),
            (KafkaConnectionError("no broker answered", remedy="start Kafka"), 1),
            (PostroomError("it failed"), 1),
        ],
    )
    def test_our_errors_are_one_message_and_an_exit_code(
        self, error: PostroomError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command_that(raising(error), monkeypatch)
        assert main(["try"]) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == f"postroom: {error} [{error.code}]\n"
        assert main(["try", "--json"]) == code
        captured = capsys.readouterr()
        assert json.loads(captured.out) == {
            "error": {"code": error.code, "message": error.message, "remedy": error.remedy}
        }

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["confg"], "Did you mean 'config'?"),
            (["config", "shw"], "Did you mean 'show'?"),
            (["config", "show", "--orign"], "No such option: --orign"),
            (["config", "check", "--config"], "--config"),
            (["config", "init", "a", "b"], "unexpected extra argument"),
            (["--nope"], "No such option: --nope"),
        ],
    )
    def test_wrong_words_are_usage_errors(
        self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
        assert captured.err.endswith(" --help. [usage]\n")
        assert captured.err.count("\n") == 1

    def test_usage_errors_are_json_as_well_when_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["config", "show", "--json", "--nope"]) == 2
        told = json.loads(capsys.readouterr().out)["error"]
        assert told == {
            "code": "usage", "message": "No such option: --nope", "remedy": "see postroom config show --help",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("words", "wanted"), [([], False), (["a", "--json"], True), (["a", "--", "--json"], False), (["--jso"], False)]
    )
    def test_json_is_wanted_by_its_option_only(self, words: list[str], wanted: bool) -> None:
        assert wants_json(words) is wanted

    def test_a_command_chooses_its_exit_code(self, monkeypatch: pytest.MonkeyPatch) -> None:
        command_that(raising(typer.Exit(3)), monkeypatch)
        assert main(["try"]) == 3
        command_that(lambda: None, monkeypatch)
        assert main(["try"]) == 0

    def test_an_interrupt_is_130(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        for error in (KeyboardInterrupt(), typer.Abort()):
            command_that(raising(error), monkeypatch)
            assert main(["try"]) == 130
        assert "Traceback" not in capsys.readouterr().err

    def test_a_bug_is_not_dressed_up_as_a_user_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        command_that(raising(ZeroDivisionError()), monkeypatch)
        with pytest.raises(ZeroDivisionError):
            main(["try"])


class TestStreams:
    @pytest.mark.parametrize("words", [["config", "show"], ["config", "show", "--json"], ["--version"]])
    def test_a_reader_that_goes_away_ends_the_command_quietly(self, words: list[str], tmp_path: Path) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        try:
            done = process(*words, stdout=writer, stderr=subprocess.PIPE, capture_output=False, cwd=tmp_path)
        finally:
            os.close(writer)
        assert (done.returncode, done.stderr) == (141, "")

    @pytest.mark.parametrize("words", [["config", "show"], ["config", "show", "--json"], ["--version"]])
    def test_a_disk_that_is_full_where_stdout_goes_is_told_in_one_line(self, words: list[str], tmp_path: Path) -> None:
        with Path("/dev/full").open("wb") as full:
            done = process(*words, stdout=full, stderr=subprocess.PIPE, capture_output=False, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "the output cannot be written: No space left on device" in done.stderr

    @pytest.mark.parametrize("number", [1, 2])
    def test_a_process_started_without_stdout_or_stderr_works(self, number: int, tmp_path: Path) -> None:
        line = f"exec '{sys.executable}' -m postroom config show --config nope.yaml --json {number}>&-"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr + done.stdout
        assert (json.loads(done.stdout)["error"]["code"] if number == 2 else "configuration_invalid") in (
            done.stdout + done.stderr
        )

    @pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
    def test_whatever_stdout_can_say_nothing_is_a_traceback_and_json_is_json(
        self, encoding: str, tmp_path: Path
    ) -> None:
        name = os.fsdecode(b"caf\xe9.yaml")  # no UTF-8, as names of files may be
        text = "name: order\nversion: 1\ntopic: orders\ndescription: 5 €, größer\nschema: {id: string}\n"
        (tmp_path / name).write_text(text, encoding="utf-8")
        given = {"cwd": tmp_path, "env": {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}}
        told = process("contracts", "check", name, "--json", **given, encoding="utf-8")
        assert told.returncode == 0, told.stderr
        (contract,) = json.loads(told.stdout)["contracts"]
        assert contract["description"] == "5 €, größer"
        assert process("contracts", "lint", name, **given, encoding="latin-1").stderr == ""


class TestSharedOptions:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(logger_module._State, "output", logger_module._Output())

    def test_they_win_over_the_file_and_are_named_as_origin(self) -> None:
        Path("a.yaml").write_text("broker: a:1\nenvironments: {e: {schema_registry: {url: 'http://e'}}}")
        config = settings_from_options(config=Path("a.yaml"), env="e", broker="b:1")
        assert (config.broker, config.schema_registry.url) == ("b:1", "http://e")
        assert str(config.origin("broker")) == "--broker"
        config = settings_from_options(registry="embedded", more={"--rate": ("rate_limit.events_per_second", 5)})
        assert (config.schema_registry.url, config.rate_limit.events_per_second) == ("embedded", 5)
        assert str(config.origin("rate_limit.events_per_second")) == "--rate"

    def test_what_is_wrong_names_the_option(self) -> None:
        with pytest.raises(ConfigurationError, match=r"^--broker: broker is not host:port"):
            settings_from_options(broker="nowhere")

    def test_the_logs_follow_the_settings(self) -> None:
        Path("kafka.yaml").write_text("logging: {level: error, format: json}")
        settings_from_options()
        output = logger_module._State.output
        assert (output.level, output.format, output.configured) == (40, "json", True)
