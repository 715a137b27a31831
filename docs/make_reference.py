"""Makes docs/reference/settings.md and commands.md again: `.venv/bin/python docs/make_reference.py`.

A test compares the pages with what the functions here make of the code, and fails when they are old.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postroom.cli.app import COMMANDS, load
from postroom.libs.config_loader import PACKAGED_FILE
from postroom.libs.settings_table import Kind, settings_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.libs.settings_table import Setting

REFERENCE = Path(__file__).parent / "reference"

_LINE = re.compile(r"(?P<indent> *)(?P<name>\w+):(?P<value>(?: [^#]*)?)(?:#(?P<comment>.*))?$")

# The settings that kafka.yaml explains in a paragraph, together with a neighbour, or not at all.
_SAID_HERE = {
    "broker": "Where Kafka is: `host:port`, several of them, or `embedded` for a broker inside this process",
    "topics": "logical name: name of the topic on this cluster",
    "producer.retry_backoff_ms": "the first wait before a failed request is repeated; each further wait is doubled",
    "producer.retry_backoff_max_ms": "the longest of these waits; 4000 with a spool, unless it is set",
    "producer.queue_max_bytes": "unacknowledged records kept here, in bytes (256 MiB); beyond: refused with queue_full",
    "producer.security.sasl_username": "the user for SASL",
    "producer.security.sasl_password": "the password for SASL; a secret",
    "producer.security.ssl_certificate": "file with this client's certificate; takes ssl_key too",
    "producer.security.ssl_key": "file with the certificate's private key",
    "producer.security.ssl_key_password": "the password of that file; a secret",
    "producer.librdkafka": "further keys of librdkafka by their own names, from a list of harmless ones",
    "dead_letters.privacy": "tag of a field: `full` keeps its values in dead letters, `redacted`, `hashed` hide them",
    "dead_letters.privacy_key": "the key for `hashed` (HMAC-SHA-256), 16 bytes or more; a secret",
    "schema_registry.username": "the user for basic authentication",
    "schema_registry.password": "the password for basic authentication; a secret",
    "schema_registry.certificate": "file with this client's certificate; takes key too",
    "schema_registry.key": "file with the certificate's private key",
    "logging.level": "from which level on the commands write lines; an application's own logging is left alone",
}


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    return {REFERENCE / "settings.md": settings_page(), REFERENCE / "commands.md": commands_page()}


# -- settings


def settings_page() -> str:
    """All settings with what they take, their default and what they do, as `config/kafka.yaml` says it."""
    meanings = {**_comments(PACKAGED_FILE.read_text(encoding="utf-8")), **_SAID_HERE}
    parts = [_SETTINGS_HEAD]
    section = ""
    for row in settings_table().values():
        if row.key[0] != section:
            section = row.key[0]
            parts.append(f"\n## {section}\n\n| setting | takes | default | what it does |\n|---|---|---|---|\n")
        parts.append(f"| `{row.name}` | {_cell(row.allowed)} | {_default(row)} | {_cell(meanings[row.name])} |\n")
    return "".join(parts)


def _comments(text: str) -> dict[str, str]:
    """What stands behind each key as a comment, by its dotted name."""
    found: dict[str, str] = {}
    path: list[str] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        path[len(match["indent"]) // 2 :] = [match["name"]]
        comment = (match["comment"] or "").strip()
        if comment:
            found[".".join(path)] = comment
    return found


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|")


def _default(row: Setting) -> str:
    if row.kind is Kind.MAPPING:
        return f"`{json.dumps(dict(row.default))}`" if isinstance(row.default, dict) else f"`{row.default!r}`"
    if isinstance(row.default, tuple):
        return f"`{json.dumps([str(item) for item in row.default])}`"
    value = int(row.default) if isinstance(row.default, float) and row.default.is_integer() else row.default
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


_SETTINGS_HEAD = """\
# Settings

<!-- Made by docs/make_reference.py from the settings' models and config/kafka.yaml; a test fails when it is old. -->

The file with all of them and longer comments: `postroom config init`. What holds in your place, and where each value
came from: `postroom config show --origin`.

- **Who wins**, from weak to strong: packaged defaults, the file, its section of `environments` (chosen by
  `POSTROOM_ENV` or `--env`), variables, options of the command line.
- **Variables**: `POSTROOM_` and the setting's name in capitals, with underscores for dots: `producer.linger_ms` is
  `POSTROOM_PRODUCER_LINGER_MS`. With `_FILE` behind it, a password is read from the file that the variable names.
- **Which file**: the one named by `--config` or `POSTROOM_CONFIG`, else `./kafka.yaml`, else `./config/kafka.yaml`,
  else none.
- Names end in their unit: `_s` seconds, `_ms` milliseconds, `_bytes` bytes.
"""


# -- commands


def commands_page() -> str:
    """All commands with their help and options, as `--help` shows them."""
    parts = [_COMMANDS_HEAD]
    for row in COMMANDS:
        parts.extend(_command(f"postroom {row.name}", load(row.name), level=2))
    return "\n".join(parts) + "\n"


def _command(name: str, command: Any, level: int) -> Iterator[str]:
    yield f"\n{'#' * level} {name}\n\n{_help(command.help or '')}"
    children = getattr(command, "commands", {})
    for child, inner in children.items():
        yield from _command(f"{name} {child}", inner, level + 1)
    rows = [] if children else [_parameter(param) for param in command.params if "--help" not in param.opts]
    if rows:
        yield "\n| argument or option | meaning |\n|---|---|\n" + "\n".join(rows)


def _help(text: str) -> str:
    """The paragraphs of a help text, each on one line."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _parameter(param: Any) -> str:
    is_argument = param.param_type_name == "argument"
    if is_argument:
        shown = _cell(param.metavar or param.name.upper())
    else:
        names = ", ".join(f"{name}" for name in [*param.opts, *param.secondary_opts])
        shown = names if param.is_flag else f"{names} {_value(param)}"
    meaning = _cell(param.help or "")
    if param.default not in (None, False, (), []) and not callable(param.default):
        shown_default = "on" if param.default is True else getattr(param.default, "value", param.default)
        meaning += f" Default: `{shown_default}`."
    return f"| `{shown}` | {meaning} |"


def _value(param: Any) -> str:
    """What stands behind the option in a command line."""
    kind = param.type_descriptor.annotation
    if param.metavar:
        return _cell(param.metavar)
    if issubclass(kind, Enum):
        return _cell("|".join(str(choice.value) for choice in kind))
    return {int: "N", float: "X", Path: "FILE"}.get(kind, "TEXT")


_COMMANDS_HEAD = """\
# Commands

<!-- Made by docs/make_reference.py from the commands' own help; a test fails when it is old. -->

`postroom COMMAND --help` shows the same. `--json` writes results as JSON: the last line of stdout is one object, for an
error too (`{"error": {"code", "message", "remedy"}}`). Results go to stdout, everything else to stderr.

Exit codes of all commands: 0 fine, 1 failed, 2 usage or settings, 130 interrupted; what is special to one stands with
it. `postroom --install-completion` sets up completion by the tab key, `postroom --version` says which version this
is."""


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
