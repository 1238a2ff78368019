"""What `tracebridge doctor` finds: `Check`, one thing that was looked at, and how a sink type brings its own.

A sink type MAY have a method `diagnose`, as `Diagnostic` describes it. One without is still probed: a span is
delivered by its sink and, where there is a reader, read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec

CheckStatus = Literal["ok", "warn", "fail", "skip"]
"""`ok`: as it should be. `warn`: it works, and somebody should know. `fail`: something does not work. `skip`: not
looked at, because it does not apply or because something before it failed."""

PROBE_MARK: Final = "tracebridge-doctor"
"""How a probe can be told from everything else: its environment, its tag and the beginning of its session id."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    """Short and stable, for scripts, e.g. `credentials`."""
    status: CheckStatus
    found: str
    """What was found, for people; never holds credentials."""
    remedy: str = ""
    """What to do about it; empty where nothing is to be done."""


@runtime_checkable
class Diagnostic(Protocol):
    """What a sink type has that brings checks of its own."""

    def diagnose(self, settings: msgspec.Struct, timeout_s: float) -> Iterator[Check]:
        """Yield what can be told of the backend before anything is sent to it, the nearest first.

        Each check is yielded when it is done, so that what was found is known also if a later one hangs. What makes
        no sense after a failure is left out, or yielded as `skip`. It SHOULD end within `timeout_s` seconds and raise
        nothing; what it leaves undone by then is given up.
        """
        ...


def is_probe(session_id: str) -> bool:
    """Whether a session is a probe of `tracebridge doctor`."""
    return session_id.startswith(PROBE_MARK)
