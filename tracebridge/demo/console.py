"""`Console`: how the demo looks. In colour on a terminal if `rich` is installed, plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable

Write = Callable[[str, str], None]
"""Writes a line in a style."""


class Console:
    """Writes a story of numbered steps to standard output."""

    def __init__(self, write: Write | None = None) -> None:
        self._write = write or _standard_output()
        self._steps = 0

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._steps += 1
        self._write("", "")
        self._write(f"{self._steps}. {title}", "bold")

    def say(self, *lines: str) -> None:
        """Tell something."""
        for line in lines:
            self._write(f"   {line}".rstrip(), "")

    def kept(self, words: str) -> None:
        """Tell that something came out as it should."""
        self._write(f"   ok: {words}", "green")

    def broken(self, words: str) -> None:
        """Tell that something did not come out as it should."""
        self._write(f"   NOT SO: {words}", "bold red")

    def command(self, line: str) -> None:
        """Show a command."""
        self._write(f"   $ {line}", "cyan")

    def output(self, text: str) -> None:
        """Show what a command printed."""
        for line in text.splitlines():
            self._write(f"     {line}".rstrip(), "dim")


def _standard_output() -> Write:
    if sys.stdout.isatty():
        try:
            from rich.console import Console as RichConsole
        except ImportError:
            pass
        else:
            rich = RichConsole(highlight=False, markup=False, emoji=False, soft_wrap=True)
            return lambda line, style: rich.print(line, style=style or None)
    return lambda line, _: print(line, flush=True)
