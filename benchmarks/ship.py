"""What shipping takes: spans a second, processor time a span, and memory, beside a floor and beside the SDKs.

    python benchmarks/ship.py [--spans 200000] [--events 1000000] [--sdk-spans 40000] [--round-trip-ms 50] [--only NAME]

A record is an LLM call, a tool call or a turn, two events each, 1.8 kB a span. Each line of the table is a process of
its own that sends to a server on loopback in yet another process, which counts the spans that arrive:

* `read`: the floor of reading. The lines of the journal are read and decoded, and nothing is done with them.
* `post`: the floor of sending. Ready-made requests of as many spans and bytes are posted.
* `otel`, `langfuse`: `tracebridge ship` to the one sink.
* `backfill`: `tracebridge backfill` of files of the original format, which name no ids, to the otel sink.
* `otel-sdk`: OpenTelemetry's SDK, BatchSpanProcessor and OTLPSpanExporter.
* `langfuse-sdk`: the Langfuse SDK.

The SDKs are given the same records from memory, and are set to lose nothing: a queue that is flushed before it is full.
Every line is measured with a quarter of the records and with all of them. `µs/span` is the processor time of what the
larger run has more, so that it is free of the start, and grows if the cost is not linear; `whole` is that of the larger
run from the start of its process. `MB` is the peak of both. With a round trip, each answer waits for so long.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

ROOT = Path(__file__).resolve().parent.parent
SERVER = ROOT / "benchmarks" / "loopback.py"
SPANS_A_TURN = 3
TURNS_A_SESSION = 333
REQUEST_SPANS = 700

WORDS = Random(1).choices([f"{syllable}{ending}" for syllable in "abcdefghijklmno" for ending in range(40)], k=200_300)


TEXTS = [" ".join(WORDS[begin : begin + 300])[:600] for begin in range(0, 200_000, 200)]
"""More of them than a compressor looks back on."""
QUESTION = "Which flights are there from ZRH to LIS on Friday?"
TOKENS = {"prompt": 512, "completion": 150}
ARGUMENTS = {"query": "flights from ZRH to LIS", "limit": 5}
MODEL = "gpt-4o"
TOOL = "search"
METADATA = {"plan": "pro"}


class Said(NamedTuple):
    """What is said in one turn."""

    messages: list[dict[str, str]]
    answer: str
    result: str


def said_in(turn: int) -> Said:
    """Something else in each turn."""
    texts = [TEXTS[(7 * turn + number) % len(TEXTS)] for number in range(7)]
    roles = ("assistant", "user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": text[:400]} for role, text in zip(roles, texts, strict=False)]
    return Said(messages, texts[5], texts[6][:200])


class Figures(NamedTuple):
    """What one process took."""

    spans: int
    seconds: float
    """From when it began to send, or to read, until everything was answered."""
    cpu_s: float
    """Processor time of the whole process, from its start."""
    peak_mb: float


class Line(NamedTuple):
    """A line of the table."""

    name: str
    small: Figures
    large: Figures

    @property
    def cpu_us(self) -> float:
        """Processor time of each span that the larger run has more, in microseconds."""
        return (self.large.cpu_s - self.small.cpu_s) / (self.large.spans - self.small.spans) * 1e6

    @property
    def whole_us(self) -> float:
        """Processor time a span of the larger run, the start of its process included, in microseconds."""
        return self.large.cpu_s / self.large.spans * 1e6


# --- the records ----------------------------------------------------------------------------------------------------


def event_lines(session_id: str, turns: int, *, with_ids: bool) -> Iterator[bytes]:
    """The lines of a session, as tracebridge writes them, or as the original did."""
    encode = msgspec.json.Encoder().encode
    began = time.time() - turns
    seq = 0

    def line(event_type: str, turn: int, trace: str, span: str, parent: str, **data: Any) -> bytes:
        nonlocal seq
        seq += 1
        at = datetime.fromtimestamp(began + turn + seq % 6 / 10, UTC).isoformat().replace("+00:00", "Z")
        event: dict[str, Any] = {
            "timestamp": at,
            "event_type": event_type,
            "session_id": session_id,
            "run_id": "run-abc123def456",
            "turn": turn,
            "duration_ms": None,
            "data": data,
        }
        if with_ids:
            event |= {"seq": seq, "trace_id": trace, "span_id": span}
            if parent:
                event["parent_id"] = parent
        return encode(event) + b"\n"

    root = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7", ""
    yield line("session.start", 0, *root, metadata=METADATA)
    for turn in range(1, turns + 1):
        trace, own = os.urandom(16).hex(), os.urandom(8).hex()
        call = trace, os.urandom(8).hex(), own
        said = said_in(turn)
        yield line("turn.start", turn, trace, own, "", user_input=QUESTION)
        yield line("llm.request", turn, *call, model=MODEL, messages=said.messages)
        yield line("llm.response", turn, *call, model=MODEL, content=said.answer, tokens=TOKENS)
        call = trace, os.urandom(8).hex(), own
        yield line("tool.call", turn, *call, tool_name=TOOL, args=ARGUMENTS)
        yield line("tool.result", turn, *call, tool_name=TOOL, success=True, result=said.result)
        yield line("turn.end", turn, trace, own, "", output=said.answer)
    yield line("session.end", 0, *root, outcome="done", total_turns=turns)


def write_sessions(folder: Path, spans: int, *, with_ids: bool) -> int:
    """Write sessions of a thousand spans each; returns how many spans they make."""
    written = 0
    while written < spans:
        session = folder / f"session-{written:09}"
        session.mkdir(parents=True)
        turns = min(TURNS_A_SESSION, max(1, (spans - written - 1) // SPANS_A_TURN))
        lines = event_lines(session.name.removeprefix("session-"), turns, with_ids=with_ids)
        (session / "events.jsonl").write_bytes(b"".join(lines))
        written += turns * SPANS_A_TURN + 1
    return written


# --- what each process does -----------------------------------------------------------------------------------------


def read_lines(folder: Path, _url: str, _spans: int) -> None:
    """The floor of reading."""
    decode = msgspec.json.decode
    for session in sorted(folder.iterdir()):
        with (session / "events.jsonl").open("rb") as file:
            for line in file:
                decode(line)


def post_ready_made(_folder: Path, url: str, spans: int) -> None:
    """The floor of sending."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

    def request(spans: int) -> bytes:
        scope = ScopeSpans(spans=[Span(name="x" * 1_500)] * spans)
        return ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scope])]).SerializeToString()

    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    whole, rest = divmod(spans, REQUEST_SPANS)
    full = request(REQUEST_SPANS)
    for body in [full] * whole + [request(rest)]:
        connection.request("POST", "/v1/traces", body)
        connection.getresponse().read()


