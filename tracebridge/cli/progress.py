"""A progress bar on long work, when someone is looking at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """How far the work is."""

    def update(self, done: int, total: int) -> None:
        """`done` of `total` units are done."""
        ...


class _Silent:
    def update(self, done: int, total: int) -> None:
        return


@contextmanager
def progress(label: str, unit: str) -> Iterator[Bar]:
    """Show a bar on standard error while the block runs, if that is a terminal and `rich` is installed."""
    if not sys.stderr.isatty():
        yield _Silent()
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _Silent()
        return

    class _Shown:
        def __init__(self, bars: Progress, task: TaskID) -> None:
            self._bars, self._task = bars, task

        def update(self, done: int, total: int) -> None:
            self._bars.update(self._task, completed=done, total=total)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Shown(bars, bars.add_task(label, total=0))
