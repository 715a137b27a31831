"""Schema resolution: what fits, what does not, where, and under which level. The large table: tests/contract."""

from __future__ import annotations

from typing import Any

import pytest

from postroom.libs.exceptions import InvalidSchemaError
from postroom.schemas.compatibility import (
    RULES,
    Misfit,
    breaks,
    directions,
    for_registry,
    misfits,
)
from postroom.schemas.registry_protocol import Compatibility
from postroom.schemas.schema_shape import Shape, shape_of


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def found(*, reader: Any, writer: Any) -> list[tuple[str, str]]:
    return [(one.path, one.code) for one in misfits(reader=shape_of(reader), writer=shape_of(writer))]


class TestWhereAndWhy:
    def test_every_misfit_is_told_with_its_path(self) -> None:
        inner = record(field("price", "long"), field("tax", "int"), name="Item")
        old = record(
            field("id", "string"),
            field("items", {"type": "array", "items": inner}),
            field("counts", {"type": "map", "values": ["null", "long"]}),
            field("state", {"type": "enum", "name": "State", "symbols": ["A", "B"]}),
        )
        new_inner = record(field("price", "int"), field("tax", "int"), field("unit", "string"), name="Item")
        new = record(
            field("id", "int"),
            field("items", {"type": "array", "items": new_inner}),
            field("counts", {"type": "map", "values": ["null", "int"]}),
            field("state", {"type": "enum", "name": "State", "symbols": ["A"]}),
        )
        assert found(reader=new, writer=old) == [
            ("id", "type_mismatch"),
            ("items[].price", "type_mismatch"),
            ("items[].unit", "field_without_default"),
            ("counts{}", "branch_missing"),
            ("state", "symbols_missing"),
        ]

    def test_inside_a_union_the_reason_of_the_branch_of_that_name_is_told(self) -> None:
        old = record(field("u", ["null", record(field("x", "int"), name="I")]))
        new = record(field("u", ["null", record(field("x", "int"), field("y", "int"), name="I")]))
        assert found(reader=new, writer=old) == [("u.y", "field_without_default")]

    def test_words_name_what_is_wanted_and_what_was_written(self) -> None:
        (one,) = misfits(reader=shape_of(["null", "int"]), writer=shape_of("string"))
        assert str(one) == "schema: the reader takes null or int, the writer wrote string"
        assert one == Misfit("", "branch_missing", "the reader takes null or int, the writer wrote string")

    def test_a_long_list_ends_after_a_hundred(self) -> None:
        wide = record(*(field(f"f{number}", "int") for number in range(500)))
        assert len(found(reader=wide, writer=record())) == 100

    def test_a_misfit_that_is_reached_by_many_ways_is_told_within_bounds(self) -> None:
        def towers(leaf: str) -> Any:
            inner: Any = record(field("x", leaf), name="T0")
            for number in range(1, 40):
                inner = record(field("a", inner), field("b", f"T{number - 1}"), name=f"T{number}")
            return inner

        assert found(reader=towers("long"), writer=towers("int")) == []
        assert len(found(reader=towers("int"), writer=towers("long"))) == 100

    def test_every_code_has_its_sentence(self) -> None:
        assert all(sentence for sentence in RULES.values())


class TestSilentMisfits:
    @pytest.mark.parametrize(
        ("reader", "writer", "code"),
        [
            ("string", "bytes", "text_from_bytes"),
            (
                {"type": "long", "logicalType": "timestamp-micros"},
                {"type": "long", "logicalType": "timestamp-millis"},
                "meaning_mismatch",
            ),
            (
                {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3},
                {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
                "decimal_mismatch",
            ),
        ],
    )
    def test_no_registry_refuses_them_and_they_are_told(self, reader: Any, writer: Any, code: str) -> None:
        (one,) = breaks(shape_of(reader), [shape_of(writer)], Compatibility.BACKWARD)
        assert (one.misfit.code, one.misfit.silent) == (code, True)
        assert for_registry([one]) == ()

    def test_a_logical_type_that_only_one_side_has_is_none(self) -> None:
        stamp = {"type": "long", "logicalType": "timestamp-millis"}
        assert found(reader=stamp, writer="long") == found(reader="long", writer=stamp) == []

    def test_a_union_takes_the_branch_without_one_before_others(self) -> None:
        assert found(reader=["string", "bytes"], writer="bytes") == []

    def test_a_first_branch_of_the_right_name_that_cannot_read_it_is_told(self) -> None:
        narrow, wide = record(field("x", "int"), name="b.I"), record(field("x", "int"), field("y", "int"), name="a.I")
        assert found(reader=[wide, narrow], writer=narrow) == [("", "branch_order")]
        assert found(reader=[narrow, wide], writer=narrow) == []


class TestCircles:
    def test_a_recursive_schema_fits_itself_and_misfits_are_found_once(self) -> None:
        def node(kind: str) -> Any:
            return record(field("value", kind), field("next", ["null", "Node"], default=None), name="Node")

        assert found(reader=node("long"), writer=node("int")) == []
        assert found(reader=node("int"), writer=node("long")) == [("value", "type_mismatch")]

    def test_what_fitted_only_because_a_failed_assumption_was_open_is_looked_at_again(self) -> None:
        """While A is compared with A, B is found to fit because A is taken to fit; A then does not."""

        def pair(extra: list[Any], suffix: str) -> Any:
            b = record(field("back", ["null", "A"], default=None), name="B")
            a = record(field("b", b), *extra, name="A")
            return record(field("first", ["null", a, record(name="Z")]), field("second", "B"), name=f"R{suffix}")

        wanted, written = pair([field("x", "int")], ""), pair([], "")
        paths = found(reader=wanted, writer=written)
        assert ("first.x", "field_without_default") in paths
        assert ("second.back.x", "field_without_default") in paths

    def test_schemas_too_deep_to_compare_are_refused_not_crashed_on(self) -> None:
        inner = Shape("record", "R0")
        for _ in range(400):
            inner = Shape("array", items=inner)
        with pytest.raises(InvalidSchemaError, match="too deeply"):
            misfits(reader=inner, writer=inner)


class TestLevels:
    OLD, MIDDLE, NEW = (
        shape_of(record(field("a", "int"), *more))
        for more in ((), (field("b", "string", default=""),), (field("b", "int", default=0),))
    )

    @pytest.mark.parametrize(
        ("level", "told"),
        [
            ("NONE", set()),
            ("BACKWARD", {(1, True)}),
            ("FORWARD", {(1, False)}),
            ("FULL", {(1, True), (1, False)}),
        ],
    )
    def test_the_last_version_counts(self, level: str, told: set[tuple[int, bool]]) -> None:
        got = breaks(self.NEW, [self.OLD, self.MIDDLE], Compatibility(level))
        assert {(one.earlier, one.backward) for one in got} == told
        assert not breaks(self.NEW, [self.MIDDLE, self.OLD], Compatibility(level))

    def test_all_versions_count_under_a_transitive_level(self) -> None:
        got = breaks(self.NEW, [self.MIDDLE, self.OLD], Compatibility.FULL_TRANSITIVE)
        assert {(one.earlier, one.backward) for one in got} == {(0, True), (0, False)}

    def test_nothing_stands_before_the_first_version(self) -> None:
        assert all(breaks(self.NEW, [], level) == () for level in Compatibility)

    def test_each_level_has_its_directions(self) -> None:
        assert [directions(level) for level in Compatibility] == [
            (False, False), (True, False), (True, False), (False, True), (False, True), (True, True), (True, True),
        ]  # fmt: skip
