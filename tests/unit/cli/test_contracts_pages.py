"""`postroom contracts types` and `docs` write what programs and people read."""

import json
import os
from pathlib import Path

import pytest

from postroom.__main__ import main
from postroom.schemas.data_contracts import load_contract
from postroom.schemas.schema_registry_client import SchemaRegistryClient

V1 = "name: order\nversion: 1\ntopic: orders\nschema: {type: record, name: Order, fields: [{name: id, type: string}]}\n"
V2 = V1.replace("version: 1", "version: 2").replace("type: string}", "type: string}, {name: n, type: int, default: 0}")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
        monkeypatch.delenv(name)
    Path("order.yaml").write_text(V1)


def test_types_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contracts", "types", "order.yaml"]) == 0
    assert "class Order(TypedDict):" in capsys.readouterr().out
    assert main(["contracts", "types", "order.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["contracts"] == ["order"]
    assert "class Order(TypedDict):" in told["module"]


def test_pages_an_index_and_an_asyncapi_document_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contracts", "docs", "order.yaml", "--folder", "made/pages"]) == 0
    written = capsys.readouterr().out.split()
    names = ("order.md", "order.html", "index.md", "index.html", "asyncapi.json")
    assert written == [f"made/pages/{name}" for name in names]
    assert all(Path(name).is_file() for name in written)
    assert json.loads(Path("made/pages/asyncapi.json").read_text())["channels"]["orders"]["address"] == "orders"
    assert main(["contracts", "docs", "order.yaml", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["written"]) == 5
    assert '<a href="order.html">order</a>' in Path("made/pages/index.html").read_text()
    assert "[order](order.md)" in Path("made/pages/index.md").read_text()


def test_pages_say_what_the_settings_do_with_tagged_fields() -> None:
    Path("order.yaml").write_text(V1.replace("type: string}", 'type: string, "confluent:tags": [PII]}'))
    assert main(["contracts", "docs", "order.yaml", "--folder", "pages"]) == 0
    assert "| `id` | PII | as `dead_letters.privacy` says where it runs |" in Path("pages/order.md").read_text()
    Path("kafka.yaml").write_text("dead_letters: {privacy: {PII: redacted}}\n")
    assert main(["contracts", "docs", "order.yaml", "--folder", "pages"]) == 0
    assert "| `id` | PII | replaced by `redacted`;" in Path("pages/order.md").read_text()


def test_a_contract_must_not_take_the_place_of_the_index(capsys: pytest.CaptureFixture[str]) -> None:
    Path("order.yaml").write_text(V1.replace("name: order\n", "name: index\n"))
    assert main(["contracts", "docs", "order.yaml"]) == 2
    assert "a contract named index" in capsys.readouterr().err


def test_with_a_registry_the_page_has_a_history() -> None:
    with SchemaRegistryClient("registry") as client:
        for text in (V1, V2):
            Path("order.yaml").write_text(text)
            client.register("orders-value", load_contract("order.yaml").schema_json)
    Path("new.yaml").write_text("name: new\nversion: 1\ntopic: news\nschema: {a: int}\n")
    assert main(["contracts", "docs", "order.yaml", "new.yaml", "--folder", "pages", "--registry", "registry"]) == 0
    page = Path("pages/order.md").read_text()
    assert "### orders-value version 2 (registered)\n\n- n: field of type int added, default 0.\n" in page
    assert "## Versions" not in Path("pages/new.md").read_text()


def test_a_folder_that_cannot_be_written_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contracts", "docs", "order.yaml", "--folder", "order.yaml"]) == 2
    assert "order.yaml cannot be written to" in capsys.readouterr().err
