"""Where the id of a contract comes from: the registry, else the copy on the disk, and it is asked for with measure."""

from __future__ import annotations

import dataclasses
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.exceptions import (
    ConfigurationError,
    IncompatibleSchemaError,
    InvalidSchemaError,
    LifecycleError,
    RegistryAuthError,
    RegistryUnavailableError,
    SchemaRegistryError,
    SubjectNotFoundError,
)
from postroom.libs.settings import SchemaRegistrySettings
from postroom.schemas.contract_copies import ContractCopies, file_name
from postroom.schemas.data_contracts import Contract, contract_from_short_form
from postroom.schemas.registration import Registration, registration_of
from postroom.schemas.schema_validator import SchemaValidator
from postroom.services.lane import Lane
from postroom.services.ledger import Ledger
from postroom.services.registry_asking import Askers, Bounded
from postroom.services.schema_ids import CLOSED_PAUSES_S, GAP_S, QUIET_GAP_S, STALE_PAUSES_S, SchemaIds
from postroom.testing.manual_clock import ManualClock
from postroom.testing.recording_service import MemoryRegistry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

URL = "https://registry.example/api"
AWAY = RegistryUnavailableError("no answer")
UNKNOWN = SubjectNotFoundError("no such subject")
RUBBISH = SchemaRegistryError("no JSON")
NO_ENTRY = RegistryAuthError("401")


