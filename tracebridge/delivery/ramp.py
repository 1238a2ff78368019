"""`Ramp`: since when a sink's share of sessions is what it is, so that raising it need not send the past.

A session is taken as a whole, by the time of its first event. Who comes in because the share was raised, and began
before that, is not owed, unless the past was asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from tracebridge.delivery.choice import began_ns_of
from tracebridge.policy import Policy, keeps_session

ALWAYS_NS: Final = 0
"""Before every event."""


class Stage(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A share of sessions, and the moment from which on it is delivered."""

    share: float
    since_ns: int
    """In nanoseconds since the epoch."""


class Ramp:
    """The stages of one sink's backend, from the smallest share to the largest; none where all is delivered."""

    def __init__(self, stages: tuple[Stage, ...] = ()) -> None:
        self.stages = stages

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ramp) and self.stages == other.stages

    def __hash__(self) -> int:
        return hash(self.stages)

    def takes(self, session_id: str, events: Path) -> bool:
        """Whether a session that the sink's sampling keeps is delivered; `events` is its journal.

        One that holds no whole event is: whoever reads it tells what is wrong with it.
        """
        since_ns = self._since_ns(session_id)
        if since_ns == ALWAYS_NS:
            return True
        began_ns = began_ns_of(events)
        return began_ns is None or began_ns >= since_ns

    def raised(self, before: float, share: float, now_ns: int) -> Ramp:
        """The ramp after the share was raised at a moment, and the past was not asked for."""
        stages = [stage for stage in self.stages if stage.share < before]
        # the share before may be one that was raised to itself
        since_ns = next((stage.since_ns for stage in self.stages if stage.share >= before), ALWAYS_NS)
        return Ramp((*stages, Stage(before, since_ns), Stage(share, now_ns)))

    def _since_ns(self, session_id: str) -> int:
        for stage in self.stages:
            if keeps_session(Policy(sample_rate=stage.share), session_id):
                return stage.since_ns
        return ALWAYS_NS
