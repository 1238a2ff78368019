"""Processes that write one session never mix their bytes nor cost each other an event, however they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.durability import disk_scenarios as scenarios
from tests.durability.small_disk import apart
from tests.workplace import environment


def check(account: dict[str, Any]) -> None:
    """Every event whose writing succeeded is read back, whole, once, and in the order of its writer."""
    assert account["missing"] == []
    assert account["twice"] == 0
    assert account["mixed"] == 0
    assert account["out of order"] == 0
    # an event may have been written by a process that was killed before it could tell
    assert account["untold"] <= account["writers"]


def test_writers_that_are_killed_in_the_middle_cost_nobody_an_event(tmp_path: Path) -> None:
    program = (
        "import json, sys; from tests.durability.disk_scenarios import kill_writers_again_and_again as scenario;"
        "print(json.dumps(scenario(*sys.argv[1:])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), "7"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
        cwd=Path(__file__).parents[2],
        timeout=50,
    )
    account = json.loads(done.stdout)
    check(account)
    assert account["told"] > 30


def test_writers_on_a_full_disk_cost_nobody_an_event(tmp_path: Path) -> None:
    outcome = apart(scenarios.kill_writers_on_a_full_disk, tmp_path, 12)
    account = outcome.result
    check(account)
    assert account["rounds"] > 1
    assert account["torn"] > 0, "there were half lines"
    assert account["told"] > 20


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("kills", [60, 61, 62])
def test_writers_that_are_killed_many_times_cost_nobody_an_event(kills: int, tmp_path: Path) -> None:
    check(apart(scenarios.kill_writers_again_and_again, tmp_path, kills).result)
    for number in range(8):
        check(apart(scenarios.kill_writers_on_a_full_disk, tmp_path / str(number), kills + number).result)
