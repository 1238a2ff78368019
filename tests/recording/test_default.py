"""The functions of the package, each run in a process of its own: the default tracer is a process's only state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run(code: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "TRACEBRIDGE_CONFIG"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)} | environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def events(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in sorted(folder.glob("session-*/events.jsonl"))
        for line in file.read_bytes().splitlines()
    ]


AGENT = """
from tracebridge import trace_session, trace_turn
with trace_session(session_id="user-123") as session:
    with trace_turn(session, user_input="Hello!"):
        session.log_llm_request(model="gpt-4", messages=[...])
        session.log_llm_response(model="gpt-4", content="Hi!", tokens={...})
"""


def test_a_program_that_configures_nothing_records_to_the_traces_folder(tmp_path: Path) -> None:
    done = run(AGENT, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [event["event_type"] for event in events(tmp_path / "traces")] == [
        "session.start",
        "turn.start",
        "llm.request",
        "llm.response",
        "turn.end",
        "session.end",
    ]


def test_the_shim_of_one_line_lets_the_originals_import_stand(tmp_path: Path) -> None:
    package = tmp_path / "backend" / "core"
    package.mkdir(parents=True)
    (package / "agent_trace.py").write_text("from tracebridge import *\n", encoding="utf-8")
    done = run(AGENT.replace("from tracebridge", "from backend.core.agent_trace"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(events(tmp_path / "traces")) == 6


def test_the_file_in_the_current_folder_configures(tmp_path: Path) -> None:
    (tmp_path / "tracebridge.yaml").write_text("agent_trace: {trace_dir: here}\n", encoding="utf-8")
    assert run(AGENT, tmp_path).returncode == 0
    assert len(events(tmp_path / "here")) == 6


def test_the_file_that_the_environment_names_configures(tmp_path: Path) -> None:
    (tmp_path / "tracebridge.yaml").write_text("agent_trace: {trace_dir: here}\n", encoding="utf-8")
    (tmp_path / "other.yaml").write_text("agent_trace: {trace_dir: there}\n", encoding="utf-8")
    assert run(AGENT, tmp_path, TRACEBRIDGE_CONFIG="other.yaml").returncode == 0
    assert len(events(tmp_path / "there")) == 6


def test_a_mistake_in_the_configuration_never_reaches_an_agent_that_did_not_ask(tmp_path: Path) -> None:
    (tmp_path / "tracebridge.yaml").write_text("agent_trace: {trace_dirs: here}\n", encoding="utf-8")
    done = run(AGENT, tmp_path)
    assert done.returncode == 0
    assert "trace_dirs" in done.stderr
    assert done.stderr.count("configuration: ConfigurationError") == 1


def test_a_current_folder_that_is_gone_never_reaches_an_agent_that_did_not_ask(tmp_path: Path) -> None:
    code = "import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\n"
    done = run(code + AGENT + "import tracebridge\ntracebridge.flush()\n", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "agent_trace.trace_dir: a relative path starts at the current directory" in done.stderr
    assert done.stderr.count("configuration: ConfigurationError") == 1


def test_a_current_folder_that_may_not_be_looked_into_never_reaches_an_agent(tmp_path: Path) -> None:
    # everything is imported first, as where the tests are run another user may not look into this project either
    code = """
import importlib, os, pkgutil
import tracebridge
for part in pkgutil.walk_packages(tracebridge.__path__, "tracebridge."):
    if part.name.startswith(("tracebridge.config", "tracebridge.journal", "tracebridge.recording")):
        importlib.import_module(part.name)
os.mkdir("locked", 0o700)
os.chdir("locked")
if os.geteuid() == 0:
    os.setuid(65534)
else:
    os.chmod(".", 0)
"""
    done = run(code + AGENT, tmp_path)
    (tmp_path / "locked").chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert "journal: EACCES" in done.stderr


def test_configure_raises_a_mistake_and_leaves_the_tracer_as_it_was(tmp_path: Path) -> None:
    code = """
import tracebridge
from tracebridge.errors import ConfigurationError
tracebridge.configure({"agent_trace": {"trace_dir": "one"}})
try:
    tracebridge.configure({"agent_trace": {"trace_dirs": "two"}})
except ConfigurationError as error:
    print(error)
"""
    done = run(code + AGENT, tmp_path)
    assert "agent_trace.trace_dirs" in done.stdout
    assert len(events(tmp_path / "one")) == 6


def test_configuring_again_replaces_the_tracer(tmp_path: Path) -> None:
    code = 'import tracebridge\ntracebridge.configure({{"agent_trace": {{"trace_dir": "{}"}}}})\n'
    assert run(code.format("one") + AGENT + code.format("two") + AGENT, tmp_path).returncode == 0
    assert len(events(tmp_path / "one")) == len(events(tmp_path / "two")) == 6


def test_a_session_may_name_its_own_tracer(tmp_path: Path) -> None:
    code = """
from tracebridge import Tracer, trace_session, trace_turn
tracer = Tracer({"agent_trace": {"trace_dir": "own"}})
with trace_session("s", tracer=tracer) as session, trace_turn(session):
    pass
"""
    assert run(code, tmp_path).returncode == 0
    assert len(events(tmp_path / "own")) == 4
    assert not (tmp_path / "traces").exists()


def test_flush_and_shutdown_may_be_called_at_any_time(tmp_path: Path) -> None:
    code = "import tracebridge\nassert tracebridge.flush(1) == 0\ntracebridge.shutdown()\n"
    done = run(code + AGENT + code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(events(tmp_path / "traces")) == 6


FORKED_WHILE_CONFIGURING = """
import os, signal, sys, threading, time
import tracebridge
from tracebridge import trace_session
os.mkfifo("slow.yaml")
os.environ["TRACEBRIDGE_CONFIG"] = "slow.yaml"
threading.Thread(target=lambda: trace_session("first"), daemon=True).start()
# once the pipe can be opened for writing, the thread is reading it
descriptor = os.open("slow.yaml", os.O_WRONLY)
child = os.fork()
if child == 0:
    signal.alarm(10)
    tracebridge.configure({"agent_trace": {"trace_dir": "traces"}})
    with trace_session("child"):
        pass
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_that_is_forked_while_the_default_tracer_is_made_does_not_hang(tmp_path: Path) -> None:
    done = run(FORKED_WHILE_CONFIGURING, tmp_path)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
    assert {event["session_id"] for event in events(tmp_path / "traces")} == {"child"}


def test_a_turn_of_another_tracer_needs_no_default_one(tmp_path: Path) -> None:
    (tmp_path / "tracebridge.yaml").write_text("agent_trace: {sample_rate: lots}\n")
    code = """
from tracebridge import Tracer, trace_session, trace_turn
tracer = Tracer({"agent_trace": {"trace_dir": "mine", "delivery": "external"}})
with trace_session("s", tracer=tracer) as session, trace_turn(session, "Hello!"):
    pass
"""
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [event["event_type"] for event in events(tmp_path / "mine")][1:3] == ["turn.start", "turn.end"]
