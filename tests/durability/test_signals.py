"""Signals are the program's: a thread that tracebridge has started takes none of them."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.waiting import grace_s, until
from tests.workplace import Workplace, both, environment, langfuse, otel
from tracebridge.devserver import DevServer
from tracebridge.threads import BackgroundThread

PROGRAMS_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD, signal.SIGRTMIN}
EVERYBODYS_SIGNALS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGPROF}

AGENT = """
import sys
import tracebridge
tracebridge.configure(sys.argv[1])
with tracebridge.trace_session("session") as run, tracebridge.trace_turn(run, user_input="hi") as turn:
    turn.output = "hello"
assert tracebridge.flush(20) == 0
print("delivered", flush=True)
sys.stdin.read()
"""


def blocked_by_thread(pid: int) -> dict[int, set[int]]:
    """By thread, as the kernel knows them, the signals that it does not take."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            lines = (thread / "status").read_text().splitlines()
            mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:"))
            found[int(thread.name)] = {number for number in range(1, 65) if mask >> (number - 1) & 1}
    return found


def assert_only_the_main_thread_takes_signals(pid: int) -> None:
    """The others are at the least the housekeeping's, and for each of two sinks a shipper's."""
    until(lambda: len(blocked_by_thread(pid)) > 3, "it has its threads")
    for thread, blocked in blocked_by_thread(pid).items():
        assert thread == pid or blocked >= PROGRAMS_SIGNALS
    # while a thread is started, it and its starter take none at all
    until(lambda: blocked_by_thread(pid)[pid] == set(), "the main thread takes every signal")
    until(
        lambda: not any(blocked & EVERYBODYS_SIGNALS for blocked in blocked_by_thread(pid).values()),
        "each thread takes the signals that are its own affair",
    )


COOPERATIVE_AGENT = """
from gevent import monkey
monkey.patch_all()
import signal, sys
import tracebridge

tracebridge.configure(sys.argv[1])
with tracebridge.trace_session("s") as session:
    session.log_thinking("well")
assert not tracebridge.flush(40)
print("blocked:", sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Whatever a test finds, the process does not outlive it."""
    with process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_thread_of_an_agents_tracer_takes_a_signal_that_is_meant_for_the_agent(
    tmp_path: Path, devserver: DevServer, protocol: str
) -> None:
    """Nor does one that gRPC starts on its behalf."""
    endpoint = f"http://{devserver.grpc_endpoint}" if protocol == "grpc" else devserver.url
    sinks = {"langfuse": langfuse(devserver), "otel": otel(devserver, endpoint=endpoint, protocol=protocol)}
    workplace = Workplace(tmp_path / "here", sinks)
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, workplace.config],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with ended(agent):
        assert agent.stdout is not None
        assert agent.stdout.readline() == "delivered\n"
        assert_only_the_main_thread_takes_signals(agent.pid)
        agent.communicate("", timeout=50 + grace_s())
        assert agent.returncode == 0


def test_only_the_main_thread_of_a_follower_takes_the_signal_that_ends_it(tmp_path: Path, devserver: DevServer) -> None:
    workplace = Workplace(tmp_path / "here", both(devserver))
    follower = workplace.start("ship", "--follow", stderr=subprocess.DEVNULL)
    with ended(follower):
        assert_only_the_main_thread_takes_signals(follower.pid)
        follower.terminate()
        assert follower.wait(50 + grace_s()) == 0


def test_an_agent_whose_threads_are_no_real_ones_goes_on_taking_signals(tmp_path: Path, devserver: DevServer) -> None:
    workplace = Workplace(tmp_path / "here", both(devserver))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COOPERATIVE_AGENT, workplace.config],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=50 + grace_s(),
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "blocked: []\n"


def test_signals_are_left_alone_where_a_thread_may_run_in_the_one_that_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(_thread, "start_new_thread", partial(_thread.start_new_thread))
    thread = BackgroundThread(target=lambda: seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())), name="one")
    thread.start()
    thread.join()
    assert seen == [before]


def test_who_starts_a_thread_takes_the_signals_that_it_took_before() -> None:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        BackgroundThread(target=lambda: None, name="short").start()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked | {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_a_thread_that_cannot_be_started_leaves_the_signals_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="can't start"):
        BackgroundThread(target=lambda: None, name="none").start()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_handler_that_raises_while_a_thread_is_started_leaves_the_signals_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    start = threading.Thread.start

    def start_and_signal(thread: threading.Thread) -> None:
        start(thread)
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(threading.Thread, "start", start_and_signal)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            BackgroundThread(target=lambda: None, name="short").start()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    finally:
        signal.signal(signal.SIGUSR1, handler)
