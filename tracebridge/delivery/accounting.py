"""`Accounting`: where the events of a journal are, as one sink sees it. Every event is in exactly one place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tracebridge.delivery.backlog import Backlog, Unread, lines_of
from tracebridge.delivery.choice import first_ns_of
from tracebridge.delivery.portion import Portion, recorded
from tracebridge.delivery.records import Account
from tracebridge.delivery.state import State
from tracebridge.policy import Policy


class Accounting(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of events. `written` is the sum of the others."""

    written: int
    """Written to the journals, those of sessions included that were removed since."""
    confirmed: int
    """The backend has taken the spans they are in."""
    in_flight: int
    """They are sent, or written down to be sent, and the backend has not taken them for certain."""
    unread: int
    """They are still to be read."""
    open: int
    """Their spans wait for their end, and cannot be sent before."""
    dead: int
    """The backend refused their spans for good."""
    discarded: int
    """They were dead letters that somebody gave up."""
    left_out: int
    """The sink's policy samples their sessions out, or does not keep their spans."""
    unaccounted: int
    """In none of these places: 0, but in a state of an earlier version, which did not count what was removed."""
    oldest_ns: int
    """When the oldest event was written that is in flight or unread, in nanoseconds since the epoch; 0 without any."""

    @property
    def pending(self) -> int:
        """Those that the sink is still to get."""
        return self.unread + self.open


NOTHING: Final = Accounting(
    written=0, confirmed=0, in_flight=0, unread=0, open=0, dead=0, discarded=0, left_out=0, unaccounted=0, oldest_ns=0
)


def account_for(state: State, target: int, policy: Policy) -> Accounting:
    """Tell where the events of all folders are for one target.

    The backlog is counted, so it takes time in proportion to it.
    """
    with state.moment():
        unread = list(Backlog(state, target, policy).unread())
        account = state.account(target)
    return accounting_of(state, policy, account, unread)


def accounting_of(state: State, policy: Policy, account: Account, unread: Sequence[Unread]) -> Accounting:
    """Tell it of a target's account and unread sessions that are known already, both of one moment."""
    unread_events = sum(lines_of(session.path, session.offset) for session in unread)
    left_out = sum(lines_of(path, offset) for path, offset in _left_out(state, account, policy))
    times = [account.in_flight_since_ns, *map(_first_unread_ns, unread)]
    return Accounting(
        written=account.read_events + unread_events + left_out,
        confirmed=account.counters.get("confirmed_events", 0),
        in_flight=account.in_flight_events,
        unread=unread_events,
        open=account.open_events,
        dead=account.dead_events,
        discarded=account.counters.get("discarded_events", 0),
        left_out=left_out + account.counters.get("left_out_events", 0),
        unaccounted=account.unaccounted_events,
        oldest_ns=min(filter(None, times), default=0),
    )


def _left_out(state: State, account: Account, policy: Policy) -> Iterator[tuple[Path, int]]:
    """The journals that the policy's sampling leaves out, or took in only from a later time on.

    Each with how many bytes of it were read: what was sent under a wider policy is where it was.
    """
    target = state.target(account.sink, account.endpoint)
    portion = Portion.of(state, target, policy)
    if portion.leaves_nothing_out:
        return
    positions = {number: state.positions(target, number) for number in state.folders()}
    for journal in recorded(state):
        if portion.standing(journal).is_left_out:
            number, name = journal.key
            offset = positions.get(number, {}).get(name, 0)
            # another file may have taken the place of the one that was read
            yield journal.events, offset if offset <= journal.size else 0


def _first_unread_ns(session: Unread) -> int:
    """When the first event was written that was not read; 0 if there is none, or if it cannot be told."""
    try:
        return first_ns_of(session.path, session.offset) or 0
    except OSError:
        return 0
