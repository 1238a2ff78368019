"""A webhook to test against: it keeps the events that it is sent, and takes a request as a whole or not at all."""

from __future__ import annotations

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class Receiver:
    """Remembers every event, as often as it comes."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.app = Starlette(routes=[Route("/events", self._take, methods=["POST"])])

    def ids(self) -> list[tuple[str, str]]:
        """Trace id and span id of every copy."""
        return [(trace_id, span_id) for trace_id, _, span_id in (event["id"].partition("-") for event in self.events)]

    async def _take(self, request: Request) -> Response:
        events = json.loads(await request.body())
        self.tokens.add(request.headers.get("authorization", ""))
        self.events.extend(events)
        return JSONResponse({"taken": len(events)})
