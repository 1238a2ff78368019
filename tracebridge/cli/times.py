"""Times, shares and numbers as the commands print and take them."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from typing import Final

from tracebridge.event import NotAnEventError, timestamp_ns

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_MONTH: Final = re.compile(r"\d{4}-\d{2}")


def as_text(time_ns: int) -> str:
    """Nanoseconds since the epoch as ISO 8601, to the second; empty for 0."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="seconds") if time_ns else ""


def as_age(seconds: float) -> str:
    """A time that has passed, or is to pass, as people say it, e.g. `3 min`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def time_given(text: str) -> int:
    """An argument that names a moment, in nanoseconds since the epoch: `2026-02`, `2026-02-06`, or with a time of day.

    Without a zone it is UTC; without a day the first, and without a time of day midnight.

    Raises:
        argparse.ArgumentTypeError: it names none.
    """
    try:
        return timestamp_ns(f"{text}-01" if _MONTH.fullmatch(text) else text)
    except NotAnEventError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write 2026-02, 2026-02-06 or 2026-02-06T22:10:00Z"
        ) from None


def duration(text: str) -> float:
    """An argument that names a length of time, in seconds: `30d`, `12h`, `45m`, `10s` or `2w`.

    Raises:
        argparse.ArgumentTypeError: it names none.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: write a number and s, m, h, d or w, such as 30d")
    return float(found[1]) * _SECONDS[found[2]]


def seconds(text: str) -> float:
    """An argument that is a number of seconds, from 0 to `inf`, or a length of time with its unit.

    Raises:
        argparse.ArgumentTypeError: it is none; nothing is ever later than NaN.
    """
    if _DURATION.fullmatch(text):
        return duration(text)
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not found >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 on, nor a time such as 15m")
    return found


def share(text: str) -> float:
    """An argument that names a part of a whole, from 0 to 1: `5%` or `0.05`.

    Raises:
        argparse.ArgumentTypeError: it names none.
    """
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = 0.0
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: write 5% or 0.05, above 0 and up to 100%")
    return found


def whole_number(text: str, least: int = 0) -> int:
    """An argument that is a whole number.

    Raises:
        argparse.ArgumentTypeError: it is none, or less than `least`.
    """
    try:
        found = int(text)
    except ValueError:
        found = least - 1
    if found < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return found


def days(text: str) -> float:
    """An argument that is a number of days, which may be a fraction.

    Raises:
        argparse.ArgumentTypeError: it is none; less than none would be asked of nobody.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 0 on")
    return found
