"""The demo from start to end, in a process of its own: what it says is what the journal and the backends hold."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.demo.conftest import ROOT, Event, journal, of_type, run_demo
from tests.demo.test_trajectories import CHAT, written
from tracebridge.demo.backend import LANGFUSE_ROUTE, Backend
from tracebridge.demo.console import Console
from tracebridge.demo.scenario import OrderDesk
from tracebridge.demo.story import Story
from tracebridge.demo.workspace import opened_workspace
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault, Faults

KINDS = {"session.start": "session", "turn.start": "turn", "llm.request": "llm", "tool.call": "tool"}


class Told(NamedTuple):
    """A demo that was run, and what it left."""

    exit_code: int
    text: str
    errors: str
    folder: Path

    @property
    def events(self) -> list[Event]:
        return journal(self.folder / "traces")

    def numbers(self, pattern: str) -> list[int]:
        found = re.search(pattern.replace("N", r"([\d,]+)"), self.text)
        assert found, f"{pattern!r} is not in:\n{self.text}"
        return [int(number.replace(",", "")) for number in found.groups()]


def told(folder: Path, *arguments: str | Path) -> Told:
    ran = run_demo("--folder", folder, *arguments)
    return Told(ran.returncode, ran.stdout, ran.stderr, folder)


def check_agreement(demo: Told) -> None:
    """Check that the demo came out well, and that its figures are those of the journal."""
    assert demo.exit_code == 0, demo.text + demo.errors
    assert demo.errors == ""
    assert "NOT SO" not in demo.text
    sessions = len({event["session_id"] for event in demo.events})
    said = demo.numbers("N events of N sessions in the journal, N delivered to langfuse, N delivered to otel")
    assert said == [len(demo.events), sessions, len(demo.events), len(demo.events)]
    spans = Counter(KINDS.get(event["event_type"], event["event_type"]) for event in demo.events)
    expected = {kind: spans[kind] for kind in (*KINDS.values(), "thinking") if spans[kind]}
    for sink in ("langfuse", "otel"):
        verdict = re.search(rf"{sink}: CLEAN .*\n +compared +(\d+) sessions, ([\d,]+) spans\n +(.*)\n", demo.text)
        assert verdict, demo.text
        counts = {kind: int(count.replace(",", "")) for count, kind in re.findall(r"(\d[\d,]*) (\w+)", verdict[3])}
        assert int(verdict[1]) == sessions
        assert int(verdict[2].replace(",", "")) == sum(expected.values())
        assert counts == expected


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return told(tmp_path_factory.mktemp("demo") / "kept")


def test_what_it_says_agrees_with_the_journal(demo: Told) -> None:
    check_agreement(demo)


def test_langfuse_was_away_and_otel_was_not_held_up(demo: Told) -> None:
    outage = demo.text[demo.text.index("LangFuse goes down") : demo.text.index("LangFuse comes back")]
    state = dict(re.findall(r"^ +(langfuse|otel) +(\w+(?: \w+)?)  ", outage, re.MULTILINE))

    assert state == {"langfuse": "backing off", "otel": "idle"}
    assert demo.numbers("It has refused N requests")[0] >= 2
    assert re.search("The agent's log: sink langfuse: backing off: .*: HTTP 503", outage)


def test_the_corrupted_answer_is_found_field_by_field(demo: Told) -> None:
    answers = {event["data"]["output"] for event in of_type(demo.events, "turn.end")}
    found = re.search(r"\n +output\n +journal: (.*)\n +backend: (.*)\n", demo.text)

    assert found
    assert json.loads(found[1]) in answers
    assert json.loads(found[2]) == "Nobody said this."
    assert "ok: findings: 1, fields that differ: output (exit code 1)" in demo.text


@pytest.mark.slow
def test_the_commands_that_it_ends_with_work(demo: Told) -> None:
    commands = re.findall(r"^   \$ (.*)$", demo.text[demo.text.index("What to try next") :], re.MULTILINE)
    devserver, status, validate, recipe, *_ = commands
    server = started(devserver)
    try:
        assert run(status).returncode == 0
        assert run(validate).returncode == 0
    finally:
        server.terminate()
        server.communicate()
    if shutil.which("jq") is None:
        pytest.skip("the recipe needs jq")
    failed = subprocess.run(["bash", "-c", recipe], capture_output=True, text=True, check=True).stdout
    assert failed == "ben-order-A-22\trefund\n"


def test_it_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    ran = run_demo("--folder", tmp_path)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"tracebridge: {tmp_path}: holds something already; name a folder that is empty or not there yet\n"
    )


def test_chat_trajectories_run_the_same_way(tmp_path: Path) -> None:
    chats = written(tmp_path / "chats.jsonl", *({**CHAT, "task_id": number} for number in range(3)))
    demo = told(tmp_path / "kept", "--input", chats)

    check_agreement(demo)
    assert len(of_type(demo.events, "turn.start")) == 6


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_hundred_real_chats_come_out_as_promised(shared: Path, tmp_path: Path) -> None:
    demo = told(tmp_path / "kept", "--input", shared / "data" / "airline" / "trajectories.jsonl")

    check_agreement(demo)
    counts = Counter(event["event_type"] for event in demo.events)
    assert [counts[kind] for kind in KINDS] == [100, 757, 1229, 572]
    assert sum(not event["data"]["success"] for event in of_type(demo.events, "tool.result")) == 33


@pytest.mark.slow
def test_it_says_what_did_not_come_out_as_promised(tmp_path: Path) -> None:
    lines: list[str] = []
    twice = Faults([Fault(route=LANGFUSE_ROUTE, duplicate=True)])
    with DevServer(faults=twice) as server, opened_workspace(tmp_path / "kept") as workspace:
        story = Story(
            OrderDesk(seconds_to_first_token=0.0),
            workspace,
            Backend(server.url, pid=0),
            Console(lambda line, _: lines.append(line)),
        )
        assert story.tell() == 1

    text = "\n".join(lines)
    assert "NOT SO: every span is there and equal (exit codes 1 and 0)" in text
    assert re.search(r"No\. \d of 7 things did not come out as they should:", text)


def started(command: str) -> subprocess.Popen[str]:
    """Start a printed `tracebridge devserver`, and wait until it says that it answers."""
    server = subprocess.Popen(arguments(command), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert "http://" in server.stdout.readline()
    return server


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments(command), cwd=ROOT, capture_output=True, text=True, check=False)


def arguments(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    assert program == "tracebridge"
    return [sys.executable, "-m", "tracebridge", *rest]
