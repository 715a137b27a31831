"""Contract files: strict YAML (JSON is YAML too) to checked settings, all problems at once, each with its line."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from postroom.libs.exceptions import DecodeError, InvalidContractError
from postroom.libs.safe_yaml import Node, kind_of, printable, read_yaml
from postroom.libs.setting_formats import FormatError, contract_name, topic_name
from postroom.schemas.contract_governance import KEYS as GOVERNANCE_KEYS
from postroom.schemas.contract_governance import Governance, read_governance
from postroom.schemas.contract_metadata import Metadata, read_metadata
from postroom.schemas.contract_tombstones import TOMBSTONES_KEY, read_tombstones
from postroom.schemas.json_reader import read_json
from postroom.schemas.rule_set import read_rule_set
from postroom.schemas.schema_references import Reference, read_references

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from postroom.schemas.data_contracts import HeadersMode
    from postroom.schemas.rule_set import Rule

_KEYS: Final = (
    "name", "version", "description", "owner", "topic", "dead_letter_topic", "key", "headers", "schema", "schema_file",
    *GOVERNANCE_KEYS,
    "references", "metadata", "ruleSet", "known_bad", TOMBSTONES_KEY,
)  # fmt: skip
_TOPIC_KEYS: Final = ("name", "partitions", "replication", "retention")
_MAX_SCHEMA_BYTES: Final = 1024 * 1024
_RETENTION: Final = re.compile(r"([1-9][0-9]{0,8})(d|h|min|s)")
_UNITS_MS: Final = {"d": 86_400_000, "h": 3_600_000, "min": 60_000, "s": 1000}


@dataclass(slots=True)
class ContractText:
    """What a contract file says, and what is wrong with it; `data_contracts.Contract` says what the fields mean."""

    source: str
    path: Path | None
    name: str = ""
    version: int = 1
    topic: str = ""
    partitions: int = -1
    replication: int = -1
    retention_ms: int | None = None
    dead_letter_topic: str | None = None
    dead_letter_partitions: int = -1
    dead_letter_replication: int = -1
    dead_letter_retention_ms: int | None = None
    key_field: str | None = None
    owner: str = ""
    description: str = ""
    headers: HeadersMode = "minimal"
    governance: Governance = field(default_factory=Governance)
    tombstones: bool = False
    schema: dict[str, Any] = field(default_factory=dict)
    schema_is_missing: bool = False
    references: tuple[Reference, ...] = ()
    metadata: Metadata = field(default_factory=Metadata)
    rules: tuple[Rule, ...] = ()
    known_bad: dict[str, object] = field(default_factory=dict)
    root: Node | None = None
    problems: list[str] = field(default_factory=list)

    def wrong(self, key: str, text: str, remedy: str, path: tuple[str | int, ...] = ()) -> None:
        """Note a problem; `path` leads to its line, as far as the file has one for it."""
        line = line_of(self.root, path)
        place = f"{self.source}:{line}" if line else self.source
        self.problems.append(
            f"{place}: {key} {text}. {remedy[0].upper()}{remedy[1:]}{'' if remedy[-1] in '?.' else '.'}"
        )

    def raise_if_wrong(self) -> None:
        """InvalidContractError with every problem, one a line."""
        if self.problems:
            raise InvalidContractError("\n".join(self.problems))


def line_of(root: Node | None, path: tuple[str | int, ...]) -> int:
    """The line of the deepest part of the path that the file has; 0 without a file."""
    if root is None:
        return 0
    node = root
    for step in path:
        inner: Node | None = None
        if isinstance(node.value, dict) and isinstance(step, str):
            inner = node.value.get(step)
        elif isinstance(node.value, tuple) and isinstance(step, int) and step < len(node.value):
            inner = node.value[step]
        if inner is None:
            break
        node = inner
    return node.line


def record_from_short_form(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The guide's short form, field name to type, as an Avro record; its name is that of the contract."""
    return {
        "type": "record",
        "name": re.sub(r"[^A-Za-z0-9_.]", "_", name),
        "fields": [{"name": field_name, "type": kind} for field_name, kind in fields.items()],
    }


def read_contract_file(path: Path) -> ContractText:
    """What the file says, and in `problems` what is wrong; InvalidContractError when it is no YAML mapping at all."""
    root = read_yaml(path, error=InvalidContractError)
    if not isinstance(root.value, dict):
        remedy = "write keys such as name, topic and schema"
        raise InvalidContractError(f"{path}:{root.line}: is {kind_of(root.value)}, not a contract", remedy=remedy)
    text = ContractText(source=str(path), path=path, root=root)
    _FileReader(text, root).read()
    return text


