"""Walks through the pages of a query: newest first, each row once, each copy of a row too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from tracebridge.errors import BackendError
from tracebridge_langfuse.api import TooMuchError
from tracebridge_langfuse.observation import milliseconds_text
from tracebridge_langfuse.rows import Key, Page, Row

LARGEST_PAGE: Final = 1_000
"""The server refuses to be asked for more."""
_FIRST_PAGE: Final = 10
"""The least to begin with, however few rows are enough."""
_FIRST_PATIENCE: Final = 2
_TIED_AT_MOST: Final = 10
"""A page goes on by time if no more than this part of it, a tenth, is read again for that."""

Ask = Callable[[Mapping[str, str], bool], Page]
"""Asks with query parameters for a page; the flag says that a smaller page can be asked for, with `TooMuchError`."""


class PageSize:
    """How many rows to ask for at once: fewer after an answer that was too large, soon more again."""

    def __init__(self, enough: int = LARGEST_PAGE) -> None:
        """Begin with as many rows as are enough, within reason."""
        self.limit = min(max(enough, _FIRST_PAGE), LARGEST_PAGE)
        self._good = 0
        self._patience = _FIRST_PATIENCE
        self._has_grown = False

    @property
    def can_be_less(self) -> bool:
        """Whether fewer can be asked for."""
        return self.limit > 1

    def too_much(self) -> None:
        """The answer was too large."""
        self.limit = max(self.limit // 4, 1)
        self._good = 0
        if self._has_grown:
            # where all rows are large, one failure in few pages would be for nothing each time
            self._patience *= 2
            self._has_grown = False

    def fitted(self) -> None:
        """The answer came."""
        self._good += 1
        if self._good >= self._patience and self.limit < LARGEST_PAGE:
            self.limit = min(self.limit * 4, LARGEST_PAGE)
            self._good = 0
            self._has_grown = True


def rows(ask: Ask, conditions: Mapping[str, str], size: PageSize) -> Iterator[Row]:
    """Yield all rows that the conditions hold for. One page is in memory at a time.

    A page goes on by the server's cursor, which steps over the other copies of the row that it stands for. So where few
    rows of a page share the last one's start, the next page begins with these once more, and as many copies as were
    yielded are left out.

    Raises:
        BackendError: as `ask` does, or because the server gives the same page again.
    """
    position = dict(conditions)
    yielded: Counter[Key] = Counter()
    last_ms = 0
    while True:
        try:
            page = ask(position | {"limit": str(size.limit)}, size.can_be_less)
        except TooMuchError:
            size.too_much()
            continue
        size.fitted()
        for row in page.data:
            if yielded[row.key] and row.start_ms == last_ms:
                yielded[row.key] -= 1
            else:
                yield row
        if page.meta.cursor is None:
            return
        following, yielded, last_ms = _following(conditions, position, page)
        if following == position:
            raise BackendError("LangFuse gives the same page of observations again and again; nothing can be read")
        position = following
        del page


def _following(
    conditions: Mapping[str, str], position: Mapping[str, str], page: Page
) -> tuple[dict[str, str], Counter[Key], int]:
    """What to ask for after a page, and which of its rows that gives again, with the start that they share."""
    cursor = str(page.meta.cursor)
    starts = [row.start_ms for row in page.data]
    last_ms = starts[-1] if starts else 0
    tied = [row.key for row in page.data if row.start_ms == last_ms]
    is_sorted = starts == sorted(starts, reverse=True)
    if is_sorted and 0 < len(tied) * _TIED_AT_MOST <= len(starts):
        # no row of this millisecond was on an earlier page, for then all of this one would be of it
        return {**conditions, "toStartTime": milliseconds_text(last_ms + 1)}, Counter(tied), last_ms
    return {**position, "cursor": cursor}, Counter(), last_ms
