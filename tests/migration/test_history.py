"""The history tells of each step whether it was made, also of one whose process was killed in its middle."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workplace import Workplace, environment, langfuse
from tracebridge.devserver import DevServer

OFF = ("migrate", "advance", "--off", "jsonl", "--override", "test")
KILLED = """
import os, signal, sys
from tracebridge.cli import main
replace = os.replace
def replaced_and_killed(source, target):
    if str(target).endswith("tracebridge.yaml"):
        if sys.argv[1] == "after":
            replace(source, target)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = replaced_and_killed
main(sys.argv[2:])
"""


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    return Workplace(
        tmp_path / "here", {"jsonl": {"enabled": True}, "langfuse": langfuse(devserver)}, delivery="external"
    )


def kill(workplace: Workplace, moment: str, *arguments: str) -> None:
    """Run a command that is killed just before, or just after, the file is replaced."""
    line = [sys.executable, "-c", KILLED, moment, "--config", str(workplace.config), *arguments]
    ran = subprocess.run(line, env=environment(), cwd=workplace.folder, check=False, timeout=50)
    assert ran.returncode == -signal.SIGKILL


def outcomes(workplace: Workplace) -> list[tuple[str, str]]:
    history: list[dict[str, Any]] = json.loads(workplace.call("migrate", "history", "--json").stdout)
    return [(step["action"], step["record"].get("outcome", "made")) for step in history]


def is_kept(workplace: Workplace) -> bool:
    return workplace.settings.keep_journal


def test_a_file_that_cannot_be_replaced_leaves_no_step_that_is_told_as_made(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(source: str, target: str) -> None:
        # a file that is mounted into a container says so
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    before = workplace.config.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", busy)
        ran = workplace.call(*OFF)
    assert (ran.returncode, workplace.config.read_bytes()) == (2, before)
    assert "nothing was changed" in ran.stderr
    assert outcomes(workplace) == [("advance", "not made")]
    assert "NOT MADE" in workplace.call("migrate", "history").stdout
    assert "no step was made" in workplace.call("migrate", "rollback").stderr


def test_an_advance_that_was_killed_before_it_was_made_is_not_taken_back(workplace: Workplace) -> None:
    kill(workplace, "before", *OFF)
    assert is_kept(workplace)
    assert outcomes(workplace) == [("advance", "intended")]
    assert "the next step finds out" in workplace.call("migrate", "history").stdout
    assert "no step was made" in workplace.call("migrate", "rollback").stderr
    assert workplace.call(*OFF).returncode == 0
    assert workplace.call("migrate", "rollback").returncode == 0
    assert is_kept(workplace)
    assert "no step was made" in workplace.call("migrate", "rollback").stderr
    assert outcomes(workplace) == [("advance", "not made"), ("advance", "made"), ("rollback", "made")]


def test_an_advance_that_was_killed_after_it_was_made_is_taken_back(workplace: Workplace) -> None:
    kill(workplace, "after", *OFF)
    assert not is_kept(workplace)
    assert workplace.call("migrate", "rollback").returncode == 0
    assert is_kept(workplace)
    assert outcomes(workplace) == [("advance", "made"), ("rollback", "made")]


def test_an_advance_that_was_killed_is_found_out_about_though_a_step_was_made_in_another_file_since(
    workplace: Workplace, tmp_path: Path
) -> None:
    own, other = workplace.config, tmp_path / "other.yaml"
    other.write_bytes(own.read_bytes())
    kill(workplace, "after", *OFF)
    workplace.config = other
    assert workplace.call(*OFF).returncode == 0
    assert workplace.call("migrate", "rollback").returncode == 0
    workplace.config = own
    assert workplace.call("migrate", "rollback").returncode == 0
    assert is_kept(workplace)
    assert [outcome for _, outcome in outcomes(workplace)] == ["made"] * 4


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rollback_that_was_killed_takes_the_step_back_exactly_once(workplace: Workplace, moment: str) -> None:
    assert workplace.call(*OFF).returncode == 0
    kill(workplace, moment, "migrate", "rollback")
    assert is_kept(workplace) is (moment == "after")
    again = workplace.call("migrate", "rollback")
    assert (again.returncode, "was taken back before" in again.stdout) == (0, moment == "after")
    assert is_kept(workplace)
    assert "no step was made" in workplace.call("migrate", "rollback").stderr
    made = [action for action, outcome in outcomes(workplace) if outcome == "made"]
    assert made == ["advance", "rollback"]