class _FileReader:
    """Takes the keys one after the other; what has the wrong kind is noted and left at its default."""

    def __init__(self, text: ContractText, root: Node) -> None:
        self._text = text
        self._root = cast("dict[str, Node]", root.value)

    def read(self) -> None:
        text = self._text
        self._check_keys(self._root, _KEYS, ())
        text.name = self._format("name", self._get(self._root, ("name",), str, required=True), contract_name)
        text.version = self._whole(self._root, ("version",), 1, 2**31 - 1, required=True) or 1
        text.description = self._get(self._root, ("description",), str) or ""
        text.owner = self._get(self._root, ("owner",), str) or ""
        text.key_field = self._get(self._root, ("key",), str)
        text.governance = read_governance(text, self._root)
        self._headers()
        read_tombstones(text, self._root)
        self._topics()
        self._schema()
        listed = self._root.get("references")
        text.references = read_references(text, None if listed is None else listed.unwrap())
        read_metadata(text)
        read_rule_set(text)

    def _check_keys(self, found: Mapping[str, Node], known: tuple[str, ...], path: tuple[str, ...]) -> None:
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
                shown = ".".join((*path, printable(key, 40)))
                self._text.wrong(shown, "is no key of a contract", remedy, (*path, key))

    def _get(self, holder: Mapping[str, Node], path: tuple[str, ...], kind: type, *, required: bool = False) -> Any:
        key = ".".join(path)
        node = holder.get(path[-1])
        if node is None or node.value is None:
            if required:
                self._text.wrong(key, "is missing", f"add {path[-1]}:", path)
            return None
        if type(node.value) is not kind:
            self._text.wrong(key, f"is {kind_of(node.value)}", f"write {_KIND_WORDS[kind]}", path)
            return None
        return node.value

    def _whole(
        self, holder: Mapping[str, Node], path: tuple[str, ...], low: int, high: int, *, required: bool = False
    ) -> int | None:
        number = self._get(holder, path, int, required=required)
        if number is None or low <= number <= high:
            return cast("int | None", number)
        self._text.wrong(".".join(path), f"is not between {low} and {high}", "write a number in this range", path)
        return None

    def _format(self, key: str, value: str | None, check: Callable[[str], str], *path: str) -> str:
        if value is None:
            return ""
        try:
            return check(value)
        except FormatError as error:
            self._text.wrong(key, error.what, error.remedy, path or (key,))
            return ""

    def _headers(self) -> None:
        mode = self._get(self._root, ("headers",), str)
        if mode in ("minimal", "cloudevents"):
            self._text.headers = mode
        elif mode is not None:
            self._text.wrong("headers", "is neither minimal nor cloudevents", "write one of the two", ("headers",))

    def _topics(self) -> None:
        text = self._text
        name, *numbers = self._topic("topic", required=True)
        text.topic = name or ""
        text.partitions, text.replication, text.retention_ms = self._numbers(numbers)
        name, *numbers = self._topic("dead_letter_topic", required=False)
        text.dead_letter_topic = name
        text.dead_letter_partitions, text.dead_letter_replication, text.dead_letter_retention_ms = self._numbers(
            numbers
        )
        if name and name == text.topic:
            remedy = "give dead letters a topic of their own"
            text.wrong("dead_letter_topic", "is the topic itself", remedy, ("dead_letter_topic",))

    def _numbers(self, numbers: list[Any]) -> tuple[int, int, int | None]:
        partitions, replication, retention_ms = numbers
        return partitions or -1, replication or -1, retention_ms

    def _topic(self, key: str, *, required: bool) -> tuple[str | None, int | None, int | None, int | None]:
        """Name, partitions, replication and retention of a topic; a bare text is the name."""
        node = self._root.get(key)
        if node is not None and isinstance(node.value, str):
            return self._format(key, node.value, topic_name) or None, None, None, None
        inner = self._get(self._root, (key,), dict, required=required)
        if inner is None:
            return None, None, None, None
        self._check_keys(inner, _TOPIC_KEYS, (key,))
        name = self._get(inner, (key, "name"), str, required=required)
        checked = self._format(f"{key}.name", name, topic_name, key, "name") or None
        partitions = self._whole(inner, (key, "partitions"), 1, 100_000)
        replication = self._whole(inner, (key, "replication"), 1, 32_767)
        return checked, partitions, replication, self._retention(inner, (key, "retention"))

    def _retention(self, inner: Mapping[str, Node], path: tuple[str, ...]) -> int | None:
        text = self._get(inner, path, str)
        if text is None or text == "forever":
            return None if text is None else -1
        match = _RETENTION.fullmatch(text)
        if match:
            return int(match[1]) * _UNITS_MS[match[2]]
        remedy = "write a number and d, h, min or s, such as 7d, or forever"
        self._text.wrong(".".join(path), "is no time", remedy, path)
        return None

    def _schema(self) -> None:
        inline, beside = self._root.get("schema"), self._get(self._root, ("schema_file",), str)
        text = self._text
        text.schema_is_missing = True
        if inline is not None and beside is not None:
            text.wrong("schema_file", "stands beside schema", "keep one of the two", ("schema_file",))
        elif beside is not None:
            self._schema_file(beside)
        else:
            schema = self._get(self._root, ("schema",), dict, required=True)
            if schema is not None and inline is not None:
                self._take(inline.unwrap())

    def _schema_file(self, name: str) -> None:
        assert self._text.path is not None
        path = self._text.path.parent / name
        try:
            with path.open("rb") as file:
                raw = read_json(file.read(_MAX_SCHEMA_BYTES + 1), max_bytes=_MAX_SCHEMA_BYTES)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            self._text.wrong(
                "schema_file", f"cannot be read: {why}", "name a file beside the contract", ("schema_file",)
            )
        except DecodeError as error:
            remedy = "write the Avro schema as JSON"
            self._text.wrong("schema_file", f"is not JSON: {error.message}", remedy, ("schema_file",))
        else:
            self._take(raw)

    def _take(self, raw: object) -> None:
        if not isinstance(raw, dict):
            self._text.wrong("schema", f"is {kind_of(raw)}, not a record", "write a record", ("schema",))
            return
        self._text.schema_is_missing = False
        is_avro = isinstance(raw.get("fields"), list) or raw.get("type") == "record"
        self._text.schema = raw if is_avro else record_from_short_form(self._text.name or "record", raw)


_KIND_WORDS: Final[dict[type, str]] = {str: "a text (in quotes if need be)", int: "a whole number", dict: "a mapping"}
