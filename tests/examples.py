"""How many examples the laws are tried on: few in `make test`, several times as many in `make test-laws`."""

from __future__ import annotations

import os
from typing import Final

TIMES: Final = int(os.environ.get("TRACEBRIDGE_EXAMPLES_TIMES", "1"))


def examples(usual: int) -> int:
    """The number of examples of a law that `make test` tries on so many."""
    return usual * TIMES
