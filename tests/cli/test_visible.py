"""Whoever wrote what is in a trace does not command the terminal on which somebody looks at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workplace import Workplace, both
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

HOSTILE = "s\x1b[2J\u202e"
"""Clears the screen, and turns the direction of writing."""


@pytest.fixture
def place(tmp_path: Path, devserver: DevServer) -> Workplace:
    """One session whose id and content are hostile, each span of it a dead letter of both sinks."""
    place = Workplace(tmp_path / "here", {"jsonl": {"enabled": True}, **both(devserver)}, delivery="external")
    tracer = place.tracer()
    with tracer.trace_session(HOSTILE) as session, tracer.trace_turn(session, user_input=HOSTILE) as turn:
        turn.output = HOSTILE
    tracer.shutdown()
    devserver.faults.add(Fault(route="POST *", status=400, body=f'{{"message": "no {HOSTILE}"}}'))
    assert place.call("ship").returncode == 1
    return place


@pytest.mark.parametrize(
    "command",
    [
        *(("status",), ("validate",), ("validate", "--session", HOSTILE), ("open", HOSTILE), ("dead", "list")),
        *(("dead", "show", "1"), ("migrate", "status"), ("restore", "--from", "langfuse", "--session", HOSTILE)),
    ],
    ids=lambda command: command[0],
)
def test_what_a_command_prints_holds_no_control_characters(place: Workplace, command: tuple[str, ...]) -> None:
    to = ("--out", str(place.folder / "out")) if command[0] == "restore" else ()
    printed = [place.call(*command, *to), place.call("validations")]
    for ran in printed:
        assert not {"\x1b", "\u202e"} & {*ran.stdout, *ran.stderr}, ran.stdout + ran.stderr
    if command[0] in ("open", "dead", "restore"):  # ids are written out; of what a backend says it is left out
        assert "\\x1b[2J\\u202e" in printed[0].stdout
