"""A plain WSGI service: `gunicorn --preload --workers 2 examples.wsgi_app:app`."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from postroom import get_service

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    event_id = environ.get("HTTP_IDEMPOTENCY_KEY") or str(uuid.uuid4())
    receipt = get_service().publish_event(body, event_type="user_event", event_id=event_id, timeout=1.0)
    # Written ahead it is safe by now, and nobody waits for Kafka; else this waits for the outcome.
    is_safe = receipt.safe or receipt.result(timeout=25.0).is_safe
    headers = [("Content-Type", "application/json"), *([] if is_safe else [("Retry-After", "10")])]
    start_response("201 Created" if is_safe else "503 Service Unavailable", headers)
    return [json.dumps({"event_id": event_id}).encode()]
