"""An agent that uses the OpenTelemetry SDK, the langfuse SDK and tracebridge, each for itself, and prints what it saw.

Run as a program: `agent.py SETTINGS`, with the path of `tracebridge.yaml`, and the addresses of the host's and of the
langfuse SDK's backend in the environment.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import grpc
import httpx
import requests
import urllib3
from langfuse import Langfuse
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tracebridge import Tracer
from tracebridge.config import load
from tracebridge.sink import Query

INSTRUMENTORS = {
    "httpx": "HTTPXClientInstrumentor",
    "requests": "RequestsInstrumentor",
    "urllib3": "URLLib3Instrumentor",
    "grpc": "GrpcInstrumentorClient",
}


def instrument() -> list[str]:
    """Install the instrumentations that are there; the SDK's own exporters know to keep out of them."""
    done = []
    for name, instrumentor in INSTRUMENTORS.items():
        if find_spec(f"opentelemetry.instrumentation.{name}") is not None:
            getattr(import_module(f"opentelemetry.instrumentation.{name}"), instrumentor)().instrument()
            done.append(name)
    return done


def work_of_the_host(url: str, grpc_endpoint: str) -> None:
    """One span of its own, and a request by each client."""
    with trace.get_tracer("host").start_as_current_span("host-request"):
        httpx.get(f"{url}/api/public/health").raise_for_status()
        requests.get(f"{url}/api/public/health", timeout=5).raise_for_status()
        assert urllib3.request("GET", f"{url}/api/public/health").status == 200
        with grpc.insecure_channel(grpc_endpoint) as channel:
            call = channel.unary_unary("/host.Service/Call", request_serializer=None, response_deserializer=None)
            try:
                call(b"", timeout=5)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNIMPLEMENTED  # noqa: PT017  # no test, an agent


def work_of_the_agent(tracer: Tracer, name: str) -> None:
    """A run of one turn with an LLM call and a tool call."""
    with tracer.trace_session(name) as session, tracer.trace_turn(session, user_input="q") as turn:
        with session.llm_call(model="gpt-4o", messages=[{"role": "user", "content": "q"}]) as call:
            call.finish(content="a", tokens={"input": 1, "output": 1})
        with session.tool_call("weather", {"city": "Oslo"}) as call:
            call.finish("cold")
        turn.output = "a"


def read_back(settings_path: str) -> dict[str, int]:
    """How many spans each sink's reader shows."""
    found = {}
    for sink in load(Path(settings_path), {}).sinks:
        if sink.sink_type is not None and sink.settings is not None and sink.sink_type.extra:
            reader = sink.sink_type.open_reader(sink.settings)
            found[sink.name] = len(list(reader.read(Query(start_ns=0, end_ns=time.time_ns()))))
            reader.close()
    return found


def main() -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "host"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{os.environ['HOST_URL']}/v1/traces")))
    trace.set_tracer_provider(provider)
    instrumented = instrument()
    langfuse = Langfuse(
        public_key=os.environ["PUBLIC_KEY"], secret_key=os.environ["SECRET_KEY"], host=os.environ["LANGFUSE_SDK_URL"]
    )
    tracer = Tracer(load(Path(sys.argv[1]), {}))

    with trace.get_tracer("host").start_as_current_span("host-outer"):
        work_of_the_host(os.environ["HOST_URL"], os.environ["HOST_GRPC"])
        with langfuse.start_as_current_observation(name="observed-by-the-sdk", as_type="generation", model="gpt-4o"):
            work_of_the_agent(tracer, "coexisting")
    left = tracer.flush(30.0)
    shown = read_back(sys.argv[1])
    tracer.shutdown(10.0)
    langfuse.flush()
    provider.force_flush()
    print(
        json.dumps(
            {
                "instrumented": instrumented,
                "provider_is_the_hosts": trace.get_tracer_provider() is provider,
                "left": left,
                "shown": shown,
                "threads": sorted(thread.name for thread in threading.enumerate() if "tracebridge" in thread.name),
            }
        )
    )


main()
