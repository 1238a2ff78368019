"""Times as the commands print them."""

from __future__ import annotations

from datetime import UTC, datetime


def as_text(time_ns: int) -> str:
    """Nanoseconds since the epoch as ISO 8601, to the second; empty for 0."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="seconds") if time_ns else ""


def as_age(seconds: float) -> str:
    """A time that has passed, as people say it, e.g. `3 min`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
