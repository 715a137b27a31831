"""Contracts: what an event of a type must look like, where it goes and whose it is.

A contract is a YAML (or JSON) file; docs/specs/contract-file.md lists its keys. The packaged one is `user_event`.
"""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from postroom.libs.exceptions import ContractNotFoundError, InvalidContractError
from postroom.schemas.avro_codec import Codec
from postroom.schemas.avro_nodes import Record
from postroom.schemas.avro_schema import canonical_json
from postroom.schemas.contract_file import ContractText, read_contract_file, record_from_short_form
from postroom.schemas.contract_metadata import FieldTags, Metadata, tags_of_fields
from postroom.schemas.contract_schema import checked_schema
from postroom.schemas.rule_compiler import checked_rules
from postroom.schemas.schema_references import Reference, with_references
from postroom.schemas.shared_topics import disagreements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postroom.schemas.avro_schema import AvroSchema
    from postroom.schemas.contract_governance import Governance
    from postroom.schemas.rule_set import Rule
    from postroom.schemas.rules import Conditions

HeadersMode: TypeAlias = Literal["minimal", "cloudevents"]

_PACKAGED = Path(__file__).parent.parent / "config" / "contracts"
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Contract:
    """What an event of one type must look like, which topic it goes to, and how. Equal when all it says is equal.

    `topic` is the logical name (`topics` in the settings maps it to the real one). `partitions` and `replication` are
    -1, and `retention_ms` is None, where the cluster's defaults shall do; a `retention_ms` of -1 means for ever.
    `dead_letter_topic` is None where the contract names none: then it is the topic with `dead_letters.suffix` behind.
    `rules` are all of its rules, `conditions` runs those that are for writing; it is None where there are none.
    `known_bad` has for each of these an event in its JSON form that breaks it and no other.
    `tombstones` says whether records without a value may be published, `governance` what it says about its versions.
    `schema` is the Avro schema in JSON form (not to be changed) with all that it refers to in it, `schema_json` its
    canonical text for the registry, without the types that stand under subjects of their own: those are `references`.
    """

    name: str
    version: int
    topic: str
    partitions: int
    replication: int
    retention_ms: int | None
    dead_letter_topic: str | None
    dead_letter_partitions: int
    dead_letter_replication: int
    dead_letter_retention_ms: int | None
    key_field: str | None
    owner: str
    description: str
    headers: HeadersMode
    governance: Governance = field(repr=False)
    schema: dict[str, Any] = field(repr=False)
    schema_json: str = field(repr=False)
    record_name: str
    source: Path | None = field(compare=False)
    avro: AvroSchema = field(repr=False, compare=False)
    references: tuple[Reference, ...] = ()
    metadata: Metadata = field(default_factory=Metadata)
    rules: tuple[Rule, ...] = ()
    conditions: Conditions | None = field(default=None, repr=False, compare=False)
    field_tags: FieldTags = field(default_factory=dict, repr=False, compare=False)
    tombstones: bool = False
    known_bad: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __hash__(self) -> int:
        return hash((self.name, self.version, self.schema_json))

    @functools.cached_property
    def codec(self) -> Codec:
        """The functions that encode and decode its events, made at first use (about 1 ms)."""
        return Codec(self.avro)


def load_contract(path: str | Path) -> Contract:
    """The contract in the file `path`.

    Raises InvalidContractError with all that is wrong, each with file, line, key and remedy.
    """
    return _contract(read_contract_file(Path(path)))


def load_contracts(paths: Iterable[str | Path]) -> dict[str, Contract]:
    """The contracts in files and folders by name; of a folder those ending in .yaml, .yml or .json.

    Raises InvalidContractError with what is wrong in all of them, also where two have one name, where those of one
    topic disagree about it, or a folder has none.
    """
    contracts: dict[str, Contract] = {}
    wrong: list[str] = []
    for path in _files(paths, wrong):
        try:
            contract = load_contract(path)
        except InvalidContractError as error:
            wrong.append(str(error))
            continue
        other = contracts.setdefault(contract.name, contract)
        if other is not contract:
            wrong.append(f"{path}: name is {contract.name}, as in {other.source}. Give each contract its own name.")
    wrong += disagreements(contracts.values())
    if wrong:
        raise InvalidContractError("\n".join(wrong))
    return contracts


