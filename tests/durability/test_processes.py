"""Many processes on one trace folder: each event is delivered once, by one shipper per sink at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.waiting import until
from tests.workplace import Workplace, both, environment, event_counts, journal_events, langfuse, otel, restored
from tracebridge.delivery.lock import process_lock, shipper_lock
from tracebridge.devserver import DevServer
from tracebridge.journal import layout
from tracebridge.recording.tracer import Tracer

SINKS = ("langfuse", "otel")

PRELUDE = """
import json, multiprocessing, os, signal, sys, threading, time
import tracebridge

def record(session, turns=2):
    with tracebridge.trace_session(session) as run:
        for number in range(turns):
            with tracebridge.trace_turn(run, user_input=number) as turn:
                run.log_thinking("well")
                turn.output = "done"

def say(word):
    os.write(1, f"{word} {os.getpid()}\\n".encode())
"""

# a master that forks workers, replaces each that ends, and stops them all when it is told to
PREFORK = (
    PRELUDE
    + """
options = json.loads(sys.argv[1])
if options["preload"]:
    tracebridge.configure(options["config"])
    record("master-before")
    if tracebridge.flush(20):
        sys.exit("the master ships nothing")
threads = options["threads"]

def work(number):
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    if not options["preload"]:
        tracebridge.configure(options["config"])
    def serve(thread):
        for request in range(options["requests"]):
            record(f"worker-{number}-{thread}-{request}")
    serving = [threading.Thread(target=serve, args=(thread,)) for thread in range(threads)]
    for thread in serving:
        thread.start()
    for thread in serving:
        thread.join()
    say("served")
    if options["recycled"]:
        os._exit(0)  # as billiard ends its children: no exit handler runs
    stopping.wait(600)
    record(f"last-words-{number}")
    sys.exit(0)

workers = []
for number in range(options["workers"]):
    child = os.fork()
    if child == 0:
        work(number)
    workers.append(child)
if options["recycled"]:
    for worker in workers:
        os.waitpid(worker, 0)
if options["preload"]:
    record("master-after")
say("settled")
sys.stdin.read()
for worker in workers:
    if not options["recycled"]:
        os.kill(worker, signal.SIGTERM)
        os.waitpid(worker, 0)
"""
)

MULTIPROCESSING = (
    PRELUDE
    + """
def work(config, number):
    tracebridge.configure(config)
    record(f"{multiprocessing.get_start_method()}-{number}")

