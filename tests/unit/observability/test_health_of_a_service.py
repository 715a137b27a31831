"""What health, status and metrics say of a service with a spool, on the double: ready is who can make an event safe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.observability.health import State
from postroom.observability.metric_table import (
    DRAINED,
    HAND_OVERS,
    PATH_PROBLEM,
    PATH_STATE,
    SPOOL_BYTES,
    SPOOL_FULL,
    SPOOL_OLDEST_AGE,
    SPOOL_RECORDS,
    SPOOL_REFUSES,
    SPOOLED,
    TAKEN_OVER,
)
from postroom.schemas.data_contracts import contract_from_short_form
from postroom.services.dispatcher import FORGOTTEN_AFTER_S
from postroom.services.health_checks import health_of
from postroom.testing.recording_service import RecordingService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from postroom.observability.metrics import Snapshot

PATIENCE_S = 30.0
CLICKS = contract_from_short_form("clicks", {"user_id": "string", "timestamp": "long"}, key_field="user_id")


class FastClock:
    """Runs twenty times as fast as the wall's: patience takes milliseconds."""

    def monotonic(self) -> float:
        return time.monotonic() * 20

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 20)


CLOCK = FastClock()


def service_with(folder: Path | None, write_ahead: str = "off") -> RecordingService:
    spool = {} if folder is None else {"spool.dir": str(folder), "spool.write_ahead": write_ahead}
    config = load_config(environ={}, overrides={"contracts.default": "clicks", **spool})
    return RecordingService([CLICKS], config=config, clock=CLOCK)


def hand_in(service: RecordingService, number: int = 1) -> Any:
    return service.publish_event({"user_id": "u1", "timestamp": number}).result(PATIENCE_S)


def health(service: RecordingService) -> tuple[bool, dict[str, tuple[State, str]]]:
    report = health_of(service, CLOCK).report()
    return report.ready, {part.name: (part.state, part.detail) for part in report.components}


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


