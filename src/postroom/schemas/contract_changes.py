"""What is different between two versions of a contract outside of the schema, and what follows from it.

Nothing here changes a byte of an event, so nothing here breaks a level of compatibility: those are about readers. What
a change means to producers is said apart (docs/design/0008-contract-versions.md).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from postroom.schemas.avro_graph import walk
from postroom.schemas.avro_nodes import Record
from postroom.schemas.compatibility import directions
from postroom.schemas.rule_set import RuleAction

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from postroom.schemas.data_contracts import Contract
    from postroom.schemas.registry_protocol import Compatibility
    from postroom.schemas.rule_set import Rule

_TOLD_ELSEWHERE: Final = frozenset(
    (
        "schema", "schema_json", "record_name", "source", "avro", "governance", "version", "conditions",
        "rules", "metadata", "field_tags", "tombstones", "references",
    )
)  # fmt: skip
_NOTES: Final[dict[str, str]] = {
    "name": "this is another event type: callers and settings have to name it anew",
    "topic": "consumers of the old topic see nothing new",
    "key_field": "events go to other partitions than before: their order is not kept across the change",
    "partitions": "keys go to other partitions than before: their order is not kept across the change",
    "retention_ms": "postroom does not change a topic that exists; with less, events are deleted earlier",
    "headers": "consumers see other headers",
}
_DONE_BY: Final = {RuleAction.ERROR: "is refused", RuleAction.DLQ: "becomes a dead letter"}


@dataclass(frozen=True, slots=True)
class Change:
    """One change, and what it breaks.

    `backward` and `forward` say why the new schema cannot read old data, and old readers not the new; empty where
    they can. `silent`: no registry refuses it for that. `note` is what follows outside of schemas. `producers` says
    which events that pass under the old version do not under the new one. `against` names an older version, for what
    is found only in comparison with that.
    """

    path: str
    code: str
    text: str
    backward: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    silent: bool = False
    note: str = ""
    producers: str = ""
    against: str = ""

    def is_breaking(self, level: Compatibility) -> bool:
        """Whether it breaks what the level asks for; one of an older version only under a transitive level."""
        backward, forward = directions(level)
        if self.against and not level.value.endswith("TRANSITIVE"):
            return False
        return bool((backward and self.backward) or (forward and self.forward))


def contract_changes(old: Contract, new: Contract) -> list[Change]:
    """What is different outside of the schema: every attribute of a contract, also those that are added later."""
    found = []
    for item in dataclasses.fields(new):
        before, after = getattr(old, item.name), getattr(new, item.name)
        if item.name not in _TOLD_ELSEWHERE and before != after:
            name = "key" if item.name == "key_field" else item.name
            values = f" from {_shown(before)} to {_shown(after)}" if _is_short(before, after) else ""
            text = f"changed{values}"
            found.append(Change(name, f"{name}_changed", text, note=_NOTES.get(item.name, "")))
    if old.governance.compatibility != new.governance.compatibility:
        was, now = old.governance.compatibility or "not said", new.governance.compatibility or "not said"
        note = "later changes are judged by the new word"
        found.append(Change("compatibility", "compatibility_changed", f"changed from {was} to {now}", note=note))
    if old.governance.examples != new.governance.examples:
        found.append(Change("examples", "examples_changed", "changed"))
    found += [*_tombstones(old, new), *_references(old, new), *_metadata(old, new), *_tags(old, new), *_rules(old, new)]
    return found


def version_change(old: int, new: int) -> list[Change]:
    """What is to be said of the number of a contract that has changed."""
    if new > old:
        return [Change("version", "version_raised", f"changed from {old} to {new}")]
    text = f"is still {new}" if new == old else f"went back from {old} to {new}"
    return [Change("version", "version_not_raised", text, note="a changed contract gets the next number")]


def _is_short(*values: object) -> bool:
    return all(value is None or (isinstance(value, (int, str)) and len(str(value)) <= 60) for value in values)


def _shown(value: object) -> str:
    return "nothing" if value is None or value in ("", -1) else str(value)


# -- tombstones, references, metadata, tags


def _tombstones(old: Contract, new: Contract) -> Iterator[Change]:
    if old.tombstones == new.tombstones:
        return
    if new.tombstones:
        note = "consumers have to take records without a value"
        yield Change("tombstones", "tombstones_allowed", "are allowed now", note=note)
    else:
        refused = "publish_tombstone is refused"
        yield Change("tombstones", "tombstones_forbidden", "are no longer allowed", producers=refused)


def _references(old: Contract, new: Contract) -> Iterator[Change]:
    """Where referenced types stand; what their own changes break is told as changes of the schema."""
    before = {one.name: f"{one.subject} version {one.version}" for one in old.references}
    after = {one.name: f"{one.subject} version {one.version}" for one in new.references}
    yield from _entries("references", "reference", before, after, note="it has to be registered first", shown=True)


def _metadata(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = dict(old.metadata.properties), dict(new.metadata.properties)
    yield from _entries("metadata.properties", "property", before, after)
    if set(old.metadata.sensitive) != set(new.metadata.sensitive):
        yield Change("metadata.sensitive", "sensitive_changed", "changed")


def _entries(
    path: str, what: str, before: Mapping[str, str], after: Mapping[str, str], *, note: str = "", shown: bool = False
) -> Iterator[Change]:
    """The entries that came, went or changed. Values are shown only where they are known to be no secret."""
    for name in {**before, **after}:
        was, now = before.get(name), after.get(name)
        if was is None:
            yield Change(f"{path}.{name}", f"{what}_added", f"added: {now}" if shown else "added", note=note)
        elif now is None:
            yield Change(f"{path}.{name}", f"{what}_removed", "removed")
        elif was != now:
            text = f"changed from {was} to {now}" if shown else "changed"
            yield Change(f"{path}.{name}", f"{what}_changed", text, note=note)


def _tags(old: Contract, new: Contract) -> Iterator[Change]:
    """Tags of fields, wherever the file says them; those of a field that is gone went with it."""
    for record, name in _fields(new):
        before = old.field_tags.get((record, name), frozenset())
        after = new.field_tags.get((record, name), frozenset())
        path = f"{record}.{name}"
        if after - before:
            note = "dead letters hide it where dead_letters.privacy says so; rules for the tag see it"
            yield Change(path, "tags_added", f"gets the tag {', '.join(sorted(after - before))}", note=note)
        if before - after:
            note = "dead letters no longer hide it for that; rules for the tag no longer see it"
            yield Change(path, "tags_removed", f"loses the tag {', '.join(sorted(before - after))}", note=note)


def _fields(contract: Contract) -> list[tuple[str, str]]:
    records = [node for node in walk(contract.avro.root) if isinstance(node, Record)]
    return [(record.name, field.name) for record in records for field in record.fields]


# -- rules


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    before = {rule.name: rule for rule in old.rules}
    for rule in new.rules:
        if rule.name not in before:
            what = f"rule of type {rule.type} and mode {rule.mode} added{', disabled' if rule.disabled else ''}"
            yield Change(_rule_path(rule), "rule_added", what, producers=_stops(rule))
        else:
            yield from _rule(before.pop(rule.name), rule)
    for rule in before.values():
        note = "events that broke it are published from now on" if rule.runs_here else ""
        yield Change(_rule_path(rule), "rule_removed", "rule removed", note=note)


def _rule(old: Rule, new: Rule) -> Iterator[Change]:
    path = _rule_path(new)
    if old.disabled and not new.disabled:
        yield Change(path, "rule_enabled", "rule is no longer disabled", producers=_stops(new))
    elif new.disabled and not old.disabled:
        note = "events that broke it are published from now on" if old.runs_here else ""
        yield Change(path, "rule_disabled", "rule is disabled", note=note)
    keys = [key for key in (*_said(old), *_said(new)) if _said(old).get(key) != _said(new).get(key)]
    if keys:
        stricter = _may_stop_more(old, new, keys) and not old.disabled
        text = "rule changed: " + ", ".join(_how(key, _said(old), _said(new)) for key in dict.fromkeys(keys))
        yield Change(path, "rule_changed", text, producers=_stops(new) if stricter else "")


def _rule_path(rule: Rule) -> str:
    return f"ruleSet.{rule.name}"


def _said(rule: Rule) -> dict[str, Any]:
    """All but the switch, which is told apart."""
    said = dataclasses.replace(rule, disabled=False).as_json()
    return {key: value for key, value in said.items() if key != "name"}


def _how(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    was, now = old.get(key), new.get(key)
    short = key in ("mode", "kind", "type", "onFailure") and was is not None and now is not None
    return f"{key} from {was} to {now}" if short else key


def _may_stop_more(old: Rule, new: Rule, keys: list[str]) -> bool:
    """Whether an event that passed may be stopped: by another condition, on other fields, or by a stricter action."""
    if not new.runs_here:
        return False
    order = list(RuleAction)
    harder = not old.runs_here or order.index(new.action) < order.index(old.action)
    return harder or bool({"expr", "tags", "type"} & set(keys))


def _stops(rule: Rule) -> str:
    """What happens to events that break it; nothing for a rule that stops none."""
    done = _DONE_BY.get(rule.action) if rule.runs_here else None
    return f"an event that breaks it {done}" if done else ""
