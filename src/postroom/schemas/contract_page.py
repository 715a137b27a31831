"""A page about a contract for people, in Markdown: what the event is, whose, where it goes, its fields and its past."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from postroom.schemas.contract_diff import Side, diff
from postroom.schemas.contract_page_sections import governed
from postroom.schemas.markdown_text import code, fenced, paragraph, plain
from postroom.schemas.schema_shape import Shape, Slot, shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from postroom.schemas.data_contracts import Contract

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"))


def page(
    contract: Contract,
    versions: Sequence[Side] = (),
    *,
    others: Sequence[Contract] = (),
    privacy: Mapping[str, str] | None = None,
    suffix: str = ".md",
) -> str:
    """The page of a contract. `versions` are those of the registry, oldest first; their changes are listed.

    `others` are the contracts that have pages beside it, with `suffix`; `privacy` is what the settings do to tags in
    dead letters, None where no settings are known.
    """
    return "\n".join(_lines(contract, versions, others, privacy, suffix)) + "\n"


def index(contracts: Sequence[Contract], *, suffix: str = ".md") -> str:
    """A page that leads to the page of each contract, which stands beside it as `<name>.md`."""
    lines = ["# Events", "", "| event | what it is | topic | owner |", "|---|---|---|---|"]
    for contract in contracts:
        cells = (contract.description, contract.topic, contract.owner)
        lines.append(f"| {_link(contract, suffix)} | {' | '.join(plain(text) for text in cells)} |")
    return "\n".join(lines) + "\n"


def _link(contract: Contract, suffix: str) -> str:
    return f"[{plain(contract.name)}]({contract.name}{suffix})"


def _lines(
    contract: Contract,
    versions: Sequence[Side],
    others: Sequence[Contract],
    privacy: Mapping[str, str] | None,
    suffix: str,
) -> Iterator[str]:
    yield f"# {plain(contract.name)}"
    yield ""
    if contract.description:
        yield from (paragraph(contract.description), "")
    yield from ("| | |", "|---|---|")
    for key, value in _facts(contract):
        yield f"| {key} | {plain(value)} |"
    sharing = [_link(other, suffix) for other in others if other.topic == contract.topic and other is not contract]
    if sharing:
        yield f"| also in this topic | {', '.join(sharing)}; the header `ce_type` of a record says which it is |"
    fields = list(_Fields().walk("", shape_of(contract.schema)))
    yield from ("", "## Fields", "", "| field | type | default | what it means |", "|---|---|---|---|")
    for path, _, slot in fields:
        default = code(json.dumps(slot.default, ensure_ascii=False)) if slot.has_default else "required"
        yield f"| {code(path)} | {plain(_words(slot.type))} | {default} | {plain(slot.doc)} |"
    paths = {(record, slot.name): path for path, record, slot in reversed(fields)}
    yield from governed(contract, paths, privacy)
    if contract.governance.examples:
        examples = "\n".join(json.dumps(example, ensure_ascii=False) for example in contract.governance.examples)
        yield from ("", "## Examples", "", fenced(examples, "json"))
    if versions:
        yield from ("", "## Versions")
        mine = Side(f"{contract.name} version {contract.version} (this contract, not registered)", contract.schema)
        # Registries keep the text in a form of their own: only a change that can be told makes it another version.
        yield from _history([*versions, mine] if diff(mine, [versions[-1]]) else versions)


def _facts(contract: Contract) -> Iterator[tuple[str, str]]:
    yield "version", str(contract.version)
    yield "owner", contract.owner
    yield "topic", _topic(contract.topic, contract.partitions, contract.replication, contract.retention_ms)
    dead = contract.dead_letter_topic or "the topic's name and the suffix of the settings"
    yield (
        "dead letters",
        _topic(
            dead, contract.dead_letter_partitions, contract.dead_letter_replication, contract.dead_letter_retention_ms
        ),
    )
    yield "key", contract.key_field or "none: events have no order among each other"
    yield "tombstones", "yes: a record without a value ends its key" if contract.tombstones else "no"
    yield "compatibility", contract.governance.compatibility or ""
    yield "headers", contract.headers
    yield "record", contract.record_name


def _topic(name: str, partitions: int, replication: int, retention_ms: int | None) -> str:
    parts = [name]
    if partitions != -1:
        parts.append(f"{partitions} partition{'' if partitions == 1 else 's'}")
    if replication != -1:
        parts.append(f"{replication} cop{'y' if replication == 1 else 'ies'}")
    if retention_ms is not None:
        parts.append("kept for ever" if retention_ms == -1 else f"kept {_time(retention_ms)}")
    return ", ".join(parts)


def _time(milliseconds: int) -> str:
    return next((f"{milliseconds // size} {unit}" for size, unit in _UNITS if milliseconds % size == 0), "")


class _Fields:
    """All fields with their paths and the names of their records, those of records inside too; each record once."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def walk(self, path: str, shape: Shape) -> Iterator[tuple[str, str, Slot]]:
        if id(shape) in self._seen:
            return
        self._seen.add(id(shape))
        for slot in shape.fields:
            yield f"{path}{slot.name}", shape.name, slot
            yield from self.walk(f"{path}{slot.name}.", slot.type)
        if shape.items is not None:
            yield from self.walk(f"{path.removesuffix('.')}{'[]' if shape.kind == 'array' else '{}'}.", shape.items)
        for branch in shape.branches:
            yield from self.walk(path, branch)


def _words(shape: Shape) -> str:
    if shape.kind == "enum":
        return f"one of {', '.join(shape.symbols)}"
    if shape.kind == "union":
        return " or ".join(_words(branch) for branch in shape.branches)
    if shape.items is not None:
        return f"{'list' if shape.kind == 'array' else 'map'} of {_words(shape.items)}"
    return str(shape)


def _history(versions: Sequence[Side]) -> Iterator[str]:
    """The versions, newest first, each with what it changed."""
    for at in range(len(versions) - 1, -1, -1):
        yield from ("", f"### {plain(versions[at].label)}", "")
        if at == 0:
            yield "The first one."
        for change in diff(versions[at], [versions[at - 1]]) if at else ():
            broken = [word for word, why in (("BACKWARD", change.backward), ("FORWARD", change.forward)) if why]
            effect = f" **Breaks {' and '.join(broken)}.**" if broken else ""
            yield f"- {plain(change.path or 'schema')}: {plain(change.text)}.{effect}"
