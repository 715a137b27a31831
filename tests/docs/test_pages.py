"""The documentation is whole and true: nothing of the code is missing in it, and it names nothing that is not there."""

from __future__ import annotations

import inspect
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from docs import make_reference
from postroom.cli.app import COMMANDS, load
from postroom.libs import exceptions
from postroom.libs.event import DeadLetterReason, FailedReason, RefusedReason
from postroom.libs.exceptions import PostroomError
from postroom.libs.settings_table import sections, settings_table
from postroom.observability.metric_table import METRIC_TABLE
from postroom.schemas import csv_events
from tests.docs.pages import DOCS, ROOT, anchors, commands, links, name, pages, prose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = ROOT / "src" / "postroom"
SHELL = {"cat", "echo", "git", "mkdir", "sed"}
ERRORS = DOCS / "reference" / "errors.md"
# Specifications and design notes also speak of what is to come; metrics.md has a test of its own.
GUIDES = [page for page in pages() if page.parent.name not in {"specs", "design"}]


def sources() -> Iterator[tuple[Path, str]]:
    for file in sorted(SOURCE.rglob("*.py")):
        yield file, file.read_text(encoding="utf-8")


# -- links


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{name(page)}: {target} leads nowhere"
        if anchor and goal.suffix == ".md":
            assert anchor in anchors(goal), f"{name(page)}: {target}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        goals = ((page.parent / target.partition("#")[0]).resolve() for target in links(page) if "://" not in target)
        todo.extend(goal for goal in goals if goal.suffix == ".md" and goal.exists())
    assert {name(page) for page in pages() if page.parent.name not in {"specs", "design"}} <= {
        name(page) for page in reached
    }


# -- commands


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words of a command line call, and the words left for it. Raises KeyError for none."""
    command, rest = load(words[0]), words[1:]
    while getattr(command, "commands", None) and rest:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def options_of(command: Any) -> set[str]:
    return {"--help"} | {option for param in command.params for option in [*param.opts, *param.secondary_opts]}


def check_command_line(line: str) -> None:
    """Raise for a command line that could not be run as it stands."""
    words = shlex.split(line.partition(" | ")[0].partition(" > ")[0])
    match words:
        case ["postroom", *rest]:
            command, rest = command_of(rest)
            command.make_context("postroom", rest)  # raises for options and arguments that it does not know
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {target}"
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), f"no file {script}"
        case _:
            assert words[0] in {"curl", "export", "pip", *SHELL}, f"what is {words[0]}?"


LINES = [(page, number, line) for page in GUIDES for number, line in commands(page)]


@pytest.mark.parametrize(("page", "number", "line"), LINES, ids=[f"{name(page)}:{at}" for page, at, _ in LINES])
def test_every_command_of_a_page_exists_with_its_options(page: Path, number: int, line: str) -> None:
    check_command_line(line)


@pytest.mark.parametrize("line", ["postroom walk", "postroom run --fast", "make coffee", "postroom dlq show"])
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"walk|fast|coffee|EVENT_ID|event_id"):
        check_command_line(line)


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_commands_in_the_text_exist_with_their_options(page: Path) -> None:
    names = {row.name for row in COMMANDS}
    for line in re.findall(r"`postroom ((?:[^`])+)`", prose(page)):
        words = shlex.split(line)
        if words[0] not in names:
            assert words[0].startswith(("-", "COMMAND")), f"{name(page)}: postroom {line}"
            continue
        command, rest = command_of(words)
        for word in rest:
            if word.startswith("--"):
                assert word in options_of(command), f"{name(page)}: postroom {line}"


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [row.name for row in COMMANDS] == re.findall(r"^\| `postroom (\w+)` \|", text, re.MULTILINE)


# -- generated pages


@pytest.mark.parametrize("page", sorted(make_reference.pages()), ids=name)
def test_the_generated_page_is_as_the_code_is(page: Path) -> None:
    """Made anew by `.venv/bin/python docs/make_reference.py`."""
    assert page.read_text(encoding="utf-8") == make_reference.pages()[page]


# -- settings, metrics


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_settings_named_in_a_page_exist(page: Path) -> None:
    known = {row.name for row in settings_table().values()} | {".".join(key) for key in sections() if key}
    top = {key[0] for key in settings_table()} - {"broker", "topics"}
    for word in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:: [^`]*)?`", prose(page)):
        if word.split(".")[0] in top and not word.endswith((".py", ".md")):
            assert word in known, f"{name(page)}: {word}"


def test_variables_named_in_a_page_exist() -> None:
    known = {row.variable for row in settings_table().values()}
    others = {"POSTROOM_CONFIG", "POSTROOM_ENV", "POSTROOM_STACK_CACHE", "POSTROOM_"}
    for page in GUIDES:
        for word in re.findall(r"POSTROOM_[A-Z_]*", page.read_text(encoding="utf-8")):
            assert word.removesuffix("_FILE") in known | others, f"{name(page)}: {word}"


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    names = {metric.name for metric in METRIC_TABLE}
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert {metric for metric in names if f"`{metric}`" not in text} == set()
    for page in GUIDES:
        mentioned = set(
            re.findall(r"\bpostroom_(?:events?|retries|client|publish|rate|connection|metrics)_\w+", page.read_text())
        )
        histogram = {f"{metric}_bucket" for metric in names}
        assert mentioned <= names | histogram | {"postroom_events_"}, name(page)


# -- errors, outcomes, log lines


def first_cells(page: Path) -> set[str]:
    """What stands in backticks in the first column of the page's tables."""
    rows = re.findall(r"^\| ([^|]+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


def error_classes() -> dict[str, type[PostroomError]]:
    found = {
        cls.code: cls for _, cls in inspect.getmembers(exceptions, inspect.isclass) if issubclass(cls, PostroomError)
    }
    return dict(found)


def violation_rules() -> set[str]:
    text = "".join(source for file, source in sources() if file.parent.name == "schemas")
    return {"more"} | {
        rule
        for pattern in (r"LeafError\(\s*\"(\w+)\"", r"\.say\(\s*\w+,\s*\"(\w+)\"")
        for rule in re.findall(pattern, text)
    }


def decode_reasons() -> set[str]:
    text = "".join(source for file, source in sources() if file.parent.name == "schemas")
    found = set(re.findall(r"reason=\"(\w+)\"", text))
    found |= set(re.findall(r"_RefusedError\(\s*\"(\w+)\"", text))
    found |= set(csv_events._PROBLEMS)
    return found | set(re.findall(r"\b_at\(\s*text, [\w.()]+, \"(\w+)\"", text))


def test_every_error_code_outcome_reason_and_rule_is_explained() -> None:
    known = set(error_classes()) | {
        reason.value for kind in (DeadLetterReason, RefusedReason, FailedReason) for reason in kind
    }
    known |= violation_rules() | decode_reasons()
    assert len(known) > 60
    explained = first_cells(ERRORS)
    assert known - explained == set()
    assert explained - known == {"usage", "malformed"}


def test_the_table_of_errors_names_class_and_retriable_as_the_code_does() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w+)", ERRORS.read_text(encoding="utf-8"), re.MULTILINE)
    told = {code: (cls, answer == "yes") for code, cls, answer in rows if cls.endswith("Error")}
    assert told == {code: (cls.__name__, cls.retriable) for code, cls in error_classes().items()}


