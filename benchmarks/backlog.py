"""What shipping a backlog takes: the most memory of the shipper's process, its rate, and the size of its state.

    python benchmarks/backlog.py [--gigabytes 5] [--session-mb 20] [--longest-line-mb 1]

Writes sessions of usual LLM and tool calls to a temporary folder until they are as large as that (so the disk must have
room for them; they are deleted at the end), and ships them, at full speed and in a process of its own, through the
`otel` sink to a server on loopback, in another process, that takes everything and keeps nothing. One line in the middle
is as long as `--longest-line-mb` says; it is cut where one request cannot hold it. The limit is 200 MB and ten times
the longest line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT_BYTES = 200_000_000
SAMPLE_EVERY_S = 0.1
PRINT_EVERY_S = 10.0

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import threading

class Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        left = int(self.headers["Content-Length"])
        while left > 0:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--session-mb", type=float, default=20.0, help="how long each session is")
    parser.add_argument("--longest-line-mb", type=float, default=1.0, help="how long one line in the middle is")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--child", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        ship(Path(arguments.child))
        return
    with tempfile.TemporaryDirectory() as folder:
        size, events = write_backlog(
            Path(folder) / "traces",
            int(arguments.gigabytes * 1e9),
            int(arguments.session_mb * 1e6),
            int(arguments.longest_line_mb * 1e6),
        )
        if not arguments.json:
            print(f"{size / 1e9:.2f} GB in {events:,} events, one of {arguments.longest_line_mb:g} MB\n", flush=True)
        figures = measure(Path(folder), quiet=arguments.json)
    figures |= {"bytes": size, "events": events, "limit": LIMIT_BYTES + 10 * int(arguments.longest_line_mb * 1e6)}
    if arguments.json:
        print(json.dumps(figures))
        return
    print(
        f"\n{size / figures['seconds'] / 1e6:.1f} MB/s, {figures['confirmed_spans'] / figures['seconds']:,.0f} spans/s"
    )
    print(f"{figures['cpu_s'] / figures['confirmed_spans'] * 1e6:.0f} µs of processor time a span")
    print(f"most memory: {figures['peak'] / 1e6:.0f} MB, {figures['baseline'] / 1e6:.0f} MB of it before any was read;")
    print(f"the limit is {figures['limit'] / 1e6:.0f} MB")
    print(f"largest state: {figures['largest_state'] / 1e6:.1f} MB, and {figures['largest_wal'] / 1e6:.1f} MB of log")
    if figures["peak"] > figures["limit"]:
        sys.exit("over the limit")


def measure(folder: Path, quiet: bool) -> dict[str, Any]:
    """Ship the backlog in a process of its own; its last line tells the figures."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        sinks = {"otel": {"enabled": True, "endpoint": endpoint}}
        config = folder / "tracebridge.yaml"
        # JSON is YAML
        section = {"trace_dir": str(folder / "traces"), "max_content_length": 10**9, "sinks": sinks}
        config.write_text(json.dumps({"agent_trace": section}))
        path = os.pathsep.join((str(ROOT), str(ROOT / "adapters")))
        child = subprocess.Popen(
            [sys.executable, __file__, "--child", str(config)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        last = ""
        for line in child.stdout:
            if not quiet and line.startswith(" "):
                print(line, end="", flush=True)
            last = line
        if child.wait() != 0:
            raise SystemExit("the shipper failed")
    finally:
        server.stdin.close()
        server.wait(30)
        server.stdout.close()
    figures: dict[str, Any] = json.loads(last)
    return figures


def ship(config: Path) -> None:
    """Ship everything, and print how it goes and then the figures."""
    from tracebridge.config import load
    from tracebridge.delivery.pace import FullSpeed
    from tracebridge.delivery.shipper import Shipper
    from tracebridge.delivery.state import State
    from tracebridge.journal import layout

    settings = load(config, {})
    shipper = Shipper(settings.enabled_sinks[0], settings.trace_dir, FullSpeed())
    file = layout.state_file(settings.trace_dir)
    wal = file.with_name(file.name + "-wal")
    figures: dict[str, Any] = {"baseline": peak_bytes(), "largest_state": 0, "largest_wal": 0}
    begun, cpu = time.monotonic(), time.process_time()
    is_over = threading.Event()

    def sample() -> None:
        print(f" {'seconds':>8}{'peak MB':>10}{'state MB':>10}{'log MB':>10}", flush=True)
        printed = -PRINT_EVERY_S
        while not is_over.wait(SAMPLE_EVERY_S):
            state_bytes, wal_bytes = file.stat().st_size, wal.stat().st_size
            figures["largest_state"] = max(figures["largest_state"], state_bytes)
            figures["largest_wal"] = max(figures["largest_wal"], wal_bytes)
            passed = time.monotonic() - begun
            if passed > printed + PRINT_EVERY_S:
                printed = passed
                columns = "".join(f"{size / 1e6:>10.1f}" for size in (peak_bytes(), state_bytes, wal_bytes))
                print(f" {passed:>8.0f}{columns}", flush=True)

    sampler = threading.Thread(target=sample)
    sampler.start()
    while not (round_ := shipper.round()).is_done:
        shipper.wait(min(0.5, round_.wait_s))
    is_over.set()
    sampler.join()
    figures |= {"seconds": time.monotonic() - begun, "cpu_s": time.process_time() - cpu, "peak": peak_bytes()}
    shipper.close()
    state = State(file)
    figures |= state.account(1).counters
    state.close()
    print(json.dumps(figures))


def peak_bytes() -> int:
    """The most memory that this process has held."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write_backlog(folder: Path, size: int, session_size: int, longest_line: int) -> tuple[int, int]:
    """Write sessions until they have `size` bytes together; returns their bytes and events."""
    written = events = 0
    while written < size:
        session = folder / f"session-{events:09}"
        session.mkdir(parents=True)
        with (session / "events.jsonl").open("wb") as file:
            end = min(size, written + session_size)
            longest = longest_line if written <= size // 2 < end else 0
            begun = written
            for line in session_lines(session.name.removeprefix("session-"), longest):
                file.write(line)
                written, events = written + len(line), events + 1
                if written >= end and line.startswith(TURN_END):
                    break
            assert written > begun
    return written, events


TURN_END = b'{"event_type": "turn.end"'


def session_lines(session_id: str, longest: int) -> Any:
    """Turns of an LLM call and a tool call, for ever; the first answer is as long as `longest`, if that is not 0."""
    at = datetime.now(UTC).isoformat()

    def line(event_type: str, turn: int, **data: Any) -> bytes:
        event = {"event_type": event_type, "timestamp": at, "session_id": session_id, "run_id": "run-1", "turn": turn}
        return json.dumps(event | {"duration_ms": None, "data": data}).encode() + b"\n"

    messages = [{"role": "user" if number % 2 else "assistant", "content": "x" * 400} for number in range(5)]
    yield line("session.start", 0, metadata={"plan": "pro"})
    turn = 0
    while True:
        turn += 1
        yield line("turn.start", turn, user_input="question")
        yield line("llm.request", turn, model="gpt-4o", messages=messages)
        answer = "y" * (longest if turn == 1 and longest else 600)
        yield line("llm.response", turn, model="gpt-4o", content=answer, tokens={"prompt": 512, "completion": 150})
        yield line("tool.call", turn, tool_name="search", args={"query": "flights from ZRH to LIS"})
        yield line("tool.result", turn, tool_name="search", success=True, result="z" * 200)
        yield line("turn.end", turn, output="answer")


if __name__ == "__main__":
    main()
