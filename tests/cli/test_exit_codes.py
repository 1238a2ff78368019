"""What is wrong with a folder is told in one line, with the exit code of what could not be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.delivery.rig import write_session
from tests.workplace import Workplace, both
from tracebridge.devserver import DevServer

COMMANDS = (
    *(("ship",), ("status",), ("validate",), ("validations",), ("migrate", "status"), ("dead", "list")),
    ("prune", "--older-than", "1d"),
)

NOT_UTF8 = "J\udcfcrgen"
"""As Python hands over what a shell in Latin-1 was given."""


@pytest.fixture
def place(tmp_path: Path, devserver: DevServer) -> Workplace:
    return Workplace(tmp_path / "here", {"jsonl": {"enabled": True}, **both(devserver)}, delivery="external")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_folder_that_cannot_be_used_is_named_in_one_line_and_is_no_finding(
    place: Workplace, command: tuple[str, ...]
) -> None:
    place.trace_dir.mkdir()
    (place.trace_dir / ".tracebridge").touch()  # where a folder must be
    ran = place.call(*command)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"tracebridge: {place.trace_dir}/.tracebridge: File exists\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_session_folder_that_cannot_be_reached_takes_no_command_away(
    place: Workplace, command: tuple[str, ...]
) -> None:
    write_session(place.trace_dir, "a")
    (place.trace_dir / "session-loop").symlink_to("session-loop")
    assert place.call("ship").returncode == 0
    ran = place.call(*command)
    assert ran.returncode == (1 if command == ("migrate", "status") else 0), ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("validate", "--session", NOT_UTF8, "--json", "--html", "page.html", "--junit", "suite.xml"), 2),
        (("validate", "--environment", NOT_UTF8), 2),
        (("restore", "--from", "langfuse", "--out", "out", "--session", NOT_UTF8, "--json"), 1),
        (("migrate", "advance", "--off", "jsonl", "--override", NOT_UTF8, "--json"), 0),
    ],
    ids=["session", "environment", "restore", "override"],
)
def test_an_argument_in_another_encoding_is_taken_as_it_is_and_told_in_a_form_that_can_be_read(
    place: Workplace, command: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    ran = place.call(*command)
    assert ran.returncode == code
    told = ran.stdout + place.call("migrate", "history").stdout
    assert "J\\udcfcrgen" in told or "J\\\\udcfcrgen" in told
    assert NOT_UTF8 not in told


READING = (
    ("validate",),
    ("restore", "--from", "otel", "--out", "out-otel"),
    ("restore", "--from", "langfuse", "--out", "out"),
)


@pytest.mark.parametrize("command", [*READING, ("doctor",)], ids=" ".join)
def test_an_ipv6_address_in_brackets_that_the_environment_exempts_keeps_nobody_from_reading(
    place: Workplace, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_session(place.trace_dir, "a")
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("NO_PROXY", "[::1],127.0.0.1,localhost")
    assert place.call("ship").returncode == 0
    ran = place.call(*command)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_proxy_that_cannot_be_used_is_named_in_one_line_and_is_no_finding(
    place: Workplace, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_session(place.trace_dir, "a")
    monkeypatch.chdir(place.folder)
    assert place.call("ship").returncode == 0
    monkeypatch.setenv("NO_PROXY", "elsewhere.example")
    monkeypatch.setenv("HTTP_PROXY", "ftp://proxy.example")
    ran = place.call(*command)
    assert ran.returncode == 2
    (said,) = ran.stderr.splitlines()
    assert said.startswith("tracebridge: the proxy that the environment names cannot be used: ")
