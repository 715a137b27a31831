"""A FastAPI service that publishes what it is handed: `uvicorn examples.fastapi_app:app`."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from postroom import AsyncProducerService, DeadLettered, Delivered, Failed, Refused, Spooled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def create_app(post: AsyncProducerService) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with post:
            yield

    app = FastAPI(lifespan=lifespan)

    async def play(request: Request) -> JSONResponse:
        # The caller's key becomes the event's id: a request that is sent again makes no second event for consumers.
        event_id = request.headers.get("Idempotency-Key") or str(uuid.uuid4())
        told = {"event_id": event_id}
        # The body goes in as it came: postroom reads it by the contract, more strictly than a web framework.
        match await post.publish_event(await request.body(), event_type="user_event", event_id=event_id, timeout=1.0):
            case Delivered() | Spooled():
                return JSONResponse(told, 201)
            case DeadLettered(reason=reason, violations=violations):
                return JSONResponse(told | {"reason": reason, "violations": [str(one) for one in violations]}, 422)
            case Refused(reason=reason, retry_after_s=wait_s):
                if wait_s is None:  # waiting cannot help
                    return JSONResponse(told | {"reason": reason}, 400)
                return JSONResponse(told | {"reason": reason}, 503, {"Retry-After": str(int(wait_s) + 1)})
            case Failed(reason=reason):
                return JSONResponse(told | {"reason": reason}, 503, {"Retry-After": "10"})

    app.add_api_route("/plays", play, methods=["POST"])
    return app


app = create_app(AsyncProducerService())
