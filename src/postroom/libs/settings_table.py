"""The table of all settings, read off the models: key, kind, what is allowed, default.

The loader takes types from here, error texts take what is allowed, reference pages and tests walk it.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import annotated_types
from pydantic import SecretStr

from postroom.libs.settings import Config, Section

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Key: TypeAlias = "tuple[str, ...]"


class Kind(StrEnum):
    """What sort of value a setting takes."""

    TEXT = "text"
    CHOICE = "choice"
    WHOLE = "whole number"
    NUMBER = "number"
    SWITCH = "true or false"
    PATH = "path"
    PATHS = "list of paths"
    SECRET = "secret"  # noqa: S105 - the name of a kind
    MAPPING = "mapping"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: a setting with the values it takes. Entries of a MAPPING are not rows of their own."""

    key: Key
    kind: Kind
    nullable: bool
    allowed: str
    default: object

    @property
    def name(self) -> str:
        """The key as it is written: `producer.acks`."""
        return ".".join(self.key)

    @property
    def variable(self) -> str:
        """The variable that sets it: `POSTROOM_PRODUCER_ACKS`."""
        return "POSTROOM_" + "_".join(self.key).upper()


@cache
def settings_table() -> Mapping[Key, Setting]:
    """Every setting by its key, in the order of `kafka.yaml`."""
    return types.MappingProxyType({row.key: row for row in _rows(Config, ())})


@cache
def sections() -> frozenset[Key]:
    """The keys that hold settings, the empty one for the whole included."""
    return frozenset(key[:length] for key in settings_table() for length in range(len(key)))


def _rows(model: type[Section], prefix: Key) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _rows(annotation, (*prefix, name))
        else:
            yield _row((*prefix, name), field)


def _row(key: Key, field: FieldInfo) -> Setting:
    kind, nullable, choices = _kind(field.annotation)
    allowed = _allowed(kind, choices, field) + (" or null" if nullable else "")
    if key == ("broker",):
        allowed = "host:port, a list of them, or embedded"
    return Setting(key, kind, nullable, allowed, field.get_default())


def _kind(annotation: Any) -> tuple[Kind, bool, tuple[str, ...]]:
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        kind, _, choices = _kind(next(arg for arg in get_args(annotation) if arg is not types.NoneType))
        return kind, True, choices
    if get_origin(annotation) is Literal:
        return Kind.CHOICE, False, get_args(annotation)
    kinds = {
        str: Kind.TEXT,
        int: Kind.WHOLE,
        float: Kind.NUMBER,
        bool: Kind.SWITCH,
        Path: Kind.PATH,
        tuple: Kind.PATHS,
        SecretStr: Kind.SECRET,
        Mapping: Kind.MAPPING,
    }
    return kinds[get_origin(annotation) or annotation], False, ()


def _allowed(kind: Kind, choices: tuple[str, ...], field: FieldInfo) -> str:
    if kind is Kind.CHOICE:
        return "one of " + ", ".join(choices)
    if kind in {Kind.WHOLE, Kind.NUMBER}:
        return f"a {kind.value}{_bounds(field.metadata)}"
    words = {Kind.SWITCH: "true or false", Kind.PATHS: "a list of paths", Kind.SECRET: "a text"}
    return words.get(kind, f"a {kind.value}")


def _bounds(metadata: list[Any]) -> str:
    low = high = ""
    for bound in metadata:
        if isinstance(bound, annotated_types.Ge):
            low = f" from {bound.ge}"
        elif isinstance(bound, annotated_types.Gt):
            low = f" above {bound.gt}"
        elif isinstance(bound, annotated_types.Le):
            high = f"{' up' if low.startswith(' above') else ''} to {bound.le}"
    return low + high
