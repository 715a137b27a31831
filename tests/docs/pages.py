"""The pages of the documentation as tests see them: fenced blocks, links, headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_IMAGE = re.compile(r"<img[^>]+src=\"(?P<target>[^\"]+)\"")
_HEADING = re.compile(r"^#+ (?P<text>.+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the `file=` behind it, its text, and the line of its first line (from 1)."""

    language: str
    file: str
    text: str
    line: int


def pages() -> list[Path]:
    """README, changelog and everything in docs."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def name(page: Path) -> str:
    """The page by its path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                opened, lines = (fence["info"].strip(), number + 1), []
        elif fence and not fence["info"]:
            language, _, rest = opened[0].partition(" ")
            found.append(Block(language, rest.removeprefix("file="), "\n".join(lines) + "\n", opened[1]))
            opened = None
        else:
            lines.append(line)
    assert opened is None, f"{name(page)}: the block in line {opened[1] - 1} has no end"
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[str]:
    """Where the page points to: links and images, without those inside blocks and inline code."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    for pattern in (_LINK, _IMAGE):
        yield from (match["target"] for match in pattern.finditer(text))


def anchors(page: Path) -> set[str]:
    """The names of the page's headings, as GitHub makes them."""
    found = set()
    for line in prose(page).splitlines():
        heading = _HEADING.match(line)
        if heading:
            plain = re.sub(r"[^\w\- ]", "", heading["text"].lower())
            found.add(plain.replace(" ", "-"))
    return found


def commands(page: Path) -> Iterator[tuple[int, str]]:
    """The command lines of the page's console blocks, with their lines: those behind `$ `, continued by a backslash."""
    for block in blocks(page):
        if block.language != "console":
            continue
        text = block.text.replace("\\\n", " ")
        for offset, line in enumerate(text.splitlines()):
            if line.startswith("$ "):
                yield block.line + offset, line[2:].strip()
