"""`delivery: process`: the agent's exit is immediate, and one process per folder delivers everything, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import grace_s, until
from tests.workplace import INGESTION, ROOT, Workplace, both, environment, langfuse
from tracebridge.delivery.detached import DetachedShipper, log_file
from tracebridge.delivery.lingering import IDLE_S
from tracebridge.delivery.lock import process_lock
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

SPANS = 3
"""Of each session that the agents here record."""

AGENT = """
import json, os, subprocess, sys, time
import tracebridge
options = json.loads(sys.argv[1])
for attribute, value in options.get("sys", {}).items():
    setattr(sys, attribute, value)
inheritable = os.open(sys.argv[0] if os.path.exists(sys.argv[0]) else "/etc/hostname", os.O_RDONLY)
os.set_inheritable(inheritable, True)
tracer = tracebridge.configure(options["config"])
for session in options["sessions"]:
    with tracebridge.trace_session(session) as run:
        with tracebridge.trace_turn(run, user_input="hello"):
            run.log_thinking("well")
heavy = {"sqlite3", "langfuse", "opentelemetry", "httpx", "grpc"} & set(sys.modules)
left = tracebridge.flush(options["flush_s"]) if "flush_s" in options else None
told = {"pid": os.getpid(), "heavy": sorted(heavy), "left": left, "trouble": dict(tracer.trouble.counts)}
print(json.dumps(told), flush=True)
if options.get("waits"):
    sys.stdin.read()
print(time.monotonic(), flush=True)
"""


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Iterator[Workplace]:
    workplace = Workplace(tmp_path / "here", both(devserver), delivery="process")
    yield workplace
    devserver.faults.release()
    deadline = time.monotonic() + 10
    while (pid := holder(workplace)) is not None and time.monotonic() < deadline:
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)


def holder(workplace: Workplace) -> int | None:
    """The process that ships, if there is one."""
    return process_lock(workplace.trace_dir).holder() or None


def command(workplace: Workplace, *sessions: str, flags: tuple[str, ...] = (), **options: Any) -> list[str]:
    told = {"config": str(workplace.config), "sessions": sessions} | options
    return [sys.executable, *flags, "-c", AGENT, json.dumps(told)]


def run_agent(workplace: Workplace, *sessions: str, **options: Any) -> tuple[dict[str, Any], float]:
    """Run an agent to its end; return what it told, and for how long it lived after its last line."""
    program = command(workplace, *sessions, **options)
    done = subprocess.run(
        program, cwd=workplace.folder, env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    ended = time.monotonic()
    assert done.returncode == 0, done.stderr
    told, last = done.stdout.splitlines()
    return json.loads(told) | {"stderr": done.stderr}, ended - float(last)


def delivered(workplace: Workplace, sink: str = "langfuse") -> dict[str, int]:
    """By session, how many spans the backend holds; it keeps both copies of one that is sent twice."""
    return dict(Counter(span.session_id for span in workplace.observed(sink)))


def assert_delivered(workplace: Workplace, *sessions: str) -> None:
    wanted = dict.fromkeys(sessions, SPANS)
    for sink in ("langfuse", "otel"):
        until(lambda: delivered(workplace, sink) == wanted, f"{sink} holds each span of {sessions} once")  # noqa: B023


def open_files(pid: int) -> dict[str, str]:
    """What each descriptor of a process names, but for those that it closes while they are looked at."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found[name] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_agent_ends_at_once_while_the_backend_hangs_and_all_is_delivered_later(
    workplace: Workplace, devserver: DevServer
) -> None:
    for route in INGESTION:
        devserver.faults.add(Fault(route=route, hang=True, times=1))
    told, lingered = run_agent(workplace, "a")
    assert lingered < grace_s()
    assert told["heavy"] == [], "the agent has loaded none of what shipping needs"
    assert (told["trouble"], told["stderr"]) == ({}, "")
    until(lambda: devserver.faults.held == 2, "both sinks wait for an answer")
    assert holder(workplace) not in (None, told["pid"])
    devserver.faults.release()
    assert_delivered(workplace, "a")


@pytest.mark.slow
def test_it_ends_once_it_is_idle_and_the_next_agent_starts_another(workplace: Workplace) -> None:
    run_agent(workplace, "a")
    assert_delivered(workplace, "a")
    first = holder(workplace)
    assert first is not None
    until(lambda: holder(workplace) is None, "it ends", IDLE_S + 5)
    until(lambda: not Path(f"/proc/{first}").exists(), "and is gone")
    run_agent(workplace, "b")
    assert_delivered(workplace, "a", "b")
    assert holder(workplace) not in (None, first)


