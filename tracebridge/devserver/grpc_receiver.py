"""OTLP over gRPC into the same store, under the same fault plan."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from tracebridge.devserver.errors import DevServerError
from tracebridge.devserver.jaeger_api import store_export
from tracebridge.devserver.store import Store
from tracebridge.testing.faults import Fault, Faults
from tracebridge.testing.faulty import RequestCounts

ROUTE = "GRPC /opentelemetry.proto.collector.trace.v1.TraceService/Export"

_CODES: Mapping[int, grpc.StatusCode] = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.UNIMPLEMENTED,
    HTTPStatus.REQUEST_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
}
_WORKERS = 8
_LAST_PORT = 65_535
_MAX_MESSAGE = 256 * 1024 * 1024


class _TraceService(TraceServiceServicer):
    """HTTP statuses of a fault become the gRPC codes that mean the same; a reset becomes UNAVAILABLE."""

    def __init__(self, store: Store, faults: Faults, counts: RequestCounts) -> None:
        self._store = store
        self._faults = faults
        self._counts = counts

    def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        self._counts.add(ROUTE)
        body = request.SerializeToString() if self._faults.looks_into_bodies else b""
        fault = self._faults.decide(ROUTE, body) or Fault()
        if fault.latency_s:
            time.sleep(fault.latency_s)
        if fault.hang:
            self._faults.hold().result()
        if fault.status is not None:
            context.abort(_CODES.get(fault.status, grpc.StatusCode.UNAVAILABLE), fault.body)
        if fault.reset == "before":
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        answer = store_export(self._store, request, fault)
        if fault.reset == "after" or fault.truncate:
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        return answer


def start_grpc(host: str, port: int, store: Store, faults: Faults, counts: RequestCounts) -> tuple[grpc.Server, int]:
    """Serve OTLP/gRPC in the background; returns the server and its port."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not 0 <= port <= _LAST_PORT:
        # gRPC would take what is left of it after a division
        raise DevServerError(f"OTLP/gRPC cannot listen on {address}: ports end at {_LAST_PORT}; choose another port")
    options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_MESSAGE)]
    server = grpc.server(ThreadPoolExecutor(_WORKERS, "devserver-grpc"), options=options)
    service = _TraceService(store, faults, counts)
    add_TraceServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise DevServerError(f"OTLP/gRPC cannot listen on {address}: {error}; choose another port") from error
    server.start()
    return server, bound
