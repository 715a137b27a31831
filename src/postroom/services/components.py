"""Builds what a producer service needs from its settings, starts it in order and stops it in reverse."""

from __future__ import annotations

import shutil
import tempfile
import threading
from typing import TYPE_CHECKING, Protocol

from postroom.libs.exceptions import ConfigurationError, PostroomError, SchemaRegistryError, SubjectNotFoundError
from postroom.libs.logger import get_logger
from postroom.libs.settings import OriginKind
from postroom.schemas.data_contracts import configured_contracts
from postroom.schemas.schema_validator import SchemaValidator
from postroom.schemas.shared_topics import check_shared_topics, topics_with_several_types
from postroom.services.dispatcher import Dispatcher
from postroom.services.lane import Lane
from postroom.streaming.rate_limiter import RateLimiter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postroom.libs.clock import Clock
    from postroom.libs.config_loader import Config
    from postroom.observability.metrics import Metrics
    from postroom.schemas.data_contracts import Contract
    from postroom.services.ledger import Ledger
    from postroom.services.settlement import Settlement
    from postroom.services.spooling import Spooling
    from postroom.streaming.embedded_broker import EmbeddedBroker
    from postroom.streaming.publisher import Publisher
    from postroom.streaming.spool.file_system import FileSystem

_ASK_AGAIN_S = (1.0, 2.0, 4.0, 8.0)
_JOIN_S = 0.5  # a question that is just being asked is not waited for: the closed client ends it


