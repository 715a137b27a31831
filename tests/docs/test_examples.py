"""Every Python example of README and docs runs, in the order of its page, and prints what the page says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import ROOT, Block, blocks, name, pages

if TYPE_CHECKING:
    from types import CodeType

_FILE_NAME = re.compile(r"# ([a-z_]+/[a-z_]+\.yaml)\n")

# The design notes show signatures, not programs.
PAGES = [
    page
    for page in pages()
    if page.parent.name != "design" and any(block.language == "python" for block in blocks(page))
]


def run_page(page: Path) -> None:
    """Run the page's Python blocks one after the other, as one program.

    A `text` block that follows a Python block as the next one is what it prints. A block with `file=` is part of that
    file of the repository, which has a test of its own. A YAML block that begins with the name of a file (`# a/b.yaml`)
    is that file.
    """
    found = blocks(page)
    program: dict[str, object] = {"__name__": "__example__"}
    for block, following in zip_longest(found, found[1:]):
        if block.language == "yaml" and (named := _FILE_NAME.match(block.text)):
            file = Path(named[1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        if block.language != "python" or block.file:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(_compiled(page, block), program)
        if following is not None and following.language == "text":
            assert printed.getvalue() == following.text, f"{name(page)}:{block.line} prints something else"


def _compiled(page: Path, block: Block) -> CodeType:
    """The block's code; tracebacks name the page and its lines."""
    return compile("\n" * (block.line - 1) + block.text, name(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_examples_of_the_page_run(page: Path, desk: Path) -> None:
    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_the_page_shows_of_a_file_is_in_the_file(page: Path) -> None:
    for block in blocks(page):
        if block.file:
            text = (ROOT / block.file).read_text(encoding="utf-8")
            assert block.text in text, f"{name(page)}:{block.line} and {block.file} differ"


def test_a_wrong_example_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.test_examples.name", str)
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\nprints\n```text\n3\n```\n")
    with pytest.raises(AssertionError, match="prints something else"):
        run_page(page)
    page.write_text("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run_page(page)
    assert caught.traceback[-1].lineno == 5
