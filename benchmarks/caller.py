"""What recording costs the agent: the time on the caller's thread of an LLM pair and of a tool pair.

    python benchmarks/caller.py [--quick] [--hanging]

The floor is what no recorder of whole events can do without: one msgspec encode and one `write(2)` an event. Every
other line does the same work: tracebridge with JSONL alone, with all sinks on and nothing to deliver, and while a
backlog is delivered, by its thread and by the process of `delivery: process`; the Langfuse SDK; and the OpenTelemetry
SDK with a BatchSpanProcessor. Backends are development backends on loopback, in a process of their own. The ratio is to
the floor as it was measured just before and after the line, without anything in the background.

`--hanging` measures one thing only: what a single event costs while one sink of two hangs for ever in every request,
beside the same with two that work and without the second, in turns; and whether every event arrives at the other.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tracebridge import Tracer
from tracebridge.delivery.backlog import left_of

MESSAGES = [{"role": "user" if number % 2 else "assistant", "content": "x" * 400} for number in range(5)]
ANSWER = "y" * 600
TOKENS = {"prompt": 512, "completion": 150}
ARGUMENTS = {"query": "flights from ZRH to LIS", "limit": 5}
RESULT = "z" * 200

BURST = 100
PAUSE_S = 0.005

SERVER = """
import sys
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault, Faults
faults = [Fault(route="POST /api/public/otel/*", hang=True)] if "hangs" in sys.argv else []
with DevServer(faults=Faults(faults)) as server:
    print(server.url, server.public_key, server.secret_key, flush=True)
    sys.stdin.read()
"""
ROUNDS = 5
"""How often the two are measured in turns, with `--hanging`."""


class Work(NamedTuple):
    """What one recorder does for a pair of events."""

    llm: Callable[[], object]
    tool: Callable[[], object]


class Backend(NamedTuple):
    """Where a development backend is."""

    url: str
    public_key: str
    secret_key: str


class Cost(NamedTuple):
    """The nanoseconds of each pair."""

    llm: list[int]
    tool: list[int]


def pause() -> None:
    """Wait as an agent does, which also lets background threads run."""
    time.sleep(PAUSE_S)


def measure(work: Work, pairs: int, between: Callable[[], object] = pause) -> Cost:
    """Time `pairs` pairs of each kind, in bursts."""
    cost = Cost([], [])
    clock = time.perf_counter_ns
    gc.collect()
    while len(cost.llm) < pairs:
        for kind, times in zip(work, cost, strict=True):
            for _ in range(BURST):
                begun = clock()
                kind()
                times.append(clock() - begun)
        between()
    return cost


@contextmanager
def floor(folder: Path) -> Iterator[Work]:
    """One msgspec encode and one write an event."""
    encode = msgspec.json.Encoder().encode
    descriptor = os.open(folder / "floor.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def event(event_type: str, data: dict[str, Any]) -> None:
        line = {
            "timestamp": "2026-02-06T22:10:00.123456Z",
            "event_type": event_type,
            "session_id": "user-123",
            "run_id": "run-abc123def456",
            "turn": 1,
            "duration_ms": None,
            "data": data,
            "seq": 1,
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "span_id": "b7ad6b7169203331",
            "parent_id": "00f067aa0ba902b7",
        }
        os.write(descriptor, encode(line) + b"\n")

    def llm() -> None:
        event("llm.request", {"model": "gpt-4o", "messages": MESSAGES})
        event("llm.response", {"model": "gpt-4o", "content": ANSWER, "tokens": TOKENS})

    def tool() -> None:
        event("tool.call", {"tool_name": "search", "args": ARGUMENTS})
        event("tool.result", {"tool_name": "search", "success": True, "result": RESULT})

    yield Work(llm, tool)
    os.close(descriptor)


@contextmanager
def tracebridge_log(tracer: Tracer, session_id: str = "benchmark") -> Iterator[Work]:
    """The API of the original."""

    def llm() -> None:
        session.log_llm_request(model="gpt-4o", messages=MESSAGES)
        session.log_llm_response(model="gpt-4o", content=ANSWER, tokens=TOKENS)

    def tool() -> None:
        session.log_tool_call("search", ARGUMENTS)
        session.log_tool_result("search", True, RESULT)

    with tracer.trace_session(session_id) as session, tracer.trace_turn(session, "benchmark"):
        yield Work(llm, tool)


@contextmanager
def tracebridge_blocks(tracer: Tracer) -> Iterator[Work]:
    """Calls as `with` blocks."""

    def llm() -> None:
        with session.llm_call("gpt-4o", MESSAGES) as call:
            call.finish(ANSWER, tokens=TOKENS)

    def tool() -> None:
        with session.tool_call("search", ARGUMENTS) as call:
            call.finish(RESULT)

    with tracer.trace_session("blocks") as session, tracer.trace_turn(session, "benchmark"):
        yield Work(llm, tool)


@contextmanager
def langfuse_sdk(backend: Backend) -> Iterator[Work]:
    """The Langfuse SDK as its documentation uses it."""
    from langfuse import Langfuse

    client: Any = Langfuse(public_key=backend.public_key, secret_key=backend.secret_key, base_url=backend.url)

    def llm() -> None:
        call = client.start_observation(name="llm", as_type="generation", model="gpt-4o", input=MESSAGES)
        call.update(output=ANSWER, usage_details={"input": 512, "output": 150})
        call.end()

    def tool() -> None:
        call = client.start_observation(name="search", as_type="tool", input=ARGUMENTS)
        call.update(output=RESULT)
        call.end()

    with client.start_as_current_observation(name="turn", as_type="agent"):
        yield Work(llm, tool)
    client.shutdown()


@contextmanager
def otel_sdk(backend: Backend) -> Iterator[Work]:
    """The OpenTelemetry SDK with the names of its GenAI conventions."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{backend.url}/v1/traces")))
    tracer = provider.get_tracer("benchmark")

    def llm() -> None:
        span = tracer.start_span(
            "chat gpt-4o",
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.input.messages": json.dumps(MESSAGES),
            },
        )
        span.set_attribute("gen_ai.output.messages", json.dumps([{"role": "assistant", "content": ANSWER}]))
        span.set_attribute("gen_ai.usage.input_tokens", 512)
        span.set_attribute("gen_ai.usage.output_tokens", 150)
        span.end()

    def tool() -> None:
        span = tracer.start_span(
            "execute_tool search",
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "search",
                "gen_ai.tool.call.arguments": json.dumps(ARGUMENTS),
            },
        )
        span.set_attribute("gen_ai.tool.call.result", json.dumps(RESULT))
        span.end()

    with tracer.start_as_current_span("turn"):
        yield Work(llm, tool)
    provider.shutdown()


