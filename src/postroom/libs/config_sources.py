"""The places settings come from, read into one form: leaves by key, each with its origin, and a list of problems.

Nothing here knows which source wins (that is the loader) or which values fit together (that is config_rules).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from postroom.libs.config_text import Substitution, has_references, read_secret_file
from postroom.libs.librdkafka_keys import ALLOWED, refusal
from postroom.libs.safe_yaml import Node, kind_of, printable
from postroom.libs.setting_formats import FormatError
from postroom.libs.settings import Origin, OriginKind
from postroom.libs.settings_table import Key, Kind, sections, settings_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENVIRONMENTS = "environments"
_LIBRDKAFKA: Key = ("producer", "librdkafka")
_NOT_SETTINGS = {"POSTROOM_ENV", "POSTROOM_CONFIG"}
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_[0-9]+_(TCP|UDP)(_\w+)?)?$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `{where} {key} {what}. {Remedy}.` Never holds a secret."""

    key: str
    what: str
    remedy: str
    origin: Origin | None = None

    @property
    def statement(self) -> str:
        """Where and what, without the remedy."""
        return f"{_where(self.origin)}{self.key}{' ' if self.key else ''}{self.what}"

    def __str__(self) -> str:
        return f"{self.statement}. {self.remedy[0].upper()}{self.remedy[1:]}."


