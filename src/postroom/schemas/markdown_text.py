"""Foreign texts in Markdown pages: what a contract says is shown as it stands, and never read as Markdown or HTML."""

from __future__ import annotations

import re
from typing import Final

_TAKEN_FOR_MARKUP: Final = re.compile(r"[\\`*\[\]|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_TAKEN_FOR_A_BLOCK: Final = re.compile(r"(?=[#+-])|(?<=[0-9])(?=[.)])")


def plain(text: str) -> str:
    """The text on one line, as it may stand in a sentence or in a cell of a table; a dash for none."""
    line = " ".join(text.split()) or "-"
    return _TAKEN_FOR_MARKUP.sub(r"\\\g<0>", line.replace("&", "&amp;").replace("<", "&lt;")).replace(">", "&gt;")


def paragraph(text: str) -> str:
    """The text as a paragraph of its own: not taken for a heading, a list or a rule either."""
    return _TAKEN_FOR_A_BLOCK.sub("\\\\", plain(text), count=1) if _begins_a_block(text) else plain(text)


def _begins_a_block(text: str) -> bool:
    return re.match(r"\s*([#+-]|[0-9]{1,9}[.)])", text) is not None


def code(text: str) -> str:
    """The text as code within a line or a cell."""
    line = " ".join(text.split()) or "-"
    fence = _longer_than_any(line, 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}".replace("|", "\\|")


def fenced(text: str, language: str = "") -> str:
    """The text as a block of code, whatever stands in it."""
    fence = _longer_than_any(text, 3)
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"


def _longer_than_any(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(least, longest + 1)