if __name__ == "__main__":
    method, config = sys.argv[1:]
    multiprocessing.set_start_method(method)
    tracebridge.configure(config)
    record("parent")
    workers = [multiprocessing.Process(target=work, args=(config, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
"""
)

FORKED_IN_BLOCKS = """
import os, sys
import tracebridge

tracebridge.configure(sys.argv[1])
how = sys.argv[2]
prepared = tracebridge.trace_session("prepared")
with tracebridge.trace_session("s") as session:
    with tracebridge.trace_turn(session, "hi") as turn, session.llm_call("m") as model, session.tool_call("t") as tool:
        child = os.fork()
        if child == 0:
            session.log_thinking("the child's")
            with tracebridge.trace_turn(session, "the child's"):
                pass
            with session, turn, tool:
                pass
            with prepared:
                pass
            if how == "exit":
                sys.exit()
            raise LookupError("the child's")
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code == (how == "raise"), code
        tool.finish(4)
        turn.output = "the parent's"
    session.outcome = "the parent's"
with prepared:
    pass
"""

FORKED_WHILE_IMPORTING = """
import importlib.abc, os, sys, threading
import tracebridge

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "tracebridge_otel.sink":
            importing.set()

importing = threading.Event()
sys.meta_path.insert(0, Finder())
tracebridge.configure(sys.argv[1])
with tracebridge.trace_session("parent"):
    pass
importing.wait()
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
import grpc
import tracebridge_otel.sink
with tracebridge.trace_session("child"):
    pass
os._exit(tracebridge.flush(30))
"""


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    return Workplace(tmp_path / "here", both(devserver))


def spans_owed(workplace: Workplace) -> int:
    counts = event_counts(workplace.trace_dir)
    return sum(counts[kind] for kind in ("session.start", "turn.start", "llm.request", "tool.call", "thinking"))


def ended_sessions(workplace: Workplace) -> int:
    return event_counts(workplace.trace_dir)["session.end"]


def assert_everything_is_delivered_once(workplace: Workplace, seconds: float = 30.0) -> None:
    """Both backends keep each copy of what they are sent, and the journal can be restored from either."""
    for sink in SINKS:
        owed = spans_owed(workplace)
        until(lambda: len(workplace.observed(sink)) >= owed, f"{sink} holds everything", seconds)  # noqa: B023
        spans = workplace.observed(sink)
        assert Counter(span.span_id for span in spans).most_common(1)[0][1] == 1, f"{sink} holds something twice"
        assert len(spans) == owed
        if sink == "otel":
            assert restored(spans) == journal_events(workplace.trace_dir)


class Prefork:
    """A running master with its workers."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self.process = process
        self.errors = errors
        self._said: Counter[str] = Counter()

    def wait_until_settled(self, workers: int) -> None:
        """Wait until nobody records any more."""
        assert self.process.stdout is not None
        while self._said["served"] < workers or not self._said["settled"]:
            line = self.process.stdout.readline()
            assert line, self.errors.read_text()
            self._said[line.split()[0]] += 1

    def end(self) -> None:
        """Let it stop its workers, and wait for its end."""
        self.process.communicate("", timeout=50)
        assert self.process.returncode == 0


@contextmanager
def prefork(workplace: Workplace, **options: Any) -> Iterator[Prefork]:
    told = {"config": str(workplace.config), "workers": 8, "requests": 3, "threads": 2, "preload": True}
    told |= {"recycled": False} | options
    errors = workplace.folder / "errors"
    with (
        errors.open("ab") as file,
        subprocess.Popen(
            [sys.executable, "-c", PREFORK, json.dumps(told)],
            cwd=workplace.folder,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield Prefork(process, errors)
        finally:
            if process.poll() is None:
                # its workers are in its session, and in no other's
                os.killpg(process.pid, signal.SIGKILL)


class LockWatch:
    """Looks again and again who holds a sink's lock, as the kernel knows it."""

    def __init__(self, workplace: Workplace, sink: str) -> None:
        self._path = layout.locks_folder(workplace.trace_dir) / f"{sink}.lock"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.most_at_once = 0
        self.holders: list[int] = []

    def __enter__(self) -> LockWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(0.01):
            pids = self._pids()
            if len(pids) > 1:
                # the kernel lists locks piece by piece, so that one which passes on meanwhile is there twice
                pids &= self._pids()
            self.most_at_once = max(self.most_at_once, len(pids))
            self.holders += [pid for pid in pids if pid not in self.holders]

    def _pids(self) -> set[int]:
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            return set()
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" not in line]
        return {
            int(pid)
            for _, kind, _, access, pid, file, *_ in locks
            if (kind, access) == ("POSIX", "WRITE") and file.endswith(f":{inode}")
        }


@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no preload"])
def test_prefork_workers_deliver_everything_once_and_one_ships_at_a_time(workplace: Workplace, preload: bool) -> None:
    with LockWatch(workplace, "otel") as lock, prefork(workplace, preload=preload, workers=4) as gunicorn:
        gunicorn.wait_until_settled(4)
        assert_everything_is_delivered_once(workplace)
        gunicorn.end()
    assert_everything_is_delivered_once(workplace)
    assert lock.most_at_once == 1
    if preload:
        assert lock.holders[0] == gunicorn.process.pid


def test_children_that_are_recycled_without_exit_handlers_lose_and_double_nothing(workplace: Workplace) -> None:
    with prefork(workplace, workers=4, threads=1, recycled=True) as celery:
        celery.wait_until_settled(4)
        assert_everything_is_delivered_once(workplace)
        celery.end()
    assert_everything_is_delivered_once(workplace)


def test_a_forked_child_takes_over_when_its_parent_that_shipped_is_killed(workplace: Workplace) -> None:
    with prefork(workplace, workers=3) as gunicorn:
        gunicorn.wait_until_settled(3)
        assert_everything_is_delivered_once(workplace)
        lock = shipper_lock(workplace.trace_dir, "otel")
        assert lock.holder() == gunicorn.process.pid
        gunicorn.process.kill()
        gunicorn.process.wait()
        until(lambda: lock.holder() not in (None, gunicorn.process.pid), "a worker has the lock")
        record(workplace, "after")
        assert_everything_is_delivered_once(workplace)
        os.killpg(gunicorn.process.pid, signal.SIGKILL)


def record(workplace: Workplace, session: str) -> None:
    """Record in this process, which ships nothing."""
    tracer = Tracer(msgspec.structs.replace(workplace.settings, delivery="external"))
    with tracer.trace_session(session) as run, tracer.trace_turn(run):
        run.log_thinking("well")
    tracer.shutdown()


def run_python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment(), capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.parametrize(
    "method", ["spawn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("forkserver", "fork"))]
)
def test_multiprocessing_delivers_everything_once(workplace: Workplace, tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)
    ran = run_python(program, method, workplace.config)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert set(journal_events(workplace.trace_dir)) == {"parent", *(f"{method}-{number}" for number in range(3))}
    workplace.call("ship")
    assert_everything_is_delivered_once(workplace)


@pytest.mark.parametrize("how", ["exit", "raise"])
def test_a_child_that_is_forked_in_open_blocks_ends_none_of_them(workplace: Workplace, how: str) -> None:
    ran = run_python("-W", "ignore::DeprecationWarning", "-c", FORKED_IN_BLOCKS, workplace.config, how)
    assert ran.returncode == 0, ran.stderr
    journal = journal_events(workplace.trace_dir)
    assert [(event["event_type"], event["data"].get("error")) for event in journal["s"]] == [
        (kind, None)
        for kind in (
            *("session.start", "turn.start", "llm.request", "tool.call", "thinking", "turn.start", "turn.end"),
            *("tool.result", "llm.response", "turn.end", "session.end"),
        )
    ]
    assert [event["data"].get("outcome") for event in journal["s"]][-1] == "the parent's"
    assert len({event["run_id"] for event in journal["prepared"]}) == 2, "each process has a run of its own"
    workplace.call("ship")
    assert_everything_is_delivered_once(workplace)
    assert {span.extent for span in workplace.observed("otel")} == {"whole"}


def test_a_child_that_is_forked_while_its_parent_imports_a_sink_imports_and_ships_it_as_well(
    workplace: Workplace,
) -> None:
    ran = run_python("-W", "ignore::DeprecationWarning", "-c", FORKED_WHILE_IMPORTING, workplace.config)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert_everything_is_delivered_once(workplace)


def test_over_grpc_forked_children_have_a_new_process_ship_when_their_parent_is_gone(
    tmp_path: Path, devserver: DevServer
) -> None:
    endpoint = f"http://{devserver.grpc_endpoint}"
    sinks = {"langfuse": langfuse(devserver), "otel": otel(devserver, endpoint=endpoint, protocol="grpc")}
    workplace = Workplace(tmp_path / "here", sinks)
    with prefork(workplace, workers=3) as gunicorn:
        gunicorn.wait_until_settled(3)
        assert_everything_is_delivered_once(workplace)
        gunicorn.process.kill()
        gunicorn.process.wait()
        until(lambda: "gRPC cannot be used in this process" in gunicorn.errors.read_text(), "a child has seen it")
        # each of them records once more, and then it is a process of its own that ships it
        os.killpg(gunicorn.process.pid, signal.SIGTERM)
        until(lambda: ended_sessions(workplace) == 2 + 3 * 2 * 3 + 3, "the last words are there")
        assert_everything_is_delivered_once(workplace)
    process = process_lock(workplace.trace_dir).holder()
    assert process
    os.kill(process, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no preload"])
def test_eight_workers_a_follower_and_kills_of_whoever_ships_lose_and_double_nothing(
    workplace: Workplace, preload: bool
) -> None:
    with (
        LockWatch(workplace, "otel") as lock,
        workplace.start("ship", "--follow", stderr=subprocess.DEVNULL) as follower,
        prefork(workplace, preload=preload, workers=8, requests=12, threads=4) as gunicorn,
    ):
        gunicorn.wait_until_settled(8)
        follower.terminate()
        follower.wait(50)
        # nothing is on its way, so that a kill leaves no request whose fate depends on when the backend stores it
        assert_everything_is_delivered_once(workplace, 120)
        for number in range(3):
            holder = shipper_lock(workplace.trace_dir, "otel").holder()
            assert holder
            os.kill(holder, signal.SIGKILL)
            until(lambda: shipper_lock(workplace.trace_dir, "otel").holder() not in (None, holder), "another ships")  # noqa: B023
            record(workplace, f"after-kill-{number}")
            assert_everything_is_delivered_once(workplace)
        if gunicorn.process.poll() is None:
            os.killpg(gunicorn.process.pid, signal.SIGKILL)
    assert lock.most_at_once == 1, lock.holders
    assert len(lock.holders) >= 4
