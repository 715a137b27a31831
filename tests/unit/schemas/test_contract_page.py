"""The page and the AsyncAPI document of a contract say what the contract says."""

from __future__ import annotations

import html
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from postroom.schemas.asyncapi import asyncapi
from postroom.schemas.contract_diff import Side
from postroom.schemas.contract_page import index, page
from postroom.schemas.data_contracts import Contract, load_contract, packaged_contracts
from postroom.schemas.html_page import html_page
from postroom.schemas.markdown_text import paragraph

if TYPE_CHECKING:
    from pathlib import Path

ORDER = """\
name: order
version: 2
description: Somebody | ordered.
owner: shop
topic: {name: shop.orders, partitions: 6, replication: 3, retention: 36h}
dead_letter_topic: {name: shop.lost, partitions: 1, retention: forever}
key: id
compatibility: FULL
schema:
  type: record
  name: shop.Order
  fields:
    - {name: id, type: {type: string, logicalType: uuid}, doc: Which <order>.}
    - {name: state, type: {type: enum, name: State, symbols: [NEW, PAID]}, default: NEW}
    - {name: lines, type: {type: array, items: {type: record, name: Line, fields: [{name: price, type: double}]}}}
    - {name: by_day, type: {type: map, values: Line}}
    - {name: parent, type: ["null", Order], default: null}
    - {name: note, type: ["null", {type: record, name: Note, fields: [{name: text, type: string}]}], default: null}
examples: [{id: 00000000-0000-0000-0000-000000000001, lines: [], by_day: {}}]
"""


def contract(tmp_path: Path, text: str = ORDER) -> Contract:
    path = tmp_path / "order.yaml"
    path.write_text(text)
    return load_contract(path)


class TestPage:
    def test_it_says_what_the_contract_says(self, tmp_path: Path) -> None:
        lines = page(contract(tmp_path)).splitlines()
        for line in (
            "# order",
            "Somebody \\| ordered.",
            "| topic | shop.orders, 6 partitions, 3 copies, kept 36 h |",
            "| dead letters | shop.lost, 1 partition, kept for ever |",
            "| key | id |",
            "| tombstones | no |",
            "| compatibility | FULL |",
            "| `id` | uuid | required | Which &lt;order&gt;. |",
            '| `state` | one of NEW, PAID | `"NEW"` | - |',
            "| `lines` | list of record Line | required | - |",
            "| `lines[].price` | double | required | - |",
            "| `parent` | null or record Order | `null` | - |",
            "| `note.text` | string | required | - |",
            '{"id": "00000000-0000-0000-0000-000000000001", "lines": [], "by_day": {}}',
        ):
            assert line in lines, line
        assert "## Versions" not in lines

    def test_every_version_says_what_it_changed_and_broke(self, tmp_path: Path) -> None:
        made = contract(tmp_path)
        first = {**made.schema, "fields": [*made.schema["fields"][:-1], {"name": "gone", "type": "int"}]}
        text = page(made, [Side("shop.orders-value version 1", first)])
        assert (
            "### order version 2 (this contract, not registered)\n\n- note: field of type null or record Note" in text
        )
        assert "- gone: field of type int removed, which had no default. **Breaks FORWARD.**" in text
        assert text.endswith("### shop.orders-value version 1\n\nThe first one.\n")
        assert "this contract" not in page(made, [Side("1", made.schema)])
        reordered = json.loads(json.dumps(made.schema, sort_keys=True))
        reordered["namespace"], reordered["name"] = made.schema["name"].split(".")
        assert "this contract" not in page(made, [Side("1", reordered)])

    def test_the_index_leads_to_each(self, tmp_path: Path) -> None:
        assert "| [order](order.md) | Somebody \\| ordered. | shop.orders | shop |" in index([contract(tmp_path)])


RULED = """\
name: order
version: 1
topic: orders
key: id
tombstones: true
schema:
  type: record
  name: shop.Order
  fields:
    - {name: id, type: string}
    - {name: email, type: string, default: "", "confluent:tags": [PII]}
    - {name: home, type: {type: record, name: Home, fields: [{name: zip, type: string, "confluent:tags": [PLACE]}]}}
    - {name: kind, type: Kind}
references: [{name: shop.Kind, subject: kinds, version: 3, file: kind.avsc}]
metadata: {properties: {team: shop, token: abc}, sensitive: [token], tags: {"**.email": [CONTACT]}}
ruleSet:
  domainRules:
    - name: email_has_an_at
      doc: Addresses hold an @.
      type: CEL_FIELD
      tags: [PII]
      expr: value == '' || value.contains('@')
      onFailure: ERROR
    - {name: off, type: CEL, expr: x, disabled: true}
    - {name: theirs, type: ENCRYPT, mode: READ}
known_bad: {email_has_an_at: {id: a, email: nobody, home: {zip: "1"}, kind: A}}
"""


