"""`Run`: what is open in one run, and when it has waited for long enough."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tracebridge.assembler import derived_ids
from tracebridge.assembler.deadlines import LATEST_NS
from tracebridge.assembler.opening import OpenCalls, Opening, OpenTurns, in_range
from tracebridge.event import Event, Json

DEFAULT_ORPHAN_AFTER_S: Final = 3600.0
"""How long an opening event waits for its closing one in runs that do not say so themselves."""

_NS: Final = 1_000_000_000


class Expired(NamedTuple):
    """An opening event that has waited for too long."""

    deadline_ns: int
    opening: Opening


class Run:
    """What is open in one run."""

    __slots__ = (
        *("answered", "attributes", "calls", "last_ns", "number", "orphan_after_ns", "run_id", "session", "turns"),
    )

    def __init__(self, run_id: str, number: int, last_ns: int = 0) -> None:
        self.run_id = run_id
        self.number = number
        self.session: Opening | None = None
        self.attributes: dict[str, Any] = {}
        self.orphan_after_ns = int(DEFAULT_ORPHAN_AFTER_S * _NS)
        self.last_ns = last_ns
        self.turns = OpenTurns()
        self.calls = OpenCalls()
        self.answered: Event | str = ""
        """The latest answer to a call of a model, or its name: most are never asked for, and named when they are."""

    @property
    def answer(self) -> str:
        """Names what the latest answer to a call of a model said; empty when there was none."""
        if isinstance(self.answered, Event):
            self.answered = derived_ids.answer(self.answered.turn, self.answered.data)
        return self.answered

    def is_answer_again(self, event: Event) -> bool:
        """Whether an answer for which no call is open says what the latest answer said, in the same turn."""
        return self.answer == derived_ids.answer(event.turn, event.data)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is open."""
        return self.session is None and not self.turns and not self.calls

    def deadline_ns(self) -> int:
        """The time after which something here has waited for too long; far in the future when nothing is open."""
        earliest_ns = self.calls.earliest_ns()
        if self.session is not None or self.turns:
            earliest_ns = min(earliest_ns, self.last_ns)
        return min(earliest_ns + self.orphan_after_ns, LATEST_NS)

    def take_expired(self, now_ns: int) -> list[Expired]:
        """Take out what has waited for too long at `now_ns`: all of it when the run itself is over."""
        before_ns = now_ns - self.orphan_after_ns
        expired = [
            Expired(in_range(call.event.time_ns) + self.orphan_after_ns, call)
            for call in self.calls.take_before(before_ns)
        ]
        if self.last_ns < before_ns:
            expired += [Expired(self.last_ns + self.orphan_after_ns, opening) for opening in self.take_all()]
        return expired

    def take_all(self) -> list[Opening]:
        """Take out everything, what was opened inside something else before that."""
        taken = [*self.calls, *reversed(list(self.turns))]
        if self.session is not None:
            taken.append(self.session)
        self.session, self.turns, self.calls = None, OpenTurns(), OpenCalls()
        return taken


def orphan_after_ns(session_start: Event) -> int:
    """How long a run waits for a missing end, as its first event says."""
    seconds: Json = session_start.data.get("orphan_after_s")
    if type(seconds) in (int, float) and seconds > 0:
        return int(min(seconds, LATEST_NS // _NS) * _NS)
    return int(DEFAULT_ORPHAN_AFTER_S * _NS)
