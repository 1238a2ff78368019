"""Langfuse 4.16's public API in its default write mode (``events_only``), as far as tracebridge needs it.

Served: OTLP traces in, health, ready, projects, v2 observations, deletion of a trace, the 207 of the old
ingestion route, and the 404 of the routes that v4 no longer has. Not served, answered with 501: scores,
metrics v2, models, prompts, datasets, score configs. All else is an unknown route, 404.

Unlike the real server, a lost request takes no other request of the same second with it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tracebridge.devserver import otlp
from tracebridge.devserver.langfuse_answer import observation_json
from tracebridge.devserver.langfuse_ingest import observations
from tracebridge.devserver.langfuse_query import ObservationQuery, RefusedError, cursor, iso, parse_query
from tracebridge.devserver.store import Observation, Store
from tracebridge.testing.faults import Fault
from tracebridge.testing.faulty import copies_to_store, fault_of

VERSION = "4.16.0"
PROJECT_ID = "proj-dev"
ORGANIZATION_ID = "org-dev"

_GONE = (
    "This endpoint is not available on deployments running in Langfuse v4 events_only mode. "
    "Learn more about Langfuse v4 at: https://langfuse.com/docs/v4"
)
_GONE_ROUTES = (
    "/api/public/traces",
    "/api/public/traces/{id}",
    "/api/public/sessions",
    "/api/public/sessions/{id}",
    "/api/public/observations",
    "/api/public/observations/{id}",
    "/api/public/v2/scores",
    "/api/public/metrics",
    "/api/public/metrics/daily",
)
_UNSERVED_ROUTES = (
    "/api/public/v3/scores",
    "/api/public/v2/metrics",
    "/api/public/models",
    "/api/public/v2/prompts",
    "/api/public/v2/datasets",
    "/api/public/score-configs",
)
_REFUSED_EVENT = (
    'Event type "{}" is not accepted by /api/public/ingestion when LANGFUSE_MIGRATION_V4_WRITE_MODE is '
    "events_only. This endpoint only accepts score and log events. Upgrade the client or integration to a "
    "v4-compatible SDK or OTLP ingestion path. As a temporary migration bridge, set "
    "LANGFUSE_MIGRATION_V4_WRITE_MODE=dual on both the web and worker services and redeploy. Docs: "
    "https://langfuse.com/self-hosting/upgrade/upgrade-guides/upgrade-v3-to-v4"
)
_MAX_INGESTION_VERSION = 4

Handler = Callable[[Request], Awaitable[Response]]


class Credentials(msgspec.Struct, frozen=True):
    """The one project's key pair."""

    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Credentials(public_key={self.public_key!r}, secret_key=<hidden>)"


