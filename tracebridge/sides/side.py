"""`Side`: where spans come from that are compared with those of another side."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from tracebridge.sink import Loss
from tracebridge.span import Span
from tracebridge.validation import Uncompared

MOST_NOTES = 100
"""How many reasons a side names one by one; beyond, it counts."""


class Notes:
    """What a side could not give, noted while it is read."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        """Sessions that one side does not give whole: of neither side they are compared."""
        self._named: list[Uncompared] = []
        self._more = 0

    def leave_out(self, session_id: str) -> None:
        """Compare nothing of a session, because it is still being written, or cannot be read."""
        self.left_out.add(session_id)

    def could_not_read(self, reason: str, session_id: str = "") -> None:
        """Note what is not compared, and why."""
        if len(self._named) < MOST_NOTES:
            self._named.append(Uncompared(session_id=session_id, reason=reason))
        else:
            self._more += 1

    def uncompared(self) -> tuple[Uncompared, ...]:
        """All that was noted; what is too much to be named stands as one count."""
        more = (Uncompared(session_id="", reason=f"{self._more:,} more of the kind"),) if self._more else ()
        return (*self._named, *more)


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two sides of a comparison, not read yet."""

    name: str
    """As the user named it, e.g. `folder:traces`."""
    read: Callable[[Notes], Iterator[Span]]
    """Yields every span once for each copy of it, in any order, in memory that does not grow with their number.

    Raises a `TracebridgeError` where the side cannot be read to its end.
    """
    losses: tuple[Loss, ...] = ()
    """What the side is known not to keep."""
    is_ours: bool = False
    """Whether it is a journal: all its spans are tracebridge's, marked or not; else those without a fingerprint are
    somebody else's."""
