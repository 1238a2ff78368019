"""`Portion`: which recorded sessions a backend gets. Whoever ships, counts, compares, reports or deletes asks it.

Three things decide: the sampling of the sink's policy, since when a raised share of sessions is delivered (`ramp.py`),
and which sessions of a backfilled folder were asked for (`choice.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from tracebridge.delivery.choice import Choice
from tracebridge.delivery.ramp import Ramp
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.policy import Policy, keeps_session


class Journal(NamedTuple):
    """One of the files in which a session is recorded: an old folder may hold its past, the trace folder the rest."""

    number: int
    """The number of the folder of sessions that it was found in."""
    folder: Path
    """The session's own folder."""

    @property
    def key(self) -> tuple[int, str]:
        """Names the journal in the state: the number of the folder, and the name of the session's own."""
        return self.number, self.folder.name

    @property
    def session_id(self) -> str:
        """The id of the session. If the folder's name is a shortened one, a file is read for it."""
        return layout.session_id_of(self.folder)

    @property
    def events(self) -> Path:
        """The file itself."""
        return layout.events_file(self.folder)

    @property
    def size(self) -> int:
        """Its bytes now; 0 if it is gone."""
        try:
            return os.stat(self.events).st_size
        except OSError:
            return 0

    @property
    def written_ns(self) -> int:
        """When it was written to last, in nanoseconds since the epoch; 0 if it is gone."""
        try:
            return os.stat(self.events).st_mtime_ns
        except OSError:
            return 0


def recorded(state: State) -> Iterator[Journal]:
    """Every journal in the folders that a state knows, folder by folder, in the order of the sessions' names."""
    for number, path in state.folders().items():
        for folder in layout.session_folders(path):
            yield Journal(number, folder)


class Standing(Enum):
    """Whether a backend gets a session, and if not, why."""

    TAKEN = auto()
    """It does."""
    NOT_CHOSEN = auto()
    """It lies in a backfilled folder of which others were asked for: it is owed to nobody, and no account knows it."""
    SAMPLED_OUT = auto()
    """The sink's policy leaves it out as a whole."""
    LEFT_BEHIND = auto()
    """It began before the sink's share was raised to it, and its past was not asked for."""

    @property
    def is_in(self) -> bool:
        """Whether the sink's sampling keeps the session, be its past asked for or not."""
        return self in (Standing.TAKEN, Standing.LEFT_BEHIND)

    @property
    def is_left_out(self) -> bool:
        """Whether it is the sink's own share that leaves the session out."""
        return self in (Standing.SAMPLED_OUT, Standing.LEFT_BEHIND)


class Portion:
    """What one backend gets, as the state says at one moment. A session is taken as a whole, or not at all."""

    def __init__(self, policy: Policy, choice: Choice, ramp: Ramp) -> None:
        self.choice = choice
        self.ramp = ramp
        self.leaves_nothing_out = policy.sample_rate >= 1.0 and not ramp.stages
        """Whether the sink's share is all there is, so that no session can be left out of it."""
        self._policy = policy

    @classmethod
    def of(cls, state: State, target: int, policy: Policy) -> Portion:
        """That of a target, whose sink has this policy."""
        return cls(policy, Choice(state.choices()), state.ramp(target))

    def takes(self, journal: Journal) -> bool:
        """Whether the backend gets a session: whether its standing is `TAKEN`, at the least cost of finding out."""
        # where there are windows, the journal is read
        return self._within_share(journal) is Standing.TAKEN and self._is_chosen(journal)

    def standing(self, journal: Journal) -> Standing:
        """Why the backend gets a session, or does not."""
        # what was never asked for is not left out by anybody, whatever the share says
        return self._within_share(journal) if self._is_chosen(journal) else Standing.NOT_CHOSEN

    def _is_chosen(self, journal: Journal) -> bool:
        # no path is made of a journal that need not be looked into: shippers ask this of every session they find
        return self.choice.takes_all(journal.number) or self.choice.takes(journal.number, journal.events)

    def _within_share(self, journal: Journal) -> Standing:
        if self.leaves_nothing_out:
            return Standing.TAKEN
        session_id = journal.session_id
        if not keeps_session(self._policy, session_id):
            return Standing.SAMPLED_OUT
        if self.ramp.stages and not self.ramp.takes(session_id, journal.events):
            return Standing.LEFT_BEHIND
        return Standing.TAKEN
