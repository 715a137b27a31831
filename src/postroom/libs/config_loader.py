"""Settings from files, environment sections, variables and options, checked once and frozen.

    config = load_config("kafka.yaml")
    config["broker"] == config.broker
    config.origin("broker")            # where the value came from

From weak to strong: packaged defaults, the file, its section of `environments`, POSTROOM_* variables, overrides.
What is wrong is said in one ConfigurationError, all of it, each with file and line (or variable, or option), key,
reason and remedy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from postroom.libs.config_rules import Clash, clashes
from postroom.libs.config_sources import (
    ENVIRONMENTS,
    FileReader,
    FromOption,
    Layer,
    Leaf,
    Problem,
    read_overrides,
    read_variables,
)
from postroom.libs.exceptions import ConfigurationError
from postroom.libs.safe_yaml import Node, kind_of, printable, read_yaml, scalar_of
from postroom.libs.setting_formats import FormatError, registry_url
from postroom.libs.settings import PACKAGED, Config, Origin, OriginKind
from postroom.libs.settings_table import Key, Kind, Setting, settings_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

__all__ = ["Config", "FromOption", "Inspection", "Origin", "OriginKind", "Problem",
           "find_config_file", "inspect_config", "load_config"]  # fmt: skip

PACKAGED_FILE = Path(__file__).parent.parent / "config" / "kafka.yaml"
"""The commented defaults inside the package; `postroom config init` copies it."""

_PLACES = (Path("kafka.yaml"), Path("config") / "kafka.yaml")
_REGISTRY_URL: Key = ("schema_registry", "url")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `inspect_config` found. `config` is None when there are problems."""

    config: Config | None
    problems: tuple[Problem, ...]
    file: Path | None
    environment: str | None
    ignored_variables: tuple[str, ...]


