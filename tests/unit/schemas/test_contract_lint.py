"""Lint names what a contract could say better, each with a code that silences it in the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postroom.schemas.contract_examples import try_examples, try_known_bad
from postroom.schemas.contract_lint import CODES, lint
from postroom.schemas.contract_starter import starter, type_name
from postroom.schemas.data_contracts import Contract, load_contract

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name: order
version: 1
description: Somebody ordered something.
owner: shop
topic: {name: orders, retention: 7d}
dead_letter_topic: {retention: 30d}
key: id
compatibility: BACKWARD
schema:
  type: record
  name: shop.Order
  fields:
    - {name: id, type: string, doc: Which.}
    - {name: at, type: {type: long, logicalType: timestamp-millis}, doc: When.}
    - {name: size, type: double, doc: How large.}
    - {name: note, type: ["null", string], default: null, doc: A remark.}
    - {name: kind, doc: What., type: {type: enum, name: Kind, symbols: [A, B], default: A}}
    - {name: inner, doc: More., type: {type: record, name: Inner, doc: More., fields: [{name: x, type: int, doc: X.}]}}
examples: [{id: a, at: "2026-01-31T12:00:00Z", size: 1.5, kind: A, inner: {x: 1}}]
ruleSet: {domainRules: [{name: theirs, doc: For readers., type: ENCRYPT, mode: READ}]}
"""
RULED = GOOD.replace("[{name: theirs", "[{name: sized, type: CEL, expr: message.size > 0.0}, {name: theirs") + (
    "known_bad: {sized: {id: a, at: 0, size: 0, kind: A, inner: {x: 1}}}\n"
)


def contract(tmp_path: Path, text: str) -> Contract:
    path = tmp_path / "order.yaml"
    path.write_text(text)
    return load_contract(path)


CASES = [
    ("description: Somebody ordered something.\n", "", "description_missing", "description"),
    ("owner: shop\n", "", "owner_missing", "owner"),
    ("key: id\n", "", "key_missing", "key"),
    ("compatibility: BACKWARD\n", "", "compatibility_missing", "compatibility"),
    ("retention: 30d", "retention: 1d", "dead_letters_expire_first", "dead_letter_topic"),
    ("{name: orders, retention: 7d}", "{name: orders, retention: forever}", "dead_letters_expire_first",
     "dead_letter_topic"),
    ("shop.Order", "Order", "namespace_missing", "schema"),
    ("string, doc: Which.", "string", "doc_missing", "id"),
    ("name: Inner, doc: More.", "name: Inner", "doc_missing", "inner"),
    ("{name: x, type: int, doc: X.}", "{name: x, type: int}", "doc_missing", "inner.x"),
    ("name: size", "name: pageSize", "name_style", "pageSize"),
    ("name: Kind", "name: kind_of", "name_style", "kind"),
    ("{type: long, logicalType: timestamp-millis}", "long", "timestamp_without_logical_type", "at"),
    ("name: size", "name: total_price", "money_as_float", "total_price"),
    (", default: A", "", "enum_without_default", "kind"),
    ("default: null, ", "", "optional_without_default", "note"),
    ('["null", string]', '["null", long, string]', "union_of_many", "note"),
    ("doc: For readers., ", "", "rule_doc_missing", "ruleSet.theirs"),
    ("name: note", "name: contact_email", "private_without_tag", "contact_email"),
]  # fmt: skip


