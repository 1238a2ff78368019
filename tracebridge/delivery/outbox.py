"""`Outbox`: the batches that are written down and wait to be sent, and in which order."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count

from tracebridge.delivery.records import Batch


class Outbox:
    """Those that wait in line, and those that were set aside for a while. Times are by the monotonic clock."""

    def __init__(self) -> None:
        self._line: deque[Batch] = deque()
        self._aside: list[tuple[float, int, Batch]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._line) + len(self._aside)

    def __iter__(self) -> Iterator[Batch]:
        yield from self._line
        yield from (batch for _, _, batch in self._aside)

    def add(self, batches: Iterable[Batch]) -> None:
        """Put batches at the end of the line."""
        self._line.extend(batches)

    def add_first(self, batches: Iterable[Batch]) -> None:
        """Put batches at its beginning, in their order."""
        self._line.extendleft(reversed(list(batches)))

    def set_aside(self, batch: Batch, until: float) -> None:
        """Let others go first until then."""
        heapq.heappush(self._aside, (until, next(self._numbers), batch))

    def take(self, now: float, *, also_aside: bool) -> Batch | None:
        """Take out the next one; of those set aside one whose time has come, if that is allowed."""
        if also_aside and self._aside and self._aside[0][0] <= now:
            return heapq.heappop(self._aside)[2]
        return self._line.popleft() if self._line else None

    def wait_s(self, now: float) -> float:
        """How soon there is one to take, in seconds; infinite if there is none."""
        if self._line:
            return 0.0
        return max(0.0, self._aside[0][0] - now) if self._aside else float("inf")
