"""The lines of a file of events, for commands that look at each and publish none."""

import codecs
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_LINE_BYTES = 16 * 1024 * 1024


def event_lines(path: "Path") -> "Iterator[tuple[int, bytes]]":
    r"""Each line that is not blank with its number, from 1, without its end; `-` is standard input.

    Of a line longer than MAX_LINE_BYTES only the beginning comes, one byte more than that, so that `read_json` with
    this bound refuses it. Raises ConfigurationError for what cannot be read.
    """
    from postroom.libs.exceptions import ConfigurationError

    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest = stream.readline(MAX_LINE_BYTES)
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if text.strip():
                    yield number, text.rstrip(b"\r\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"{path} cannot be read: {reason}", remedy="name a file of events") from error
