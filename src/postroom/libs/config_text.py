"""Texts in the settings: `${NAME}`, `${NAME:-default}`, `${file:PATH}` and `$$`, and secrets in files."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from postroom.libs.safe_yaml import Node, printable
from postroom.libs.setting_formats import FormatError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_SECRET_BYTES = 64 * 1024

_REFERENCE = re.compile(r"\$\$|\$\{([^}]*)(\})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Substitution:
    """Replaces references in the texts of one value. `used` says whether there was any beside `$$`.

    `secrets_base` is the folder relative paths in `${file:PATH}` start at; None refuses them, because only
    secrets are read from files. `secret_file` is the file that the whole text is the content of, if there is one.
    """

    def __init__(self, environ: Mapping[str, str], secrets_base: Path | None) -> None:
        self._environ = environ
        self._secrets_base = secrets_base
        self.used = False
        self.secret_file: Path | None = None

    def apply(self, node: Node) -> object:
        """The plain value of `node` with every reference in it replaced. Raises FormatError."""
        return self._replaced(node).unwrap()

    def _replaced(self, node: Node) -> Node:
        if isinstance(node.value, str):
            return replace(node, value=_REFERENCE.sub(self._resolve, node.value))
        if isinstance(node.value, tuple):
            return replace(node, value=tuple(self._replaced(item) for item in node.value))
        return node

    def _resolve(self, match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        self.used = True
        if match[2] is None:
            raise FormatError("opens ${ and never closes it", "close it with }, or write $$ for a dollar sign")
        name, separator, default = match[1].partition(":-")
        if "${" in match[1]:
            raise FormatError("holds ${...} inside ${...}", "use one variable, with a plain text as its default")
        if not separator and name.startswith("file:"):
            return self._secret(name.removeprefix("file:"), is_all=match[0] == match.string)
        if not _NAME.fullmatch(name):
            remedy = "write ${NAME} or ${NAME:-default}, or $$ for a dollar sign"
            raise FormatError("holds ${...} around something that is no name of a variable", remedy)
        value = self._environ.get(name)
        if separator and not value:
            return default
        if value is None:
            remedy = f"set it, or write a default: ${{{name}:-...}}"
            raise FormatError(f"needs the variable {printable(name)}, which is not set", remedy)
        return value

    def _secret(self, path: str, *, is_all: bool) -> str:
        if self._secrets_base is None:
            remedy = "write the value itself, or a variable: ${NAME}"
            raise FormatError("is read from a file, which only passwords may be", remedy)
        file = self._secrets_base / path
        self.secret_file = file if is_all else None
        return read_secret_file(file)


def has_references(node: Node) -> bool:
    """True when a text in `node`, or in a list that it is, holds `${`."""
    if isinstance(node.value, tuple):
        return any(has_references(item) for item in node.value)
    return isinstance(node.value, str) and "${" in node.value


def read_secret_file(path: Path) -> str:
    """The text of a file that holds one secret; one line end behind it is dropped.

    Raises FormatError when the file is missing, no regular file, unreadable, empty, above 64 KiB or not UTF-8.
    """
    remedy = "check the path, its permissions and that the secret stands in it"
    shown = printable(str(path), 200)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FormatError(f"is to be read from {shown}, which is no file", remedy)
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise FormatError(f"is to be read from {shown}, which cannot be read: {reason}", remedy) from exc
    except ValueError as exc:
        if isinstance(exc, FormatError):
            raise
        raise FormatError(f"is to be read from {shown}, which holds no UTF-8 text", remedy) from None
    if not text or len(data) > MAX_SECRET_BYTES:
        what = "is empty" if not text else f"is larger than {MAX_SECRET_BYTES} bytes"
        raise FormatError(f"is to be read from {shown}, which {what}", remedy)
    return text