def test_of_eight_that_are_started_at_once_one_remains_and_everything_is_delivered_once(workplace: Workplace) -> None:
    sessions = [f"s{number}" for number in range(8)]
    agents = [
        subprocess.Popen(
            command(workplace, session), cwd=workplace.folder, env=environment(), stdout=subprocess.PIPE, text=True
        )
        for session in sessions
    ]
    for agent in agents:
        agent.communicate(timeout=30)
    assert_delivered(workplace, *sessions)
    pid = holder(workplace)
    assert pid is not None
    leaders = {status_of(pid)["NSsid"]}
    until(lambda: len(shippers(workplace)) == 1, "the others end")
    assert {status_of(other)["NSsid"] for other in shippers(workplace)} == leaders
    told = log_file(workplace.trace_dir).read_text()
    assert "ERROR" not in told
    assert told.count("until idle") - told.count("does so already") == 1


def shippers(workplace: Workplace) -> list[int]:
    """The processes that have the log of this folder's shipper open."""
    log = str(log_file(workplace.trace_dir))
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "fd" / "2") == log:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_it_is_nobodys_child_holds_nothing_of_the_agent_and_leaves_no_zombie(workplace: Workplace) -> None:
    with subprocess.Popen(
        command(workplace, "a", waits=True),
        cwd=workplace.folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        until(lambda: holder(workplace) is not None, "it ships")
        pid = holder(workplace)
        assert pid is not None
        until(lambda: children_of(agent.pid) == [], "what started it is gone, and is no zombie")
        assert status_of(pid)["PPid"] != str(agent.pid)
        assert os.getsid(pid) != os.getsid(agent.pid)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        files = open_files(pid)
        log = str(log_file(workplace.trace_dir))
        assert (files["0"], files["1"], files["2"]) == ("/dev/null", log, log)
        assert "/etc/hostname" not in files.values()
        inherited = [file for file in files.values() if file.startswith("pipe:")]
        assert inherited == []
        agent.communicate("")
    assert agent.returncode == 0
    assert_delivered(workplace, "a")


def test_the_credentials_stand_in_no_argument_no_environment_and_no_file(
    tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    # in two pieces, as the agent's own arguments hold this program
    program = f"""
import tracebridge
sink = {langfuse(devserver)!r} | {{"secret_key": "sk-" + "lf-dev"}}
tracebridge.configure({{"agent_trace": {{
    "trace_dir": {str(workplace.trace_dir)!r}, "delivery": "process", "sinks": {{"langfuse": sink}}
}}}})
with tracebridge.trace_session("a") as run, tracebridge.trace_turn(run):
    run.log_thinking("well")
""".replace(repr(devserver.secret_key), "None")
    workplace.config.rename(tmp_path / "elsewhere")
    subprocess.run([sys.executable, "-c", program], env=environment(), cwd=workplace.folder, check=True, timeout=30)
    (tmp_path / "elsewhere").rename(workplace.config)
    until(lambda: delivered(workplace) == {"a": SPANS}, "it had the credentials")
    pid = holder(workplace)
    assert pid is not None
    secret = devserver.secret_key.encode()
    assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    assert not [file for file in workplace.trace_dir.rglob("*") if file.is_file() and secret in file.read_bytes()]


def test_flush_waits_for_the_process_and_tells_what_is_left(workplace: Workplace, devserver: DevServer) -> None:
    told, _ = run_agent(workplace, "a", flush_s=20)
    assert told["left"] == 0
    assert delivered(workplace) == {"a": SPANS}
    devserver.faults.add(Fault(route=INGESTION[0], status=503))
    began = time.monotonic()
    told, lingered = run_agent(workplace, "b", flush_s=0.7)
    assert told["left"] == 5
    assert time.monotonic() - began < 2 + grace_s()
    assert lingered < grace_s()
    devserver.faults.clear()
    assert_delivered(workplace, "a", "b")


def test_when_it_is_killed_the_next_run_starts_another_and_nothing_is_doubled(
    workplace: Workplace, devserver: DevServer
) -> None:
    run_agent(workplace, "a")
    assert_delivered(workplace, "a")
    devserver.faults.add(Fault(route="POST *", status=503))
    run_agent(workplace, "b")
    pid = holder(workplace)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: holder(workplace) is None, "its lock is free")
    devserver.faults.clear()
    run_agent(workplace, "c")
    assert_delivered(workplace, "a", "b", "c")
    assert holder(workplace) not in (None, pid)


@pytest.mark.parametrize("executable", ["", pytest.param("/usr/sbin/some-application-server", marks=pytest.mark.slow)])
def test_an_embedded_interpreter_is_found_beside_its_library(workplace: Workplace, executable: str) -> None:
    told, _ = run_agent(workplace, "a", sys={"executable": executable})
    assert told["trouble"] == {}
    assert_delivered(workplace, "a")


def test_an_isolated_agent_whose_program_extends_the_path_is_understood(workplace: Workplace) -> None:
    program = (
        f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'adapters')]!r}; import tracebridge;"
        f"tracebridge.configure({str(workplace.config)!r});\n"
        "with tracebridge.trace_session('a') as run, tracebridge.trace_turn(run): run.log_thinking('well')"
    )
    unset = {"PYTHONPATH"}
    variables = {name: value for name, value in environment().items() if name not in unset}
    subprocess.run([sys.executable, "-I", "-c", program], cwd="/", env=variables, check=True, timeout=30)
    assert_delivered(workplace, "a")


