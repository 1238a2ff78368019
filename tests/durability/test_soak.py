"""A short soak with a random seed: agents, shippers and backend die, hang, lag and run out of disk."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from tests.workplace import ROOT, environment


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
