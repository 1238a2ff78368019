"""The end of an agent keeps its time whatever the backend does, says in one line what is left, and loses nothing."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import grace_s
from tests.workplace import Workplace, both, environment
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

TIMEOUT_S = 0.5
SPANS = 3
"""Of each session that the agents here record."""

AGENT = """
import atexit, json, logging, os, signal, sys, threading, time
import tracebridge
logging.basicConfig(format="%(name)s: %(message)s")
options = json.loads(sys.argv[1])

def record(session):
    with tracebridge.trace_session(session) as run, tracebridge.trace_turn(run, user_input="hello"):
        run.log_thinking("well")

def say(word):
    os.write(1, f"{word} {time.monotonic()}\\n".encode())

atexit.register(say, "gone")  # called last
"""

ENDS = {
    "normal end": "",
    "sys.exit": "sys.exit(0)",
    "an unhandled exception": "raise SystemError('the agent has failed')",
    "SIGTERM that calls sys.exit": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)"
    ),
    "shutdown() twice": "tracebridge.shutdown(); tracebridge.shutdown()",
}
SUDDEN_ENDS = {
    "os._exit": "os._exit(0)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)",
}


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    return Workplace(tmp_path / "here", both(devserver), shutdown_timeout=TIMEOUT_S)


def start(workplace: Workplace, body: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", AGENT + body, json.dumps({"config": str(workplace.config)} | options)],
        cwd=workplace.folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(workplace: Workplace, body: str, seconds: float = 40, **options: Any) -> tuple[float, str]:
    """Run an agent to its end; return how long our exit handlers took, and what it logged."""
    with start(workplace, body, **options) as agent:
        out, err = agent.communicate(timeout=seconds)
        now = time.monotonic()
    said = {word: float(at) for word, at in (line.split() for line in out.splitlines())}
    gone = said.get("gone", now)
    assert now - gone < grace_s(), "after the exit handlers only the interpreter is left, and none of our threads"
    return gone - said["end"], err


def left_lines(err: str) -> list[str]:
    return [line for line in err.splitlines() if "events left" in line]


def assert_delivered_once(workplace: Workplace, sessions: Counter[str] | dict[str, int]) -> None:
    for sink in ("langfuse", "otel"):
        assert Counter(span.session_id for span in workplace.observed(sink)) == sessions


@contextmanager
def listening(*, accepts: bool) -> Iterator[str]:
    """A port that takes connections and bytes and never answers, or that does not even take connections."""
    with ExitStack() as opened:
        server = opened.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=0 if not accepts else 64)))
        taken: list[socket.socket] = []
        address = server.getsockname()
        if accepts:

            def swallow() -> None:
                while True:
                    try:
                        connection, _ = server.accept()
                    except OSError:
                        return
                    taken.append(connection)
                    threading.Thread(target=drain, args=(connection,), daemon=True).start()

            def drain(connection: socket.socket) -> None:
                try:
                    while connection.recv(65536):
                        pass
                except OSError:
                    return

            threading.Thread(target=swallow, daemon=True).start()
        else:
            # with these the queue is full, and further attempts get no answer at all
            for _ in range(2):
                waiting = opened.enter_context(closing(socket.socket()))
                waiting.setblocking(False)
                waiting.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()


RECORD_AND_END = """
tracebridge.configure(options["config"])
record("a")
if options.get("starts"):
    time.sleep(options["starts"])
