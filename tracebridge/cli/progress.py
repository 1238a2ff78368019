"""How far long work is, and how long it will take: a bar on a terminal, lines elsewhere for who asks for them."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TextIO

from tracebridge.cli.times import as_age

_WINDOW_S: Final = 60.0
"""How far back the work is looked at to tell how fast it goes, in seconds."""
_LEAST_S: Final = 1.0
"""For how long it must have gone before that can be told, in seconds."""


class Bar(Protocol):
    """How far the work is."""

    def update(self, done: int, total: int) -> None:
        """`done` of `total` units are done."""
        ...


class Estimate:
    """Tells how long the rest will take, if it goes on as in the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self._total = 0

    def update(self, done: int, total: int) -> None:
        """`done` of `total` units are done."""
        now = self._clock()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        # one that is a window old is kept: what happened since is what counts
        while len(self._seen) > 1 and self._seen[1][0] <= now - _WINDOW_S:
            self._seen.popleft()
        self._total = total

    @property
    def left_s(self) -> float | None:
        """How long the rest will take, in seconds; None while that cannot be told."""
        if not self._seen:
            return None
        began, first = self._seen[0]
        _, done = self._seen[-1]
        elapsed = self._clock() - began
        if elapsed < _LEAST_S or done <= first:
            return None
        return (self._total - done) * elapsed / (done - first)


class _Silent:
    def update(self, done: int, total: int) -> None:
        return


class Lines:
    """Prints a line now and then."""

    def __init__(
        self, label: str, unit: str, every_s: float, out: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """The first line comes after `every_s` seconds. `clock` gives seconds."""
        self._label, self._unit, self._every_s, self._out, self._clock = label, unit, every_s, out, clock
        self._estimate = Estimate(clock)
        self._said_at = clock()

    def update(self, done: int, total: int) -> None:
        """Print a line if it is time to."""
        self._estimate.update(done, total)
        if total and self._clock() - self._said_at >= self._every_s:
            self._said_at = self._clock()
            print(f"{self._label}: {told(done, total, self._unit, self._estimate.left_s)}", file=self._out, flush=True)


def told(done: int, total: int, unit: str, left_s: float | None) -> str:
    """How far it is, for people."""
    left = "" if left_s is None else f", {as_age(left_s)} left"
    return f"{done:,}/{total:,} {unit} ({100 * done / max(1, total):.0f} %){left}"


@contextmanager
def progress(label: str, unit: str, lines_every_s: float | None = None) -> Iterator[Bar]:
    """Show on standard error how far the block is: a bar, if that is a terminal and `rich` is installed.

    Elsewhere it prints a line every `lines_every_s` seconds, if that is given.
    """
    lines: Bar = Lines(label, unit, lines_every_s, sys.stderr) if lines_every_s is not None else _Silent()
    if not sys.stderr.isatty():
        yield lines
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn
    except ImportError:
        yield lines
        return

    class _Shown:
        def __init__(self, bars: Progress, task: TaskID) -> None:
            self._bars, self._task, self._estimate = bars, task, Estimate()

        def update(self, done: int, total: int) -> None:
            self._estimate.update(done, total)
            words = told(done, total, unit, self._estimate.left_s)
            self._bars.update(self._task, completed=done, total=total, told=words)

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Shown(bars, bars.add_task(label, total=0, told=""))