class TestReady:
    def test_with_kafka_there_and_an_empty_spool_all_is_well(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            hand_in(service)
            ready, parts = health(service)
        assert ready
        assert [parts[name][0] for name in ("kafka_client", "spool", "paths", "ledger")] == [State.OK] * 4

    def test_with_kafka_away_a_spool_that_takes_records_keeps_it_ready(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            hand_in(service)
            ready, parts = health(service)
            assert ready
            assert parts["kafka_client"][0] is State.DEGRADED
            assert "events go to the spool" in parts["kafka_client"][1]
            assert parts["paths"][0] is State.DEGRADED
            assert "clicks spooling" in parts["paths"][1]
            assert "kafka_unavailable" in parts["paths"][1]
            assert "1 waiting" in parts["spool"][1]

    def test_with_kafka_away_and_no_spool_it_is_not_ready(self) -> None:
        with service_with(None) as service:
            service.faults.away()
            wait_until(lambda: health(service)[1]["kafka_client"][0] is State.DOWN)
            ready, parts = health(service)
        assert not ready
        assert parts["spool"] == (State.OK, "none: what Kafka does not take fails")

    def test_with_kafka_away_and_a_disk_that_takes_nothing_it_is_not_ready(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            hand_in(service, 1)
            service.faults.disk_error("write")
            for number in range(2, 6):
                hand_in(service, number)
            ready, parts = health(service)
            assert not ready
            assert parts["kafka_client"][0] is State.DOWN
            assert parts["spool"][0] is State.DOWN
            assert "Kafka takes none either" in parts["spool"][1]
            service.faults.all_well()
            wait_until(lambda: health(service)[0])

    @pytest.mark.parametrize(("write_ahead", "ready"), [("off", True), ("fsync", False)])
    def test_with_kafka_there_a_spool_that_takes_nothing_matters_only_where_every_event_is_written_first(
        self, write_ahead: str, ready: bool, tmp_path: Path
    ) -> None:
        with service_with(tmp_path, write_ahead) as service:
            hand_in(service)
            service.faults.disk_full()
            wait_until(lambda: health(service)[1]["spool"][0] is not State.OK)
            is_ready, parts = health(service)
            assert is_ready is ready
            assert parts["spool"][0] is (State.DEGRADED if ready else State.DOWN)
            service.faults.all_well()

    def test_what_only_a_person_can_mend_makes_it_red_and_names_the_remedy(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            hand_in(service)
            service.faults.topic_gone("clicks")
            hand_in(service, 2)
            ready, parts = health(service)
            assert not ready
            assert parts["paths"][0] is State.DOWN
            assert "topic_missing: create it: postroom topics create" in parts["paths"][1]
            service.faults.all_well()
            wait_until(lambda: health(service)[0])
            assert health(service)[1]["paths"] == (State.OK, "all direct")

    def test_without_a_spool_a_missing_topic_makes_it_red_too_and_is_named(self) -> None:
        with service_with(None) as service:
            hand_in(service)
            assert health(service)[1]["paths"] == (State.OK, "all direct")
            service.faults.topic_gone("clicks")
            hand_in(service, 2)
            ready, parts = health(service)
            assert not ready
            assert parts["paths"][0] is State.DOWN
            assert parts["paths"][1].startswith("clicks direct")
            assert parts["paths"][1].endswith("topic_missing: create it: postroom topics create")
            service.faults.all_well()
            hand_in(service, 3)
            assert health(service)[0]
            assert health(service)[1]["paths"] == (State.OK, "all direct")

    def test_without_a_spool_what_failed_is_forgotten_so_that_events_come_again(self) -> None:
        with service_with(None) as service:
            service.faults.topic_gone("clicks")
            hand_in(service)
            assert not health(service)[0]
            began = CLOCK.monotonic()
            wait_until(lambda: health(service)[0])
            assert CLOCK.monotonic() - began < 2 * FORGOTTEN_AFTER_S

    def test_without_a_spool_kafka_away_is_no_matter_of_one_topic(self) -> None:
        with service_with(None) as service:
            service.faults.away()
            hand_in(service)
            assert health(service)[1]["paths"] == (State.OK, "all direct")


class TestStatus:
    def test_it_holds_the_books_the_paths_and_the_spool_by_name_and_number_only(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            service.faults.away()
            hand_in(service)
            document: dict[str, Any] = health_of(service, CLOCK).status()
            assert document["ledger"]["total"]["spooled"] == document["ledger"]["topics"]["clicks"]["spooled"] == 1
            (path,) = document["paths"]
            assert (path["topic"], path["state"], path["problem"]) == ("clicks", "spooling", "kafka_unavailable")
            spool = document["spool"]
            assert (spool["directory"], spool["slots"], spool["takes"]) == (str(tmp_path), ("0001",), True)
            assert spool["records"]["by_topic"] == {"clicks": 1}
            assert spool["oldest_s"] >= 0
            assert "u1" not in str(document)
            assert "problems" not in document

    def test_without_a_spool_there_is_none(self) -> None:
        with service_with(None) as service:
            document = health_of(service, CLOCK).status()
        assert (document["spool"], document["paths"]) == (None, [])


class TestMetrics:
    def numbers(self, service: RecordingService) -> Snapshot:
        return service._metrics.snapshot()

    def test_an_outage_can_be_followed_from_its_beginning_to_its_end(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as service:
            hand_in(service)
            now = self.numbers(service)
            assert now.series(PATH_STATE) == [(("clicks", "direct"), 1)]
            assert now.series(PATH_PROBLEM) == []
            service.faults.away()
            for number in range(5):
                hand_in(service, number)
            now = self.numbers(service)
            assert now.series(PATH_STATE) == [(("clicks", "spooling"), 1)]
            assert now.series(PATH_PROBLEM) == [(("clicks", "kafka_unavailable"), 1)]
            assert now.series(HAND_OVERS) == [(("clicks",), 1)]
            assert dict(now.series(SPOOL_RECORDS)) == {("records",): 5, ("dead_letters",): 0}
            assert dict(now.series(SPOOL_OLDEST_AGE))["records",] >= 0
            assert now.total(SPOOL_BYTES) > 500
            assert (now.total(SPOOL_FULL), now.total(SPOOL_REFUSES), now.total(SPOOLED)) == (0, 0, 5)
            service.faults.back()
            wait_until(lambda: self.numbers(service).series(PATH_STATE) == [(("clicks", "direct"), 1)])
            now = self.numbers(service)
            assert now.series(DRAINED) == [(("clicks",), 5)]
            assert now.series(PATH_PROBLEM) == []

    def test_what_was_taken_over_is_counted_apart(self, tmp_path: Path) -> None:
        with service_with(tmp_path) as before:
            before.faults.away()
            for number in range(3):
                hand_in(before, number)
        with service_with(tmp_path) as after:
            wait_until(lambda: self.numbers(after).total(TAKEN_OVER) == 3)
            wait_until(lambda: self.numbers(after).total(DRAINED) == 3)
            balance = after.ledger.total()
        assert (balance.received, balance.taken_over, balance.delivered, balance.unaccounted) == (3, 3, 3, 0)
