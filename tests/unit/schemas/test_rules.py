"""Rules of a contract: what they see, what they refuse, and that the fast road and the slow one agree."""

from __future__ import annotations

import datetime as dt
import sys
import threading
import uuid
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.libs.exceptions import InvalidContractError, RulesUnavailableError
from postroom.schemas import rule_compiler
from postroom.schemas.avro_nodes import Record
from postroom.schemas.avro_schema import parse_schema
from postroom.schemas.contract_file import ContractText
from postroom.schemas.contract_metadata import FieldTags, tags_of_fields
from postroom.schemas.data_contracts import load_contract
from postroom.schemas.rule_compiler import checked_rules
from postroom.schemas.rule_set import Rule
from postroom.schemas.rules import MAX_FAILURES
from postroom.schemas.schema_validator import SchemaValidator
from tests.unit.schemas.avro_strategies import UNHURRIED, schemas, values
from tests.unit.schemas.rule_contracts import EVENT, cel, cel_field, contract_text, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.schemas.avro_schema import AvroSchema
    from postroom.schemas.rules import Conditions

NOON = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)


def conditions_of(avro: AvroSchema, *rules: Rule, tags: FieldTags | None = None) -> Conditions:
    """Rules over a schema, without a file around them and without known-bad events."""
    text = ContractText(source="test", path=None, rules=rules)
    text.known_bad = {rule.name: {} for rule in rules}
    real, rule_compiler._try_known_bad = rule_compiler._try_known_bad, lambda *_: None
    try:
        found = checked_rules(text, avro, tags_of_fields(text, avro.root) if tags is None else tags)
    finally:
        rule_compiler._try_known_bad = real
    assert found is not None, text.problems
    return found


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """Path and finding of each failure of one rule; the contract's known-bad event is the event itself."""

    def find(rule: dict[str, Any], event: dict[str, Any]) -> list[tuple[str, str]]:
        path = tmp_path / "thing.yaml"
        path.write_text(contract_text([rule], {"rule": EVENT}), encoding="utf-8")
        real, rule_compiler._try_known_bad = rule_compiler._try_known_bad, lambda *_: None
        try:
            contract = load_contract(path)
        finally:
            rule_compiler._try_known_bad = real
        assert contract.codec.encode(event) is not None
        assert contract.conditions is not None
        return [(item.violation.path, item.violation.found) for item in contract.conditions.failures(event)]

    return find


NOT_MET = "condition not met"


