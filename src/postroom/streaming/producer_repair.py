"""What the poll thread mends: a producer that met a fatal error, and what is behind a record that was not taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.streaming.refused_batches import RefusedBatches

if TYPE_CHECKING:
    from postroom.streaming.client_parts import ClientParts
    from postroom.streaming.queue_emptying import QueueEmptying

# How long what is on the wire may still be answered, when the rest is called back; and after a fatal error.
_ANSWERS_S = 1.0
_ANSWERS_AFTER_FATAL_S = 0.5


class ProducerRepair:
    """Mends what the shutter says is wrong. For the poll thread, which alone is sure to bring reports."""

    def __init__(self, parts: ClientParts, emptying: QueueEmptying) -> None:
        self._life = parts.life
        self._records = parts.records
        self._shutter = parts.shutter
        self._reports = parts.reports
        self._polling = parts.polling
        self._clock = parts.clock
        self._metrics = parts.metrics
        self._log = parts.log
        self._emptying = emptying
        self._refused = RefusedBatches(parts, emptying)

    def rebuild(self) -> None:
        """Put a new producer in the place of one that met a fatal error; what it had taken is reported first.

        One that meets the next fatal error at once (a missing right, say) is replaced after a pause, which grows.
        """
        now = self._clock.monotonic()
        is_due = self._life.is_rebuild_due()
        if not is_due and not self._records:
            return
        problem = self._life.watch.last_problem
        if is_due:
            self._log.error("producer_fatal", operation="rebuild", open=len(self._records), error=problem)
            self._metrics.record_error("producer_fatal")
        with self._emptying.emptied_queue() as producer:
            self._emptying.purge(producer, _ANSWERS_AFTER_FATAL_S)
            if not is_due:
                return
            with self._polling.lock, self._shutter.gate:
                self._life.replace(problem)
        self._life.note_rebuild(now)
        self._life.end_other()

    def mend(self) -> None:
        """Let nothing overtake a record that was not taken: call back what is behind, find who is at fault."""
        with self._emptying.emptied_queue() as producer:
            try:
                if self._reports.hands_over:
                    self._shutter.recalling = True
                    self._emptying.empty(producer, _ANSWERS_S)
                if self._shutter.suspects and not self._shutter.fatal:
                    self._refused.send_alone()
                self._emptying.let_settle()
            finally:
                self._shutter.recalling = False
