"""The contract key `tombstones`: whether records without a value may be published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.libs.safe_yaml import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postroom.libs.safe_yaml import Node
    from postroom.schemas.contract_file import ContractText

TOMBSTONES_KEY = "tombstones"


def read_tombstones(text: ContractText, keys: Mapping[str, Node]) -> None:
    """Take what the file says; it is no if it says nothing."""
    node = keys.get(TOMBSTONES_KEY)
    if node is None or node.value is None:
        return
    if isinstance(node.value, bool):
        text.tombstones = node.value
    else:
        text.wrong(TOMBSTONES_KEY, f"is {kind_of(node.value)}", "write true or false", (TOMBSTONES_KEY,))