@contextmanager
def backend(*, hangs: bool = False) -> Iterator[Backend]:
    """A development backend in another process; one that `hangs` answers no export to LangFuse."""
    command = [sys.executable, "-c", SERVER, *(["hangs"] if hangs else [])]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield Backend(*server.stdout.readline().split())
    finally:
        server.stdin.close()
        server.wait(30)
        server.stdout.close()


def tracer_in(folder: Path, backend: Backend | None = None, delivery: str = "thread") -> Tracer:
    """A tracer with JSONL alone, or with all three sinks, that are delivered to in a thread or by a `process`."""
    sinks: dict[str, Any] = {"jsonl": {"enabled": True}}
    if backend is not None:
        keys = {"public_key": backend.public_key, "secret_key": backend.secret_key}
        sinks["langfuse"] = {"enabled": True, "host": backend.url, **keys}
        sinks["otel"] = {"enabled": True, "endpoint": backend.url}
    return Tracer({"agent_trace": {"trace_dir": str(folder), "delivery": delivery, "sinks": sinks}})


def write_backlog(folder: Path, events: int) -> None:
    """Record sessions of 100 pairs each, which nobody has delivered yet."""
    tracer = tracer_in(folder)
    for number in range(max(1, events // 204)):
        with tracebridge_log(tracer, f"backlog-{number}") as work:
            for _ in range(50):
                work.llm()
                work.tool()


class Table:
    """Measures and prints one line after another."""

    def __init__(self, folder: Path, pairs: int) -> None:
        self._folder = folder
        self._pairs = pairs
        print(f"{'µs on the thread of the caller':<34}{'LLM pair':>22}{'x floor':>9}{'tool pair':>22}{'x floor':>9}")
        print(f"{'':<34}{'p50':>11}{'p99':>11}{'p50':>9}{'p50':>11}{'p99':>11}{'p50':>9}")

    def floor(self) -> Cost:
        """Measure the floor."""
        with floor(self._folder) as work:
            return measure(work, self._pairs)

    def line(self, name: str, before: Cost, cost: Cost) -> None:
        """Print what was measured, beside the floor before and after it."""
        after = self.floor()
        columns = ""
        for times, *floors in zip(cost, before, after, strict=True):
            if len(times) < BURST:
                columns += f"{'-':>11}{'-':>11}{'-':>9}"
                continue
            median = statistics.median(times) / 1000
            p99 = sorted(times)[len(times) * 99 // 100] / 1000
            lowest = statistics.mean(statistics.median(times) for times in floors) / 1000
            columns += f"{median:>11.1f}{p99:>11.1f}{median / lowest:>9.2f}"
        print(f"{name:<34}{columns}", flush=True)


def run(folder: Path, pairs: int, backlog: int) -> None:
    """Measure everything, one after another."""
    table = Table(folder, pairs)
    warm_up = table.floor()
    table.line("floor", warm_up, table.floor())

    before = table.floor()
    with tracebridge_log(tracer_in(folder / "jsonl")) as work:
        cost = measure(work, pairs)
    table.line("tracebridge, JSONL", before, cost)

    before = table.floor()
    with tracebridge_blocks(tracer_in(folder / "blocks")) as work:
        cost = measure(work, pairs)
    table.line("tracebridge, JSONL, with blocks", before, cost)

    with backend() as server:
        before = table.floor()
        tracer = tracer_in(folder / "idle", server)
        with tracebridge_log(tracer) as work:
            # the delivery thread imports its packages first, once in the life of a process
            tracer.flush(10)
            # what a burst records is delivered before the next one
            cost = measure(work, pairs // 4, between=lambda: tracer.flush(10))
        tracer.shutdown(60)
        table.line("tracebridge, all sinks idle", before, cost)

    for delivery in ("thread", "process"):
        with backend() as server:
            write_backlog(folder / delivery, backlog)
            before = table.floor()
            tracer = tracer_in(folder / delivery, server, delivery)
            begun = time.monotonic()
            with tracebridge_log(tracer) as work:
                # until the packages are imported and the backlog is really on its way
                tracer.flush(1)
                cost = measure(work, pairs)
            took_s = time.monotonic() - begun
            left = tracer.flush(0)
            # before the floor is measured again, nothing may be at work in the background
            tracer.flush(120)
            tracer.shutdown(120)
            table.line(f"tracebridge, a backlog by a {delivery}", before, cost)
            print(f"{'':<4}after these {took_s:.1f} s, {left:,} events were still to be delivered")

    for name, sdk in (("Langfuse SDK", langfuse_sdk), ("OpenTelemetry SDK", otel_sdk)):
        with backend() as server:
            before = table.floor()
            with sdk(server) as work:
                cost = measure(work, pairs)
            table.line(name, before, cost)


def measure_hanging(folder: Path, events: int) -> None:
    """Time single events with a sink that hangs for ever beside a good one, and without it, in turns."""
    print(f"{'µs on the thread of the caller, one event':<44}{'p50':>9}{'p99':>9}{'p99.9':>9}")
    names = ("one sink that works", "two that work", "one that works, one that hangs")
    lines: dict[str, list[int]] = {name: [] for name in names}
    with backend() as good, backend(hangs=True) as hanging:
        for number in range(ROUNDS):
            for (name, times), other in zip(lines.items(), (None, good, hanging), strict=True):
                times.extend(_times_of_events(folder / f"{name}-{number}", good, other, events // ROUNDS))
    for name, times in lines.items():
        ordered = sorted(times)
        shares = (ordered[len(ordered) * share // 1000] / 1000 for share in (500, 990, 999))
        print(f"{name:<44}" + "".join(f"{value:>9.1f}" for value in shares))
    print("    every event arrived at the sink that works, in each round")


def _times_of_events(folder: Path, good: Backend, other: Backend | None, events: int) -> list[int]:
    sinks: dict[str, Any] = {"otel": {"endpoint": good.url}}
    if other is not None:
        keys = {"public_key": other.public_key, "secret_key": other.secret_key}
        sinks["langfuse"] = {"host": other.url, "timeout": 3600, **keys}
    tracer = Tracer({"agent_trace": {"trace_dir": str(folder), "sinks": sinks, "shutdown_timeout": 0}})
    clock = time.perf_counter_ns
    times: list[int] = []
    with tracer.trace_session("hanging") as session, tracer.trace_turn(session, "benchmark"):
        # until the packages are imported and the first request is out
        session.log_tool_result("search", True, RESULT)
        tracer.flush(1.5)
        gc.collect()
        while len(times) < events:
            for _ in range(BURST):
                begun = clock()
                session.log_tool_result("search", True, RESULT)
                times.append(clock() - begun)
            pause()
    _wait_for_the_good_one(tracer)
    tracer.shutdown(0)
    return times


def _wait_for_the_good_one(tracer: Tracer) -> None:
    good = msgspec.structs.replace(tracer.settings, sinks=(tracer.settings.sinks[0],))
    deadline = time.monotonic() + 60
    while left := left_of(good.sinks[0], good.trace_dir, None).events:
        tracer.flush(0.2)
        assert time.monotonic() < deadline, f"{left} events did not arrive at the sink that works"


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 pairs and a backlog of 5,000 events")
    parser.add_argument("--hanging", action="store_true", help="one event, while one sink of two hangs, and without")
    arguments = parser.parse_args()
    # the SDKs tell of every queue that overflows, which is not what is measured here
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.hanging:
            measure_hanging(Path(folder), 10_000 if arguments.quick else 100_000)
            return
        run(Path(folder), *((2_000, 5_000) if arguments.quick else (20_000, 50_000)))


if __name__ == "__main__":
    main()
