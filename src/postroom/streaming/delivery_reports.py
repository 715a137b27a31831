"""What the client library says of each record, turned into the one report that its owner gets. docs/design/0006.

Facts this file is built on (measured with librdkafka 2.16.0, kept by tests):
- A record that waits for a retry is purged with the code of the queue, though its first try may be in the log.
- A success without an offset is a conclusion of the client library's, and can be wrong.
- A broker refuses batches, not records; which record it is, is known of a record that was sent alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException

from postroom.libs.event import FailedReason
from postroom.libs.exceptions import QueueFullError
from postroom.streaming.delivery import (
    BLAMES_THE_BATCH,
    FATAL,
    INCONSISTENT,
    INVALID_DIFFERENT_RECORD,
    PURGE_INFLIGHT,
    PURGE_QUEUE,
    RECALLED,
    UNPROVEN,
    decide,
    lets_others_pass,
    was_never_sent,
)
from postroom.streaming.publisher import Report

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

    from postroom.streaming.open_records import OpenRecords, Refused, Taken
    from postroom.streaming.producer_life import ProducerLife
    from postroom.streaming.shutter import Shutter

_INVALID_ARG = -186


class DeliveryReports:
    """Hands records to the client library and judges what it says of them. Called from inside poll: it never raises.

    `expects_offsets`: a success has one. `hands_over`: what is not taken goes to a spool, so nothing may overtake it.
    `alone` are the numbers of records that were sent alone: the answer is about this record.
    """

    def __init__(self, life: ProducerLife, records: OpenRecords, shutter: Shutter) -> None:
        self._life = life
        self._shutter = shutter
        self._batch: list[Refused] = []
        self.settle = records.settle
        self.fatal_error_met = life.fatal_error_met
        self.expects_offsets = True
        self.hands_over = False
        self.alone: frozenset[int] = frozenset()

    def produce(self, producer: Any, taken: Taken) -> Report | None:
        """Hand the record to the client library; return the report of one that it refuses on the spot.

        Raises QueueFullError where it was not taken and may be later.
        """
        record = taken.record
        try:
            producer.produce(
                record.topic,
                record.value,
                record.key,
                headers=list(record.headers),
                timestamp=record.timestamp_ms,
                on_delivery=taken,
            )
        except KafkaException as exc:
            return self._explain_on_the_spot(exc.args[0])
        except BufferError:
            raise QueueFullError("the queue of unacknowledged records is full") from None
        except Exception as exc:  # noqa: BLE001 - the call itself was refused; whatever the reason, it is told
            return Report(decide(_INVALID_ARG), code=_INVALID_ARG, detail=type(exc).__name__)
        return None

    def unproven(self, taken: Taken) -> None:
        """Take a success without an offset: the library's own conclusion, for which it has no broker's word."""
        self._recall()
        self.settle(taken, Report(UNPROVEN, code=INCONSISTENT, detail="acknowledged_without_offset"))

    def not_delivered(self, taken: Taken, error: KafkaError, offset: int | None) -> None:
        """Take a negative report. The records of a batch come in a row, numbered by their offsets: None, 0, 1."""
        code = error.code()
        if code not in BLAMES_THE_BATCH or taken.number in self.alone:
            self.settle(taken, self._explain(taken, error))
            return
        if offset is None:
            self.end_batch()
        elif len(self._batch) == 1:  # some of them are innocent: at once, this may be the first of ten thousand
            self._recall()
        self._batch.append((taken, code, error.name() or "unknown"))

    def end_batch(self) -> None:
        """Judge a refused batch: a single record is at fault itself, among several each is sent again alone."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        told_apart = any(code == INVALID_DIFFERENT_RECORD for _, code, _ in batch)
        suspects = []
        for taken, code, name in batch:
            if len(batch) == 1 or (told_apart and code != INVALID_DIFFERENT_RECORD):
                self.settle(taken, Report(decide(code), code=code, detail=name))
            else:
                suspects.append((taken, code, name))
        if suspects:
            self._shutter.suspects += suspects
            self._recall()

    def _recall(self) -> None:
        """Call back at once what waits behind a record that was not taken; `ProducerRepair` sees to the rest."""
        if self.hands_over and not self._shutter.recalling:
            self._shutter.recalling = True
            self._life.begin_purge(self._life.producer, in_flight=False)

    def _explain(self, taken: Taken, error: KafkaError) -> Report:
        """Turn a negative delivery report into ours, with what is known about the connections."""
        code, shutter, watch = error.code(), self._shutter, self._life.watch
        is_purged = code in {PURGE_QUEUE, PURGE_INFLIGHT}
        decision = decide(code, fatal=error.fatal() or (is_purged and shutter.fatal))
        if code == PURGE_QUEUE and shutter.recalling and not shutter.fatal:
            decision = RECALLED
        if code == PURGE_QUEUE and taken.never_connected and watch.connected is False:
            decision = was_never_sent(decision)
        if decision.rebuild:
            shutter.fatal = True
        if decision.rebuild or lets_others_pass(code):
            self._recall()
        detail = error.name() or "unknown"
        if watch.last_problem and decision.reason is FailedReason.KAFKA_UNAVAILABLE:
            detail = f"{detail} after {watch.last_problem}"
        return Report(decision, code=code, detail=detail)

    def _explain_on_the_spot(self, error: KafkaError) -> Report:
        """Explain what `produce` itself refused: whatever it says, this record was never sent.

        After a fatal error the next producer can take it: then it counts as not taken (QueueFullError).
        """
        decision = decide(error.code(), fatal=error.fatal() or error.code() == FATAL)
        if decision.rebuild:
            self._shutter.fatal = True
            raise QueueFullError("the producer is being made anew") from None
        return Report(was_never_sent(decision), code=error.code(), detail=error.name() or "unknown")
