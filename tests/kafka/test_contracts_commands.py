"""The life of a contract against a real registry: checked, registered, changed well, and stopped when it breaks."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest

from postroom.__main__ import main
from postroom.schemas.schema_registry_client import SchemaRegistryClient

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.testing.local_stack import LocalStack

pytestmark = pytest.mark.kafka


def test_from_the_first_version_to_a_change_that_is_stopped(
    stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url, topic = str(stack.registry_url), f"orders-{uuid.uuid4().hex[:8]}"
    file = tmp_path / "order.yaml"
    (tmp_path / "kafka.yaml").write_text(f"contracts: {{path: [order.yaml]}}\nschema_registry: {{url: {url}}}\n")

    def version(number: int, more: str = "") -> None:
        fields = f"{{name: id, type: string}}, {{name: total, type: int}}{more}"
        schema = f"{{type: record, name: Order, fields: [{fields}]}}"
        file.write_text(f"name: order\nversion: {number}\ntopic: {topic}\ncompatibility: BACKWARD\nschema: {schema}\n")

    def check() -> tuple[int, str]:
        code = main(["contracts", "check", "order.yaml", "--registry", url, "--json"])
        return code, json.loads(capsys.readouterr().out)["contracts"][0]["state"]

    version(1)
    assert check() == (0, "new")
    assert main(["contracts", "register"]) == 0
    with SchemaRegistryClient(url) as client:
        assert client.own_compatibility(f"{topic}-value") == "BACKWARD"
    capsys.readouterr()
    assert check() == (0, "registered")

    version(2, ", {name: note, type: string, default: ''}")
    assert check() == (0, "compatible")
    assert main(["contracts", "register"]) == 0
    capsys.readouterr()

    version(3, ", {name: note, type: string, default: ''}, {name: must, type: int}")
    assert check() == (1, "incompatible")
    assert main(["contracts", "diff", f"{topic}@all", "order.yaml", "--registry", url]) == 1
    assert "must: field of type int added, no default" in capsys.readouterr().out
    assert main(["contracts", "register"]) == 1
    assert "schema_incompatible" in capsys.readouterr().err

    assert main(["contracts", "docs", "order.yaml", "--folder", "pages", "--registry", url]) == 0
    page = (tmp_path / "pages" / "order.md").read_text()
    assert f"### {topic}-value version 2 (registered)\n\n- note: field of type string added" in page
    assert "- must: field of type int added, no default. **Breaks BACKWARD.**" in page