say("end")
"""


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_an_end_in_order_delivers_what_was_recorded(workplace: Workplace, end: str) -> None:
    workplace.configure(_sinks(workplace), shutdown_timeout=10)
    _, err = ended(workplace, RECORD_AND_END + end)
    assert left_lines(err) == []
    assert_delivered_once(workplace, {"a": SPANS})


@pytest.mark.parametrize("end", SUDDEN_ENDS.values(), ids=SUDDEN_ENDS.keys())
def test_a_sudden_end_is_immediate_and_the_next_agent_delivers_what_was_recorded(
    workplace: Workplace, end: str
) -> None:
    lasted, err = ended(workplace, RECORD_AND_END + end)
    assert (lasted < grace_s(), err) == (True, "")
    ended(workplace, RECORD_AND_END.replace('"a"', '"b"') + "tracebridge.flush(20)")
    assert_delivered_once(workplace, {"a": SPANS, "b": SPANS})


@pytest.mark.parametrize(
    "trouble",
    ["down", "hanging", "resetting", *(pytest.param(name, marks=pytest.mark.slow) for name in ("slow", "refusing"))],
)
def test_a_backend_in_trouble_delays_the_end_for_the_timeout_and_gets_the_rest_the_next_time(
    workplace: Workplace, devserver: DevServer, trouble: str
) -> None:
    faults = {
        "hanging": Fault(route="POST *", hang=True),
        "slow": Fault(route="POST *", latency_s=3.0),
        "resetting": Fault(route="POST *", reset="before"),
        "refusing": Fault(route="POST *", status=401),
    }
    sinks = _sinks(workplace)
    if trouble == "down":
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
        workplace.configure({"langfuse": {**sinks["langfuse"], "host": nobody}}, shutdown_timeout=TIMEOUT_S)
    else:
        devserver.faults.add(faults[trouble])
    lasted, err = ended(workplace, RECORD_AND_END)
    assert TIMEOUT_S * 0.9 <= lasted < TIMEOUT_S + grace_s()
    assert len(left_lines(err)) == 1
    assert "stopped with 5 events left for langfuse" in err
    assert str(workplace.trace_dir) in err
    if trouble != "down":
        assert "5 events left for otel" in err
    devserver.faults.clear()
    workplace.configure(sinks)
    assert workplace.call("ship").returncode == 0
    assert_delivered_once(workplace, {"a": SPANS})


@pytest.mark.parametrize("accepts", [True, False], ids=["swallows all", "never accepts"])
@pytest.mark.parametrize("protocol", ["http/protobuf", pytest.param("grpc", marks=pytest.mark.slow)])
def test_a_port_that_never_answers_delays_the_end_for_the_timeout_only(
    tmp_path: Path, accepts: bool, protocol: str
) -> None:
    with listening(accepts=accepts) as url:
        sinks = {"otel": {"endpoint": url, "protocol": protocol}, "another": {"type": "otel", "endpoint": url}}
        workplace = Workplace(tmp_path / "here", sinks, shutdown_timeout=TIMEOUT_S)
        lasted, err = ended(workplace, RECORD_AND_END, starts=0.3)
    assert lasted < TIMEOUT_S + grace_s()
    assert len(left_lines(err)) == 1
    assert "5 events left for otel, 5 events left for another" in err


def test_a_long_backlog_is_not_read_to_its_end_to_count_what_is_left(
    workplace: Workplace, devserver: DevServer
) -> None:
    devserver.faults.add(Fault(route="POST *", status=503))
    for number in range(40):
        folder = workplace.trace_dir / f"session-long-{number}"
        folder.mkdir(parents=True)
        # sparse, but for its first lines: as long to read as any
        with (folder / "events.jsonl").open("wb") as file:
            file.write(b'{"timestamp":"2026-02-06T22:10:00Z"}\\n' * 1000)
            file.truncate(1 << 30)
    lasted, err = ended(workplace, RECORD_AND_END)
    assert lasted < TIMEOUT_S + grace_s()
    assert len(left_lines(err)) == 1
    assert "stopped with at least " in err


def test_what_is_recorded_after_the_end_of_delivery_is_in_the_journal(workplace: Workplace) -> None:
    body = """
atexit.register(record, "registered before")
tracebridge.configure(options["config"])
record("a")
atexit.register(record, "registered after")
thread = threading.Thread(target=lambda: (threading.main_thread().join(), record("from a thread")))
thread.start()
stopping = threading.Event()
def go_on():
    while True:
        record("again and again")
threading.Thread(target=go_on, daemon=True).start()
say("end")
"""
    _, err = ended(workplace, body)
    assert "Traceback" not in err
    assert workplace.call("ship").returncode == 0
    for sink in ("langfuse", "otel"):
        found = Counter(span.session_id for span in workplace.observed(sink))
        again = found.pop("again and again", 0)
        assert again > 0
        assert found == dict.fromkeys(("a", "registered before", "registered after", "from a thread"), SPANS)
        spans = [span.span_id for span in workplace.observed(sink)]
        assert len(spans) == len(set(spans))


def test_no_signal_handler_of_the_agent_is_touched(workplace: Workplace) -> None:
    body = """
def handlers():
    return {number: signal.getsignal(number) for number in signal.valid_signals()}
before = handlers()
tracebridge.configure(options["config"])
record("a")
tracebridge.flush(20)
assert handlers() == before
tracebridge.shutdown()
assert handlers() == before
say("end")
"""
    _, err = ended(workplace, body)
    assert err == ""


def test_a_process_that_is_frozen_after_a_flush_goes_on_when_it_is_thawed(tmp_path: Path, devserver: DevServer) -> None:
    body = """
tracebridge.configure(options["config"])
for line in sys.stdin:
    session, flush_s = json.loads(line)
    record(session)
    began = time.monotonic()
    left = tracebridge.flush(flush_s)
    os.write(1, f"{left} {time.monotonic() - began}\\n".encode())
say("end")
"""
    workplace = Workplace(tmp_path / "here", both(devserver), shutdown_timeout=10)
    with start(workplace, body) as function:
        assert function.stdin is not None
        assert function.stdout is not None

        def invoke(session: str, flush_s: float = 1.0) -> tuple[int, float]:
            assert function.stdin is not None
            assert function.stdout is not None
            function.stdin.write(json.dumps([session, flush_s]) + "\n")
            function.stdin.flush()
            left, took = function.stdout.readline().split()
            return int(left), float(took)

        assert invoke("cold start", 40.0)[0] == 0
        devserver.faults.add(Fault(route="POST *", hang=True))
        left, took = invoke("frozen")
        assert left == 5
        assert took < 1.0 + grace_s()
        function.send_signal(signal.SIGSTOP)
        # the requests that are out, and the connections that are kept, end while nobody looks
        devserver.faults.clear()
        devserver.faults.add(Fault(route="POST *", reset="before", times=2))
        function.send_signal(signal.SIGCONT)
        left, took = invoke("thawed")
        assert took < 1.0 + grace_s()
        out, err = function.communicate(timeout=30)
    assert function.returncode == 0
    assert left_lines(err) == []
    assert_delivered_once(workplace, {"cold start": SPANS, "frozen": SPANS, "thawed": SPANS})
    assert out.startswith("end")


def _sinks(workplace: Workplace) -> dict[str, Any]:
    import yaml

    sinks: dict[str, Any] = yaml.safe_load(workplace.config.read_text())["agent_trace"]["sinks"]
    return sinks
