"""The parts of one Kafka client that its other parts work on, made anew in a forked child."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom.streaming.delivery_reports import DeliveryReports
from postroom.streaming.open_records import OpenRecords
from postroom.streaming.producer_life import ProducerLife
from postroom.streaming.report_polling import ReportPolling
from postroom.streaming.shutter import Shutter

if TYPE_CHECKING:
    from collections.abc import Callable

    from postroom.libs.clock import Clock
    from postroom.libs.logger import Log
    from postroom.observability.metrics import Metrics


class ClientParts:
    """What is taken, by whom it is sent, what is said of it, and who hears that.

    Locks are taken in this order: the emptying's, the polling's, the shutter's gate.
    """

    def __init__(self, clock: Clock, metrics: Metrics, log: Log, make_producer: Callable[..., Any]) -> None:
        self.clock = clock
        self.metrics = metrics
        self.log = log
        self.shutter = Shutter()
        self.records = OpenRecords(metrics, log)
        self.life = ProducerLife(
            clock,
            metrics,
            log,
            make_producer=make_producer,
            shutter=self.shutter,
            on_traffic=self.records.sent_something_maybe,
        )
        self.reports = DeliveryReports(self.life, self.records, self.shutter)
        self.polling = ReportPolling(self.life, self.reports)
