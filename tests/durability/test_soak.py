"""A short soak with a random seed: agents, shippers and backend die, hang, lag and run out of disk."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from soak.account import account_of
from soak.chaos import Chaos
from soak.place import SmallDisk
from tests.waiting import until
from tests.workplace import ROOT, environment
from tracebridge.journal.layout import session_folders


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_after_a_soak_every_event_is_accounted_for_exactly_once() -> None:
    seed = random.SystemRandom().randrange(2**32)
    ran = subprocess.run(
        [sys.executable, "-m", "soak", "--seconds", "30", "--seed", str(seed)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"seed {seed}\n{ran.stdout}\n{ran.stderr}"
    assert "every event is accounted for, exactly once" in ran.stdout


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_a_backend_accepted_and_does_not_show_yet_is_waited_for_and_not_called_lost(tmp_path: Path) -> None:
    with SmallDisk(tmp_path) as disk, Chaos(tmp_path, disk, random.Random(1)) as chaos:
        chaos.fall_behind()
        until(lambda: len(list(session_folders(chaos.trace_dir))) > 50, "the agents have recorded something")
        chaos.settle()
        account = account_of(chaos)
    assert account.is_clean, account
