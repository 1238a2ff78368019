"""`Scope`: what a validation is asked about."""

from __future__ import annotations

import msgspec

from tracebridge import jsonvalue


class Scope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a validation was asked to compare; all that is given holds at once."""

    session_id: str | None = None
    since_ns: int | None = None
    """Only sessions with something recorded at or after this moment, in nanoseconds since the epoch."""
    until_ns: int | None = None
    """Only sessions that began before this moment."""
    environment: str | None = None
    sample: float = 1.0
    """The share of sessions that was drawn, from 0 to 1; the same ones every time."""
    since_last: bool = False
    """Only sessions that were not compared clean before as they are now, under the same rules."""

    @property
    def text(self) -> str:
        """What of it is kept in the history: JSON of what was asked for, and of nothing else."""
        usual, asked = msgspec.structs.asdict(Scope()), msgspec.structs.asdict(self)
        return jsonvalue.encode({key: value for key, value in asked.items() if value != usual[key]}).decode()