def _where(origin: Origin | None) -> str:
    if origin is None:
        return ""
    named = origin.kind in {OriginKind.VARIABLE, OriginKind.OPTION}
    return f"{origin.name}: " if named else f"{origin.file}:{origin.line} "


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value as its source gives it. `textual`: it came as bare text, and its setting says what type it has."""

    value: object
    origin: Origin
    textual: bool = False
    base: Path | None = None


@dataclass(slots=True)
class Layer:
    """What one source says, and what is wrong with it."""

    leaves: dict[Key, Leaf] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FromOption:
    """An override that came from the option `name` of the command line; errors name it."""

    value: object
    name: str


class FileReader:
    """Reads the nodes of one YAML file into leaves: known keys only, `${...}` replaced."""

    def __init__(self, file: Path, environ: Mapping[str, str]) -> None:
        self._file = file
        self._base = file.absolute().parent
        self._environ = environ

    def layer(self, node: Node, kind: OriginKind, name: str | None = None, *, lenient: bool = False) -> Layer:
        """The settings below `node`, the top of the file or one section of `environments`.

        `lenient` leaves out values with `${...}` inside: those of an environment that was not chosen.
        """
        layer = Layer()
        skipped = {ENVIRONMENTS} if kind is not OriginKind.ENVIRONMENT else set()
        self._section(layer, node, (), (kind, name), skipped, lenient=lenient)
        return layer

    def _section(
        self, layer: Layer, node: Node, at: Key, source: tuple[OriginKind, str | None], skipped: set[str],
        *, lenient: bool,
    ) -> None:  # fmt: skip
        origin = Origin(source[0], self._file, node.line, source[1])
        if node.value is None and at:
            return
        if not isinstance(node.value, dict):
            what = f"is {kind_of(node.value)}, but must be a mapping of settings"
            layer.problems.append(Problem(".".join(at), what, "indent its settings below it", origin))
            return
        for name, child in node.value.items():
            key = (*at, name)
            origin = Origin(source[0], self._file, child.line, source[1])
            if key in sections():
                self._section(layer, child, key, source, set(), lenient=lenient)
            elif key not in settings_table() and name not in skipped:
                layer.problems.append(unknown_key(key, origin))
            elif name not in skipped:
                self._setting(layer, child, key, origin, lenient=lenient)

    def _setting(self, layer: Layer, node: Node, key: Key, origin: Origin, *, lenient: bool) -> None:
        if settings_table()[key].kind is not Kind.MAPPING:
            self._leaf(layer, node, key, origin, lenient=lenient)
            return
        if node.value is None:
            return
        if not isinstance(node.value, dict):
            what = f"is {kind_of(node.value)}, but must be a mapping"
            layer.problems.append(Problem(".".join(key), what, "indent its entries below it", origin))
            return
        for name, child in node.value.items():
            origin = Origin(origin.kind, self._file, child.line, origin.name)
            problem = entry_problem(key, name, origin)
            if problem is not None:
                layer.problems.append(problem)
            else:
                self._leaf(layer, child, (*key, name), origin, lenient=lenient)

    def _leaf(self, layer: Layer, node: Node, key: Key, origin: Origin, *, lenient: bool) -> None:
        if lenient and has_references(node):
            return
        row = settings_table().get(key)
        secret = row is not None and row.kind is Kind.SECRET
        substitution = Substitution(self._environ, self._base if secret else None)
        try:
            value = substitution.apply(node)
        except FormatError as exc:
            layer.problems.append(Problem(".".join(key), exc.what, exc.remedy, origin))
            return
        origin = replace(origin, secret_file=substitution.secret_file)
        layer.leaves[key] = Leaf(value, origin, textual=substitution.used, base=self._base)


def unknown_key(key: Key, origin: Origin) -> Problem:
    """The problem that `key` is no setting, with the nearest one there is."""
    name = ".".join(key)
    rows = (row[:length] for row in settings_table() for length in range(1, len(row) + 1))
    known = {".".join(row): row[-1] for row in rows}
    siblings = {full: last for full, last in known.items() if full.rpartition(".")[0] == ".".join(key[:-1])}
    elsewhere = [full for full, last in known.items() if last == key[-1]]
    close = get_close_matches(key[-1], siblings.values(), n=1, cutoff=0.6)
    if close:
        remedy = f"perhaps {'.'.join((*key[:-1], close[0]))} is meant"
    elif elsewhere:
        remedy = f"perhaps {elsewhere[0]} is meant"
    else:
        remedy = f"here can stand: {', '.join(siblings.values())}"
    return Problem(printable(name, 120), "is no setting", remedy, origin)


def entry_problem(mapping: Key, name: str, origin: Origin) -> Problem | None:
    """Why the entry `name` may not stand in this mapping, or None."""
    refused = refusal(name) if mapping == _LIBRDKAFKA else None
    if refused is None:
        return None
    return Problem(printable(".".join((*mapping, name)), 120), refused.what, refused.remedy, origin)


def read_variables(environ: Mapping[str, str], entries: Iterable[Key]) -> Layer:
    """The settings that POSTROOM_* variables give; `entries` are the entries of mappings that exist already.

    An empty variable counts as not set. `POSTROOM_..._FILE` names a file with the secret inside. A variable that
    looks like a setting and is none is a problem; one that looks like nothing of ours (Kubernetes sets some for a
    service called postroom) is listed in `ignored`.
    """
    layer = Layer()
    rows = {row.variable: row for row in settings_table().values() if row.kind is not Kind.MAPPING}
    files = {f"{row.variable}_FILE": row for row in rows.values() if row.kind is Kind.SECRET}
    for name in sorted(name for name, text in environ.items() if name.startswith("POSTROOM_") and text):
        origin = Origin(OriginKind.VARIABLE, name=name)
        if name in rows:
            layer.leaves[rows[name].key] = Leaf(environ[name], origin, textual=True, base=Path.cwd())
        elif name in files:
            _secret_variable(layer, files[name].key, environ, origin)
        elif name not in _NOT_SETTINGS and not _entry_variable(layer, environ[name], origin, entries):
            _unknown_variable(layer, name, {*rows, *files}, origin)
    return layer


def _secret_variable(layer: Layer, key: Key, environ: Mapping[str, str], origin: Origin) -> None:
    name = origin.name or ""
    dotted = ".".join(key)
    if environ.get(name.removesuffix("_FILE")):
        what = f"is given by {name} and by {name.removesuffix('_FILE')}"
        layer.problems.append(Problem(dotted, what, "set one of the two", origin))
        return
    try:
        file = Path(environ[name]).absolute()
        text = read_secret_file(file)
    except FormatError as exc:
        layer.problems.append(Problem(dotted, exc.what, exc.remedy, origin))
        return
    layer.leaves[key] = Leaf(text, replace(origin, secret_file=file), textual=True)


def _entry_variable(layer: Layer, text: str, origin: Origin, entries: Iterable[Key]) -> bool:
    """Take a variable for an entry of a mapping, such as POSTROOM_TOPICS_USER_EVENTS."""
    name = origin.name or ""
    for row in settings_table().values():
        rest = name.removeprefix(f"{row.variable}_")
        if row.kind is not Kind.MAPPING or rest in {name, ""}:
            continue
        known = {key[-1] for key in entries if key[:-1] == row.key}
        known |= ALLOWED if row.key == _LIBRDKAFKA else set()
        entry = next((item for item in sorted(known) if _shout(item) == rest), rest.lower())
        problem = entry_problem(row.key, entry, origin)
        if problem is None:
            layer.leaves[(*row.key, entry)] = Leaf(text, origin, textual=True)
        else:
            layer.problems.append(problem)
        return True
    return False


def _shout(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def _unknown_variable(layer: Layer, name: str, known: set[str], origin: Origin) -> None:
    close = get_close_matches(name, sorted(known), n=1, cutoff=0.8)
    ours = any(name.startswith(f"POSTROOM_{section[0].upper()}_") for section in sections() if section)
    if _KUBERNETES.search(name) or not (close or ours):
        layer.ignored.append(name)
        return
    remedy = f"perhaps {close[0]} is meant" if close else "see the names with: postroom config show"
    layer.problems.append(Problem("", "sets no setting that exists", remedy, origin))


def read_overrides(overrides: Mapping[str, object]) -> Layer:
    """The settings that the caller gives by dotted key; texts are typed as in variables, None is null."""
    layer = Layer()
    for dotted, given in overrides.items():
        option = given if isinstance(given, FromOption) else FromOption(given, "override")
        origin = Origin(OriginKind.OPTION, name=option.name)
        key = tuple(dotted.split("."))
        mapping = next((row.key for row in settings_table().values()
                        if row.kind is Kind.MAPPING and dotted.startswith(row.name + ".")), None)  # fmt: skip
        problem = None
        if mapping is not None:
            key = (*mapping, dotted.removeprefix(".".join(mapping) + "."))
            problem = entry_problem(mapping, key[-1], origin)
        elif key not in settings_table() or settings_table()[key].kind is Kind.MAPPING:
            problem = unknown_key(key, origin)
        if problem is None:
            textual = isinstance(option.value, str)
            layer.leaves[key] = Leaf(option.value, origin, textual=textual, base=Path.cwd())
        else:
            layer.problems.append(problem)
    return layer
