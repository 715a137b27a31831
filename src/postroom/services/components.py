"""Builds what a producer service needs from its settings, starts it in order and stops it in reverse."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

from postroom.libs.exceptions import ConfigurationError
from postroom.libs.logger import get_logger
from postroom.libs.settings import OriginKind
from postroom.schemas.contract_copies import ContractCopies, copies_folder
from postroom.schemas.data_contracts import configured_contracts
from postroom.schemas.schema_registry_client import SchemaRegistryClient
from postroom.schemas.schema_validator import SchemaValidator
from postroom.schemas.shared_topics import check_shared_topics, topics_with_several_types
from postroom.services.closing import Closing
from postroom.services.dispatcher import Dispatcher
from postroom.services.lane import Lane
from postroom.services.registry_asking import Askers, Bounded
from postroom.services.schema_ids import SchemaIds
from postroom.streaming.rate_limiter import RateLimiter

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from postroom.libs.clock import Clock
    from postroom.libs.config_loader import Config
    from postroom.observability.metrics import Metrics
    from postroom.schemas.data_contracts import Contract
    from postroom.services.ledger import Ledger
    from postroom.services.registry_asking import Registry
    from postroom.services.settlement import Settlement
    from postroom.services.spooling import Spooling
    from postroom.services.topic_check import TopicCheck
    from postroom.services.topics import TopicsInTime
    from postroom.streaming.embedded_broker import EmbeddedBroker
    from postroom.streaming.publisher import Publisher
    from postroom.streaming.spool.file_system import FileSystem

_PATIENCE_WITH_COPY_S = 2.0
"""So long the registry has at the start for a contract whose id is on this disk; twice with looking up its name."""

_PRIVATE_TAG = "PII"  # by custom, also where the settings say nothing about it


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
        self._is_own_publisher = False
        self._registry = registry
        self._contracts = contracts
        self.limiter = limiter or RateLimiter(config.rate_limit.events_per_second, config.rate_limit.burst, clock=clock)
        self._log = get_logger("postroom.producer_service")
        self._stop_actions: list[tuple[str, Callable[[], object]]] = []
        self._schema_ids: SchemaIds | None = None
        self.topics: TopicsInTime | None = None
        self.embedded: EmbeddedBroker | None = None
        self.topic_check: TopicCheck | None = None
        self.closing = Closing(self, ledger, settlement, clock, metrics)

    @property
    def publisher(self) -> Publisher:
        """The publisher; there from `start()` on."""
        assert self._publisher is not None
        return self._publisher

    @property
    def schema_ids(self) -> SchemaIds:
        """The ids of the contracts; there from `start()` on."""
        assert self._schema_ids is not None
        return self._schema_ids

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
                self._stop_actions.append(("spool", self.spooling.stop))
                self.spooling.start()
            publisher.start()
            self._check_topics()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop in reverse order what was started. An error of one part does not keep the others from stopping."""
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

    def _check_key(self, lane: Lane) -> None:
        """Refuse a contract whose key is to be hidden: a key goes wherever its record goes."""
        contract, privacy = lane.contract, self.config.dead_letters.privacy
        place = (contract.record_name, contract.key_field or "")
        if lane.mask is not None and lane.mask.hides(*place):
            raise ConfigurationError(
                f"the key of contract {contract.name} is the field {contract.key_field}, which dead_letters.privacy "
                "hides, but the key of a record stands in its topic, its dead letters and the spool",
                remedy="choose another field as key, such as an identifier that says nothing about a person",
            )
        if contract.field_tags.get(place, frozenset()) & {_PRIVATE_TAG, *privacy}:
            self._log.warning("key_is_private", operation="start", contract=contract.name)

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
            lane = self.lanes[contract.name] = Lane(
                contract,
                self.config,
                validator=validator,
                book=self._ledger.book(contract.topic),
                shares_topic=self.config.topic(contract.topic) in shared,
            )
            self._check_key(lane)
        ids = self._schema_ids = SchemaIds(
            self.lanes.values(),
            self.config.schema_registry,
            self._askers(),
            clock=self._clock,
            copies=self._copies(),
        )
        ids.open()
        ids.start()
        self._stop_actions.append(("registry thread", ids.stop))

    def _copies(self) -> ContractCopies | None:
        """What is kept of the registry's answers: nothing of one that was handed in, whose ids may mean anything.

        A registry in a folder is on this disk already: it needs no copy unless somebody names a folder for copies.
        """
        registry = self.config.schema_registry
        if self._registry is not None or (registry.copies_dir is None and not registry.is_remote):
            return None
        folder = copies_folder(self.config, os.environ)
        return None if folder is None else ContractCopies(folder)

    def _askers(self) -> Askers:
        if self._registry is not None:
            return Askers(self._registry, self._registry, self._registry)
        settings = self.config.schema_registry
        short = {"retries": 0, "timeout_s": min(settings.timeout_s, _PATIENCE_WITH_COPY_S)}
        askers = Askers(
            SchemaRegistryClient(settings=settings),
            Bounded(SchemaRegistryClient(settings=settings.model_copy(update=short)), 2 * _PATIENCE_WITH_COPY_S),
            beside := SchemaRegistryClient(settings=settings.model_copy(update={"retries": 0})),
        )
        beside.prepare()  # now, and not beside the first events
        for client in askers:
            self._stop_actions.append(("registry client", client.close))
        return askers

    def _create_topics(self) -> None:
        if self._publisher is not None or not (self.embedded or self.config.contracts.create_topics):
            return
        from postroom.services.topics import TopicsInTime, create_contract_topics, topic_specs

        contracts = [lane.contract for lane in self.lanes.values()]
        if self.embedded is not None:  # it cannot be asked to create topics: they appear when first asked about
            for spec in topic_specs(contracts, self.config):
                self.embedded.create_topic(spec.name)
        elif self.config.spool.dir is None:
            create_contract_topics(contracts, self.config)
        else:  # events are safe without Kafka: nobody waits for it
            self.topics = TopicsInTime(contracts, self.config)
            self._stop_actions.append(("topics thread", self.topics.stop))
            self.topics.start()

    def _make_publisher(self) -> Publisher:
        if self._publisher is None:
            from postroom.streaming.kafka_client import KafkaClient

            self._publisher = KafkaClient(self.config, metrics=self._metrics, clock=self._clock)
            self._is_own_publisher = True
        return self._publisher

    def _check_topics(self) -> None:
        if self._is_own_publisher and self.embedded is None:
            from postroom.services.topic_check import TopicCheck

            publisher = self.publisher
            check = TopicCheck(self.config, self.lanes.values(), lambda: publisher.condition().connected is True)
            check.start()
            self.topic_check = check
            self._stop_actions.append(("topic check", check.stop))

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
