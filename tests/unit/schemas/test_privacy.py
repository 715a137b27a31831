"""What a mask hides of an event, right or broken."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import UserDict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.schemas.event_checker import find_violations
from postroom.schemas.privacy import Mask, mask_of
from tests.unit.schemas.avro_strategies import UNHURRIED, schemas, spoiled, values
from tests.unit.schemas.rule_contracts import EVENT, load

if TYPE_CHECKING:
    from pathlib import Path

    from postroom.schemas.data_contracts import Contract

KEY = b"0123456789abcdef"
CANARY = "canary-7f3a"


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    return load(tmp_path, [], {}, metadata={"tags": {"**.work": ["PII"], "**.scores": ["SECRET"]}})


def hashed(data: bytes) -> str:
    return "hmac-sha256:" + hmac.new(KEY, data, hashlib.sha256).hexdigest()


def mask(contract: Contract, **privacy: str) -> Mask:
    found = mask_of(contract, privacy, KEY)
    assert found is not None
    return found


def test_nothing_is_hidden_unless_a_tag_of_the_contract_asks_for_it(contract: Contract) -> None:
    assert mask_of(contract, {}, b"") is None
    assert mask_of(contract, {"PII": "full", "OTHER": "redacted"}, b"") is None


def test_private_fields_are_redacted_wherever_they_stand(contract: Contract) -> None:
    event: dict[str, Any] = {
        **EVENT,
        "email": CANARY,
        "names": [CANARY],
        "home": {"street": CANARY, "zip": "1"},
        "others": [{"street": CANARY}],
        "work": {"street": CANARY},
        "scores": {"a": 1},
    }
    told = mask(contract, PII="redacted")
    assert told.privacy == "redacted"
    assert told.masked(event) == {
        "id": "i1",
        "email": "redacted",
        "names": "redacted",
        "home": {"street": "redacted", "zip": "1"},
        "others": [{"street": "redacted"}],
        "work": "redacted",
        "scores": {"a": 1},
    }
    assert told.masked({**EVENT, "email": None}) == {"id": "i1", "email": None}


def test_hashes_can_be_made_again_by_who_has_the_key(contract: Contract) -> None:
    told = mask(contract, PII="hashed", SECRET="hashed")
    assert told.privacy == "hashed"
    seen = told.masked({**EVENT, "email": "é", "scores": {"b": 2, "a": 1}, "names": ["x"]})
    assert seen == {
        "id": "i1",
        "email": hashed("é".encode()),
        "scores": hashed(b'{"a":1,"b":2}'),
        "names": hashed(b'["x"]'),
    }
    assert told.masked({**EVENT, "email": 5}) == {"id": "i1", "email": "redacted"}  # what it is nobody knows


def test_of_several_tags_the_strictest_counts(contract: Contract) -> None:
    told = mask_of(contract, {"PII": "hashed", "EITHER": "full", "SECRET": "redacted"}, KEY)
    assert told is not None
    assert told.privacy == "redacted"
    assert told.masked({"id": "a", "either": "b"}) == {"id": "a", "either": "b"}


@pytest.mark.parametrize(
    "event",
    [
        {"id": "i1", "emial": CANARY},
        {"id": {"email": CANARY}},
        {"id": "i1", "count": CANARY},
        {"id": "i1", "colour": CANARY},
        {"id": "i1", "hash": CANARY.encode()},
        {"id": "i1", "home": CANARY},
        {"id": "i1", "home": {"street": 1, "city": CANARY}},
        {"id": "i1", "either": [CANARY]},
        {"id": "i1", "others": {"street": CANARY}},
        {"id": "i1", f"{CANARY}!": 1},
        {"id": "i1", 5: CANARY},
        json.dumps({"id": "i1", "emial": CANARY}).encode(),
        json.dumps([CANARY]).encode(),
        f'{{"id": "{CANARY}'.encode(),
        f'{{"email": "a", "email": "{CANARY}"}}'.encode(),
        b"\xff" + CANARY.encode(),
    ],
)
def test_what_is_not_known_is_hidden_too(contract: Contract, event: Any) -> None:
    assert CANARY not in repr(mask(contract, PII="hashed").masked(event))


def test_what_cannot_be_read_at_all_is_left_out(contract: Contract) -> None:
    class Hostile(UserDict[str, object]):
        def keys(self) -> Any:
            raise ZeroDivisionError(CANARY)

    for event in (b"", b"[1]", b"{", Hostile()):
        assert mask(contract, PII="redacted").masked(event) is None


@settings(UNHURRIED, max_examples=200)
@given(st.data())
def test_valid_or_spoiled_an_event_keeps_no_value_of_a_hidden_field(data: st.DataObject) -> None:
    _, avro = data.draw(schemas())
    fields = [field.name for field in avro.root.fields]  # type: ignore[union-attr]
    if not fields:
        return
    name = data.draw(st.sampled_from(fields))
    told = Mask(avro, {(avro.root.name, name): data.draw(st.sampled_from(["redacted", "hashed"]))}, KEY)  # type: ignore[union-attr]
    event = data.draw(values(avro.root))
    if data.draw(st.booleans()):
        event = data.draw(spoiled(event))
    seen = told.masked(event) if isinstance(event, dict) else None
    if seen is not None and name in seen:
        assert seen[name] is None or seen[name] == "redacted" or seen[name].startswith("hmac-sha256:")
    if not find_violations(avro.root, event):
        assert seen is not None
        assert {key: value for key, value in seen.items() if key != name}.keys() == set(event) - {name}
