"""An OTLP/gRPC server that answers each export as a test scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

Answer = Callable[[bytes, grpc.ServicerContext], bytes]
"""Gets the request, and returns the answer or ends the call with a status."""


@contextmanager
def collector(answer: Answer, port: int = 0, tls: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Serve OTLP, at a free port unless told which; gives the URL."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            assert handler_call_details.method.endswith("TraceService/Export")
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    address = f"127.0.0.1:{port}"
    bound = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, tls)
    server.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{bound}"
    finally:
        server.stop(grace=0).wait()


def failing(code: grpc.StatusCode, details: str = "", retry: RetryInfo | None = None) -> Answer:
    """End every call with this status."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        if retry is not None:
            detail = AnyMessage()
            detail.Pack(retry)
            status = Status(code=code.value[0], message=details, details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, details)
        return b""

    return answer
