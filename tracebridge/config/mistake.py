"""`Mistake`: something in a configuration that cannot be used."""

from __future__ import annotations

import msgspec


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, where, and what to do about it. It never holds a value that may be secret."""

    source: str
    """The file as it was named, or `configuration` for one that was given as a mapping."""
    line: int | None = None
    """The line in the file, from 1; None where there is none."""
    path: str = ""
    """The key's path, e.g. `agent_trace.sinks.langfuse.host`; empty for the file as a whole."""
    problem: str
    remedy: str

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        path = f"{self.path}: " if self.path else ""
        return f"{self.source}{line}: {path}{self.problem}; {self.remedy}"
