"""A lane turns an event of its contract into a record: key, value, headers, and the topics it belongs to."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.libs.config_loader import load_config
from postroom.schemas.data_contracts import contract_from_short_form, packaged_contracts
from postroom.schemas.schema_validator import SchemaValidator
from postroom.services.lane import Lane, MetadataError, checked_headers, key_bytes
from postroom.services.ledger import Ledger


def lane_of(fields: dict[str, Any], key_field: str | None = None, **overrides: str) -> Lane:
    contract = contract_from_short_form("clicks", fields, key_field=key_field)
    config = load_config(overrides={name.replace("__", "."): value for name, value in overrides.items()}, environ={})
    lane = Lane(contract, config, validator=SchemaValidator({"clicks": contract}), book=Ledger().book("clicks"))
    lane.use_schema_id(7)
    return lane


class TestValue:
    def test_it_begins_with_the_schema_id_and_comes_back_as_it_was(self) -> None:
        lane = lane_of({"id": "string", "n": "long"})
        value = lane.encode({"id": "a", "n": 5})
        assert value is not None
        assert value[:5] == b"\x00\x00\x00\x00\x07"
        assert lane.decode(value) == {"id": "a", "n": 5}

    @pytest.mark.parametrize("event", [{}, {"id": 1, "n": 1}, {"id": "a", "n": 1, "x": 1}, None, 5])
    def test_what_breaks_the_contract_has_none_and_at_least_one_violation(self, event: object) -> None:
        lane = lane_of({"id": "string", "n": "long"})
        assert lane.encode(event) is None
        assert lane.violations(event)


class TestKey:
    @pytest.mark.parametrize(
        ("kind", "value", "key"),
        [
            ("string", "é", "é".encode()),
            ("bytes", b"\x00\xff", b"\x00\xff"),
            ("long", -5, b"-5"),
            ({"type": "string", "logicalType": "uuid"}, uuid.UUID(int=1), str(uuid.UUID(int=1)).encode()),
        ],
        ids=str,
    )
    def test_the_field_of_the_contract_is_the_key(self, kind: Any, value: object, key: bytes) -> None:
        assert lane_of({"id": kind}, "id").key_of({"id": value}) == key

    @pytest.mark.parametrize(
        "event", [{}, {"id": None}, {"id": True}, {"id": 1.5}, {"id": "\ud800"}, {"id": []}, None, 5, "id"]
    )
    def test_what_cannot_be_a_key_is_none(self, event: object) -> None:
        assert lane_of({"id": "string"}, "id").key_of(event) is None

    def test_without_a_key_field_there_is_none(self) -> None:
        assert lane_of({"id": "string"}).key_of({"id": "a"}) is None

    @given(st.text())
    def test_a_caller_s_text_is_sent_as_utf_8_or_refused(self, key: str) -> None:
        try:
            assert key_bytes(key).decode() == key
        except MetadataError:
            assert any("\ud800" <= letter <= "\udfff" for letter in key)


class TestHeaders:
    LIMIT = 10_000

    @pytest.mark.parametrize(
        "given_as", [{"a": "x", "b": b"\xff"}, [("a", "x"), ("b", b"\xff")], (("a", "x"), ("b", b"\xff"))]
    )
    def test_names_and_values_go_out_in_order(self, given_as: Any) -> None:
        assert checked_headers(given_as, self.LIMIT) == (("a", b"x"), ("b", b"\xff"))

    @pytest.mark.parametrize(
        "name", ["", "x" * 257, "é" * 129, "ce_time", "dlq.reason", "__connect.errors.topic", "x-attempt"]
    )
    def test_a_name_that_is_none_or_ours_is_refused(self, name: str) -> None:
        with pytest.raises(MetadataError):
            checked_headers({name: "x"}, self.LIMIT)

    def test_a_hundred_are_enough(self) -> None:
        assert len(checked_headers([("a", b"")] * 100, self.LIMIT)) == 100
        with pytest.raises(MetadataError):
            checked_headers([("a", b"")] * 101, self.LIMIT)

    def test_so_many_bytes_and_not_one_more(self) -> None:
        assert checked_headers({"name": b"x" * 6}, 10)
        with pytest.raises(MetadataError):
            checked_headers({"name": b"x" * 7}, 10)

    def test_no_value_is_named_in_an_error(self) -> None:
        for headers in ({"ce_x": "secret"}, {"": "secret"}, {"a": "secret\ud800"}, {"a": "secret" * 9_000}):
            with pytest.raises(MetadataError) as told:
                checked_headers(headers, self.LIMIT)
            assert "secret" not in str(told.value)


class TestTopics:
    def test_logical_names_become_actual_ones(self) -> None:
        lane = lane_of({"id": "string"}, topics__clicks="prod.clicks")
        assert (lane.topic, lane.dead_letter_topic) == ("prod.clicks", "prod.clicks.dlq")

    def test_a_dead_letter_topic_of_the_contract_s_own_wins_over_the_suffix(self) -> None:
        contract = replace(packaged_contracts()["user_event"], dead_letter_topic="broken")
        config = load_config(overrides={"topics.user_events": "prod", "topics.broken": "prod.broken"}, environ={})
        lane = Lane(contract, config, validator=SchemaValidator({}), book=Ledger().book("x"))
        assert (lane.topic, lane.dead_letter_topic) == ("prod", "prod.broken")
