"""`Deadlines`: what has a time at which it is over, found in the order of those times."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

LATEST_NS: Final = 2**63 - 1
"""A time that never comes."""

_SLACK: Final = 16

Key = TypeVar("Key")


class Deadlines(Generic[Key]):
    """Keys, each with one time in nanoseconds; keys must be hashable and ordered among themselves.

    Every operation takes steps that grow with the logarithm of the number of keys, on average, and memory follows
    that number, however often times are set anew.
    """

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[Key, int] = {}
        # may hold times that were set before, which are passed over
        self._heap: list[tuple[int, Key]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: Key, at_ns: int) -> None:
        """Give a key its time, in place of any it had."""
        if self._at.get(key) == at_ns:
            return
        self._at[key] = at_ns
        heappush(self._heap, (at_ns, key))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._clear_out()

    def set_earlier(self, key: Key, at_ns: int) -> None:
        """Give a key its time, unless it has an earlier one."""
        if at_ns < self._at.get(key, LATEST_NS):
            self.set(key, at_ns)

    def discard(self, key: Key) -> None:
        """Forget a key, if it is known."""
        if self._at.pop(key, None) is not None and len(self._heap) > 2 * len(self._at) + _SLACK:
            self._clear_out()

    def first(self) -> tuple[int, Key] | None:
        """The earliest time and its key."""
        heap, at = self._heap, self._at
        while heap:
            at_ns, key = heap[0]
            if at.get(key) == at_ns:
                return heap[0]
            heappop(heap)
        return None

    def earliest_ns(self) -> int:
        """The earliest time; one that never comes when there is no key."""
        found = self.first()
        return LATEST_NS if found is None else found[0]

    def may_be_before(self, now_ns: int) -> bool:
        """Whether `take_before` may have something to take out; False is certain."""
        return bool(self._heap) and self._heap[0][0] < now_ns

    def take_before(self, now_ns: int) -> list[Key]:
        """Take out the keys whose time is before `now_ns`, earliest first."""
        taken = []
        while (found := self.first()) is not None and found[0] < now_ns:
            heappop(self._heap)
            del self._at[found[1]]
            taken.append(found[1])
        return taken

    def _clear_out(self) -> None:
        self._heap = [(at_ns, key) for key, at_ns in self._at.items()]
        heapify(self._heap)
