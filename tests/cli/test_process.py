"""The program as a process: signals, pipes and terminals."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.delivery.rig import write_session
from tests.waiting import grace_s, until
from tests.workplace import COMMAND_TIMEOUT_S, ROOT, Workplace, both, environment, otel
from tracebridge.devserver import DevServer
from tracebridge.recording.tracer import Tracer

HAND_WRITTEN = ROOT / "tests" / "data" / "legacy"


def record(tracer: Tracer, session_id: str) -> None:
    with tracer.trace_session(session_id) as session, tracer.trace_turn(session, user_input="hello"):
        session.log_thinking("well")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_following_delivers_what_is_written_and_ends_cleanly_with_everything_delivered(
    tmp_path: Path, devserver: DevServer, number: signal.Signals
) -> None:
    workplace = Workplace(tmp_path / "here", {"otel": otel(devserver)}, delivery="external")
    tracer = workplace.tracer()
    with workplace.start("ship", "--follow", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        record(tracer, "first")
        until(lambda: len(workplace.observed("otel")) == 3, "the first session arrives")
        record(tracer, "second")
        follower.send_signal(number)
        out, err = follower.communicate(timeout=COMMAND_TIMEOUT_S)
    assert (follower.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert {span.session_id for span in workplace.observed("otel")} == {"first", "second"}
    tracer.shutdown()


def test_following_without_its_backend_ends_within_the_shutdown_timeout(tmp_path: Path) -> None:
    nobody = {"endpoint": "http://127.0.0.1:9"}
    workplace = Workplace(tmp_path / "here", {"otel": nobody}, delivery="external", shutdown_timeout=0.5)
    tracer = workplace.tracer()
    record(tracer, "s")
    tracer.shutdown()
    with workplace.start("ship", "--follow", stderr=subprocess.PIPE) as follower:
        assert follower.stderr is not None
        for line in follower.stderr:
            if "backing off" in line:
                break
        began = time.monotonic()
        follower.terminate()
        rest = follower.stderr.read()
        follower.wait(COMMAND_TIMEOUT_S)
    assert follower.returncode == 0
    assert "stopped with 5 events left" in rest
    assert time.monotonic() - began < 0.5 + grace_s()


def test_the_devserver_serves_what_its_url_says_and_ends_at_an_interrupt(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path / "here")
    with workplace.start(
        "devserver", "--port", "0", "--db", tmp_path / "dev.sqlite", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        url = next(word for word in server.stdout.readline().split() if word.startswith("http")).rstrip(";")
        assert httpx.get(f"{url}/api/public/health").json()["status"] == "OK"
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=COMMAND_TIMEOUT_S)
    assert (server.returncode, err) == (0, "")
    assert (tmp_path / "dev.sqlite").is_file()


def test_the_devserver_tells_the_port_of_grpc_that_it_was_left_to_find(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path / "here")
    with workplace.start("devserver", "--port", "0", "--grpc-port", "0", stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("development backend at http")
        told = re.fullmatch(r"OTLP over gRPC at (http://127\.0\.0\.1:\d+)\n", server.stdout.readline())
        assert told is not None
        workplace.configure({"otel": {"endpoint": told[1], "protocol": "grpc"}}, delivery="external")
        workplace.record("s")
        ran = workplace.run("ship")
        assert (ran.returncode, ran.stdout) == (0, f"otel: 2 spans of 4 events delivered to {told[1]}\n"), ran.stderr
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=COMMAND_TIMEOUT_S)
    assert server.returncode == 0


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_is_none_is_told_in_one_line(tmp_path: Path, option: str, port: str) -> None:
    ran = Workplace(tmp_path / "here").run("devserver", "--port", "0", f"{option}={port}")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(rf"tracebridge: .*cannot listen on 127\.0\.0\.1:{port}: .*\n", ran.stderr)


def test_a_port_that_is_taken_is_told_in_one_line(tmp_path: Path, devserver: DevServer) -> None:
    ran = Workplace(tmp_path / "here").run("devserver", "--port", devserver.url.rpartition(":")[2])
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "cannot listen on" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("config", "show"), ("--help",)])
def test_a_reader_that_has_seen_enough_ends_the_program_quietly(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    workplace = Workplace(tmp_path / "here")
    reading, writing = os.pipe()
    os.close(reading)
    with workplace.start(*arguments, stdout=writing, stderr=subprocess.PIPE) as program:
        os.close(writing)
        _, err = program.communicate(timeout=COMMAND_TIMEOUT_S)
    assert (program.returncode, err) == (0, "")


def test_a_progress_bar_is_shown_on_a_terminal_only(tmp_path: Path, devserver: DevServer) -> None:
    workplace = Workplace(tmp_path / "here", both(devserver))
    # the other session has a broken line, of which there is something to say
    old = shutil.copytree(HAND_WRITTEN, tmp_path / "old", ignore=shutil.ignore_patterns("session-gardener-2"))
    piped = workplace.run("backfill", old)
    assert (piped.returncode, piped.stderr) == (0, "")

    shown, out = on_terminal(workplace, "validate", "--json")
    assert "validating langfuse" in shown
    assert "2/2 sessions" in shown
    assert out.startswith(b"[")


@pytest.mark.slow
def test_the_bar_of_a_backfill_tells_how_far_it_is_and_how_long_the_rest_takes(
    tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "here", {"otel": otel(devserver)}, max_content_length=None)
    for number in range(8):
        path = write_session(tmp_path / "old", f"s-{number}", turns=4, at="2026-02-06T22:10:00Z")
        path.write_text(path.read_text().replace("answer", "answer " * 40_000))
    shown, out = on_terminal(workplace, "backfill", tmp_path / "old", "--max-rps", "2")
    assert "reading" in shown
    assert re.search(r"delivering .*[\d,]+/[\d,]+ bytes \(\d+ %\), \d+ s left", shown), shown[-2_000:]
    assert b"otel: 72 spans of 144 events delivered" in out


def on_terminal(workplace: Workplace, *arguments: str | Path) -> tuple[str, bytes]:
    """What a command shows on a terminal, which is its standard error, and what it prints."""
    terminal, end = pty.openpty()
    with subprocess.Popen(
        workplace.command(*arguments),
        cwd=workplace.folder,
        env=environment(TERM="xterm", COLUMNS="200"),
        stdout=subprocess.PIPE,
        stderr=end,
    ) as program:
        os.close(end)
        shown = read_terminal(terminal)
        assert program.stdout is not None
        return shown, program.stdout.read()


def read_terminal(terminal: int) -> str:
    shown = b""
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux answers so once nobody holds the other end any more
            chunk = b""
        if not chunk:
            os.close(terminal)
            return shown.decode()
        shown += chunk
