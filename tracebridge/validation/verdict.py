"""`Verdict`: the answer to "does the new backend show everything?"."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from tracebridge.validation.comparison import DEFECTS, Comparison, Finding
from tracebridge.validation.owed import Owing
from tracebridge.validation.remedy import remedy
from tracebridge.validation.sample import undetected_at_most
from tracebridge.validation.scope import Scope

CLEAN: Final = 0
FOUND: Final = 1
UNCOMPARED: Final = 2

MOST_EXAMPLES: Final = 1_000
"""Of how many findings of a kind more is kept than their number."""


class Uncompared(msgspec.Struct, frozen=True, kw_only=True):
    """Something that should have been compared and could not be."""

    session_id: str
    """Empty when it is not about one session."""
    reason: str


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
    counts: dict[str, int]
    """By kind of finding, how many there are."""
    findings: tuple[Finding, ...]
    """Of each kind at most `MOST_EXAMPLES`."""
    uncompared: tuple[Uncompared, ...]
    policy: dict[str, int] = {}
    """By what the sink's policy did on purpose (`sessions sampled out`, `events narrowed`), how often. Spans that an
    earlier one has made otherwise than they would be now are counted with it."""
    server_computed: dict[str, int] = {}
    """By field, in how many spans the backend shows a value that it computed by itself, as prices; no difference."""
    scope: Scope = Scope()
    drawn_from: int = 0
    """Owed sessions in the scope before a sample was drawn."""
    known_clean: int = 0
    """Sessions that were left out because they were compared and found clean before, and have not changed."""
    resent: int = 0
    """Missing spans that the next shipper sends again, because that was asked for."""
    began_ns: int = 0
    ended_ns: int = 0

    @property
    def exit_code(self) -> Literal[0, 1, 2]:
        """0: every owed, closed session was compared and nothing was found. 1: findings. 2: something was not compared.

        Having compared nothing is never a pass.
        """
        if any(self.counts.get(kind) for kind in DEFECTS):
            return FOUND
        return UNCOMPARED if self.is_incomplete else CLEAN

    @property
    def is_incomplete(self) -> bool:
        """Whether something that is owed was not compared, or nothing was."""
        return bool(self.uncompared) or self.sessions + self.known_clean == 0

    @property
    def undetected(self) -> int:
        """How many of the sessions that were not drawn may be defective at most, with a confidence of 95 %.

        It is of use only if nothing was found; 0 if all were compared.
        """
        return undetected_at_most(self.sessions + self.known_clean, self.drawn_from)

    @property
    def summary(self) -> Summary:
        """What of it is kept in the history."""
        return Summary(
            exit_code=self.exit_code,
            sessions=self.sessions,
            known_clean=self.known_clean,
            drawn_from=self.drawn_from,
            expected=self.expected,
            equal=self.equal,
            counts=self.counts,
            losses=self.losses,
            uncompared=len(self.uncompared),
        )


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict in numbers; see `Verdict`."""

    exit_code: int
    sessions: int
    known_clean: int
    drawn_from: int
    expected: int
    equal: int
    counts: dict[str, int]
    losses: dict[str, int]
    uncompared: int


class Tally:
    """Adds up comparisons to a verdict, in memory that does not grow with what is found."""

    def __init__(self, sink: str, endpoint: str, scope: Scope, owed: Owing) -> None:
        self._sink, self._endpoint, self._scope, self._owed = sink, endpoint, scope, owed
        self._began_ns = time.time_ns()
        self.resent = 0
        """Spans that are to be sent again."""
        self._sessions = 0
        self._spans: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._computed: Counter[str] = Counter()
        self._expected = self._observed = self._equal = self._narrowed = self._earlier = 0
        self._findings: list[Finding] = []
        self._uncompared: list[Uncompared] = []

    @property
    def examples(self) -> int:
        """How many findings are kept so far."""
        return len(self._findings)

    def add(self, comparison: Comparison, spans: dict[str, int], narrowed: int, computed: Iterable[str] = ()) -> None:
        """Count a session that was compared whole; `computed` are fields that the backend has filled, span by span."""
        self._computed.update(computed)
        self._sessions += 1
        self._spans.update(spans)
        self._losses.update(comparison.losses)
        self._expected += comparison.expected
        self._observed += comparison.observed
        self._equal += comparison.equal
        self._narrowed += narrowed
        self._earlier += comparison.earlier.spans
        self._note(comparison.findings)

    def pending(self, comparison: Comparison) -> None:
        """Count what of a session is still to be delivered."""
        self._note(
            [
                msgspec.structs.replace(finding, kind="pending", command=remedy("pending", self._sink, ""))
                for finding in comparison.findings
                if finding.kind == "missing"
            ]
        )

    def could_not_compare(self, reason: str, session_id: str = "") -> None:
        """Note what was not compared, and why."""
        self._uncompared.append(Uncompared(session_id=session_id, reason=reason))

    def verdict(self) -> Verdict:
        """What it all came to."""
        if self._sessions == 0 and not self._uncompared and not self._owed.known_clean:
            self.could_not_compare(self._why_nothing())
        policy = {
            "sessions sampled out": self._owed.sampled_out,
            "events narrowed": self._narrowed,
            "spans sent under earlier rules, otherwise than they would be now": self._earlier,
        }
        return Verdict(
            sink=self._sink,
            endpoint=self._endpoint,
            sessions=self._sessions,
            spans=dict(self._spans),
            expected=self._expected,
            observed=self._observed,
            equal=self._equal,
            losses=dict(self._losses),
            counts=dict(self._counts),
            findings=tuple(self._findings),
            uncompared=tuple(self._uncompared),
            policy={name: count for name, count in policy.items() if count},
            server_computed=dict(self._computed),
            scope=self._scope,
            drawn_from=self._owed.drawn_from,
            known_clean=self._owed.known_clean,
            resent=self.resent,
            began_ns=self._began_ns,
            ended_ns=time.time_ns(),
        )

    def _why_nothing(self) -> str:
        owed = self._owed
        if self._scope.sample < 1 and owed.drawn_from and not owed.sessions:
            return f"none of the {owed.drawn_from:,} sessions was drawn; ask for a larger share with --sample"
        if owed.drawn_from:
            return "no session that is owed to this sink holds an event"
        return "no session is owed to this sink"

    def _note(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._counts[finding.kind] += 1
            if self._counts[finding.kind] <= MOST_EXAMPLES:
                self._findings.append(finding)