def routes(store: Store, credentials: Credentials) -> list[Route]:
    """All routes of the Langfuse side."""

    def protected(handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            refusal = authorization_refusal(request.headers.get("authorization"), credentials)
            return refusal or await handler(request)

        return guarded

    ingest = _Ingest(store, credentials)
    reader = _Reader(store)
    return [
        Route("/api/public/health", _methods(GET=_healthy)),
        Route("/api/public/ready", _methods(GET=_healthy)),
        Route("/api/public/projects", _methods(GET=protected(_projects))),
        Route("/api/public/otel/v1/traces", _methods(POST=protected(ingest.export))),
        Route("/api/public/otel/v1/metrics", _methods()),
        Route("/api/public/v2/observations", _methods(GET=protected(reader.observations))),
        Route("/api/public/ingestion", _methods(POST=protected(_old_ingestion))),
        Route("/api/public/traces/{id}", protected(reader.delete_trace), methods=["DELETE"]),
        Route("/api/public/scores", _gone, methods=["GET"]),
        Route("/api/public/scores", _unserved, methods=["POST"]),
        *(Route(path, _any(_gone)) for path in _GONE_ROUTES),
        *(Route(path, _any(_unserved)) for path in _UNSERVED_ROUTES),
    ]


def answer(body: Any, status: int = 200) -> Response:
    """A JSON answer with Langfuse's content type."""
    content_type = {"content-type": "application/json; charset=utf-8"}
    return Response(msgspec.json.encode(body), status, content_type)


def not_found(request: Request, error: Exception) -> Response:
    """What an unknown route answers: a page, not JSON."""
    return HTMLResponse("<!DOCTYPE html><title>404: This page could not be found.</title>", 404)


def authorization_refusal(header: str | None, credentials: Credentials) -> Response | None:
    """The 401 or 403 for these credentials, or None when they are right."""
    if not header:
        return answer({"message": "No authorization header"}, 401)
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "bearer" and token == credentials.public_key:
        return answer({"message": "Access denied - insufficient permissions for this endpoint"}, 403)
    expected = f"{credentials.public_key}:{credentials.secret_key}".encode()
    try:
        given = base64.b64decode(token, validate=True)
    except binascii.Error:
        given = b""
    if scheme.lower() != "basic" or not hmac.compare_digest(given, expected):
        return answer({"message": "Invalid credentials. Confirm that you've configured the correct host."}, 401)
    return None


class _AnyMethod:
    """An endpoint for every method: Starlette adds HEAD or refuses methods for plain functions."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        response = await self._handler(Request(scope, receive))
        await response(scope, receive, send)


def _any(handler: Handler) -> _AnyMethod:
    return _AnyMethod(handler)


def _methods(**handlers: Handler) -> _AnyMethod:
    async def dispatch(request: Request) -> Response:
        handler = handlers.get(request.method)
        if handler is None:
            return answer({"message": "Method not allowed", "error": "MethodNotAllowedError"}, 405)
        return await handler(request)

    return _AnyMethod(dispatch)


async def _healthy(request: Request) -> Response:
    return answer({"status": "OK", "version": VERSION})


async def _projects(request: Request) -> Response:
    organization = {"id": ORGANIZATION_ID, "name": "Development"}
    project = {"id": PROJECT_ID, "name": "Development", "organization": organization, "metadata": {}}
    return answer({"data": [project]})


async def _gone(request: Request) -> Response:
    return answer({"message": _GONE}, 404)


async def _unserved(request: Request) -> Response:
    return answer({"message": "The development backend does not serve this route of Langfuse."}, 501)


async def _old_ingestion(request: Request) -> Response:
    try:
        batch = (await request.json())["batch"]
        errors = [_event_error(event) for event in batch]
    except (ValueError, KeyError, TypeError):
        return answer({"message": "Invalid request data", "errors": ["batch must be an array of events"]}, 400)
    return answer({"successes": [], "errors": errors}, 207)


def _event_error(event: Mapping[str, Any]) -> dict[str, Any]:
    kind = event["type"]
    if kind in ("score-create", "sdk-log"):
        return {
            "id": event["id"],
            "status": 501,
            "message": "The development backend keeps no scores and logs.",
        }
    return {
        "id": event["id"],
        "status": 400,
        "message": "Event type not accepted",
        "error": _REFUSED_EVENT.format(kind),
    }


# OTLP in


class _Ingest:
    def __init__(self, store: Store, credentials: Credentials) -> None:
        self._store = store
        self._public_key = credentials.public_key

    async def export(self, request: Request) -> Response:
        body = await request.body()
        version = request.headers.get("x-langfuse-ingestion-version", "")
        if re.fullmatch(r"\d+", version) and int(version) > _MAX_INGESTION_VERSION:
            message = (
                f'Unsupported x-langfuse-ingestion-version: "{version}". Maximum supported: "{_MAX_INGESTION_VERSION}".'
            )
            return answer({"error": message}, 400)
        return await run_in_threadpool(self._store_export, body, dict(request.headers), fault_of(request.scope))

    def _store_export(self, body: bytes, headers: Mapping[str, str], fault: Fault) -> Response:
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in ("application/json", "application/x-protobuf"):
            return answer({"error": "Invalid content type"}, 400)
        try:
            body = otlp.decompressed(body, headers.get("content-encoding", ""))
            decode = _decoded_json if kind == "application/json" else _decoded_protobuf
            refusal, received = decode(body)
        except otlp.UndecodableError as error:
            return answer({"error": _UNDECODABLE[error.what]}, 400)
        if refusal is not None:
            return answer({"error": refusal}, 400)
        if received is None:
            return answer({})
        now_ms = time.time_ns() // 1_000_000
        try:
            rows = observations(received(), now_ms, now_ms + int(fault.visibility_lag_s * 1000))
        except (otlp.UnstorableError, AttributeError, KeyError, OverflowError, TypeError, ValueError):
            # What the worker cannot convert is lost after a 200, whatever the reason.
            rows = []
        for _ in range(copies_to_store(fault)):
            self._store.add_observations(rows, in_order=fault.in_order)
        return answer(_queue_job(self._public_key, headers))


_UNDECODABLE = {
    "compression": "Failed to decompress request body",
    "json": "Failed to parse OTel JSON Trace",
    "protobuf": "Failed to parse OTel Protobuf Trace",
}


def _decoded_json(body: bytes) -> tuple[str | None, Callable[[], Any] | None]:
    tree = otlp.parse_json(body)
    if not isinstance(tree, dict) or not tree.get("resourceSpans"):
        return None, None
    refusal = otlp.rejection(tree)
    if otlp.has_lone_surrogate(body, tree):
        return refusal, lambda: iter(())
    return refusal, lambda: otlp.received_from_json(tree)


def _decoded_protobuf(body: bytes) -> tuple[str | None, Callable[[], Any] | None]:
    message = otlp.parse_protobuf(body)
    if not message.resource_spans:
        return None, None
    return otlp.message_rejection(message), lambda: otlp.received_from_message(message)


def _queue_job(public_key: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The accepted request's queue job, which is what Langfuse answers."""
    now = datetime.now(UTC)
    timestamp = int(now.timestamp() * 1000)
    sent = ",".join(f"langfuse.header.{k}={v}" for k, v in headers.items() if k.startswith("x-langfuse-"))
    surface = (
        "langfuse.clickhouse.surface=publicapi,langfuse.clickhouse.route=POST%20%2Fapi%2Fpublic%2Fotel%2Fv1"
        f"%2Ftraces,langfuse.project.id={PROJECT_ID}"
    )
    payload = {
        "data": {
            "fileKey": f"events/otel/{PROJECT_ID}/{now:%Y/%m/%d/%H/%M}/{uuid.uuid4()}.json",
            "publicKey": public_key,
        },
        "authCheck": {
            "validKey": True,
            "scope": {"projectId": PROJECT_ID, "accessLevel": "project", "orgId": ORGANIZATION_ID},
        },
        "sdkName": headers.get("x-langfuse-sdk-name", "unknown"),
        "sdkVersion": headers.get("x-langfuse-sdk-version", "unknown"),
        "ingestionVersion": headers.get("x-langfuse-ingestion-version", ""),
    }
    return {
        "name": "otel-ingestion-job",
        "data": {
            "id": str(uuid.uuid4()),
            "timestamp": iso(timestamp),
            "name": "otel-ingestion-job",
            "payload": payload,
        },
        "opts": {
            "attempts": 6,
            "removeOnComplete": True,
            "removeOnFail": 100000,
            "backoff": {"type": "exponential", "delay": 5000},
            "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            "baggage": f"{sent},{surface}" if sent else surface,
        },
        "id": str(timestamp),
        "progress": 0,
        "returnvalue": None,
        "stacktrace": None,
        "priority": 0,
        "attemptsStarted": 0,
        "attemptsMade": 0,
        "stalledCounter": 0,
        "timestamp": timestamp,
        "queueQualifiedName": "bull:otel-ingestion-queue",
    }


# Observations out


class _Reader:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def observations(self, request: Request) -> Response:
        try:
            query = parse_query(request.query_params.multi_items())
        except RefusedError as refused:
            return answer(refused.body, 400)
        return await run_in_threadpool(self._page, query)

    async def delete_trace(self, request: Request) -> Response:
        await run_in_threadpool(self._store.delete_observations, request.path_params["id"])
        return answer({"message": "Trace deleted successfully"})

    def _page(self, query: ObservationQuery) -> Response:
        rows = self._store.observations(query.where, query.limit + 1)
        page = rows[: query.limit]
        meta = {}
        if len(rows) > len(page) and page:
            meta = {"cursor": cursor(page[-1].start_ms, page[-1].trace_id, page[-1].id)}
        if query.fields & {"io", "metadata"} and page:
            _share_content(page, self._store.copies(sorted({row.trace_id for row in page})))
        return answer({"data": [observation_json(row, query, PROJECT_ID) for row in page], "meta": meta})


def _share_content(page: list[Observation], copies: Mapping[tuple[str, str, int], list[Observation]]) -> None:
    """Give all copies of an observation the content of one of them.

    The real server takes input, output and metadata from an arbitrary copy; here it is the middle one.
    """
    for row in page:
        same = copies.get((row.trace_id, row.id, row.start_ms))
        if same:
            source = same[len(same) // 2]
            row.input, row.output, row.metadata = source.input, source.output, source.metadata
