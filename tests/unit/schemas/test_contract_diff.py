"""A diff tells every change, and what it breaks is what schema resolution says, no more and no less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from postroom.schemas.avro_schema import canonical_json
from postroom.schemas.compatibility import RULES, breaks
from postroom.schemas.contract_changes import Change
from postroom.schemas.contract_diff import _EXPLAINED_BY, Side, breaking, diff
from postroom.schemas.data_contracts import Contract, load_contract
from postroom.schemas.registry_protocol import Compatibility
from postroom.schemas.schema_changes import schema_changes
from postroom.schemas.schema_shape import shape_of

PAIRS = json.loads((Path(__file__).parents[2] / "contract" / "schema_pairs.json").read_text("utf-8"))


def record(*fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **more}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def changes(old: Any, new: Any) -> list[Change]:
    return diff(Side("new", new), [Side("old", old)])


def told(old: Any, new: Any) -> list[tuple[str, str]]:
    return [(change.path, change.code) for change in changes(old, new)]


class TestAllOfThem:
    def test_no_misfit_is_lost_and_none_is_invented(self) -> None:
        for pair in PAIRS:
            found = changes(pair["old"], pair["new"])
            broken = breaks(shape_of(pair["new"]), [shape_of(pair["old"])], Compatibility.FULL)
            assert sum(len(change.backward) for change in found) == sum(one.backward for one in broken), pair
            assert sum(len(change.forward) for change in found) == sum(not one.backward for one in broken), pair
            for level in Compatibility:
                judged = breaks(shape_of(pair["new"]), [shape_of(pair["old"])], level)
                assert bool(breaking(found, level)) == bool(judged), (pair, level)

    def test_nearly_every_misfit_has_the_change_that_made_it(self) -> None:
        """A type that is used twice is told once, its misfits at each place: those stand alone."""
        alone = [
            (pair["name"], change)
            for pair in PAIRS
            for change in changes(pair["old"], pair["new"])
            if change.code in RULES
        ]
        assert len(alone) < len(PAIRS) / 50, alone

    def test_a_schema_that_differs_has_a_change_and_an_equal_one_has_none(self) -> None:
        for pair in PAIRS:
            same = canonical_json(pair["old"]) == canonical_json(pair["new"])
            if "unknown" not in pair["name"]:  # a logical type that Avro ignores
                assert bool(changes(pair["old"], pair["new"])) is not same, pair
            found = changes(pair["new"], pair["new"])
            assert {change.code for change in found} <= {"field_ambiguous", "branch_order"}, (
                pair
            )  # cannot be read by themselves

    def test_every_misfit_knows_its_causes(self) -> None:
        assert set(_EXPLAINED_BY) == set(RULES)


class TestWords:
    def test_fields_come_go_and_change(self) -> None:
        old = record(field("a", "int", doc="x"), field("b", "string"), field("c", "int", default=1), doc="one")
        new = record(field("c", "int", default=2), field("a", "long"), field("d", ["null", "int"], default=None))
        assert told(old, new) == [
            ("", "doc_changed"),
            ("c", "default_changed"),
            ("a", "doc_changed"),
            ("a", "type_changed"),
            ("d", "field_added"),
            ("b", "field_removed"),
            ("", "fields_reordered"),
        ]
        by_path = {(change.path, change.code): change for change in changes(old, new)}
        assert by_path["d", "field_added"].text == "field of type null or int added, default null"
        assert by_path["b", "field_removed"].forward
        assert not by_path["b", "field_removed"].backward
        assert by_path["a", "type_changed"].text == "type changed from int to long"

    def test_a_renamed_field_with_an_alias_is_one_change(self) -> None:
        old, new = record(field("a", "int")), record(field("z", "int", aliases=["a"]))
        (change,) = changes(old, new)
        assert (change.path, change.code, change.backward) == ("z", "field_renamed", ())
        assert change.forward

    def test_names_and_aliases(self) -> None:
        old = record(field("i", {"type": "fixed", "name": "shop.F", "size": 2}), aliases=["Q"])
        new = record(field("i", {"type": "fixed", "name": "sales.F", "size": 3}))
        assert told(old, new) == [("", "aliases_changed"), ("i", "namespace_changed"), ("i", "size_changed")]

    def test_enums(self) -> None:
        old = record(field("e", {"type": "enum", "name": "E", "symbols": ["A", "B", "C"]}))
        new = record(field("e", {"type": "enum", "name": "E", "symbols": ["C", "A", "D"], "default": "A"}))
        assert [change.text for change in changes(old, new)] == [
            "enum gets D", "enum loses B", "symbols stand in another order",
            "default of the enum changed from none to A",
        ]  # fmt: skip

    def test_unions(self) -> None:
        assert [change.text for change in changes(record(field("u", "int")), record(field("u", ["null", "int"])))] == [
            "null is allowed now"
        ]
        assert told(record(field("u", ["null", "int"])), record(field("u", ["null", "long"]))) == [
            ("u", "type_changed")
        ]
        assert told(record(field("u", ["null", "int"])), record(field("u", ["int", "null", "string"]))) == [
            ("u", "branch_added"), ("u", "branches_reordered"),
        ]  # fmt: skip

    def test_a_long_default_is_cut(self) -> None:
        (change,) = schema_changes(shape_of(record()), shape_of(record(field("a", "string", default="x" * 100))))
        assert len(change.text) < 90


CONTRACT = """\
name: order
version: 1
topic: {name: orders, partitions: 3}
key: id
schema: {id: string, total: double}
"""


def contract(tmp_path: Path, text: str, name: str) -> Contract:
    path = tmp_path / name
    path.write_text(text)
    return load_contract(path)


class TestContracts:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (("name: order", "name: bill"), "name_changed"),
            (("name: orders", "name: bills"), "topic_changed"),
            (("partitions: 3", "partitions: 6"), "partitions_changed"),
            (("key: id\n", ""), "key_changed"),
            (("key: id\n", "key: id\nowner: shop\n"), "owner_changed"),
            (("key: id\n", "key: id\nheaders: cloudevents\n"), "headers_changed"),
            (("key: id\n", "key: id\ncompatibility: FULL\n"), "compatibility_changed"),
            (("key: id\n", "key: id\nexamples: [{id: a, total: 1.5}]\n"), "examples_changed"),
            (("partitions: 3", "partitions: 3, retention: 7d"), "retention_ms_changed"),
        ],
    )
    def test_what_stands_beside_the_schema_is_told_and_breaks_no_reader(
        self, tmp_path: Path, change: tuple[str, str], code: str
    ) -> None:
        old = contract(tmp_path, CONTRACT, "old.yaml")
        new = contract(tmp_path, CONTRACT.replace(*change).replace("version: 1", "version: 2"), "new.yaml")
        found = diff(Side("new", new.schema, new), [Side("old", old.schema, old)])
        assert code in [change.code for change in found]
        assert "version_raised" in [change.code for change in found]
        if code != "name_changed":  # the short form names its record after the contract
            assert not breaking(found, Compatibility.FULL_TRANSITIVE)

    def test_a_change_without_a_new_number_is_told(self, tmp_path: Path) -> None:
        old = contract(tmp_path, CONTRACT, "old.yaml")
        new = contract(tmp_path, CONTRACT + "owner: shop\n", "new.yaml")
        found = diff(Side("new", new.schema, new), [Side("old", old.schema, old)])
        assert [change.code for change in found] == ["owner_changed", "version_not_raised"]
        assert diff(Side("old", old.schema, old), [Side("old", old.schema, old)]) == []


class TestOlderVersions:
    def test_what_breaks_only_an_older_version_counts_under_transitive_levels(self) -> None:
        first = record(field("a", "int"), field("b", "string", default=""))
        second, third = record(field("a", "int")), record(field("a", "int"), field("b", "int", default=0))
        found = diff(Side("3", third), [Side("1", first), Side("2", second)])
        assert [(change.path, change.code, change.against) for change in found] == [
            ("b", "field_added", ""), ("b", "type_mismatch", "1"), ("b", "type_mismatch", "1"),
        ]  # fmt: skip
        assert not breaking(found, Compatibility.FULL)
        assert breaking(found, Compatibility.BACKWARD_TRANSITIVE)
        assert breaking(found, Compatibility.FORWARD_TRANSITIVE)
        assert not breaking(found, Compatibility.NONE)
