"""What a development backend holds, counted in its own file and not through any of its APIs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

Side = Literal["langfuse", "otlp"]

_QUERIES: Final = {
    "langfuse": "SELECT trace_id, id FROM observation",
    "otlp": "SELECT trace_id, span_id FROM span",
}


def stored_in(file: Path, side: Side) -> list[tuple[str, str]]:
    """Trace id and span id of every stored copy."""
    with closing(sqlite3.connect(file)) as database:
        return [(str(trace_id), str(span_id)) for trace_id, span_id in database.execute(_QUERIES[side])]
