"""`lost.log`: how many events could not be written, for others than the process that lost them to see."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tracebridge.journal import layout
from tracebridge.journal.log_file import append_lines


def write_down(trace_dir: Path, lost: Mapping[str, int]) -> None:
    """Append how many events this process has lost, by what stood in the way, e.g. `{"journal: ENOSPC": 12}`.

    Raises:
        OSError: it cannot be written now.
    """
    entry = {"time_ns": time.time_ns(), "pid": os.getpid(), "lost": dict(lost)}
    line = json.dumps(entry).encode() + b"\n"
    path = layout.lost_log(trace_dir)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        append_lines(descriptor, line, path)
    finally:
        os.close(descriptor)


def lost_events(trace_dir: Path) -> dict[str, int]:
    """How many events could not be written to a trace folder, by what stood in the way."""
    total: Counter[str] = Counter()
    try:
        lines = layout.lost_log(trace_dir).read_bytes().splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            total.update(json.loads(line)["lost"])
        except (ValueError, LookupError, TypeError):
            continue  # written in part, on a disk that was full
    return dict(total)