@pytest.mark.parametrize(
    ("expr", "event"),
    [
        ("message.id == 'i1' && message.count == 7", {}),
        ("message.count + 1 == 8", {"count": 7}),
        ("message.price >= 0.5", {"price": 0.5}),
        ("message.email == null || message.email.contains('@')", {}),
        ("message.email.endsWith('.org')", {"email": "a@b.org"}),
        ("message.at > timestamp('2026-01-01T00:00:00Z')", {"at": NOON}),
        ("message.at == timestamp('2026-11-25T12:00:00.5Z')", {"at": NOON.replace(microsecond=500_000)}),
        ("message.at < timestamp(0)", {"at": dt.datetime(1969, 12, 31, 23, 59, 59, 1000, tzinfo=dt.UTC)}),
        ("message.local.getFullYear() == 2026", {"local": dt.datetime(2026, 11, 25, 12)}),  # noqa: DTZ001
        ("message.day == 365", {"day": dt.date(1971, 1, 1)}),
        ("message.time == 60000", {"time": dt.time(0, 1)}),
        ("message.total == 12.34", {"total": Decimal("12.34")}),
        ("message.uid.startsWith('0198')", {"uid": uuid.UUID("0198c0de-0000-7000-8000-000000000000")}),
        ("message.raw == b'xy' && size(message.hash) == 2", {"raw": b"xy"}),
        ("message.raw == b'\\000x\\000' && size(message.hash) == 2", {"raw": b"\0x\0", "hash": b"\0\0"}),
        ("message.id.size() == 3 && message.id.endsWith('@')", {"id": "a\0@"}),
        ("message.names.all(n, n.size() == 3) && message.either == '\\000'", {"names": ["\0ab"], "either": "\0"}),
        ("message.book['x'][0] == 'y\\000z' && message.work.zip == '\\000'",
         {"book": {"x": ["y\0z"]}, "work": {"street": "", "zip": "\0"}}),
        ("message.colour in ['BLUE']", {"colour": "BLUE"}),
        ("message.either == 3 || message.either == 'a'", {"either": 3}),
        ("message.names.all(n, n.size() > 1)", {"names": ["ab", "cd"]}),
        ("message.scores['a'] == 1 && message.scores.all(k, message.scores[k] > 0)", {"scores": {"a": 1}}),
        ("message.grid[0][1] == 2", {"grid": [[1, 2]]}),
        ("message.book['x'][0] == 'y'", {"book": {"x": ["y"]}}),
        ("message.a_map['x'] == 1 && message.aMap['x']['y'] == 1", {"a_map": {"x": 1}, "aMap": {"x": {"y": 1}}}),
        ("message.book['x'].all(n, n == 'y')", {"book": {"x": ["y"]}}),
        ("message.home.street == 'Main Street' && message.home.zip == null", {}),
        ("message.others.exists(o, o.zip == '1')", {"others": [{"street": "s", "zip": "1"}]}),
        ("message.others.all(o, o.zip == null)", {"others": [{"street": "s"}]}),
        ("message.work == null || message.work.street != ''", {"work": {"street": "s"}}),
        ("'A'.lowerAscii() == 'a' && math.greatest(1, 2) == 2", {}),
        ("message.count > 100 ; message.price > 100.0", {"count": 100}),
        (" ; message.id != ''", {}),
        ("message.id != '' // a comment", {}),
    ],
)  # fmt: skip
def test_a_rule_sees_every_kind_of_value_as_the_table_says(broken: Any, expr: str, event: dict[str, Any]) -> None:
    assert broken(cel(expr), {**EVENT, **event}) == []