class Registry(Protocol):
    """What the pipeline asks a Schema Registry for."""

    def lookup(self, subject: str, schema_json: str) -> int:
        """Return the id of a schema that is registered under `subject`."""
        ...

    def register(self, subject: str, schema_json: str) -> int:
        """Register the schema under `subject` and return its id."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Components:
    """The parts of one producer service, inert until `start()`.

    What is handed in (`publisher`, `registry`, `contracts`, `limiter`) is used as it is; the rest is built from
    `config`. With `broker: embedded` a broker inside this process is started, and with it a registry in a
    temporary folder unless one is named.
    """

    def __init__(
        self,
        config: Config,
        *,
        ledger: Ledger,
        settlement: Settlement,
        order_lock: threading.RLock,
        clock: Clock,
        metrics: Metrics,
        publisher: Publisher | None = None,
        registry: Registry | None = None,
        contracts: Mapping[str, Contract] | None = None,
        limiter: RateLimiter | None = None,
        spool_files: FileSystem | None = None,
    ) -> None:
        self.config = config
        self.lanes: dict[str, Lane] = {}
        self.spooling: Spooling | None = None
        self._settlement = settlement
        self._order_lock = order_lock
        self._spool_files = spool_files
        self._dispatcher: Dispatcher | None = None
        self._ledger = ledger
        self._clock = clock
        self._metrics = metrics
        self._publisher = publisher
        self._registry = registry
        self._contracts = contracts
        self.limiter = limiter or RateLimiter(config.rate_limit.events_per_second, config.rate_limit.burst, clock=clock)
        self._log = get_logger("postroom.producer_service")
        self._stop_actions: list[tuple[str, Callable[[], object]]] = []
        self._stopping = threading.Event()
        self.registry_problem = ""
        self.embedded: EmbeddedBroker | None = None

    @property
    def publisher(self) -> Publisher:
        """The publisher; there from `start()` on."""
        assert self._publisher is not None
        return self._publisher

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher; there from `start()` on."""
        assert self._dispatcher is not None
        return self._dispatcher

    def start(self) -> None:
        """Start everything in order. On an error what was started is stopped again and the error is raised."""
        try:
            self._start_embedded()
            self._open_lanes()
            self._create_topics()
            publisher = self._make_publisher()
            self._make_dispatcher(publisher)
            if self.spooling is not None:
                self.spooling.start()
                self._stop_actions.append(("spool", self.spooling.stop))
            publisher.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop in reverse order what was started. An error of one part does not keep the others from stopping."""
        self._stopping.set()
        while self._stop_actions:
            name, action = self._stop_actions.pop()
            try:
                action()
            except Exception as exc:  # noqa: BLE001 - whatever one part does, the others are stopped
                self._log.error("stop_failed", operation="stop", part=name, error=type(exc).__name__)

    # -- the parts

    def _start_embedded(self) -> None:
        config = self.config
        registry = config.schema_registry
        if config.broker == "embedded" and self._publisher is None:
            from postroom.streaming.embedded_broker import EmbeddedBroker

            broker = self.embedded = EmbeddedBroker().start()
            self._stop_actions.append(("embedded broker", broker.stop))
            if config.origin("schema_registry.url").kind is OriginKind.PACKAGED:
                registry = registry.model_copy(update={"url": "embedded"})
            config = config.model_copy(update={"broker": broker.bootstrap})
        if registry.url == "embedded" and self._registry is None:
            # No TemporaryDirectory: a forked child would remove the parent's folder when it frees its copy.
            folder = tempfile.mkdtemp(prefix="postroom-registry-")
            self._stop_actions.append(("embedded registry", lambda: shutil.rmtree(folder, ignore_errors=True)))
            registry = registry.model_copy(update={"url": folder, "auto_register": True})
        self.config = config.model_copy(update={"schema_registry": registry})

    def _open_lanes(self) -> None:
        contracts = self._contracts
        if contracts is None:
            contracts = configured_contracts(self.config.contracts.path)
        default = self.config.contracts.default
        if default not in contracts and self.config.origin("contracts.default").kind is not OriginKind.PACKAGED:
            raise ConfigurationError(
                f"contracts.default is {default}, which is none of the contracts {', '.join(sorted(contracts))}",
                remedy="name one of them, or add its file to contracts.path",
            )
        check_shared_topics(contracts.values(), self.config)
        shared = topics_with_several_types(contracts.values(), self.config.topic)
        validator = SchemaValidator(contracts)
        for contract in contracts.values():
            self.lanes[contract.name] = Lane(
                contract,
                self.config,
                validator=validator,
                book=self._ledger.book(contract.topic),
                shares_topic=self.config.topic(contract.topic) in shared,
            )
        self._open_registry()
        waiting = self._ask_registry(list(self.lanes.values()))
        if waiting:
            asking = threading.Thread(
                target=self._ask_until_answered, args=(waiting,), name="postroom-registry", daemon=True
            )
            asking.start()
            self._stop_actions.append(("registry thread", lambda: asking.join(_JOIN_S)))

    def _open_registry(self) -> None:
        if self._registry is None:
            from postroom.schemas.schema_registry_client import SchemaRegistryClient

            client = SchemaRegistryClient(settings=self.config.schema_registry)
            self._stop_actions.append(("registry client", client.close))
            self._registry = client

    def _ask_registry(self, lanes: list[Lane]) -> list[Lane]:
        """Name each lane's schema id; return those for which the registry could not be asked.

        A registry that answers, but does not know the schema, is a mistake in the set-up and stops the start.
        """
        from postroom.schemas.schema_registry_client import subject_name

        assert self._registry is not None
        settings = self.config.schema_registry
        waiting: list[Lane] = []
        for lane in lanes:
            subject = subject_name(settings.subject_strategy, lane.topic, lane.contract.record_name)
            ask = self._registry.register if settings.auto_register else self._registry.lookup
            try:
                lane.use_schema_id(ask(subject, lane.contract.schema_json), settings.url)
            except SubjectNotFoundError as exc:
                raise ConfigurationError(
                    f"contract {lane.name} version {lane.contract.version} is not registered under {subject}",
                    remedy=f"register it: postroom contracts register {lane.name}",
                ) from exc
            except SchemaRegistryError as exc:
                if not exc.retriable:
                    raise
                self.registry_problem = exc.code
                waiting.append(lane)
                self._log.warning("registry_unavailable", operation="start", contract=lane.name, error=exc.code)
        if not waiting:
            self.registry_problem = ""
        return waiting

    def _ask_until_answered(self, waiting: list[Lane]) -> None:
        tries = 0
        while waiting and not self._stopping.wait(_ASK_AGAIN_S[min(tries, len(_ASK_AGAIN_S) - 1)]):
            tries += 1
            try:
                waiting = self._ask_registry(waiting)
            except Exception as exc:  # noqa: BLE001 - what ends this thread would leave the lanes closed for good
                if self._stopping.is_set():
                    return
                # The registry is back and says no: that needs a person, but maybe one who registers right now.
                told = exc if isinstance(exc, PostroomError) else PostroomError(type(exc).__name__)
                self.registry_problem = told.code
                self._log.error("contract_unavailable", operation="start", error=told.code, remedy=told.remedy)

    def _create_topics(self) -> None:
        if self._publisher is not None or not (self.embedded or self.config.contracts.create_topics):
            return
        from postroom.services.topics import create_contract_topics, topic_specs

        contracts = [lane.contract for lane in self.lanes.values()]
        if self.embedded is None:
            create_contract_topics(contracts, self.config)
        else:  # it cannot be asked to create topics: they appear when they are first asked about
            for spec in topic_specs(contracts, self.config):
                self.embedded.create_topic(spec.name)

    def _make_publisher(self) -> Publisher:
        if self._publisher is None:
            from postroom.streaming.kafka_client import KafkaClient

            self._publisher = KafkaClient(self.config, metrics=self._metrics, clock=self._clock)
        return self._publisher

    def _make_dispatcher(self, publisher: Publisher) -> None:
        config = self.config
        if config.spool.dir is not None:
            from postroom.services.spooling import Spooling

            self.spooling = Spooling(config, clock=self._clock, files=self._spool_files)
        dispatcher = self._dispatcher = Dispatcher(
            self._order_lock,
            publisher=publisher,
            settlement=self._settlement,
            clock=self._clock,
            spool=None if self.spooling is None else self.spooling.spool,
            writes_ahead=config.spool.write_ahead == "fsync",
            buries_exhausted=config.delivery.on_exhausted == "dead_letter",
        )
        if self.spooling is not None:
            self.spooling.connect(
                self,
                self._order_lock,
                publisher=publisher,
                dispatcher=dispatcher,
                ledger=self._ledger,
                settlement=self._settlement,
            )
