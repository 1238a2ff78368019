"""What `import tracebridge` costs an agent at its start, in milliseconds of processor time.

    python benchmarks/imports.py [--rounds 15]

Each import runs in a process of its own; the figure is the least of all rounds, in which the packages take turns. The
floor is msgspec, the one package that recording needs. The peers are what an agent would import to trace with them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

FLOOR = "import msgspec"
LINES = {
    "msgspec, the floor": FLOOR,
    "tracebridge": "import tracebridge",
    "otel-sdk": "import opentelemetry.sdk.trace.export, opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "langfuse-sdk": "import langfuse",
}

SPENT = """
import resource
def spent_ms():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1000
before = spent_ms()
{statement}
print(spent_ms() - before)
"""


def main() -> None:
    """Read the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    measured = [{name: imported_ms(statement) for name, statement in LINES.items()} for _ in range(rounds)]
    least = {name: min(taken[name] for taken in measured) for name in LINES}
    floor_ms = next(iter(least.values()))
    print(f"{'import':<22}{'ms':>8}{'x floor':>10}")
    for name, taken_ms in least.items():
        print(f"{name:<22}{taken_ms:>8.1f}{taken_ms / floor_ms:>10.1f}")


def imported_ms(statement: str) -> float:
    """The processor time of a statement in a fresh process, in milliseconds."""
    program = SPENT.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
