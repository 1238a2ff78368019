"""Routes under ``/dev/``: the fault plan, request counts, and defects planted in what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tracebridge.devserver import otlp
from tracebridge.devserver.errors import DevServerError
from tracebridge.devserver.langfuse_query import milliseconds
from tracebridge.devserver.store import Store
from tracebridge.testing.faults import FaultError, FaultPlan, Faults
from tracebridge.testing.faulty import RequestCounts

_PLAIN_FIELDS = {
    "parentObservationId": "parent_id",
    "type": "type",
    "name": "name",
    "level": "level",
    "statusMessage": "status_message",
    "version": "version",
    "release": "release",
    "environment": "environment",
    "input": "input",
    "output": "output",
    "model": "model",
    "modelParameters": "model_parameters",
    "usageDetails": "usage",
    "costDetails": "cost",
    "promptName": "prompt_name",
    "promptVersion": "prompt_version",
    "userId": "user_id",
    "sessionId": "session_id",
    "isRootObservation": "is_root",
    "traceName": "trace_name",
    "tags": "tags",
    "public": "public",
}
_TIME_FIELDS = {
    "startTime": "start_ms",
    "endTime": "end_ms",
    "completionStartTime": "completion_start_ms",
}


_STATUS_CODES = (Status.STATUS_CODE_UNSET, Status.STATUS_CODE_OK, Status.STATUS_CODE_ERROR)
_Nanoseconds = Annotated[int, msgspec.Meta(ge=0)]


class _ChangeError(DevServerError):
    """A change names what cannot be changed."""


class _StatusChange(msgspec.Struct, forbid_unknown_fields=True):
    code: Literal[0, 1, 2] = 0
    message: str = ""


class _SpanChange(msgspec.Struct, forbid_unknown_fields=True):
    """What `PATCH /dev/otlp/...` takes; an attribute set to null is removed."""

    name: str | None = None
    kind: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    parentSpanId: str | None = None
    startTimeUnixNano: _Nanoseconds | None = None
    endTimeUnixNano: _Nanoseconds | None = None
    status: _StatusChange | None = None
    attributes: dict[str, Any] = {}


def routes(store: Store, faults: Faults, counts: RequestCounts) -> list[Route]:
    """All development routes."""
    control = _Control(faults, counts)
    defects = _Defects(store)
    return [
        Route("/dev/faults", control.read_faults, methods=["GET"]),
        Route("/dev/faults", control.replace_faults, methods=["PUT"]),
        Route("/dev/faults", control.clear_faults, methods=["DELETE"]),
        Route("/dev/faults/release", control.release, methods=["POST"]),
        Route("/dev/requests", control.read_requests, methods=["GET"]),
        Route("/dev/requests", control.reset_requests, methods=["DELETE"]),
        Route("/dev/langfuse/{trace_id}/{id}", defects.change_observation, methods=["PATCH"]),
        Route("/dev/langfuse/{trace_id}/{id}", defects.remove_observation, methods=["DELETE"]),
        Route("/dev/otlp/{trace_id}/{id}", defects.change_span, methods=["PATCH"]),
        Route("/dev/otlp/{trace_id}/{id}", defects.remove_span, methods=["DELETE"]),
    ]


def _answer(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _changed(count: int) -> Response:
    if not count:
        return _answer({"message": "Nothing is stored under these ids."}, 404)
    return _answer({"changed": count})


class _Control:
    def __init__(self, faults: Faults, counts: RequestCounts) -> None:
        self._faults = faults
        self._counts = counts

    async def read_faults(self, request: Request) -> Response:
        plan = msgspec.to_builtins(self._faults.plan)
        return _answer(plan | {"struck": self._faults.struck, "held": self._faults.held})

    async def replace_faults(self, request: Request) -> Response:
        try:
            self._faults.replace(FaultPlan.from_json(await request.body()))
        except FaultError as error:
            return _answer({"message": str(error)}, 400)
        return await self.read_faults(request)

    async def clear_faults(self, request: Request) -> Response:
        self._faults.clear()
        return await self.read_faults(request)

    async def release(self, request: Request) -> Response:
        self._faults.release()
        return await self.read_faults(request)

    async def read_requests(self, request: Request) -> Response:
        return _answer(self._counts.snapshot())

    async def reset_requests(self, request: Request) -> Response:
        self._counts.reset()
        return _answer({})


class _Defects:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def change_observation(self, request: Request) -> Response:
        return await self._change(request, self._update_observation)

    async def change_span(self, request: Request) -> Response:
        return await self._change(request, self._update_span)

    async def remove_observation(self, request: Request) -> Response:
        return _changed(await run_in_threadpool(self._store.delete_observations, *_ids(request)))

    async def remove_span(self, request: Request) -> Response:
        return _changed(await run_in_threadpool(self._store.delete_span, *_ids(request)))

    async def _change(self, request: Request, update: Callable[[str, str, bytes], int]) -> Response:
        trace_id, item_id = _ids(request)
        body = await request.body()
        try:
            return _changed(await run_in_threadpool(update, trace_id, item_id, body))
        except (_ChangeError, msgspec.DecodeError) as error:
            return _answer({"message": str(error)}, 400)

    def _update_observation(self, trace_id: str, observation_id: str, body: bytes) -> int:
        wanted = msgspec.json.decode(body, type=dict[str, Any])
        merged = wanted.pop("metadata", None)
        changes = {_field(name): _field_value(name, value) for name, value in wanted.items()}
        rows = self._store.observations_with_id(trace_id, observation_id)
        if merged is not None and rows:
            changes["metadata"] = _merged_metadata(rows[0].metadata, merged)
        if not rows or not changes:
            return len(rows)
        return self._store.update_observation(trace_id, observation_id, changes)

    def _update_span(self, trace_id: str, span_id: str, body: bytes) -> int:
        change = msgspec.json.decode(body, type=_SpanChange)
        spans = [span for span in self._store.spans(trace_id) if span.span_id == span_id]
        for stored in spans:
            span = _changed_span(Span.FromString(stored.body), change)
            new = otlp.otlp_span(span, stored.service, stored.resource, stored.scope)
            self._store.replace_span(trace_id, span_id, stored.body, new)
        return len(spans)


def _ids(request: Request) -> tuple[str, str]:
    return request.path_params["trace_id"], request.path_params["id"]


def _field(name: str) -> str:
    field = _PLAIN_FIELDS.get(name) or _TIME_FIELDS.get(name)
    if field is None:
        known = ", ".join(sorted([*_PLAIN_FIELDS, *_TIME_FIELDS, "metadata"]))
        raise _ChangeError(f"{name} cannot be changed; what can: {known}")
    return field


def _field_value(name: str, value: Any) -> Any:
    if name not in _TIME_FIELDS or value is None:
        return value
    try:
        return milliseconds(value)
    except (TypeError, ValueError):
        raise _ChangeError(f"{name} must be an ISO 8601 time with zone, not {value!r}") from None


def _merged_metadata(stored: dict[str, str], changes: dict[str, Any]) -> dict[str, str]:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in changes.items()}
    return {key: text for key, text in (stored | texts).items() if changes.get(key, "") is not None}


def _id_bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _ChangeError(f"parentSpanId must be hexadecimal, not {text!r}") from None


def _changed_span(span: Span, change: _SpanChange) -> Span:
    """The span as the change wants it."""
    for name, value in (("name", change.name), ("kind", change.kind)):
        if value is not None:
            setattr(span, name, value)
    if change.parentSpanId is not None:
        span.parent_span_id = _id_bytes(change.parentSpanId)
    if change.startTimeUnixNano is not None:
        span.start_time_unix_nano = change.startTimeUnixNano
    if change.endTimeUnixNano is not None:
        span.end_time_unix_nano = change.endTimeUnixNano
    if change.status is not None:
        span.status.CopyFrom(Status(code=_STATUS_CODES[change.status.code], message=change.status.message))
    kept = [attribute for attribute in span.attributes if attribute.key not in change.attributes]
    added = [otlp.key_value(name, value) for name, value in change.attributes.items() if value is not None]
    del span.attributes[:]
    span.attributes.extend([*kept, *added])
    return span
