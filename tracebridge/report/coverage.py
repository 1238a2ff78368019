"""Coverage over time: of the sessions that began on each day, how many are known to be at a backend."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from tracebridge.delivery.choice import began_ns_of
from tracebridge.delivery.evidence import Compared
from tracebridge.delivery.portion import Portion, recorded
from tracebridge.delivery.state import State
from tracebridge.policy import Policy
from tracebridge.report.record import Day


class OwedSession(NamedTuple):
    """A session's journal that a sink is owed."""

    folder: int
    """The number of the folder of sessions."""
    session: str
    """The name of the session's own folder."""
    began_ns: int
    size: int
    """Of the journal, in bytes."""
    written_ns: int = 0
    """When the journal was written to last."""


def owed_sessions(state: State, target: int, policy: Policy) -> Iterator[OwedSession]:
    """The sessions in the trace folder and in every backfilled one that a target, whose sink has this policy, gets.

    Of each journal only the first event is read. What cannot be read, or holds none, has no day and is left out.
    """
    portion = Portion.of(state, target, policy)
    for journal in recorded(state):
        began_ns = began_ns_of(journal.events) if portion.takes(journal) else None
        if began_ns is not None and (size := journal.size):  # 0 if it was removed meanwhile, as every sink has it
            yield OwedSession(journal.number, journal.folder.name, began_ns, size, journal.written_ns)


def by_day(owed: Iterable[OwedSession], compared: Iterable[Compared], rules: str) -> tuple[Day, ...]:
    """Count the sessions of each day.

    One that was written to since it was compared, or that was compared under other rules than these, counts as not
    compared.
    """
    known = {one.key: one for one in compared}
    days: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for session in owed:
        last = known.get((session.folder, session.session))
        is_compared = last is not None and last.is_current(session.size, session.written_ns, rules)
        is_clean = is_compared and last is not None and last.defects == 0
        days[_day(session.began_ns)].append((is_compared, is_clean))
    return tuple(
        Day(
            date=date,
            owed=len(sessions),
            compared=sum(is_compared for is_compared, _ in sessions),
            clean=sum(is_clean for _, is_clean in sessions),
        )
        for date, sessions in sorted(days.items())
    )


def _day(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).date().isoformat()