class Script(MemoryRegistry):
    """A registry that says what the test wants it to say, to all or about one subject; takes `takes_s` for it."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.trouble: dict[str, Exception] = {}
        self.ids: dict[str, int] = {}
        self.takes_s = 0.0
        self.asked: list[tuple[str, str, float]] = []

    def says(self, error: Exception | None, subject: str = "") -> None:
        if error is None:
            self.trouble.pop(subject, None)
        else:
            self.trouble[subject] = error

    def lookup(self, subject: str, schema: Registration) -> int:
        return self._answer("lookup", subject, schema)

    def register(self, subject: str, schema: Registration) -> int:
        return self._answer("register", subject, schema)

    def _answer(self, what: str, subject: str, schema: Registration) -> int:
        self.asked.append((what, subject, self.clock.monotonic()))
        self.clock.advance(self.takes_s)
        trouble = self.trouble.get(subject) or self.trouble.get("")
        if trouble is not None:
            raise trouble
        return self.ids.get(subject) or super().register(subject, schema)


class World:
    """One process's ids, and the next process's with the same disk and the same registry."""

    def __init__(self, folder: Path | None, *names: str, **settings: Any) -> None:
        self.clock = ManualClock()
        self.registry = Script(self.clock)
        self.folder = folder
        self.settings = SchemaRegistrySettings(url=URL, **settings)
        self.contracts = [contract_from_short_form(name, {"id": "string"}) for name in names or ("click",)]
        self.process()

    def process(self, contracts: list[Contract] | None = None) -> None:
        config = load_config(overrides={}, environ={})
        self.lanes = {
            one.name: Lane(one, config, validator=SchemaValidator({one.name: one}), book=Ledger().book(one.topic))
            for one in contracts or self.contracts
        }
        self.ids = SchemaIds(
            self.lanes.values(),
            self.settings,
            Askers(self.registry, self.registry, self.registry),
            clock=self.clock,
            copies=None if self.folder is None else ContractCopies(self.folder),
            chance=lambda: 0.5,
        )

    def schema_id(self) -> int | None:
        return self.lanes["click"].schema_id

    def run(self, seconds: float) -> int:
        """Do what the thread does for so long; how many questions that were."""
        before, end = len(self.registry.asked), self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            pause_s = self.ids.look()
            self.clock.advance(min(seconds if pause_s is None else pause_s, max(0.0, end - self.clock.monotonic())))
        return len(self.registry.asked) - before


class TestTheStart:
    def test_the_registry_is_asked_by_lookup_and_its_answer_is_kept(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.registry.ids["click-value"] = 41
        world.ids.open()
        assert world.schema_id() == 41
        assert [what for what, _, _ in world.registry.asked] == ["lookup"]
        copy = ContractCopies(tmp_path).read(URL, "click-value", registration_of(world.contracts[0]).fingerprint)
        assert copy is not None
        assert (copy.schema_id, copy.contract, copy.version) == (41, "click", 1)
        assert copy.confirmed_ms == world.clock.time_ms()

    @pytest.mark.parametrize("trouble", [AWAY, RUBBISH, NO_ENTRY])
    def test_with_a_copy_it_starts_whatever_stands_where_the_registry_was(
        self, tmp_path: Path, trouble: Exception
    ) -> None:
        world = World(tmp_path)
        world.registry.ids["click-value"] = 41
        world.ids.open()
        world.registry.says(trouble)
        world.clock.advance(3600)
        world.process()
        world.ids.open()
        assert world.schema_id() == 41
        (view,) = world.ids.views()
        assert (view.state, view.stale_s, view.confirmed) == ("stale", 3600, "2026-01-01T00:00:00Z")

    def test_without_a_copy_the_lane_is_closed_and_opens_as_soon_as_there_is_an_answer(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.registry.says(AWAY)
        world.ids.open()
        assert world.schema_id() is None
        assert world.run(60) == 9  # after 1, 2, 4, and then every 8 s
        world.registry.says(None)
        world.run(8)
        assert world.schema_id() == 1
        assert world.ids.problem == ""

    @pytest.mark.parametrize("trouble", [RUBBISH, NO_ENTRY])
    def test_where_nothing_has_ever_worked_rubbish_stops_the_start(self, tmp_path: Path, trouble: Exception) -> None:
        world = World(tmp_path)
        world.registry.says(trouble)
        with pytest.raises(SchemaRegistryError) as caught:
            world.ids.open()
        assert caught.value is trouble

    def test_where_something_has_worked_rubbish_closes_only_what_is_new(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.ids.open()
        world.registry.says(RUBBISH)
        world.process([contract_from_short_form("added", {"n": "int"}), *world.contracts])
        world.ids.open()
        assert world.schema_id() == 1
        assert world.lanes["added"].schema_id is None

    @pytest.mark.parametrize("has_copy", [False, True])
    @pytest.mark.parametrize(
        ("trouble", "error"),
        [
            (UNKNOWN, ConfigurationError),
            (IncompatibleSchemaError("a field is gone"), IncompatibleSchemaError),
            (InvalidSchemaError("no schema"), InvalidSchemaError),
        ],
    )
    def test_a_registry_that_does_not_have_the_schema_stops_the_start(
        self, tmp_path: Path, trouble: Exception, error: type[Exception], *, has_copy: bool
    ) -> None:
        world = World(tmp_path)
        if has_copy:
            world.ids.open()
        world.registry.says(trouble)
        world.process()
        with pytest.raises(error):
            world.ids.open()

    def test_a_type_that_is_not_there_is_told_by_its_own_name(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.registry.says(SubjectNotFoundError("no subject address", remedy="register the referenced schema first"))
        with pytest.raises(SubjectNotFoundError, match="no subject address"):
            world.ids.open()

    def test_another_schema_under_the_same_version_has_no_copy(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.ids.open()
        world.registry.says(AWAY)
        world.process([contract_from_short_form("click", {"id": "string", "more": "int"})])
        world.ids.open()
        assert world.schema_id() is None

    def test_a_damaged_copy_is_none(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.ids.open()
        (path,) = tmp_path.iterdir()
        path.write_bytes(path.read_bytes().replace(b'"schema_id":1', b'"schema_id":2'))
        world.registry.says(AWAY)
        world.process()
        world.ids.open()
        assert world.schema_id() is None

    def test_a_copy_from_the_future_counts_as_from_now(self, tmp_path: Path) -> None:
        world = World(tmp_path, max_stale_s=1000)
        world.ids.open()
        (path,) = tmp_path.iterdir()
        fingerprint = registration_of(world.contracts[0]).fingerprint
        copy = ContractCopies(tmp_path).read(URL, "click-value", fingerprint)
        assert copy is not None
        assert path.name == file_name(*copy.key)
        ContractCopies(tmp_path).write(dataclasses.replace(copy, confirmed_ms=2**53))
        world.registry.says(AWAY)
        world.process()
        world.ids.open()
        assert world.schema_id() == 1
        assert world.ids.views()[0].stale_s == 0

    def test_after_one_question_in_vain_the_other_copies_are_used_unasked(self, tmp_path: Path) -> None:
        world = World(tmp_path, "click", "order", "visit")
        world.ids.open()
        world.registry.asked.clear()
        world.registry.says(AWAY)
        world.registry.takes_s = 2.0
        world.process()
        world.ids.open()
        assert len(world.registry.asked) == 1
        assert [lane.schema_id for lane in world.lanes.values()] == [1, 2, 3]

    def test_contracts_without_a_copy_have_the_time_of_one_question_between_them(self, tmp_path: Path) -> None:
        world = World(tmp_path, "click", "order", "visit", timeout_s=2, retries=1)
        world.registry.says(AWAY)
        world.registry.takes_s = 3.0
        world.ids.open()
        assert len(world.registry.asked) == 2

    def test_one_contract_that_fails_does_not_hold_up_the_others(self, tmp_path: Path) -> None:
        world = World(tmp_path, "click", "order", "visit")
        world.registry.says(AWAY, "click-value")
        world.ids.open()
        assert [lane.schema_id is None for lane in world.lanes.values()] == [True, False, False]

    def test_a_copy_is_not_written_again_for_every_short_life(self, tmp_path: Path) -> None:
        world = World(tmp_path, refresh_s=300)
        world.ids.open()
        (path,) = tmp_path.iterdir()
        first = path.read_bytes()
        for life, same in ((100, True), (100, False)):
            world.clock.advance(life)
            world.process()
            world.ids.open()
            assert (path.read_bytes() == first) is same

    def test_without_a_disk_it_works_as_long_as_it_lives(self) -> None:
        world = World(None)
        world.ids.open()
        assert world.schema_id() == 1
        assert world.ids.look() is None


class TestRegistering:
    def test_only_who_is_told_registers_and_only_once(self, tmp_path: Path) -> None:
        world = World(tmp_path, auto_register=True)
        world.ids.open()
        world.run(1000)
        assert [what for what, _, _ in world.registry.asked][:3] == ["register", "lookup", "lookup"]

    def test_a_registry_that_lost_it_is_told_again(self, tmp_path: Path) -> None:
        world = World(tmp_path, auto_register=True)
        world.ids.open()
        world.registry.says(UNKNOWN)
        world.run(301)
        world.registry.says(None)
        world.run(60)
        assert [what for what, _, _ in world.registry.asked] == ["register", "lookup", "register"]

    def test_what_is_dropped_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        class Forgetful(Script):
            def kept(self, subject: str, schema: Registration) -> Any:
                return dataclasses.replace(super().kept(subject, schema), rule_set=None)

        world = World(tmp_path, auto_register=True)
        world.registry = Forgetful(world.clock)
        world.process()
        pin = world.ids._pins[0]
        pin.registration = dataclasses.replace(pin.registration, rule_set={"domainRules": [{"name": "r"}]})
        world.ids.open()
        assert world.schema_id() == 1
        assert "registry_dropped" in caplog.text
        assert "ruleSet.domainRules" in caplog.text


class TestWhileItRuns:
    def test_it_is_asked_again_every_five_minutes_give_or_take_a_quarter(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        chances = iter([0.0, 1.0] * 100)
        world.ids._chance = lambda: next(chances)
        world.ids.open()
        world.run(3000)
        times = [when for _, _, when in world.registry.asked]
        assert {round(b - a) for a, b in pairwise(times)} == {225, 375}

    def test_a_registry_that_goes_away_changes_nothing_but_what_is_shown(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.ids.open()
        world.registry.says(AWAY)
        world.run(86_400)
        assert world.schema_id() == 1
        (view,) = world.ids.views()
        assert (view.state, view.stale_s, view.problem) == ("stale", 86_400, "registry_unavailable")
        assert {(reading.metric.name, reading.value, reading.labels) for reading in world.ids.readings()} == {
            ("postroom_schema_registry_stale_seconds", 86_400, ("click",)),
            ("postroom_schema_id_state", 1, ("click", "stale")),
        }
        world.registry.says(None)
        world.run(60)
        assert (world.ids.views()[0].state, world.ids.views()[0].stale_s) == ("fresh", 0)

    def test_what_nobody_answers_is_asked_for_with_growing_pauses(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.ids.open()
        world.registry.says(AWAY)
        world.run(1000)
        times = [when for _, _, when in world.registry.asked][1:]
        pauses = [round(b - a) for a, b in pairwise(times)]
        assert pauses[: len(STALE_PAUSES_S)] == list(STALE_PAUSES_S)
        assert set(pauses[len(STALE_PAUSES_S) :]) == {STALE_PAUSES_S[-1]}

    def test_an_unknown_subject_is_not_asked_for_again_and_again(self, tmp_path: Path) -> None:
        world = World(tmp_path)
        world.registry.says(AWAY)
        world.ids.open()
        world.registry.says(UNKNOWN)
        assert world.run(3600) <= 3600 / 30 + 1
        world.registry.says(None)
        world.run(30)
        assert world.schema_id() == 1

    @pytest.mark.parametrize("trouble", [UNKNOWN, RUBBISH, NO_ENTRY, LifecycleError("closed"), ZeroDivisionError()])
    def test_a_no_stops_no_traffic_and_is_shown(
        self, tmp_path: Path, trouble: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = World(tmp_path)
        world.ids.open()
        world.registry.says(trouble)
        world.run(4000)
        assert world.schema_id() == 1
        assert world.ids.problem == getattr(trouble, "code", "postroom_error")
        assert caplog.text.count("contract_unavailable") == 1  # not once for each question

    def test_another_id_is_taken_because_the_registry_says_so(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        world = World(tmp_path)
        world.ids.open()
        world.registry.ids["click-value"] = 99
        world.run(400)
        assert world.schema_id() == 99
        assert "schema_id_changed" in caplog.text
        world.registry.says(AWAY)
        world.process()
        world.ids.open()
        assert world.schema_id() == 99

    def test_many_contracts_are_asked_for_at_a_bounded_rate_and_the_closed_ones_first(self, tmp_path: Path) -> None:
        names = [f"c{number}" for number in range(50)]
        world = World(tmp_path, *names)
        world.ids.open()
        world.registry.says(AWAY)
        added = contract_from_short_form("new", {"n": "int"})
        world.process([*world.contracts, added])
        world.ids.open()
        world.registry.says(None)
        world.registry.asked.clear()
        world.run(60)
        times = [when for _, _, when in world.registry.asked]
        assert len(times) == 51
        assert sorted(round(b - a, 3) for a, b in pairwise(times)) == [GAP_S, *[QUIET_GAP_S] * 49]
        assert "new-value" in [subject for _, subject, _ in world.registry.asked[:7]]  # it failed a second before

    def test_once_it_answers_about_one_contract_it_is_asked_about_the_others(self, tmp_path: Path) -> None:
        world = World(tmp_path, "click", "order", "visit")
        world.ids.open()
        world.registry.says(AWAY)
        world.run(1000)
        world.registry.says(None)
        states = [view.state for view in world.ids.views()]
        while "stale" in states and "fresh" not in states:
            world.run(1)
            states = [view.state for view in world.ids.views()]
        world.run(3 * QUIET_GAP_S)
        assert {view.state for view in world.ids.views()} == {"fresh"}

    def test_contracts_that_hang_hold_up_a_closed_one_for_one_question(self, tmp_path: Path) -> None:
        world = World(tmp_path, "click", "order", "visit", timeout_s=5)
        world.registry.says(AWAY)
        world.ids.open()
        world.registry.says(None)
        for subject in ("order-value", "visit-value"):
            world.registry.says(AWAY, subject)
        world.registry.takes_s = 5.0
        world.run(20)
        assert world.schema_id() is not None


class TestTooStale:
    def test_an_id_that_was_not_confirmed_for_so_long_is_used_no_more_and_says_why(self, tmp_path: Path) -> None:
        world = World(tmp_path, max_stale_s=1000)
        world.ids.open()
        world.registry.says(AWAY)
        world.run(999)
        assert world.schema_id() == 1
        world.run(2)
        assert world.schema_id() is None
        why = world.lanes["click"].closed_because
        assert "since 2026-01-01T00:00:00Z," in why
        assert "schema_registry.max_stale_s" in why
        assert world.ids.views()[0].state == "closed"
        world.registry.says(None)
        world.run(CLOSED_PAUSES_S[-1])
        assert world.schema_id() == 1

    def test_a_copy_that_is_too_old_is_not_used_at_the_start(self, tmp_path: Path) -> None:
        world = World(tmp_path, max_stale_s=1000)
        world.ids.open()
        world.registry.says(AWAY)
        for seconds, schema_id in ((999, 1), (1, None)):
            world.clock.advance(seconds)
            world.process()
            world.ids.open()
            assert world.schema_id() == schema_id
        assert "for longer than schema_registry.max_stale_s (1000" in world.lanes["click"].closed_because

    def test_age_goes_on_over_restarts(self, tmp_path: Path) -> None:
        world = World(tmp_path, max_stale_s=1000)
        world.ids.open()
        world.registry.says(AWAY)
        world.clock.advance(600)
        world.process()
        world.ids.open()
        world.run(399)
        assert world.schema_id() == 1
        world.run(2)
        assert world.schema_id() is None


class TestBounded:
    def test_an_answer_and_an_error_come_through(self) -> None:
        registry = Script(ManualClock())
        bounded = Bounded(registry, 20.0)
        schema = Registration('"string"')
        assert bounded.lookup("a", schema) == bounded.register("a", schema) == bounded.kept("a", schema).schema_id == 1
        registry.says(UNKNOWN)
        with pytest.raises(SubjectNotFoundError):
            bounded.lookup("a", schema)
        bounded.close()

    def test_a_question_that_hangs_is_left_alone_in_time(self) -> None:
        released = threading.Event()

        class Hanging(MemoryRegistry):
            def lookup(self, subject: str, schema: Registration) -> int:
                released.wait(30)
                return super().lookup(subject, schema)

        with pytest.raises(RegistryUnavailableError, match=r"did not answer within 0\.01 s"):
            Bounded(Hanging(), 0.01).lookup("a", Registration('"string"'))
        released.set()


class TestTheThread:
    def test_it_opens_a_lane_and_ends_with_the_service(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from postroom.services import schema_ids

        monkeypatch.setattr(schema_ids, "CLOSED_PAUSES_S", (0.0,))
        monkeypatch.setattr(schema_ids, "GAP_S", 0.001)
        world = World(tmp_path)
        world.registry.says(AWAY)
        world.ids.open()
        world.ids.start()
        world.registry.says(None)
        until(lambda: world.schema_id() == 1)
        world.ids.stop()
        until(lambda: not any(thread.name == "postroom-registry" for thread in threading.enumerate()))

    def test_an_error_of_ours_does_not_end_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        from postroom.services import schema_ids

        monkeypatch.setattr(schema_ids, "STALE_PAUSES_S", (0.001,))
        world = World(tmp_path)
        world.ids.open()
        looks: list[None] = []

        def broken() -> float:
            looks.append(None)
            raise ZeroDivisionError

        monkeypatch.setattr(world.ids, "look", broken)
        world.ids.start()
        until(lambda: len(looks) > 2)
        world.ids.stop()
        assert "schema_ids_failed" in caplog.text


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(2_000):
        if condition():
            return
        pause.wait(0.005)
    pytest.fail("it did not come true in time")