def ship(*command: str) -> Callable[[Path, str, int], None]:
    """A command of tracebridge's."""

    def run(folder: Path, _url: str, _spans: int) -> None:
        from tracebridge.cli import main

        arguments = [str(folder) if argument == "FOLDER" else argument for argument in command]
        exit_code = main(["--config", str(folder.parent / "tracebridge.yaml"), *arguments, "--json"])
        if exit_code:
            sys.exit(exit_code)

    return run


def otel_sdk(_folder: Path, url: str, spans: int) -> None:
    """OpenTelemetry's SDK, with the names of its GenAI conventions."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import set_span_in_context

    provider = TracerProvider()
    queue = 8_192
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces"), max_queue_size=queue))
    tracer = provider.get_tracer("benchmark")
    done = 0

    def of_session() -> dict[str, Any]:
        return {"session.id": "benchmark", "metadata": json.dumps(METADATA)}

    while done < spans:
        said = said_in(done)
        turn = tracer.start_span("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent", **of_session()})
        turn.set_attribute("gen_ai.input.messages", json.dumps([{"role": "user", "content": QUESTION}]))
        context = set_span_in_context(turn)
        call = tracer.start_span(
            "chat gpt-4o",
            context,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": MODEL,
                "gen_ai.input.messages": json.dumps(said.messages),
                **of_session(),
            },
        )
        call.set_attribute("gen_ai.output.messages", json.dumps([{"role": "assistant", "content": said.answer}]))
        call.set_attribute("gen_ai.usage.input_tokens", TOKENS["prompt"])
        call.set_attribute("gen_ai.usage.output_tokens", TOKENS["completion"])
        call.end()
        call = tracer.start_span(
            "execute_tool search",
            context,
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": TOOL,
                "gen_ai.tool.call.arguments": json.dumps(ARGUMENTS),
                **of_session(),
            },
        )
        call.set_attribute("gen_ai.tool.call.result", said.result)
        call.end()
        turn.set_attribute("gen_ai.output.messages", json.dumps([{"role": "assistant", "content": said.answer}]))
        turn.end()
        done += SPANS_A_TURN
        if done % (queue // 2) < SPANS_A_TURN:
            provider.force_flush()
    provider.shutdown()


def langfuse_sdk(_folder: Path, url: str, spans: int) -> None:
    """The Langfuse SDK as its documentation uses it."""
    queue = 8_192
    os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = str(queue)
    from langfuse import Langfuse, propagate_attributes

    client: Any = Langfuse(public_key="pk", secret_key="sk", base_url=url)
    done = 0
    with propagate_attributes(session_id="benchmark", metadata=METADATA):
        while done < spans:
            said = said_in(done)
            turn = client.start_observation(name="turn", as_type="agent", input=QUESTION)
            call = turn.start_observation(name="llm", as_type="generation", model=MODEL, input=said.messages)
            call.update(output=said.answer, usage_details={"input": TOKENS["prompt"], "output": TOKENS["completion"]})
            call.end()
            call = turn.start_observation(name=TOOL, as_type="tool", input=ARGUMENTS)
            call.update(output=said.result)
            call.end()
            turn.update(output=said.answer)
            turn.end()
            done += SPANS_A_TURN
            if done % (queue // 2) < SPANS_A_TURN:
                client.flush()
    client.shutdown()


WORK: dict[str, Callable[[Path, str, int], None]] = {
    "read": read_lines,
    "post": post_ready_made,
    "otel": ship("ship", "--sink", "otel"),
    "langfuse": ship("ship", "--sink", "langfuse"),
    "backfill": ship("backfill", "FOLDER", "--sink", "otel"),
    "otel-sdk": otel_sdk,
    "langfuse-sdk": langfuse_sdk,
}


def child(name: str, folder: Path, url: str, spans: int) -> None:
    """Do one line's work; the last line that is printed tells the figures."""
    began = time.monotonic()
    WORK[name](folder, url, spans)
    seconds = time.monotonic() - began
    print()
    print(json.dumps(Figures(spans, seconds, time.process_time(), peak_bytes() / 1e6)))


