"""The parts of a service are built from its settings, started in order, and stopped in reverse, whatever happens."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from postroom.libs.config_loader import load_config
from postroom.libs.exceptions import ConfigurationError, IncompatibleSchemaError, LifecycleError, SubjectNotFoundError
from postroom.observability.health import State
from postroom.observability.metrics import Metrics
from postroom.services.components import Components
from postroom.services.health_checks import health_of
from postroom.services.ledger import Ledger
from postroom.services.producer_service import ProducerService
from postroom.services.settlement import Settlement
from postroom.streaming.embedded_broker import EmbeddedBroker
from postroom.testing.manual_clock import ManualClock
from postroom.testing.memory_publisher import MemoryPublisher
from postroom.testing.recording_service import MemoryRegistry, RecordingService

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.config_loader import Config
    from postroom.schemas.registration import Registration


def made(config: Config, **parts: Any) -> Components:
    clock, metrics = ManualClock(), Metrics()
    settlement = Settlement(lambda: parts_made[0], journal=None, clock=clock, metrics=metrics)
    parts_made = [
        Components(
            config,
            ledger=Ledger(),
            settlement=settlement,
            order_lock=threading.RLock(),
            clock=clock,
            metrics=metrics,
            **parts,
        )
    ]
    return parts_made[0]


def parts_with(overrides: dict[str, object] | None = None, **parts: Any) -> Components:
    config = load_config(overrides=overrides or {}, environ={})
    named = {"publisher": MemoryPublisher(), "registry": MemoryRegistry(), **parts}
    return made(config, **named)


class TestStart:
    def test_each_contract_gets_its_lane_with_its_topics_and_schema_id(self) -> None:
        parts = parts_with({"topics.user_events": "prod.events", "dead_letters.suffix": ".dead"})
        parts.start()
        lane = parts.lanes["user_event"]
        assert (lane.topic, lane.schema_id, lane.key_field) == ("prod.events", 1, "user_id")
        assert parts.schema_ids.problem == ""
        parts.stop()

    def test_a_schema_that_is_not_registered_is_a_mistake_that_names_the_remedy(self) -> None:
        class Empty(MemoryRegistry):
            def lookup(self, subject: str, schema: Registration) -> int:
                raise SubjectNotFoundError("no such subject")

        parts = parts_with(registry=Empty())
        with pytest.raises(ConfigurationError, match="postroom contracts register user_event"):
            parts.start()

    def test_what_the_registry_says_no_to_stops_the_start(self) -> None:
        class Strict(MemoryRegistry):
            def register(self, subject: str, schema: Registration) -> int:
                raise IncompatibleSchemaError("a field is gone")

        with pytest.raises(IncompatibleSchemaError):
            parts_with({"schema_registry.auto_register": True}, registry=Strict()).start()

    def test_a_default_contract_that_does_not_exist_is_told_only_when_somebody_chose_it(self) -> None:
        with pytest.raises(ConfigurationError, match=r"contracts\.default is nobody"):
            parts_with({"contracts.default": "nobody"}).start()
        parts_with(contracts={}).start()

    def test_when_a_later_part_fails_the_earlier_ones_are_stopped(self) -> None:
        class Failing(MemoryPublisher):
            def start(self) -> None:
                raise LifecycleError("no")

        overrides = {"broker": "127.0.0.1:1", "schema_registry.url": "embedded"}
        config = load_config(overrides=overrides, environ={})
        parts = made(config, publisher=Failing())
        with pytest.raises(LifecycleError):
            parts.start()
        assert not Path(parts.config.schema_registry.url).exists()


class TestStop:
    def test_one_part_that_raises_keeps_no_other_from_stopping(self, caplog: pytest.LogCaptureFixture) -> None:
        stopped: list[str] = []

        def action(name: str, error: Exception | None = None) -> Callable[[], None]:
            def stop() -> None:
                stopped.append(name)
                if error is not None:
                    raise error

            return stop

        parts = parts_with()
        parts._stop_actions.append(("a", action("a")))
        parts._stop_actions.append(("b", action("b", OSError())))
        parts._stop_actions.append(("c", action("c", LifecycleError("x"))))
        parts.stop()
        parts.stop()
        assert stopped == ["c", "b", "a"]
        assert caplog.text.count("stop_failed") == 2


class TestEmbedded:
    def test_it_brings_a_registry_and_every_topic_and_leaves_nothing_behind(self) -> None:
        service = ProducerService(load_config(overrides={"broker": "embedded"}, environ={}), metrics=Metrics())
        with service:
            folder = Path(service.parts.config.schema_registry.url)
            assert folder.is_dir()
            assert service.parts.config.broker.startswith("127.0.0.1:")
            service.publish_event({"user_id": "u", "timestamp": 1}).raise_for_outcome(20)
        assert not folder.exists()
        assert service.parts.embedded is not None
        with pytest.raises(LifecycleError):
            _ = service.parts.embedded.bootstrap

    def test_a_forked_child_goes_on_with_the_parent_s_broker_and_leaves_its_folder_alone(self) -> None:
        service = ProducerService(load_config(overrides={"broker": "embedded"}, environ={}), metrics=Metrics())
        with service:
            service.publish_event({"user_id": "u", "timestamp": 1}).raise_for_outcome(20)
            bootstrap, folder = service.parts.config.broker, Path(service.parts.config.schema_registry.url)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    service.publish_event({"user_id": "u", "timestamp": 2}).raise_for_outcome(20)
                    code = 0 if service.parts.config.broker == bootstrap else 2
                    service.close()
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert folder.is_dir()
            outcome = service.publish_event({"user_id": "u", "timestamp": 3}).raise_for_outcome(20)
        assert getattr(outcome, "offset", None) == 2

    def test_one_that_does_not_run_says_so(self) -> None:
        broker = EmbeddedBroker()
        with pytest.raises(LifecycleError):
            _ = broker.bootstrap
        with pytest.raises(LifecycleError):
            broker.create_topic("clicks")
        broker.stop()
        with broker:
            assert broker.start() is broker


class TestHealth:
    def states(self, service: ProducerService) -> dict[str, State]:
        return {part.name: part.state for part in health_of(service).report().components}

    def test_a_running_service_is_well_in_all_its_parts(self) -> None:
        with RecordingService() as service:
            service.publish_event({"user_id": "u", "timestamp": 1})
            assert set(self.states(service).values()) == {State.OK}

    def test_what_is_wrong_is_said_by_the_part_that_has_it(self) -> None:
        with RecordingService() as service:
            service.publish_event({})
            assert self.states(service)["dead_letters"] is State.DEGRADED
            service.ledger.book("user_events").open.clear()
            service.ledger.book("user_events").received += 1
            assert self.states(service)["ledger"] is State.DOWN
            service.parts.lanes["user_event"].schema_id = None
            assert self.states(service)["schema_validator"] is State.DOWN
            service.parts.schema_ids._pins[0].problem = "registry_unavailable"
            assert self.states(service)["schema_registry"] is State.DOWN
            service.parts.lanes["user_event"].schema_id = 1
            assert self.states(service)["schema_registry"] is State.DEGRADED
            part = next(one for one in health_of(service).report().components if one.name == "schema_registry")
            assert part.detail.startswith("registry_unavailable; last known schema ids in use: 1, stale since 2")

    def test_a_client_without_a_broker_is_starting_and_then_down(self) -> None:
        config = load_config(overrides={"broker": "127.0.0.1:1"}, environ={})
        with ProducerService(config, registry=MemoryRegistry(), metrics=Metrics()) as service:
            seen: set[State] = set()
            pause = threading.Event()
            for _ in range(3_000):
                seen.add(self.states(service)["kafka_client"])
                if State.DOWN in seen:
                    break
                pause.wait(0.01)
            assert seen == {State.STARTING, State.DOWN}
            report = health_of(service).report()
            assert (report.live, report.ready) == (True, False)