@pytest.fixture
def ruled(tmp_path: Path) -> Contract:
    (tmp_path / "kind.avsc").write_text('{"type": "enum", "name": "shop.Kind", "symbols": ["A"]}')
    return contract(tmp_path, RULED)


class TestGovernance:
    def test_a_rule_says_what_must_be_true_and_what_happens_else(self, ruled: Contract) -> None:
        text = page(ruled)
        assert "### email_has_an_at\n\nAddresses hold an @.\n\n| | |\n|---|---|\n" in text
        for line in (
            "| tried | when an event is published |",
            "| looks at | each field tagged PII |",
            "| when it is broken | the event is refused, and its caller told why (ERROR) |",
            "value == '' || value.contains('@')",
            '{"id": "a", "email": "nobody", "home": {"zip": "1"}, "kind": "A"}',
            "| tried | not at all: it is disabled |",
            "| tried | by consumers; postroom only carries it along |",
            "| type | ENCRYPT |",
        ):
            assert f"\n{line}\n" in text, line

    def test_tagged_fields_say_what_the_settings_do_with_them(self, ruled: Contract) -> None:
        text = page(ruled, privacy={"PII": "hashed", "CONTACT": "redacted"})
        hidden = "replaced by `redacted`; such a dead letter cannot be replayed"
        assert f"| `email` | CONTACT, PII | {hidden} |" in text
        assert "| `home.zip` | PLACE | kept as it is |" in text
        assert "| `home.zip` | PLACE | as `dead_letters.privacy` says where it runs |" in page(ruled)

    def test_references_properties_and_tombstones_are_there_and_secrets_are_not(self, ruled: Contract) -> None:
        text = page(ruled)
        assert "| shop.Kind | kinds | 3 |" in text
        assert "| team | shop |" in text
        assert "| token | not shown: the contract calls it sensitive |" in text
        assert "abc" not in text
        assert "| tombstones | yes: a record without a value ends its key |" in text

    def test_contracts_of_one_topic_lead_to_each_other(self, tmp_path: Path) -> None:
        one = contract(tmp_path)
        other = contract(tmp_path, ORDER.replace("name: order\n", "name: order.gone\n"))
        assert "| also in this topic | [order.gone](order.gone.html); the header `ce_type`" in page(
            one, others=[one, other], suffix=".html"
        )
        assert "also in this topic" not in page(one, others=[one])

    def test_a_contract_without_any_of_it_has_no_such_section(self, tmp_path: Path) -> None:
        text = page(contract(tmp_path))
        for section in ("Rules", "Tagged fields", "References", "Properties"):
            assert f"## {section}" not in text


EVIL = (
    "<script>alert(1)</script> [x](javascript:alert(1)) ![i](http://e.example/i.png) <http://e.example> *b* `c` &lt; |"
)


