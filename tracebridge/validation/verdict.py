"""`Verdict`: the answer to "does the new backend show everything?"."""

from __future__ import annotations

from collections import Counter
from typing import Final, Literal

import msgspec

from tracebridge.validation.comparison import Comparison, Finding

CLEAN: Final = 0
FOUND: Final = 1
UNCOMPARED: Final = 2


class Uncompared(msgspec.Struct, frozen=True, kw_only=True):
    """Something that should have been compared and could not be."""

    session_id: str
    """Empty when it is not about one session."""
    reason: str


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


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What validating a sink came to."""

    sink: str
    endpoint: str
    sessions: int
    """Sessions that were compared whole."""
    spans: dict[str, int]
    """By kind, how many spans were expected in them."""
    expected: int
    observed: int
    equal: int
    losses: dict[str, int]
    findings: tuple[Finding, ...]
    uncompared: tuple[Uncompared, ...]
    policy: dict[str, int] = {}
    """By what the sink's policy did on purpose (`sessions sampled out`, `spans narrowed`), how often."""
    server_computed: dict[str, int] = {}
    """By field, how often the backend shows a value there that it computed by itself, as prices; no difference."""
    scope: Scope = Scope()
    drawn_from: int = 0
    """Owed sessions in the scope before a sample was drawn."""
    began_ns: int = 0
    ended_ns: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """By kind of finding, how many there are."""
        return dict(Counter(finding.kind for finding in self.findings))

    @property
    def exit_code(self) -> Literal[0, 1, 2]:
        """0: every owed, closed session was compared and nothing was found. 1: findings. 2: something was not compared.

        Having compared nothing is never a pass.
        """
        if any(finding.kind != "foreign" for finding in self.findings):
            return FOUND
        if self.uncompared or self.sessions == 0:
            return UNCOMPARED
        return CLEAN


class Tally:
    """Adds up comparisons to a verdict."""

    def __init__(self, sink: str, endpoint: str) -> None:
        self._sink, self._endpoint = sink, endpoint
        self._sessions = 0
        self._spans: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._expected = self._observed = self._equal = 0
        self._findings: list[Finding] = []
        self._uncompared: list[Uncompared] = []

    def add(self, comparison: Comparison, spans: dict[str, int]) -> None:
        """Count a session that was compared whole."""
        self._sessions += 1
        self._spans.update(spans)
        self._losses.update(comparison.losses)
        self._expected += comparison.expected
        self._observed += comparison.observed
        self._equal += comparison.equal
        self._findings += comparison.findings

    def could_not_compare(self, reason: str, session_id: str = "") -> None:
        """Note what was not compared, and why."""
        self._uncompared.append(Uncompared(session_id=session_id, reason=reason))

    def verdict(self) -> Verdict:
        """What it all came to."""
        if self._sessions == 0 and not self._uncompared:
            self.could_not_compare("no session is owed to this sink")
        return Verdict(
            sink=self._sink,
            endpoint=self._endpoint,
            sessions=self._sessions,
            spans=dict(self._spans),
            expected=self._expected,
            observed=self._observed,
            equal=self._equal,
            losses=dict(self._losses),
            findings=tuple(self._findings),
            uncompared=tuple(self._uncompared),
        )