def log_lines() -> set[tuple[str, str]]:
    """Name and level of every line that the code can log; of the spool, only once a service uses it."""
    receiver = r"\b(?:_log|log|logger|get_logger\([^)]*\))"
    pattern = re.compile(receiver + r"\s*\.(debug|info|warning|error|critical)\(\s*\"([a-z_]+)\"")
    texts = dict(sources())
    spool_is_used = any("streaming.spool" in text for file, text in texts.items() if file.parent.name == "services")
    return {
        (event, level)
        for file, text in texts.items()
        if file.name not in {"logger.py", "__init__.py"} and (spool_is_used or file.parent.name != "spool")
        for level, event in pattern.findall(text)
    }


def test_every_log_line_is_explained_with_its_level() -> None:
    text = (DOCS / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (debug|info|warning|error|critical) \|", text, re.MULTILINE)
    assert len(log_lines()) > 10
    assert log_lines() == set(rows)


# -- the tour


def test_files_and_threads_named_in_the_tour_exist() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    folders = "|".join(sorted(folder.name for folder in SOURCE.iterdir() if folder.is_dir()))
    for path in re.findall(rf"`((?:{folders})/[\w./]+\.(?:py|yaml))`", text):
        assert (SOURCE / path).is_file(), path
    for path in re.findall(r"`((?:tests|docs)/[\w/]+/)`", text):
        assert (ROOT / path).is_dir(), path
    threads = {found for _, source in sources() for found in re.findall(r"name=\"(postroom-[\w-]+)\"", source)}
    threads -= {"postroom-progress"}  # the screen of `postroom run`
    told = text.replace("`postroom-http`, `-request`", "`postroom-http` `postroom-http-request`")
    assert {thread for thread in threads if f"`{thread}`" not in told} == set()


def test_the_picture_of_the_live_view_loads_nothing_from_elsewhere() -> None:
    picture = (DOCS / "images" / "live-view.svg").read_text(encoding="utf-8")
    assert "dead-lettered" in picture
    assert "url(http" not in picture
    assert "src=" not in picture
