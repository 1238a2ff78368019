"""Runs the soak: `python -m soak --seconds 300`. Exit code 0 means that every event is accounted for, exactly once."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

from soak.account import account_of
from soak.chaos import Chaos
from soak.place import SmallDisk


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to make trouble (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="of all chance")
    arguments = parser.parse_args()
    # whoever stops it must not leave a dozen processes and a mounted disk behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"soak: {arguments.seconds:g} s of trouble, seed {arguments.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="tracebridge-soak-") as folder,
        SmallDisk(Path(folder)) as disk,
        Chaos(Path(folder), disk, random.Random(arguments.seed)) as chaos,
    ):
        chaos.run(arguments.seconds)
        chaos.settle()
        found = account_of(chaos)
    found.print()
    return 0 if found.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
