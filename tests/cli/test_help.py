"""Every command explains itself, and a wrong command line is told as such."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.workplace import environment
from tracebridge.cli.times import seconds

COMMANDS = [
    "demo",
    "ship",
    "backfill",
    "validate",
    "validations",
    "restore",
    "status",
    "dead",
    "prune",
    "forget",
    "migrate",
    "config",
    "devserver",
]


@pytest.mark.parametrize("command", [*COMMANDS, "config check", "config show", "migrate advance", "migrate rollback"])
def test_each_command_has_a_help_text_that_teaches(run: Run, command: str) -> None:
    ran = run(*command.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: tracebridge {command}")
    usage, _, text = ran.out.partition("\n\n")
    assert len(text.split()) > 10, usage


def test_the_help_of_the_program_names_every_command_and_the_exit_codes(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    for word in [*COMMANDS, "--config", "TRACEBRIDGE_CONFIG", "Exit codes"]:
        assert word in ran.out


def test_the_version_is_that_of_the_package(run: Run) -> None:
    ran = run("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"tracebridge {version('tracebridge')}\n", "")


@pytest.mark.parametrize("arguments", [(), ("config",), ("backfill",), ("no-such",), ("ship", "--no-such")])
def test_a_wrong_command_line_is_told_with_the_usage_and_exit_code_2(run: Run, arguments: tuple[str]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "usage: tracebridge" in ran.err


@pytest.mark.parametrize("given", ["nan", "-1", "2 m", "2y"])
@pytest.mark.parametrize(
    "option", [("ship", "--patience"), ("backfill", ".", "--patience"), ("backfill", ".", "--progress")]
)
def test_what_is_no_time_is_refused(run: Run, option: tuple[str, ...], given: str) -> None:
    ran = run(*option[:-1], f"{option[-1]}={given}")
    assert ran.code == 2
    assert f"argument {option[-1]}: {given!r} is no number of seconds from 0 on" in ran.err


@pytest.mark.parametrize(("given", "meant_s"), [("90", 90.0), ("1.5m", 90.0), ("0", 0.0), ("inf", float("inf"))])
def test_a_number_of_seconds_may_have_another_unit_as_an_age_has(given: str, meant_s: float) -> None:
    assert seconds(given) == meant_s


@pytest.mark.parametrize(
    ("option", "given", "words"),
    [
        (("migrate", "advance", "--min-sessions"), "-1", "is no whole number from 0 on"),
        (("migrate", "status", "--min-sessions"), "many", "is no whole number from 0 on"),
        (("migrate", "advance", "--min-days"), "-0.5", "is no number of days from 0 on"),
        (("migrate", "advance", "--min-days"), "nan", "is no number of days from 0 on"),
        (("validations", "--last"), "0", "is no whole number from 1 on"),
        (("validations", "--last"), "-3", "is no whole number from 1 on"),
        (("validate", "--examples"), "all", "is no whole number from 0 on"),
        (("validate", "--memory-mb"), "1g", "is no whole number from 0 on"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_number_that_means_nothing_is_refused_in_words(
    run: Run, option: tuple[str, ...], given: str, words: str
) -> None:
    ran = run(*option[:-1], f"{option[-1]}={given}")
    assert (ran.code, ran.out) == (2, "")
    assert f"argument {option[-1]}: {given!r} {words}" in ran.err


@pytest.mark.parametrize("program", [(sys.executable, "-m", "tracebridge")])
def test_the_module_is_the_program(program: tuple[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        [*program, "config", "check"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.startswith("defaults: right.")
