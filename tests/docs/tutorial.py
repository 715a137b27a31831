"""Runs a page that tells a story: its files are written, its commands run, and what they print is compared."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.docs.pages import Block, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FILE_NAME = re.compile(r"# ([\w./-]+\.yaml)\n")
_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b(partition|offset|schema id)([= ])\d+"), r"\1\2<n>"),
    (re.compile(r"\[\d+\] \d+"), "[<n>] <n>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)"), "<time>"),
)
_TIMEOUT_S = 60


def masked(text: str) -> str:
    """The text without what differs from run to run: ids, times, partitions and offsets."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def is_as_shown(shown: str, printed: str) -> bool:
    """Whether the page shows what was printed; a line of three dots stands for any number of lines."""
    parts = [re.escape(part) for part in re.split(r"^\.\.\.\n", masked(shown), flags=re.MULTILINE)]
    return re.fullmatch(r"(?:.*\n)*".join(parts), masked(printed)) is not None


class Story:
    """One run of a page in a folder. `names` are words of the page and what stands for them in this run.

    `arrived` returns when what was typed into the second terminal has come to where it goes.
    """

    def __init__(
        self, page: Path, folder: Path, names: Mapping[str, str], arrived: Callable[[str], None] = lambda _: None
    ) -> None:
        self._page = page
        self._folder = folder
        self._names = dict(names)
        self._arrived = arrived
        self._last_code = 0
        self._terminal: subprocess.Popen[str] | None = None
        self._workflow: list[str] = []
        programs = folder.parent / "programs"
        programs.mkdir()
        shim = programs / "postroom"
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m postroom "$@"\n')
        shim.chmod(0o755)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_BASE_REF": "main",
        }

    def run(self) -> None:
        """The whole page. Raises AssertionError for what is printed otherwise, or fails and does not say so."""
        try:
            for block in blocks(self._page):
                self._block(block)
        finally:
            if self._terminal is not None:
                self._terminal.kill()
                self._terminal.communicate()

    def _block(self, block: Block) -> None:
        named = _FILE_NAME.match(block.text)
        if block.language == "yaml" and named:
            self._write(named[1], block.text)
            if "jobs:" in block.text:
                (job,) = yaml.safe_load(block.text)["jobs"].values()
                self._workflow = [step["run"] for step in job["steps"] if "run" in step]
        elif block.language == "json" and block.file:
            self._write(block.file, block.text)
        elif block.language == "diff":
            self._shell("git apply -", block.text)
        elif block.language == "console" and block.file == "terminal=2":
            self._second_terminal(block)
        elif block.language == "console":
            self._console(block)
        elif block.file.startswith("ci="):
            self._check(block, block.text, self._pull_request(int(block.file.removeprefix("ci="))))

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(text), encoding="utf-8")

    def _here(self, text: str) -> str:
        for word, name in self._names.items():
            text = text.replace(word, name)
        return text

    def _as_on_the_page(self, text: str) -> str:
        for word, name in self._names.items():
            text = text.replace(name.partition(": ")[2] or name, word.partition(": ")[2] or word)
        return text

    def _shell(self, command: str, given: str = "") -> str:
        """What a command prints, on both streams; its exit code is the last one."""
        done = subprocess.run(
            ["bash", "-c", f"(exit {self._last_code}); {self._here(command)}"],
            cwd=self._folder, env=self._environment, input=given, text=True, timeout=_TIMEOUT_S, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._last_code = done.returncode
        return self._as_on_the_page(done.stdout)

    def _console(self, block: Block) -> None:
        commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
        for at, entry in enumerate(commands):
            command, _, shown = entry.partition("\n")
            printed = self._shell(command)
            tells_code = at + 1 < len(commands) and commands[at + 1].startswith("echo $?")
            assert self._last_code == 0 or tells_code, f"line {block.line}: {command} ended with {self._last_code}"
            self._check(block, shown, printed)

    def _second_terminal(self, block: Block) -> None:
        """The first block starts a program, the second types on and ends its input. What is typed are lines of JSON."""
        typed = "".join(f"{line}\n" for line in block.text.splitlines() if line.startswith("{"))
        shown = "".join(f"{line}\n" for line in block.text.splitlines() if not line.startswith(("{", "$ ")))
        if self._terminal is None:
            command = block.text.removeprefix("$ ").partition("\n")[0]
            self._terminal = subprocess.Popen(
                ["bash", "-c", self._here(command)], cwd=self._folder, env=self._environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert self._terminal.stdin is not None
            self._terminal.stdin.write(typed)
            self._terminal.stdin.flush()
            self._arrived(typed)
            return
        printed, _ = self._terminal.communicate(typed, timeout=_TIMEOUT_S)
        assert self._terminal.returncode == 0, printed
        self._check(block, shown, self._as_on_the_page(printed))

    def _pull_request(self, code: int) -> str:
        """What the workflow's last step prints that is run; each is a step of its own, as GitHub runs them."""
        printed = ""
        for step in self._workflow:
            if step.startswith("pip install"):
                continue
            self._last_code = 0
            printed = self._shell(f"set -e; {step}")
            if self._last_code:
                break
        assert self._last_code == code, printed
        self._last_code = 0
        return printed

    def _check(self, block: Block, shown: str, printed: str) -> None:
        shown = shown.strip("\n") + "\n" if shown.strip("\n") else ""
        if not is_as_shown(shown, printed):
            lines = difflib.unified_diff(
                masked(shown).splitlines(), masked(printed).splitlines(), "the page", "printed", lineterm=""
            )
            raise AssertionError(f"{self._page.name}:{block.line}\n" + "\n".join(lines) + f"\n\nprinted:\n{printed}")