class TestFindings:
    def test_a_contract_that_says_everything_has_none(self, tmp_path: Path) -> None:
        assert lint(contract(tmp_path, GOOD)) == []

    @pytest.mark.parametrize(("before", "after", "code", "path"), CASES)
    def test_each_is_found_and_silenced_by_its_code_or_its_code_and_path(
        self, tmp_path: Path, before: str, after: str, code: str, path: str
    ) -> None:
        text = GOOD.replace(before, after)
        assert text != GOOD
        assert [(one.code, one.path) for one in lint(contract(tmp_path, text))] == [(code, path)]
        for silence in (code, f"{code} {path}"):
            assert lint(contract(tmp_path, f"{text}lint_ignore: [{silence}]\n")) == []

    def test_missing_examples_are_found(self, tmp_path: Path) -> None:
        (finding,) = lint(contract(tmp_path, GOOD.partition("examples:")[0]))
        assert str(finding) == (
            "examples: is not said. Add a good event that contracts test can try: examples: [examples_missing]"
        )

    @pytest.mark.parametrize(
        ("entry", "says"),
        [
            ("doc_missing", "doc_missing finds nothing"),
            ("doc_missing id", "doc_missing id finds nothing"),
            ("no_such_code", "no_such_code is no code of lint"),
        ],
    )
    def test_a_silence_that_silences_nothing_is_found(self, tmp_path: Path, entry: str, says: str) -> None:
        (finding,) = lint(contract(tmp_path, f"{GOOD}lint_ignore: [{entry}]\n"))
        assert (finding.code, finding.text) == ("unused_ignore", says)

    @pytest.mark.parametrize(
        ("field", "found"),
        [
            ("name: name, type: string", True),
            ("name: last_name, type: string", True),
            ("name: client_ip, type: bytes", True),
            ("name: phone_numbers, type: {type: array, items: string}", True),
            ("name: birth_date, type: {type: int, logicalType: date}", True),
            ("name: email_verified, type: boolean", False),
            ("name: event_name, type: string", False),
            ("name: recipe, type: string", False),
            ("name: ship_to, type: string", False),
            ('name: email, type: string, "confluent:tags": [PII]', False),
        ],
    )
    def test_a_name_that_sounds_private_needs_a_tag(self, tmp_path: Path, field: str, found: bool) -> None:
        text = f"name: n\nversion: 1\ntopic: t\nschema: {{type: record, name: N, fields: [{{{field}}}]}}\n"
        codes = [finding.code for finding in lint(contract(tmp_path, text))]
        assert ("private_without_tag" in codes) is found

    def test_a_tag_by_pattern_counts_and_stands_for_what_is_inside(self, tmp_path: Path) -> None:
        inner = "{name: home, type: {type: record, name: Home, fields: [{name: street, type: string}]}}"
        text = f"name: n\nversion: 1\ntopic: t\nschema: {{type: record, name: N, fields: [{inner}]}}\n"
        (finding,) = (one for one in lint(contract(tmp_path, text)) if one.code == "private_without_tag")
        assert finding.path == "home.street"
        for pattern in ("N.home", "Home.street"):
            tagged = contract(tmp_path, f'{text}metadata: {{tags: {{"{pattern}": [PII]}}}}\n')
            assert "private_without_tag" not in [one.code for one in lint(tagged)]

    def test_every_code_has_a_case(self) -> None:
        assert {code for *_, code, _ in CASES} | {"examples_missing", "unused_ignore"} == set(CODES)

    def test_a_recursive_schema_ends(self, tmp_path: Path) -> None:
        more = '    - {name: parent, type: ["null", Order], default: null, doc: The one before.}\nexamples'
        assert lint(contract(tmp_path, GOOD.replace("examples", more))) == []


class TestExamples:
    def test_a_good_one_has_no_violation_and_a_bad_one_all_of_its_own(self, tmp_path: Path) -> None:
        text = GOOD.replace("examples: [", "examples: [{id: 7, at: 1, size: 1.5, kind: C, inner: {x: 1}}, ")
        bad, good = try_examples(contract(tmp_path, text))
        assert [(violation.path, violation.rule) for violation in bad.violations] == [
            ("id", "wrong_type"), ("kind", "not_in_enum"),
        ]  # fmt: skip
        assert (good.number, good.violations) == (2, ())

    def test_one_that_breaks_a_rule_is_no_good_event(self, tmp_path: Path) -> None:
        text = RULED.replace("size: 1.5, kind", "size: -1, kind").replace("type: CEL", "type: CEL, onFailure: NONE")
        (tried,) = try_examples(contract(tmp_path, text))
        assert [(violation.path, violation.rule) for violation in tried.violations] == [("size", "sized")]

    def test_each_rule_says_where_its_known_bad_event_breaks_it_or_why_it_was_not_tried(self, tmp_path: Path) -> None:
        off = "{name: off, type: CEL, expr: x, disabled: true}"
        tried = try_known_bad(contract(tmp_path, RULED.replace("0.0}, ", f"0.0}}, {off}, ")))
        assert [(one.rule.name, one.paths, one.not_tried) for one in tried] == [
            ("sized", ("size",), ""), ("off", (), "disabled"), ("theirs", (), "for readers"),
        ]  # fmt: skip


class TestStarter:
    @pytest.mark.parametrize("name", ["order", "order.placed", "a-b_c", "7up", "orders"])
    def test_it_is_right_as_it_stands(self, tmp_path: Path, name: str) -> None:
        made = contract(tmp_path, starter(name))
        assert made.name == name
        assert lint(made) == []
        assert [one.violations for one in try_examples(made)] == [()]

    def test_what_stands_in_its_comments_is_right_too(self, tmp_path: Path) -> None:
        made = contract(tmp_path, starter("order").replace("    # - {", "    - {"))
        assert [field["name"] for field in made.schema["fields"]][-2:] == ["total", "tags"]
        assert lint(made) == []

    @pytest.mark.parametrize(("name", "record"), [("order.placed", "OrderPlaced"), ("7up", "Event7up"), ("-", "Event")])
    def test_the_record_has_a_name_of_its_own(self, name: str, record: str) -> None:
        assert type_name(name) == record
