"""Which sessions a sink should hold, of those that a validation is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Final

import msgspec

from tracebridge.delivery.evidence import Compared
from tracebridge.delivery.portion import Journal, Portion, Standing, recorded
from tracebridge.delivery.state import State
from tracebridge.event import SESSION_START, Event
from tracebridge.journal.reader import read_journal
from tracebridge.journal.survey import Unread, parts_apart
from tracebridge.policy import Policy
from tracebridge.validation.sample import is_drawn
from tracebridge.validation.scope import Scope

_TAIL_BYTES: Final = 1 << 16
_LONGEST_FIRST_LINE: Final = 1 << 20


class Owed(msgspec.Struct, frozen=True, kw_only=True):
    """One session that the sink should hold."""

    session_id: str
    journals: tuple[Journal, ...]

    @property
    def size(self) -> int:
        """Bytes of its journals."""
        return sum(journal.size for journal in self.journals)


class Owing(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to compare."""

    sessions: tuple[Owed, ...]
    """Those that are to be compared."""
    drawn_from: int
    """How many there were before a sample was drawn."""
    sampled_out: int
    """Sessions that the sink's policy leaves out as a whole, or that began before its share was raised to them."""
    known_clean: int
    """Sessions that were compared and found clean before, as they are now."""


def owing(state: State, target: int, policy: Policy, scope: Scope, rules: str) -> Owing:
    """Look through every folder that the state knows of.

    Args:
        state: knows the folders, what of them is delivered, and what was compared before.
        target: the number of the sink's backend.
        policy: the sink's.
        scope: which sessions are asked about.
        rules: what they are compared under; what was compared under others is compared again.
    """
    found: dict[str, list[Journal]] = {}
    sampled_out: set[str] = set()
    portion = Portion.of(state, target, policy)
    for journal in recorded(state):
        session_id = journal.session_id
        if scope.session_id not in (None, session_id):
            continue
        standing = portion.standing(journal)
        if standing is Standing.TAKEN:
            found.setdefault(session_id, []).append(journal)
        elif standing.is_left_out:
            sampled_out.add(session_id)
    asked = [
        Owed(session_id=session_id, journals=tuple(journals))
        for session_id, journals in found.items()
        if _is_in_scope(journals, scope)
    ]
    drawn = [owed for owed in asked if scope.sample >= 1.0 or is_drawn(owed.session_id, scope.sample)]
    known = {one.key: one for one in state.evidence.compared(target)} if scope.since_last else {}
    left = [owed for owed in drawn if not _is_known_clean(owed, known, rules)]
    # neighbours in time are read together
    left.sort(key=_began_ns)
    return Owing(
        sessions=tuple(left),
        drawn_from=len(asked),
        sampled_out=len(sampled_out),
        known_clean=len(drawn) - len(left),
    )


def parts_apart_of(state: State, target: int, policy: Policy) -> Iterator[tuple[str, Unread]]:
    """By session, the files that may hold more of what the sink is owed, and that nobody reads, as rotated ones."""
    portion = Portion.of(state, target, policy)
    for number, path in state.folders().items():
        for folder, part in parts_apart(path):
            journal = Journal(number, folder)
            if portion.takes(journal):
                yield journal.session_id, part


def _is_in_scope(journals: list[Journal], scope: Scope) -> bool:
    if scope.until_ns is None and scope.since_ns is None and scope.environment is None:
        return True
    firsts = [first for journal in journals if (first := _first_event(journal)) is not None]
    if scope.until_ns is not None and firsts and min(first.time_ns for first in firsts) >= scope.until_ns:
        return False
    if scope.since_ns is not None and max(map(_last_ns, journals)) < scope.since_ns:
        return False
    return scope.environment is None or any(_environment_of(first) == scope.environment for first in firsts)


def _began_ns(owed: Owed) -> int:
    return min((first.time_ns for journal in owed.journals if (first := _first_event(journal)) is not None), default=0)


def _first_event(journal: Journal) -> Event | None:
    try:
        with journal.events.open("rb") as file:
            # the first line alone: there may be very many journals to look into
            start = BytesIO(file.readline(_LONGEST_FIRST_LINE))
            return next((line.event for line in read_journal(start, 0) if line.event is not None), None)
    except OSError:
        return None


def _last_ns(journal: Journal) -> int:
    """When the journal's last event happened; the end of time if that cannot be told, so that it is compared."""
    unknown = 2**63 - 1
    try:
        with journal.events.open("rb") as file:
            file.seek(max(0, journal.size - _TAIL_BYTES))
            if file.tell():
                file.readline()
            times = [line.event.time_ns for line in read_journal(file, file.tell()) if line.event is not None]
    except OSError:
        return unknown
    return max(times, default=unknown)


def _environment_of(first: Event) -> str:
    return str(first.data.get("environment") or "") if first.event_type == SESSION_START else ""


def _is_known_clean(owed: Owed, known: dict[tuple[int, str], Compared], rules: str) -> bool:
    return all(_is_clean(journal, known.get(journal.key), rules) for journal in owed.journals)


def _is_clean(journal: Journal, before: Compared | None, rules: str) -> bool:
    if before is None or before.defects:
        return False
    return before.is_current(journal.size, journal.written_ns, rules)