@pytest.mark.parametrize(
    ("rule", "event", "found"),
    [
        (cel("message.count > 9"), {}, [("count", NOT_MET)]),
        (cel("message.count > 9 ; message.price > 2.0"), {"count": 10}, [("", NOT_MET)]),
        (cel("message.home.street.size() > 99"), {}, [("home.street", NOT_MET)]),
        (cel("message.scores['a'] == 1"), {}, [("scores", "error in the evaluation: not_found")]),
        (cel("message.count * 9223372036854775807 > 1"), {}, [("count", "error in the evaluation: out_of_range")]),
        (cel("message.email.size() > 1"), {}, [("email", "error in the evaluation: not_applicable")]),
        (cel("message.scores['a'] == 1 ; true"), {}, [("scores", "error in the guard: not_found")]),
        (cel("message.either"), {"either": "x"}, [("either", "error in the evaluation: no_boolean")]),
        (cel("message.either"), {"either": "NOT_FOUND: x"}, [("either", "error in the evaluation: no_boolean")]),
        (cel_field("typeName == 'STRING' ; value != 'x'", "PII"), {"email": "x"}, [("email", NOT_MET)]),
        (
            cel_field("typeName == 'STRING' ; value != 'x'", "PII"),
            {"names": ["x", "y", "x"], "others": [{"street": "a"}, {"street": "x"}], "work": {"street": "x"}},
            [("names[0]", NOT_MET), ("names[2]", NOT_MET), ("others[1].street", NOT_MET), ("work.street", NOT_MET)],
        ),
        (cel_field("typeName == 'STRING' ; !value.contains('x')", "PII"), {"email": "a\0x", "names": ["\0x", "\0"]},
         [("email", NOT_MET), ("names[0]", NOT_MET)]),
        (cel_field("name == 'raw' ; value.size() != 2"), {"raw": b"\0\0"}, [("raw", NOT_MET)]),
        (cel_field("name == 'zip' ; message.street == '\\000'"), {"home": {"street": "\0"}}, []),
        (cel_field("value < 5", "SCORE"), {"scores": {"a": 1, "b": 5}}, [("scores[1]", NOT_MET)]),
        (cel_field("typeName == 'NULL' ; false", "EITHER"), {}, [("either", NOT_MET)]),
        (cel_field("typeName == 'LONG' ; value < 5", "EITHER"), {"either": 5}, [("either", NOT_MET)]),
        (cel_field("typeName == 'LONG' ; value < 5", "EITHER"), {"either": "5"}, []),
        (cel_field("dyn(value) != true", "EITHER"), {"either": True}, [("either", NOT_MET)]),
        (cel_field("fullName == 'shop.Thing.id' && name == 'id' && tags == ['KEY']", "KEY"), {}, []),
        (cel_field("message.count > 7", "KEY"), {}, [("id", NOT_MET)]),
        (cel_field("name == 'street' ; message.zip == null", "PII"), {"work": {"street": "", "zip": "1"}},
         [("work.street", NOT_MET)]),
        (cel_field("dyn(value) != null ; value != 'x'", "PII"), {"email": "x"}, [("email", NOT_MET)]),
        (cel_field("name == 'price' ; value > 2.0"), {}, [("price", NOT_MET)]),
        (cel_field("name != 'hash' && name != 'colour'"), {}, []),  # enum and fixed are no primitive types
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_named_with_its_path_and_without_its_value(
    broken: Any, rule: dict[str, Any], event: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    assert broken(rule, {**EVENT, **event}) == found


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (cel("message.nope == 1"), "line 1, column 8: undefined field 'nope'"),
        (cel("message.home.nope == 1"), "undefined field 'nope' not found in struct 'record.shop_Address'"),
        (cel("true\n&& message.id > 1"), "line 2, column 15: found no matching overload"),
        (cel("message.id == 'a' ; message.id > 1"), "line 1, column 32: found no matching overload"),
        (cel("message.id > 1 ; true"), "line 1, column 12: found no matching overload"),
        (cel("message.others.all(o, o.street > 1)"), "found no matching overload"),
        (cel("message.id"), "gives STRING. Write a condition"),
        (cel("message.id.isEmail()"), "undeclared reference to 'isEmail'"),
        (cel("now > message.at"), "undeclared reference to 'now'"),
        (cel("message.id ="), "Syntax error"),
        (cel_field("value > 1", "PII"), "for the field email: line 1, column 7"),
        (cel_field("value > 1", "NOBODY"), "choose no field"),
        (cel_field("typeName == 'STRING' ; value > 1", "PII"), "for the field email: line 1, column 30"),
    ],
)
def test_a_rule_that_cannot_run_stops_the_start_with_its_place(tmp_path: Path, rule: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidContractError) as caught:
        load(tmp_path, [rule], {"rule": EVENT})
    assert told in str(caught.value)
    assert "thing.yaml:" in str(caught.value)
    assert "(rule rule)" in str(caught.value)


def test_a_known_bad_event_breaks_exactly_its_rule(tmp_path: Path) -> None:
    rules = [
        {"name": "one", "type": "CEL", "expr": "message.count < 9"},
        {"name": "two", "type": "CEL", "expr": "message.count < 10", "onFailure": "NONE"},
    ]
    wrong: dict[str, dict[str, Any]] = {
        "meets the rule": {"one": EVENT, "two": {**EVENT, "count": 10}},
        "breaks two too": {"one": {**EVENT, "count": 10}, "two": {**EVENT, "count": 10}},
        "breaks the schema: count: wrong_type": {"one": {**EVENT, "count": "9"}, "two": EVENT},
    }
    for told, known_bad in wrong.items():
        with pytest.raises(InvalidContractError) as caught:
            load(tmp_path, rules, known_bad)
        assert told in str(caught.value)
    load(tmp_path, [rules[0]], {"one": {**EVENT, "count": 9, "at": "2026-11-25T12:00:00Z"}})


def test_a_rule_that_cannot_judge_its_known_bad_event_is_not_taken_for_one_at_work(tmp_path: Path) -> None:
    """Such as a regular expression that is none, which the compiler does not see: it would refuse every event."""
    for expr in ("message.id.matches('(')", "'(' == message.id || [1][message.count] == 1"):
        with pytest.raises(InvalidContractError, match=r"known_bad\.rule does not show the rule at work: error in the"):
            load(tmp_path, [{"name": "rule", "type": "CEL", "expr": expr}], {"rule": EVENT})


def test_all_failed_rules_are_named_and_the_validator_tells_those_that_count(tmp_path: Path) -> None:
    rules = [
        {"name": "few", "doc": "Few at a time.", "type": "CEL", "expr": "message.count < 9"},
        {"name": "cheap", "type": "CEL", "expr": "message.price < 9.0", "onFailure": "NONE"},
        {"name": "named", "type": "CEL", "expr": "message.id != ''", "onFailure": "ERROR"},
    ]
    bad = {"few": {**EVENT, "count": 9}, "cheap": {**EVENT, "price": 9.0}, "named": {"id": ""}}
    contract = load(tmp_path, rules, bad)
    assert contract.conditions is not None
    event = {"id": "", "count": 9, "price": 9.0}
    assert [item.rule.name for item in contract.conditions.failures(event)] == ["few", "cheap", "named"]
    violations = SchemaValidator({"thing": contract}).validate("thing", event)
    assert [violation.rule for violation in violations] == ["few", "named"]
    assert str(violations[0]) == "count: few, expected Few at a time., found condition not met"
    assert SchemaValidator({"thing": contract}).validate("thing", {"id": 1})[0].rule == "wrong_type"


def test_a_rule_over_a_record_that_holds_itself_is_walked(tmp_path: Path) -> None:
    tree = {"type": "record", "name": "Tree", "fields": [
        {"name": "label", "type": "string", "confluent:tags": ["L"]},
        {"name": "branches", "type": {"type": "array", "items": "Tree"}, "default": []},
    ]}  # fmt: skip
    deep = {"label": "a", "branches": [{"label": "b", "branches": [{"label": ""}]}]}
    contract = load(tmp_path, [cel_field("value != ''", "L")], {"rule": deep}, schema=tree)
    assert contract.conditions is not None
    assert [item.violation.path for item in contract.conditions.failures(deep)] == ["branches[0].branches[0].label"]
    assert contract.conditions.failures({"label": "a"}) == ()


def test_without_the_extra_a_contract_with_rules_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    rule_compiler._library.cache_clear()
    try:
        with pytest.raises(RulesUnavailableError, match=r"[Pp]ip install postroom\[rules\]"):
            load(tmp_path, [cel("message.id != ''")], {"rule": {"id": ""}})
    finally:
        rule_compiler._library.cache_clear()


def test_an_event_is_not_changed_and_rules_may_run_in_many_threads(tmp_path: Path) -> None:
    contract = load(tmp_path, [cel("message.total > 1.0")], {"rule": {**EVENT, "total": "1.00"}})
    conditions = contract.conditions
    assert conditions is not None
    good, bad = {**EVENT, "total": Decimal("1.01")}, {**EVENT, "total": Decimal("0.99")}
    right: list[bool] = []

    def run() -> None:
        right.append(all(not conditions.failures(good) and len(conditions.failures(bad)) == 1 for _ in range(300)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4
    assert good == {**EVENT, "total": Decimal("1.01")}


@pytest.mark.parametrize(
    "rule", [cel("message.names.all(n, n != '')"), cel_field("typeName == 'STRING' ; value != ''", "PII")]
)
def test_an_event_of_very_many_values_fails_the_rule_instead_of_holding_up_the_others(
    broken: Any, rule: dict[str, Any]
) -> None:
    assert broken(rule, {**EVENT, "names": ["x"] * 9000}) == []
    ((_, found),) = broken(rule, {**EVENT, "names": ["x"] * 50_000})
    assert found == "error in the evaluation: too_many_steps"


def test_rules_that_are_too_long_for_one_expression_are_run_one_by_one() -> None:
    names = [f"a_field_with_a_rather_long_name_number_{at}" for at in range(700)]
    schema = {"type": "record", "name": "Wide", "fields": [{"name": name, "type": "string"} for name in names]}
    conditions = conditions_of(parse_schema(schema), Rule("filled", "CEL_FIELD", f"value != '{'x' * 100}'"))
    assert conditions._all is None
    good = dict.fromkeys(names, "a")
    assert conditions.failures(good) == ()
    (failure,) = conditions.failures({**good, names[9]: "x" * 100})
    assert failure.violation.path == names[9]


def test_a_schema_of_a_million_paths_is_walked_and_not_written_out() -> None:
    schema: Any = {"type": "record", "name": "Level0", "fields": [{"name": "label", "type": "string"}]}
    event: dict[str, Any] = {"label": "x"}
    for level in range(1, 21):
        fields = [{"name": "one", "type": schema}, {"name": "other", "type": ["null", schema["name"]], "default": None}]
        schema = {"type": "record", "name": f"Level{level}", "fields": fields}
        event = {"one": event}
    conditions = conditions_of(parse_schema(schema), Rule("no_x", "CEL_FIELD", "typeName == 'STRING' ; value != 'x'"))
    (failure,) = conditions.failures(event)
    assert failure.violation.path == "one." * 20 + "label"


def test_names_that_are_the_same_in_json_make_no_noise(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(tmp_path, [cel("message.a_map.size() + message.aMap.size() == 0")], {"rule": {**EVENT, "a_map": {"a": 1}}})
    assert capfd.readouterr().err == ""


@settings(UNHURRIED, max_examples=200)
@given(st.data())
def test_the_fast_road_and_the_slow_one_agree(data: st.DataObject) -> None:
    _, avro = data.draw(schemas())
    limit = data.draw(st.integers(0, 4))
    guards = {
        "static": f"typeName == 'STRING' ; value.size() < {limit}",
        "dynamic": f"typeName == 'STRING' && dyn(value) != dyn('zz') ; dyn(value).size() < {limit}",
        "none": f"dyn(value) != dyn({limit})",
    }
    rules = [Rule(name, "CEL_FIELD", expr) for name, expr in guards.items()]
    chosen = [rule for rule in rules if _sees_something(avro, rule)]
    if not chosen:
        return
    conditions = conditions_of(avro, *chosen)
    event = data.draw(values(avro.root))
    view = conditions._view(event)
    slow = [found for rule in conditions._rules for found in islice(rule.failures(event, view), MAX_FAILURES)]
    assert list(conditions.failures(event)) == slow


@settings(UNHURRIED, max_examples=100)
@given(st.data())
def test_every_value_of_every_valid_event_can_be_read(data: st.DataObject) -> None:
    _, avro = data.draw(schemas())
    assert isinstance(avro.root, Record)
    if not avro.root.fields:
        return
    reads = [f"[message.{field.name}].size() == 1" for field in avro.root.fields]
    conditions = conditions_of(avro, *(Rule(f"r{at}", "CEL", read) for at, read in enumerate(reads)))
    assert conditions.failures(data.draw(values(avro.root))) == ()


def _sees_something(avro: AvroSchema, rule: Rule) -> bool:
    from postroom.schemas.rule_fields import Chosen

    return bool(list(Chosen(rule, avro.root, {}).places()))
