"""A Django view that writes a row and publishes an event once the row is there."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from django.db import models, transaction  # type: ignore[import-untyped]  # Django comes without types
from django.http import JsonResponse  # type: ignore[import-untyped]  # as above

from postroom import get_service

if TYPE_CHECKING:
    from django.http import HttpRequest


class Play(models.Model):  # type: ignore[misc]  # as above
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    user_id = models.CharField(max_length=100)
    started_ms = models.BigIntegerField()

    class Meta:
        app_label = "plays"

    def __str__(self) -> str:
        return str(self.id)

    def publish(self) -> None:
        """Hand the event in; the row's id is the event's id, so that handing it in again is no second event."""
        event = {"user_id": self.user_id, "timestamp": self.started_ms, "action": "start"}
        get_service().publish_event(event, event_type="user_event", event_id=str(self.id), timeout=0.5)


def start_play(request: HttpRequest) -> JsonResponse:
    data = json.loads(request.body)
    with transaction.atomic():
        play = Play.objects.create(user_id=data["user_id"], started_ms=data["timestamp"])
        # Not before the commit: an event about a row that was rolled back is an event about nothing.
        transaction.on_commit(play.publish, robust=True)
    return JsonResponse({"id": str(play.id)}, status=201)