def test_an_agent_that_cannot_start_it_says_so_once_and_goes_on_recording(workplace: Workplace) -> None:
    sessions = [f"s{number}" for number in range(5)]
    told, lingered = run_agent(workplace, *sessions, sys={"frozen": True})
    assert told["trouble"] == {"delivery: NotStartedError": 1}
    assert told["stderr"].count("frozen") == 1
    assert lingered < grace_s()
    assert holder(workplace) is None
    run_agent(workplace, "later")
    assert_delivered(workplace, *sessions, "later")


def test_a_process_that_ends_while_it_starts_is_told_of_in_the_agent(tmp_path: Path, workplace: Workplace) -> None:
    customized = tmp_path / "path"
    customized.mkdir()
    # the interpreter runs this whenever it starts
    (customized / "sitecustomize.py").write_text(
        "import os\nif 'TRACEBRIDGE_PYTHON_PATH' in os.environ:\n    os.write(2, b'no process today\\n'); os._exit(1)\n"
    )
    program = command(workplace, "a", waits=True)
    variables = environment(PYTHONPATH=f"{customized}:{ROOT}:{ROOT / 'adapters'}")
    with subprocess.Popen(
        program,
        cwd="/",
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stderr is not None
        assert "could not be started: no process today" in agent.stderr.readline()
        agent.communicate("")


def test_a_process_that_has_ended_before_it_is_told_what_to_do_is_told_of_by_its_own_words(
    tmp_path: Path, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'no process today\\n')\nos._exit(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start = subprocess.Popen

    def start_and_wait(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = start(*arguments, **options)
        # without reaping it, which is the shipper's
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return process

    monkeypatch.setattr(subprocess, "Popen", start_and_wait)
    told: list[Exception] = []
    DetachedShipper(workplace.settings, told.append).start()
    until(lambda: bool(told), "the end of the process is told")
    assert [str(error) for error in told] == ["the process that ships could not be started: no process today"]


def test_its_log_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "shipper.log"
    program = """
import sys
from tracebridge.cli.detachment import LOG_BYTES, bound_log
for number in range(LOG_BYTES // 20):
    sys.stderr.write(f"line {number:020}\\n")
bound_log()
sys.stderr.write("the last line\\n")
"""
    with log.open("ab+") as file:
        subprocess.run([sys.executable, "-c", program], stderr=file, env=environment(), check=True, timeout=30)
    lines = log.read_bytes().splitlines()
    assert log.stat().st_size < 1 << 19
    assert lines[-1] == b"the last line"
    assert all(line.startswith(b"line 0") for line in lines[:-1])
    assert lines[-2].endswith(b"%020d" % ((1 << 20) // 20 - 1))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_whoever_writes_just_when_it_ends_is_delivered(workplace: Workplace) -> None:
    written: list[str] = []
    pids = set()
    for number in range(12):
        pid = holder(workplace)
        # agents that record around the moment at which the one before them has been idle for long enough
        if pid is not None:
            pids.add(pid)
            until(lambda: delivered(workplace) == dict.fromkeys(written, SPANS), "what was written before is there")
            time.sleep(max(0.0, IDLE_S - 0.9 + 0.15 * number))
        written.append(f"s{number}")
        run_agent(workplace, written[-1])
        until(lambda: delivered(workplace) == dict.fromkeys(written, SPANS), f"{written[-1]} arrives", 15)
    assert len(pids) > 1, "some have ended meanwhile"
