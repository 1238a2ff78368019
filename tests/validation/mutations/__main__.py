"""Prints what each kind of defect is found as, at each backend: `python -m tests.validation.mutations`."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import get_args

from tests.validation.mutations.bench import Backend, Bench, impatient
from tests.validation.mutations.defects import DEFECTS
from tracebridge.devserver import DevServer


def main() -> None:
    """Plant each defect alone."""
    print("| defect | langfuse | otel |\n| --- | --- | --- |")
    with DevServer() as server, tempfile.TemporaryDirectory() as folder, impatient():
        for number, defect in enumerate(DEFECTS):
            cells = []
            for backend in get_args(Backend):
                bench = Bench(Path(folder) / f"{number}-{backend}", server, backend)
                spans = bench.sessions["s1"]
                span = next(span for span in spans if defect.concerns(span))
                planted = defect.plant(spans, span, random.Random(number))
                bench.plant([planted])
                findings = list(bench.verdict().findings)
                fields = sorted({one.field for finding in findings for one in finding.differences})
                kinds = ", ".join(sorted({finding.kind for finding in findings}))
                cells.append(
                    ("" if planted.is_found(findings) else "NOT AS IT MUST BE: ")
                    + (kinds or "nothing")
                    + (f" ({', '.join(fields)})" if fields else "")
                )
            print(f"| {defect.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
