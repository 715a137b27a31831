"""Looks once, after the start, whether the topics take what the contracts send; what they do not is said, not mended.

A topic that does not fit is no reason not to start: most events may go through. It is told before the first one is
refused: in the log, and in the health for as long as the process lives.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import msgspec

from postroom.libs.exceptions import KafkaConnectionError, PostroomError
from postroom.libs.logger import get_logger
from postroom.streaming.kafka_admin import KafkaAdmin
from postroom.streaming.librdkafka_settings import client_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from postroom.libs.config_loader import Config
    from postroom.schemas.data_contracts import Contract
    from postroom.services.lane import Lane

_LOOK_S = 0.5
# Programs that end at once do not pay for a second client.
_AFTER_CONNECTING_S = 2.0
_ANSWER_S = 10.0
_TRIES = 5
_JOIN_S = 0.5


class Unfit(msgspec.Struct, frozen=True):
    """A setting of a topic that will make brokers refuse what is sent there, and what a person can do."""

    topic: str
    problem: str
    remedy: str


class TopicUse(msgspec.Struct, frozen=True):
    """What is sent to a topic: whether a record may be without a key, and how large it may be."""

    may_lack_key: bool
    max_message_bytes: int


def unfit(topic: str, settings: Mapping[str, str], use: TopicUse) -> list[Unfit]:
    """Return what of the topic's settings does not fit its use."""
    found = []
    if "compact" in settings.get("cleanup.policy", "") and use.may_lack_key:
        problem = "cleanup.policy is compact, and records without a key are possible: brokers refuse those"
        found.append(Unfit(topic, problem, "name a key in the contract that every event has, or do not compact"))
    limit = settings.get("max.message.bytes", "")
    if limit.isdecimal() and int(limit) < use.max_message_bytes:
        problem = f"max.message.bytes is {limit}, below producer.max_message_bytes {use.max_message_bytes}"
        found.append(Unfit(topic, problem, "raise the topic's, or lower producer.max_message_bytes"))
    return found


def uses(lanes: Iterable[Lane], config: Config) -> dict[str, TopicUse]:
    """Return the topics of `lanes` and of their dead letters, which may always be without a key."""
    size = config.producer.max_message_bytes
    found: dict[str, TopicUse] = {}
    for lane in lanes:
        before = found.get(lane.topic)
        may_lack_key = _may_lack_key(lane.contract) or (before is not None and before.may_lack_key)
        found[lane.topic] = TopicUse(may_lack_key, size)
        found[lane.dead_letter_topic] = TopicUse(may_lack_key=True, max_message_bytes=size)
    return found


def _may_lack_key(contract: Contract) -> bool:
    fields = {field["name"]: field["type"] for field in contract.schema["fields"]}
    kind = fields.get(contract.key_field or "", "null")
    return "null" in kind if isinstance(kind, list) else kind == "null"


class TopicCheck:
    """Asks once, on a thread of its own, when Kafka is there; `found` is what it found, nothing before.

    A cluster that does not say (no right to ask, no such request) is not asked again.
    """

    def __init__(
        self,
        config: Config,
        lanes: Iterable[Lane],
        is_connected: Callable[[], bool],
        make_admin: Callable[..., Any] = KafkaAdmin,
    ) -> None:
        self._config = config
        self._uses = uses(lanes, config)
        self._is_connected = is_connected
        self._make_admin = make_admin
        self._admin: Any = None  # kept here: a forked child may not free its parent's
        self._stopping = threading.Event()
        self._log = get_logger("postroom.topics")
        self._thread = threading.Thread(target=self._run, name="postroom-topic-check", daemon=True)
        self.found: tuple[Unfit, ...] = ()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. A question that is just being asked is not waited for."""
        self._stopping.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        for _ in range(_TRIES):
            while not self._is_connected():
                if self._stopping.wait(_LOOK_S):
                    return
            if self._stopping.wait(_AFTER_CONNECTING_S) or self._ask():
                return

    def _ask(self) -> bool:
        """Ask and tell; False if it is worth another try."""
        try:
            self._admin = self._make_admin(client_settings(self._config), timeout_s=_ANSWER_S)
            settings = self._admin.settings_of(list(self._uses))
        except PostroomError as exc:
            self._log.debug("topics_not_checked", operation="start", error=exc.code)
            return not isinstance(exc, KafkaConnectionError)
        except Exception as exc:  # noqa: BLE001 - a check that fails is no trouble for anybody's events
            self._log.debug("topics_not_checked", operation="start", error=type(exc).__name__)
            return True
        finally:
            self._admin = None
        self.found = tuple(
            one for topic, held in settings.items() if held is not None for one in unfit(topic, held, self._uses[topic])
        )
        for one in self.found:
            self._log.warning("topic_unfit", operation="start", topic=one.topic, detail=one.problem, remedy=one.remedy)
        return True
