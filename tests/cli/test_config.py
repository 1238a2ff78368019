"""Which configuration is read, what is said of its mistakes, and that secrets stay secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Run
from tests.workplace import Workplace, environment


def write(path: Path, trace_dir: str) -> Path:
    path.write_text(f"agent_trace:\n  trace_dir: {trace_dir}\n", encoding="utf-8")
    return path


def test_the_option_comes_before_the_variable_and_the_variable_before_the_file_here(
    run: Run, empty_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace_dir(*arguments: str | Path) -> str:
        ran = run(*arguments, "config", "show")
        assert ran.code == 0
        return Path(yaml.safe_load(ran.out)["agent_trace"]["trace_dir"]).name

    assert trace_dir() == "traces"
    write(empty_folder / "tracebridge.yaml", "of_the_folder")
    assert trace_dir() == "of_the_folder"
    monkeypatch.setenv("TRACEBRIDGE_CONFIG", str(write(tmp_path / "variable.yaml", "of_the_variable")))
    assert trace_dir() == "of_the_variable"
    assert trace_dir("--config", write(tmp_path / "option.yaml", "of_the_option")) == "of_the_option"


def test_check_says_that_a_configuration_is_right_and_what_it_comes_to(run: Run, workplace: Workplace) -> None:
    ran = run("--config", workplace.config, "config", "check")
    assert (ran.code, ran.err) == (0, "")
    assert str(workplace.config) in ran.out
    assert "sinks: langfuse" in ran.out


def test_check_lists_every_mistake_with_file_line_and_key(run: Run, empty_folder: Path) -> None:
    (empty_folder / "tracebridge.yaml").write_text(
        "agent_trace:\n  sampel_rate: 0.5\n  max_content_length: many\n  sinks:\n    otel: off\n", encoding="utf-8"
    )
    ran = run("config", "check")
    assert (ran.code, ran.out) == (1, "")
    lines = ran.err.splitlines()
    for line, key in ((2, "sampel_rate"), (3, "max_content_length"), (5, "sinks.otel")):
        assert [said for said in lines if f"tracebridge.yaml, line {line}: agent_trace.{key}" in said], ran.err


@pytest.mark.parametrize("command", [("ship",), ("status",), ("validate",), ("config", "show"), ("backfill", ".")])
def test_every_command_refuses_a_configuration_with_a_mistake_in_one_line(
    run: Run, empty_folder: Path, command: tuple[str, ...]
) -> None:
    (empty_folder / "tracebridge.yaml").write_text("agent_trace:\n  sampel_rate: 1\n", encoding="utf-8")
    ran = run(*command)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("tracebridge: ")
    assert "line 2: agent_trace.sampel_rate" in line


_LANGFUSE = {"type": "langfuse", "host": "http://127.0.0.1:9", "public_key": "pk-a", "secret_key": "sk-a"}
_OTEL = {"type": "otel", "endpoint": "http://127.0.0.1:9", "headers": {"X-Scope-OrgID": "a"}}


@pytest.mark.parametrize(
    ("first", "changes", "is_warned_of"),
    [
        (_LANGFUSE, {"host": "http://127.0.0.1:9/", "policy": {"include_messages": False}}, True),
        (_LANGFUSE, {"public_key": "pk-b"}, False),
        (_LANGFUSE, {"enabled": False}, False),
        (_OTEL, {"service_name": "b", "reader": {"url": "http://127.0.0.1:8"}}, True),
        (_OTEL, {"headers": {"X-Scope-OrgID": "b"}}, False),
        (_OTEL, {"endpoint": "http://127.0.0.1:8"}, False),
        (_OTEL, {"endpoint": "http://127.0.0.1:9/v1/traces?project=b"}, False),
        (_OTEL, {"resource": {"openinference.project.name": "b"}}, False),
    ],
    ids=[
        "a project",
        "two projects",
        "one is off",
        "an endpoint",
        "two tenants",
        "two endpoints",
        "two by a parameter",
        "two by a resource",
    ],
)
def test_two_sinks_that_store_everything_twice_in_one_place_are_warned_of(
    run: Run, tmp_path: Path, first: dict[str, Any], changes: dict[str, Any], is_warned_of: bool
) -> None:
    place = Workplace(tmp_path / "here", {"first": first, "second": {**first, **changes}})
    ran = run("--config", place.config, "config", "check")
    warning = "agent_trace.sinks.second: warning: it sends to the same place as the sink first (http://127.0.0.1:9"
    assert (ran.code, warning in ran.err, bool(ran.err)) == (0, is_warned_of, is_warned_of)
    examined = json.loads(run("--config", place.config, "doctor", "--json", "--no-probe").out)["examinations"][0]
    found = [(check["status"], "that of first" in check["found"]) for check in examined["checks"]]
    assert (("warn", True) in found) == is_warned_of


def test_a_file_that_is_not_there_is_named(run: Run) -> None:
    ran = run("--config", "no-such.yaml", "status")
    assert (ran.code, ran.out) == (2, "")
    assert "no-such.yaml: there is no such file" in ran.err


def test_show_masks_secrets_and_shows_the_rest(run: Run, workplace: Workplace) -> None:
    ran = run("--config", workplace.config, "config", "show")
    assert ran.code == 0
    assert "sk-very-secret" not in ran.out + ran.err
    shown = yaml.safe_load(ran.out)["agent_trace"]["sinks"]["langfuse"]
    assert (shown["host"], shown["public_key"]) == ("http://127.0.0.1:9", "pk-nobody")
    assert shown["secret_key"]


@pytest.mark.parametrize("command", [("config", "show"), ("config", "check"), ("ship",)])
def test_a_configuration_comes_from_standard_input_too(tmp_path: Path, command: tuple[str, ...]) -> None:
    text = f"agent_trace:\n  trace_dir: {tmp_path}\n"

    def run_with(text: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "tracebridge", "--config", "-", *command]
        return subprocess.run(
            program, input=text, env=environment(), capture_output=True, text=True, timeout=30, check=False
        )

    ran = run_with(text)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "standard input" in ran.stdout
    assert "standard input, line 3" in run_with(text + "  oops: 1\n").stderr
