"""The streams that a command is started with: closed ones, and ones that know few characters."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.workplace import COMMAND_TIMEOUT_S, Workplace, both, environment
from tracebridge.devserver import DevServer

STREAMS = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}


@pytest.fixture
def place(tmp_path: Path, devserver: DevServer) -> Workplace:
    """One session that both backends have, with words beyond ASCII."""
    place = Workplace(tmp_path / "here", {"jsonl": {"enabled": True}, **both(devserver)}, delivery="external")
    tracer = place.tracer()
    with tracer.trace_session("größe-日本") as session, tracer.trace_turn(session, user_input="é … 🙂"):
        pass
    tracer.shutdown()
    assert place.call("ship").returncode == 0
    return place


def run_without(closed: str, place: Workplace, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {STREAMS[closed]}', "sh", *place.command(*command)],
        cwd=place.folder,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


@pytest.mark.parametrize("closed", STREAMS)
@pytest.mark.parametrize(
    ("command", "code"),
    [
        *((("validate",), 0), (("ship", "--json"), 0), (("restore", "--from", "otel", "--out", "out"), 0)),
        *((("migrate", "status"), 1), (("backfill", "old"), 2), (("--version",), 0), (("no-such",), 2)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_command_works_though_a_stream_is_closed(
    place: Workplace, closed: str, command: tuple[str, ...], code: int
) -> None:
    ran = run_without(closed, place, *command)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    if closed == "stderr":
        # what belongs there must not come to stand where the answer does
        assert "usage" not in ran.stdout
        assert code or "--json" not in command or isinstance(json.loads(ran.stdout), list)


def test_a_configuration_from_a_standard_input_that_is_closed_is_an_empty_one(place: Workplace) -> None:
    ran = run_without("stdin", place, "--config", "-", "status")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("tracebridge: standard input: the file is empty")


def test_what_an_encoding_does_not_have_is_written_as_its_number(place: Workplace) -> None:
    ran = place.run("open", "größe-日本", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert ran.returncode == 0, ran.stderr
    assert "\\xe9 \\u2026 \\U0001f642" in ran.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_help_is_told_in_any_encoding(place: Workplace, encoding: str) -> None:
    ran = place.run("backfill", "--help", PYTHONIOENCODING=encoding)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_any_encoding(place: Workplace, encoding: str) -> None:
    ran = place.run("open", "größe-日本", "--json", PYTHONIOENCODING=encoding, PYTHONUTF8="1")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)[-1]["what"] == "turn 1: é … 🙂"