class Tags(HTMLParser):
    """Which tags a page has, with their attributes, and all its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


class TestHtml:
    def made(self, tmp_path: Path) -> str:
        evil = json.dumps(EVIL)
        text = json.dumps(f"```\n</code></pre>{EVIL}\n```")
        made = contract(
            tmp_path,
            f"name: order\nversion: 1\ntopic: t\ndescription: {evil}\nowner: {evil}\nschema:\n  type: record\n"
            f"  name: Order\n  fields: [{{name: a, type: string, default: {evil}, doc: {evil}}}]\n"
            f"metadata: {{properties: {{{evil}: {evil}}}}}\nexamples: [{{a: {text}}}]\n"
            f"ruleSet: {{domainRules: [{{name: r, type: {evil}, doc: {evil}, mode: READ, expr: {text}}}]}}\n",
        )
        return html_page(made.name, page(made), index="index.html")

    def test_nothing_of_a_contract_is_obeyed(self, tmp_path: Path) -> None:
        tags = Tags(self.made(tmp_path))
        assert {tag for tag, _ in tags.found} == {
            "html", "head", "meta", "title", "style", "body", "nav", "a", "h1", "h2", "h3", "p", "pre", "code",
            "table", "thead", "tbody", "tr", "th", "td",
        }  # fmt: skip
        assert [attributes["href"] for tag, attributes in tags.found if tag == "a"] == ["index.html"]

    def test_all_of_it_can_be_read(self, tmp_path: Path) -> None:
        text = Tags(self.made(tmp_path)).text
        # Description, owner, default, doc, property and its value, type and doc of the rule, expression, example.
        assert text.count(EVIL) == 10
        assert text.count(f"</code></pre>{EVIL}") == 2

    def test_it_needs_no_other_file(self, tmp_path: Path) -> None:
        tags = Tags(html_page("order", page(contract(tmp_path))))
        assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.found}
        assert "table" in {tag for tag, _ in tags.found}
        assert "Which <order>." in tags.text

    @pytest.mark.parametrize("text", ["# a", "- a", "+ a", "1. a", "12) a", "> a", "---", "* a", "~~~", "    a", "_a_"])
    def test_a_description_is_a_paragraph_whatever_it_begins_with(self, text: str) -> None:
        body = html_page("t", paragraph(text)).partition("<body>\n")[2].partition("</body>")[0]
        assert body == f"<p>{html.escape(text.strip())}</p>\n"


class TestAsyncApi:
    """The document was compared with the published JSON schema of AsyncAPI 3.0.0; here its parts are."""

    def test_channels_messages_and_operations_lead_to_each_other(self, tmp_path: Path) -> None:
        document = asyncapi([contract(tmp_path), *packaged_contracts().values()])
        assert (document["asyncapi"], set(document["channels"])) == ("3.0.0", {"shop.orders", "user_events"})
        for reference in references(document):
            found: Any = document
            for step in reference.removeprefix("#/").split("/"):
                found = found[step]
            assert found
        assert len(list(references(document))) == 6

    def test_topics_and_keys_are_kafka_bindings(self, tmp_path: Path) -> None:
        document = asyncapi([contract(tmp_path)])
        assert document["channels"]["shop.orders"]["bindings"] == {
            "kafka": {
                "topic": "shop.orders",
                "partitions": 6,
                "replicas": 3,
                "topicConfiguration": {"retention.ms": 129_600_000},
                "bindingVersion": "0.5.0",
            }
        }
        message = document["components"]["messages"]["order"]
        assert message["bindings"]["kafka"] == {
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "key": {"type": "string", "format": "uuid", "description": "The field id."},
            "bindingVersion": "0.5.0",
        }
        assert message["payload"]["schema"]["name"] == "shop.Order"
        assert message["examples"] == [{"payload": dict(contract(tmp_path).governance.examples[0])}]

    @pytest.mark.parametrize(
        ("kind", "schema"),
        [
            ('["null", long]', {"type": "integer"}),
            ("{type: enum, name: E, symbols: [A]}", {"type": "string", "enum": ["A"]}),
            ("bytes", {"type": "string"}),
        ],
    )
    def test_a_key_has_the_type_of_its_field(self, tmp_path: Path, kind: str, schema: dict[str, Any]) -> None:
        made = contract(
            tmp_path, f"name: a b\nversion: 1\ntopic: t\nkey: k\nschema: {{k: {kind}}}\n".replace("a b", "ab")
        )
        key = asyncapi([made])["components"]["messages"]["ab"]["bindings"]["kafka"]["key"]
        assert key == {**schema, "description": "The field k."}

    def test_what_is_not_said_is_not_there(self, tmp_path: Path) -> None:
        made = contract(tmp_path, "name: plain\nversion: 1\ntopic: t\nschema: {k: string}\n")
        document = asyncapi([made])
        assert document["channels"]["t"]["bindings"]["kafka"] == {"topic": "t", "bindingVersion": "0.5.0"}
        assert set(document["components"]["messages"]["plain"]) == {
            "name",
            "title",
            "contentType",
            "payload",
            "bindings",
        }

    def test_two_contracts_of_one_topic_share_its_channel_and_say_their_type(self, tmp_path: Path) -> None:
        one = contract(tmp_path)
        other = contract(tmp_path, ORDER.replace("name: order\n", "name: order.cancelled\n"))
        document = asyncapi([one, other])
        assert set(document["channels"]["shop.orders"]["messages"]) == {"order", "order.cancelled"}
        headers = document["components"]["messages"]["order.cancelled"]["headers"]
        assert headers["properties"]["ce_type"] == {"type": "string", "const": "order.cancelled"}

    def test_rules_tags_references_and_tombstones_have_their_places(self, ruled: Contract) -> None:
        document = asyncapi([ruled])
        message = document["components"]["messages"]["order"]
        assert {"name": "PII", "description": "Fields: shop.Order.email"} in message["tags"]
        assert [rule["name"] for rule in message["x-postroom"]["rules"]] == ["email_has_an_at", "off", "theirs"]
        assert message["x-postroom"]["references"] == [{"name": "shop.Kind", "subject": "kinds", "version": 3}]
        assert message["x-postroom"]["properties"] == {"team": "shop"}
        tombstone = document["components"]["messages"]["order--tombstone"]
        assert tombstone["payload"] == {"type": "null"}
        assert tombstone["bindings"]["kafka"]["key"]["type"] == "string"
        assert len(document["operations"]["publish_order"]["messages"]) == 2


def references(part: Any) -> Any:
    """Every `$ref` of the document that is not inside a payload."""
    if isinstance(part, dict):
        for key, inner in part.items():
            if key == "$ref":
                yield inner
            elif key != "payload":
                yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)
