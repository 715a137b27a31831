"""A Celery worker that publishes: `celery -A examples.celery_app worker`."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task
from celery.signals import worker_process_shutdown

from postroom import DeadLettered, Delivered, Failed, Refused, Spooled, get_service

app = Celery("plays", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"))


# acks_late: a task that dies half way is done again, under the same event id.
@app.task(bind=True, acks_late=True, max_retries=20)  # type: ignore[untyped-decorator]  # Celery has no types
def publish_play(self: Task, event: dict[str, Any], event_id: str) -> str:
    """Publish one event; whoever enqueues the task makes the id, so that it stays the same in every try."""
    outcome = get_service().publish_event(event, event_type="user_event", event_id=event_id).result(timeout=60)
    match outcome:
        case Delivered() | Spooled() | DeadLettered():  # safe: a dead letter waits for repair, not for another try
            return type(outcome).__name__
        case Refused(retry_after_s=None):
            raise RuntimeError(str(outcome.error()))
        case Refused() | Failed():
            wait_s = 2 ** min(self.request.retries, 6)
            raise self.retry(countdown=wait_s, exc=RuntimeError(str(outcome.error())))


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]  # as above
def close_service(**_: Any) -> None:
    """Wait for what is on its way: a worker's process ends without Python's own end-of-program work."""
    get_service().close()
