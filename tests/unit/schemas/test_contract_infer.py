"""A draft from samples is a contract that takes the samples, says where it guessed, and holds no value of them."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.schemas.contract_infer import Inference, flow
from postroom.schemas.data_contracts import Contract, load_contract
from postroom.schemas.event_checker import find_violations
from postroom.schemas.json_reader import from_json, read_json
from postroom.schemas.sample_shape import Seen

if TYPE_CHECKING:
    from pathlib import Path


def draft(samples: list[dict[str, Any]], name: str = "order") -> str:
    inference = Inference()
    for sample in samples:
        inference.add(sample)
    return inference.draft(name)


def loaded(text: str, folder: Path) -> Contract:
    path = folder / "draft.yaml"
    path.write_text(text, encoding="utf-8")
    return load_contract(path)


def types(samples: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    contract = loaded(draft(samples), folder)
    return {field["name"]: field["type"] for field in contract.schema["fields"]}


TIMES = ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456+01:00", "2026-01-31", str(uuid.UUID(int=7)))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, -(2**70), 10**12, 10**15])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
    | st.sampled_from(TIMES)
    | st.sampled_from(["a", "b", "null", "true"])
)
NAMES = st.sampled_from(["a", "b", "null", "true", "id", "created_at", "class", "_"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES, inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


class TestEverySampleIsValid:
    @given(samples=st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=6))
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_whatever_the_samples_are_the_draft_takes_them(
        self, samples: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        read = [read_json(json.dumps(sample)) for sample in samples]
        text = draft([sample for sample in read if isinstance(sample, dict)])
        contract = loaded(text, tmp_path_factory.mktemp("draft"))
        for sample in read:
            assert find_violations(contract.avro.root, from_json(contract, sample)) == [], text


class TestTypes:
    def test_scalars_formats_and_what_may_be_absent(self, tmp_path: Path) -> None:
        samples = [
            {
                "id": str(uuid.UUID(int=number)),
                "when": "2026-01-31T12:00:00.5Z",
                "exact": "2026-01-31T12:00:00.123456Z",
                "day": "2026-01-31",
                "count": number,
                "price": 1 if number else 1.5,
                "ok": True,
                "note": None,
                **({"rare": "x"} if number == 3 else {}),
            }
            for number in range(5)
        ]
        assert types(samples, tmp_path) == {
            "id": {"type": "string", "logicalType": "uuid"},
            "when": {"type": "long", "logicalType": "timestamp-millis"},
            "exact": {"type": "long", "logicalType": "timestamp-micros"},
            "day": {"type": "int", "logicalType": "date"},
            "count": "long",
            "price": "double",
            "ok": "boolean",
            "note": ["null", "string"],
            "rare": ["null", "string"],
        }

    def test_one_text_that_is_none_makes_all_of_them_plain(self, tmp_path: Path) -> None:
        assert types([{"a": "2026-01-31"}, {"a": "soon"}], tmp_path) == {"a": "string"}

    def test_records_lists_and_maps(self, tmp_path: Path) -> None:
        samples: list[dict[str, Any]] = [
            {"device": {"os": "x", "version": 1}, "tags": ["a"], "by_id": {str(uuid.UUID(int=n)): n}, "none": []}
            for n in range(3)
        ]
        found = types(samples, tmp_path)
        assert found["device"]["name"] == "Device"
        assert [field["name"] for field in found["device"]["fields"]] == ["os", "version"]
        assert found["tags"] == {"type": "array", "items": "string"}
        assert found["by_id"] == {"type": "map", "values": "long"}
        assert found["none"] == {"type": "array", "items": "string"}

    def test_many_rare_names_are_a_map_and_a_thousand_names_are_enough(self, tmp_path: Path) -> None:
        samples = [{"m": {f"k{number}": number}} for number in range(2000)]
        assert types(samples, tmp_path) == {"m": {"type": "map", "values": "long"}}

    def test_clear_enums_only(self, tmp_path: Path) -> None:
        samples = [{"few": "AB"[n % 2], "many": f"x{n}", "rare": "C" if n else "D"} for n in range(100)]
        found = types(samples, tmp_path)
        assert found["few"] == {"type": "enum", "name": "Few", "symbols": ["A", "B"]}
        assert (found["many"], found["rare"]) == ("string", "string")
        assert types(samples[:20], tmp_path)["few"] == "string"

    def test_numbers_with_the_name_and_the_size_of_a_time(self, tmp_path: Path) -> None:
        sample = {"created_at": 1795416182091, "seen_us": 1795416182091000, "number": 1795416182091, "at": 1795416182}
        text = draft([sample])
        assert "# unsure: created_at holds numbers that look like a timestamp-millis" in text
        assert "# unsure: at holds numbers that look like seconds" in text
        found = {field["name"]: field["type"] for field in loaded(text, tmp_path).schema["fields"]}
        assert found["created_at"]["logicalType"] == "timestamp-millis"
        assert (found["number"], found["at"]) == ("long", "long")


class TestWhatItSays:
    def test_guesses_are_comments(self) -> None:
        text = draft([{"id": "x", "a": None, "b": 1}, {"id": "y", "a": None, "b": "text"}])
        assert "# A draft from 2 samples." in text
        assert "# key: id   # unsure" in text
        assert "    # unsure: a was always null\n" in text
        assert "    # unsure: b is of several kinds: integer, text\n" in text

    def test_a_name_that_avro_does_not_have_is_left_out_and_not_shown(self, tmp_path: Path) -> None:
        text = draft([{"ok": 1, "anna@example.org": 2}])
        assert "anna" not in text
        assert "# left out: a field whose name is none in Avro" in text
        assert [field["name"] for field in loaded(text, tmp_path).schema["fields"]] == ["ok"]

    def test_fields_behind_the_first_thousand_are_left_out_and_a_comment_says_so(self, tmp_path: Path) -> None:
        text = draft([{f"f{at}": at for at in range(1001)}])
        assert text.endswith("    # left out: the fields behind the first 1,000\n")
        assert len(loaded(text, tmp_path).schema["fields"]) == 1000
        assert "left out" not in draft([{f"f{at}": at for at in range(1000)}])

    def test_no_value_and_no_name_that_is_data_stands_in_a_draft(self) -> None:
        samples = [
            {
                "first_name": ["Ann", "Bob"][n % 2],
                "customer": {"email": ["ann_at_home", "bob_at_home"][n % 2]},
                "by_user": {f"ann-{n}": "secretvalue"},
                "amount": 987654.25,
                "number": 123456789,
                "text": f"canary{n}",
            }
            for n in range(100)
        ]
        text = draft(samples)
        for value in ("Ann", "Bob", "ann", "bob", "secretvalue", "987654", "123456789", "canary"):
            assert value not in text

    def test_a_name_is_made_for_each_record_once(self, tmp_path: Path) -> None:
        found = types([{"order": {"a": {"x": 1}}, "Order": {"a": {"x": 1}}}], tmp_path)
        assert (found["order"]["name"], found["Order"]["name"]) == ("Order2", "Order3")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": ["null", "long"], "d": None}, '{a: ["null", long], d: null}'),
        (["true", "x y", "1", "no", True], '["true", "x y", "1", no, true]'),
    ],
)
def test_values_are_quoted_where_yaml_would_take_them_for_others(value: object, text: str) -> None:
    assert flow(value) == text


def test_memory_is_bounded_whatever_comes() -> None:
    seen = Seen()
    for number in range(3000):
        seen.add({f"name{number}": f"text{number}"})
        seen.add(f"text{number}")
    assert len(seen.fields) == 1000
    assert seen.more_fields is not None
    assert len(seen.distinct) == 13
    assert len(seen.values().distinct) == 13
