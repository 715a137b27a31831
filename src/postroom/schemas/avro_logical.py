"""Which logical type stands on which Avro type, and what it asks of it (Avro 1.12, "Logical Types")."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.schemas.avro_nodes import Leaf

LOGICAL_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "decimal": ("bytes", "fixed"),
    "uuid": ("string", "fixed"),
    "date": ("int",),
    "time-millis": ("int",),
    "time-micros": ("long",),
    "timestamp-millis": ("long",),
    "timestamp-micros": ("long",),
    "local-timestamp-millis": ("long",),
    "local-timestamp-micros": ("long",),
    "duration": ("fixed",),
    "timestamp-nanos": ("long",),
    "local-timestamp-nanos": ("long",),
}
"""The names that are understood, and their bases. Others are ignored, as the specification asks."""

_PLAIN: Final = ("duration", "timestamp-nanos", "local-timestamp-nanos")
"""Python has no exact type for these: they are handed in as their base type, 12 bytes or an int."""

_SIZES: Final = {"uuid": 16, "duration": 12}

_MOST_DIGITS: Final = 10_000
"""Nobody has such a number; a check that counts to a thousand million digits would never come back."""


def logical_leaf(base: Leaf, name: str, raw: Mapping[str, Any]) -> tuple[Leaf, str, str]:
    """The leaf for logical type `name` over `base`, and what is wrong with it: a text and a remedy, "" when nothing."""
    bases = LOGICAL_TYPES[name]
    if base.base not in bases:
        return base, f"logicalType {name} stands on a {base.base}", f"use type: {' or '.join(bases)}"
    if base.base == "fixed" and base.size != _SIZES.get(name, base.size):
        return base, f"logicalType {name} needs a fixed of {_SIZES[name]} bytes", f"set size: {_SIZES[name]}"
    if name == "decimal":
        return _decimal_leaf(base, raw)
    return (base if name in _PLAIN else replace(base, row=name)), "", ""


def _decimal_leaf(base: Leaf, raw: Mapping[str, Any]) -> tuple[Leaf, str, str]:
    precision, scale = raw.get("precision"), raw.get("scale", 0)
    if type(precision) is not int or precision < 1:
        return base, "decimal has no precision above 0", "set precision: to the number of digits"
    if type(scale) is not int or not 0 <= scale <= precision:
        return (
            base,
            "decimal has a scale that is not between 0 and its precision",
            "set scale: to the digits after the point",
        )
    if precision > _MOST_DIGITS:
        return base, f"decimal has a precision above {_MOST_DIGITS:,}", "set precision: to the number of digits"
    # As many digits as surely fit into the bits beside the sign, as the specification has it.
    if base.base == "fixed" and (base.size == 0 or precision > int((8 * base.size - 1) * math.log10(2))):
        return base, f"decimal of precision {precision} does not fit into {base.size} bytes", "set a larger size"
    return replace(base, row="decimal", precision=precision, scale=scale), "", ""