def load_config(
    path: str | os.PathLike[str] | None = None,
    *,
    env: str | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The settings, checked and frozen.

    `path` names the file (a bare name is looked for here and in ./config); None takes the one that
    `find_config_file` finds, and packaged defaults alone when there is none. `env` chooses the section of
    `environments` before POSTROOM_ENV does. `overrides` maps dotted keys to values; texts among them are typed as
    in variables.

    Raises ConfigurationError that names every problem found.
    """
    found = inspect_config(path, env=env, overrides=overrides, environ=environ)
    if found.config is not None:
        return found.config
    if len(found.problems) == 1:
        problem = found.problems[0]
        raise ConfigurationError(problem.statement, remedy=problem.remedy)
    lines = "".join(f"\n  {problem}" for problem in found.problems)
    raise ConfigurationError(f"{len(found.problems)} problems in the settings:{lines}")


def find_config_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file that POSTROOM_CONFIG names, else ./kafka.yaml, else ./config/kafka.yaml, else None.

    The file that POSTROOM_CONFIG names need not exist; reading it says so.
    """
    named = environ.get("POSTROOM_CONFIG")
    if named:
        return Path(named)
    return next((place for place in _PLACES if place.exists()), None)


def inspect_config(
    path: str | os.PathLike[str] | None = None,
    *,
    env: str | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Inspection:
    """As `load_config`, but the problems are a result.

    Raises ConfigurationError only for a file that cannot be read at all: missing, no strict YAML, too large.
    """
    file = _existing(path, environ)
    chosen = env or environ.get("POSTROOM_ENV") or None
    stack = _Stack()
    stack.add(_packaged())
    if file is not None:
        for layer in _file_layers(file, chosen, environ, stack.problems):
            stack.add(layer)
    elif chosen is not None:
        stack.problems.append(_no_environment(chosen, None, ()))
    variables = read_variables(environ, stack.leaves)
    stack.add(variables)
    stack.add(read_overrides(overrides or {}))
    config = stack.config(file, chosen)
    problems = tuple(sorted(stack.problems, key=_file_order))
    return Inspection(None if problems else config, problems, file, chosen, tuple(variables.ignored))


def _file_order(problem: Problem) -> tuple[bool, int]:
    """Problems of the file in the order of its lines, then those of variables and options as they were found."""
    line = problem.origin.line if problem.origin is not None else None
    return (line is None, line or 0)


def _existing(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    if path is None:
        file = find_config_file(environ)
        origin = " (named by POSTROOM_CONFIG)" if environ.get("POSTROOM_CONFIG") else ""
        if file is not None and not file.exists():
            remedy = f"write one with: postroom config init {file}"
            raise ConfigurationError(f"there is no file {file}{origin}", remedy=remedy)
        return file
    file = Path(path)
    places = [file, Path("config") / file] if file.name == str(file) else [file]
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(str(place.absolute()) for place in places)
    raise ConfigurationError(
        f"there is no file {file}; looked for {looked}", remedy=f"write one with: postroom config init {file}"
    )


def _packaged() -> Layer:
    node = read_yaml(PACKAGED_FILE)
    return FileReader(PACKAGED_FILE, {}).layer(node, OriginKind.PACKAGED)


def _file_layers(file: Path, chosen: str | None, environ: Mapping[str, str], problems: list[Problem]) -> list[Layer]:
    """The layers of a file: its top and the chosen section. Problems of the other sections are found as well."""
    node = read_yaml(file)
    if not isinstance(node.value, dict):
        what = f"{file}:{node.line} is {kind_of(node.value)}, but must be a mapping of settings"
        raise ConfigurationError(what, remedy="write settings as key: value, such as broker: localhost:9092")
    reader = FileReader(file, environ)
    layers = [reader.layer(node, OriginKind.FILE)]
    named = _environments(file, node, problems)
    if chosen is not None and chosen not in named:
        problems.append(_no_environment(chosen, file, named))
    for name, section in named.items():
        layer = reader.layer(section, OriginKind.ENVIRONMENT, name, lenient=name != chosen)
        if name == chosen:
            layers.append(layer)
        else:
            problems.extend(layer.problems)
            problems.extend(_Stack().checked(layer)[1])
    return layers


def _environments(file: Path, node: Node, problems: list[Problem]) -> Mapping[str, Node]:
    section = node.value.get(ENVIRONMENTS) if isinstance(node.value, dict) else None
    if section is None or section.value is None:
        return {}
    if isinstance(section.value, dict):
        return section.value
    what = f"is {kind_of(section.value)}, but must be a mapping from names to settings"
    origin = Origin(OriginKind.FILE, file, section.line)
    problems.append(Problem(ENVIRONMENTS, what, "write one section for each environment", origin))
    return {}


def _no_environment(name: str, file: Path | None, named: Mapping[str, Node] | tuple[()]) -> Problem:
    there = ", ".join(printable(item) for item in named) or "none"
    where = f"{file} has no such section (there is: {there})" if file else "there is no file with environments"
    what = f"the environment {printable(name)} is chosen, but {where}"
    return Problem("", what, f"write it under {ENVIRONMENTS}, or choose another with --env or POSTROOM_ENV")


class _Stack:
    """Layers put on one another, the later ones stronger; bad values are left out and reported."""

    def __init__(self) -> None:
        self.leaves: dict[Key, Leaf] = {}
        self.problems: list[Problem] = []
        self._values: dict[Key, object] = {}
        self._bad: set[str] = set()

    def add(self, layer: Layer) -> None:
        """Let the good values of `layer` win over what is there."""
        good, problems = self.checked(layer)
        self.leaves.update({key: layer.leaves[key] for key in good})
        self._values.update(good)
        self.problems.extend(layer.problems)
        self.problems.extend(problems)
        self._bad.update(problem.key for problem in (*layer.problems, *problems))

    def checked(self, layer: Layer) -> tuple[dict[Key, object], list[Problem]]:
        """The typed values of the leaves that are right by themselves, and what is wrong with the others."""
        values = {key: _typed(key, leaf) for key, leaf in layer.leaves.items()}
        problems: list[Problem] = []
        while True:
            try:
                Config.model_validate(_nested(values))
            except ValidationError as exc:
                wrong = {_key_of(error, values): error for error in exc.errors(include_url=False, include_input=False)}
                for key, error in wrong.items():
                    problems.append(_value_problem(key, layer.leaves[key], values.pop(key), error))
            else:
                return values, problems

    def config(self, file: Path | None, environment: str | None) -> Config:
        """The settings as they result; contradictions between good values are added to the problems."""
        config = Config.model_validate(_nested(self._values))
        origins = {".".join(key): leaf.origin for key, leaf in self.leaves.items()}
        for clash in clashes(config):
            if not {clash.one, clash.other} & self._bad:
                self.problems.append(_clash_problem(clash, origins))
        return config.with_origins(origins, file=file, environment=environment)


def _typed(key: Key, leaf: Leaf) -> object:
    """The value in the form the models take; what does not fit is left as it is, for them to refuse."""
    row = settings_table().get(key)
    value = leaf.value
    if row is None or row.kind is Kind.MAPPING:
        return _extra_value(key, value)
    if row.nullable and value == "":
        return None
    if key == ("broker",) and isinstance(value, (list, tuple)) and all(type(item) is str for item in value):
        return ",".join(value)
    if row.kind is Kind.PATHS:
        value = _paths(value, split=leaf.textual)
    elif row.kind in {Kind.WHOLE, Kind.NUMBER, Kind.SWITCH} and leaf.textual and isinstance(value, str):
        return scalar_of(value.strip())
    return _based(key, row, leaf, value)


def _extra_value(key: Key, value: object) -> object:
    """Entries of `producer.librdkafka` may be numbers and booleans; the library takes texts."""
    if key[:2] == ("producer", "librdkafka") and isinstance(value, (bool, int, float)):
        return str(value).lower()
    return value


def _paths(value: object, *, split: bool) -> object:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()] if split else [value]


def _based(key: Key, row: Setting, leaf: Leaf, value: object) -> object:
    """Make paths absolute: those of a file start at its folder, all others at the current one."""
    if leaf.base is None:
        return value
    if row.kind is Kind.PATHS and isinstance(value, list):
        return [_absolute(leaf.base, item) for item in value]
    if row.kind is Kind.PATH:
        return _absolute(leaf.base, value)
    if key == _REGISTRY_URL and isinstance(value, str) and "://" not in value and value != "embedded":
        try:
            return str(_absolute(leaf.base, registry_url(value)))
        except FormatError:
            return value
    return value


def _absolute(base: Path, item: object) -> object:
    if not isinstance(item, str) or not item or "\0" in item:
        return item
    return base / os.path.expanduser(item)  # noqa: PTH111 - Path.expanduser raises for unknown users


def _nested(values: Mapping[Key, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        level = nested
        for name in key[:-1]:
            level = level.setdefault(name, {})
        level[key[-1]] = value
    return nested


def _key_of(error: ErrorDetails, values: Mapping[Key, object]) -> Key:
    place = tuple(str(part) for part in error["loc"])
    return next(place[:length] for length in range(len(place), 0, -1) if place[:length] in values)


def _value_problem(key: Key, leaf: Leaf, value: object, error: ErrorDetails) -> Problem:
    cause = error.get("ctx", {}).get("error")
    name = printable(".".join(key), 120)
    if isinstance(cause, FormatError):
        return Problem(name, cause.what, cause.remedy, leaf.origin)
    row = settings_table().get(key)
    allowed = row.allowed if row is not None else "a text"
    found = _shown(row, leaf, value)
    remedy = f"write {allowed}"
    textual = row is None or row.kind in {Kind.TEXT, Kind.SECRET, Kind.PATH}
    if textual and isinstance(value, (int, float)):
        remedy = "put it into quotes"
    elif not textual and isinstance(value, str) and not isinstance(scalar_of(value), str):
        remedy += " without quotes"
    return Problem(name, f"is {found}", remedy, leaf.origin)


def _shown(row: Setting | None, leaf: Leaf, value: object) -> str:
    """The value when it is short, harmless and written down in the open; otherwise only its kind."""
    guarded = row is not None and (row.kind is Kind.SECRET or row.key[:2] == ("producer", "security"))
    if not guarded and not isinstance(value, (dict, list, tuple)) and value is not None:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        in_the_open = not leaf.textual or leaf.origin.kind is not OriginKind.FILE
        if not isinstance(value, str) or (row is not None and row.kind is not Kind.TEXT and in_the_open):
            return kind_of(value) if "@" in text else printable(text, 40)
    return "an empty text" if value == "" else kind_of(value)


def _clash_problem(clash: Clash, origins: Mapping[str, Origin]) -> Problem:
    """Begin with the setting that somebody set; name the place of the other when somebody set that as well."""
    one, what, other, but = clash.one, clash.what, clash.other, clash.but
    first, second = origins.get(one, PACKAGED), origins.get(other, PACKAGED)
    if first.kind is OriginKind.PACKAGED and second.kind is not OriginKind.PACKAGED:
        one, what, other, but, first, second = other, but, one, what, second, first
    elsewhere = second.kind is not OriginKind.PACKAGED and (second.name, second.file) != (first.name, first.file)
    where = f" ({second})" if elsewhere else ""
    return Problem(one, f"{what}, but {other} {but}{where}: {clash.reason}", clash.remedy, first)