def _files(paths: Iterable[str | Path], wrong: list[str]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        try:
            inside = _inside(path)
        except OSError as error:
            why = error.strerror or type(error).__name__
            wrong.append(f"{path}: cannot be read: {why}. Check the path and its permissions.")
            continue
        if not inside:
            wrong.append(f"{path}: holds no contract. Put a .yaml file into it, or name another folder.")
        files.update(dict.fromkeys(inside))
    return list(files)


def _inside(path: Path) -> list[Path]:
    """The files of contracts in a folder; anything else is one itself. Raises OSError."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())


@functools.cache
def _packaged() -> tuple[Contract, ...]:
    return tuple(load_contracts([_PACKAGED]).values())


def packaged_contracts() -> dict[str, Contract]:
    """The contracts that come with postroom, by name; read once a process."""
    return {contract.name: contract for contract in _packaged()}


def configured_contracts(paths: Iterable[str | Path]) -> dict[str, Contract]:
    """The contracts at `paths`, as `contracts.path` in the settings lists them; the packaged ones for an empty list."""
    listed = list(paths)
    return load_contracts(listed) if listed else packaged_contracts()


def contract_from_short_form(
    name: str, fields: Mapping[str, Any], *, topic: str | None = None, key_field: str | None = None
) -> Contract:
    """A contract of required fields in order, such as `{"user_id": "string", "timestamp": "long"}`.

    Values may be any Avro type. The topic is `name` unless given. Raises InvalidContractError.
    """
    text = ContractText(source=f"contract {name}", path=None, name=name, topic=topic or name, key_field=key_field)
    text.schema = record_from_short_form(name, dict(fields))
    return _contract(text)


def find_contract(contracts: Mapping[str, Contract], name: object) -> Contract:
    """The contract of an event type; ContractNotFoundError, with the nearest names, when there is none."""
    contract = contracts.get(name) if isinstance(name, str) else None
    if contract is not None:
        return contract
    near = difflib.get_close_matches(name, contracts, n=1) if isinstance(name, str) else []
    by_topic = [other.name for other in contracts.values() if other.topic == name]
    known = ", ".join(sorted(contracts)) or "none"
    remedy = f"perhaps {(by_topic or near)[0]} is meant" if by_topic or near else "name one of them"
    raise ContractNotFoundError(f"no contract for this event type; known: {known}", remedy=remedy)


def _contract(text: ContractText) -> Contract:
    as_written = text.schema
    text.schema = with_references(as_written, text.references)
    avro = checked_schema(text)
    field_tags = {} if avro is None else tags_of_fields(text, avro.root)
    conditions = None if avro is None else checked_rules(text, avro, field_tags)
    text.raise_if_wrong()
    assert avro is not None
    assert isinstance(avro.root, Record)
    return Contract(
        name=text.name,
        version=text.version,
        topic=text.topic,
        partitions=text.partitions,
        replication=text.replication,
        retention_ms=text.retention_ms,
        dead_letter_topic=text.dead_letter_topic,
        dead_letter_partitions=text.dead_letter_partitions,
        dead_letter_replication=text.dead_letter_replication,
        dead_letter_retention_ms=text.dead_letter_retention_ms,
        key_field=text.key_field,
        owner=text.owner,
        description=text.description,
        headers=text.headers,
        governance=text.governance,
        schema=text.schema,
        schema_json=canonical_json(as_written),
        record_name=avro.root.name,
        source=text.path,
        avro=avro,
        references=text.references,
        metadata=text.metadata,
        rules=text.rules,
        conditions=conditions,
        field_tags=field_tags,
        tombstones=text.tombstones,
        known_bad=text.known_bad,
    )
