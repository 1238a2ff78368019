"""`python -m tests.servers`: build every server program that is not there yet, and say where each one is."""

from __future__ import annotations

import sys

from tests.servers.phoenix import PHOENIX
from tests.servers.programs import ALL, BuildError


def main() -> int:
    for program in (*ALL, PHOENIX):
        try:
            there = program.is_there()
            if not there:
                print(f"{program.name}: making it takes some minutes, the first time", flush=True)
            print(f"{program.name}: {program.build()}", flush=True)
        except BuildError as error:
            print(f"{program.name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