def peak_bytes() -> int:
    """The most memory that this process has held; not `ru_maxrss`, which begins with what the parent held."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


# --- measuring ------------------------------------------------------------------------------------------------------


class Loopback:
    """The server's process, as its caller sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{self._line()}"

    def arrived(self) -> int:
        """How many spans have come since the last question."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        _, spans = self._line().split()
        return int(spans)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def loopback(round_trip_ms: float = 0.0) -> Iterator[Loopback]:
    """A server in a process of its own."""
    command = [sys.executable, str(SERVER), "--round-trip-ms", str(round_trip_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Loopback(process)


def measure(name: str, spans: int, server: Loopback, place: Path) -> Figures:
    """Do one line's work in a process of its own, and see that everything has arrived."""
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        folder = Path(scratch) / "traces"
        if name in ("read", "otel", "langfuse", "backfill"):
            spans = write_sessions(folder, spans, with_ids=name != "backfill")
        elif name.endswith("-sdk"):
            spans = -(-spans // SPANS_A_TURN) * SPANS_A_TURN
        # JSON is YAML
        keys = {"public_key": "pk", "secret_key": "sk"}
        sinks = {"otel": {"enabled": True, "endpoint": server.url}, "langfuse": {"enabled": True, "host": server.url}}
        sinks["langfuse"] |= keys
        section = {"trace_dir": str(Path(scratch) / "own" if name == "backfill" else folder), "sinks": sinks}
        (Path(scratch) / "tracebridge.yaml").write_text(json.dumps({"agent_trace": section}))
        command = [sys.executable, __file__, "--child", name, str(folder), server.url, str(spans)]
        path = os.pathsep.join((str(ROOT), str(ROOT / "adapters")))
        ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)
    arrived = server.arrived()
    if name != "read" and arrived != spans:
        raise SystemExit(f"{name}: {arrived:,} of {spans:,} spans have arrived")
    return Figures(*json.loads(ran.stdout.splitlines()[-1]))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=1_000_000, help="of the backfill, two a span")
    parser.add_argument("--sdk-spans", type=int, default=40_000)
    parser.add_argument("--round-trip-ms", type=float, default=0.0)
    parser.add_argument("--only", action="append", choices=WORK, help="only this line; may be given again")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--child", nargs=4, metavar=("NAME", "FOLDER", "URL", "SPANS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, folder, url, spans = arguments.child
        child(name, Path(folder), url, int(spans))
        return
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as place, loopback(arguments.round_trip_ms) as server:
        for name in arguments.only or WORK:
            spans = arguments.sdk_spans if name.endswith("-sdk") else arguments.spans
            if name == "backfill":
                spans = arguments.events // 2
            small, large = (measure(name, size, server, Path(place)) for size in (spans // 4, spans))
            lines.append(Line(name, small, large))
            if not arguments.json:
                print_line(lines[-1], lines)
    if arguments.json:
        print(json.dumps([line._asdict() | {"cpu_us": line.cpu_us, "whole_us": line.whole_us} for line in lines]))


def print_line(line: Line, lines: list[Line]) -> None:
    """Print one line of the table, and its ratio to the two floors if these were measured."""
    if len(lines) == 1:
        columns = {"spans": 9, "spans/s": 10, "µs/span": 9, "whole": 7, "spans/cpu s": 13, "MB": 12, "x floors": 10}
        print(" " * 14 + "".join(f"{name:>{width}}" for name, width in columns.items()))
    floor_us = sum(floor.cpu_us for floor in lines if floor.name in ("read", "post"))
    ratio = f"{line.cpu_us / floor_us:.1f}" if floor_us else "-"
    memory = f"{line.small.peak_mb:.0f} > {line.large.peak_mb:.0f}"
    print(
        f"{line.name:<14}{line.large.spans:>9,}{line.large.spans / line.large.seconds:>10,.0f}{line.cpu_us:>9.1f}"
        f"{line.whole_us:>7.1f}{1e6 / line.cpu_us:>13,.0f}{memory:>12}{ratio:>10}",
        flush=True,
    )


if __name__ == "__main__":
    main()
