"""Sinks that were delivered to and are switched off: what they are still owed is named, and kept."""

from __future__ import annotations

from collections import defaultdict

import msgspec

from tracebridge.config import Settings
from tracebridge.delivery.backlog import size_of
from tracebridge.delivery.portion import Portion, recorded
from tracebridge.delivery.state import State, Target
from tracebridge.journal import layout
from tracebridge.policy import Policy


class StillOwed(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink that is switched off has not got."""

    sink: str
    endpoint: str
    sessions: int
    """How many sessions it was to get and has not read to their end."""
    events: int
    """How many events stand behind spans that are in flight to it."""


def switched_off(state: State, settings: Settings) -> list[Target]:
    """The backends that are not delivered to under these settings: switched off, left out, or pointed elsewhere."""
    enabled: set[tuple[str, str]] = set()
    # a plug-in with a defect may not tell where it sends to, but that does not switch its sink off
    unknown = {sink.name for sink in settings.defective_sinks}
    for sink in settings.enabled_sinks:
        try:
            enabled.add((sink.name, sink.endpoint))
        except Exception:  # who ships to it has the same trouble, and tells it
            unknown.add(sink.name)
    return [
        target
        for target in state.targets()
        if target.sink not in unknown and (target.sink, target.endpoint) not in enabled
    ]


def mark_switched_off(state: State, settings: Settings) -> None:
    """Write down what each of them is owed at this moment, if that was not done when it was first found off.

    One that nobody ever shipped to is owed nothing: a command has looked at a configuration that names it.
    """
    for target in switched_off(state, settings):
        if not target.off_since_ns and state.was_shipped_to(target.id):
            named = settings.sink(target.sink)
            policy = named.policy if named is not None else Policy()
            state.switched_off(target.id, _sessions(state, target.id, policy))


def switch_on(state: State, target: int, *, is_readable: bool) -> None:
    """A target is delivered to again.

    What it has not got another sink may have brought to the same place meanwhile: the same one under another name, or
    by another address. Then a backend that can be read is asked before anything of that is sent.
    """
    known = state.targets()
    (own,) = (one for one in known if one.id == target)
    if not own.off_since_ns:
        return
    others = [other for other in known if other != own and (other.sink == own.sink or other.endpoint == own.endpoint)]
    is_asked = is_readable and any(state.was_shipped_to(other.id) for other in others)
    state.switched_on(target, _unread_ends(state, target) if is_asked else None)


def still_owed(state: State, settings: Settings) -> list[StillOwed]:
    """What those that are owed something have not got."""
    found = [
        StillOwed(
            sink=target.sink,
            endpoint=target.endpoint,
            sessions=_unread(state, target.id),
            events=state.in_flight_events(target.id),
        )
        for target in switched_off(state, settings)
    ]
    return [owed for owed in found if owed.sessions or owed.events]


def _sessions(state: State, target: int, policy: Policy) -> dict[int, list[str]]:
    """The names of the sessions that a target was to get, by folder."""
    portion = Portion.of(state, target, policy)
    names: dict[int, list[str]] = defaultdict(list)
    for journal in recorded(state):
        if portion.takes(journal):
            names[journal.number].append(journal.folder.name)
    return names


def _unread(state: State, target: int) -> int:
    return len(_unread_ends(state, target))


def _unread_ends(state: State, target: int) -> dict[tuple[int, str], int]:
    """The sessions that a target has not read to their end, by folder and name, and where that is."""
    sizes = (
        (folder, session, position, size_of(layout.events_file(path / session)))
        for folder, path in state.folders().items()
        for session, position in state.positions(target, folder).items()
    )
    return {(folder, session): size for folder, session, position, size in sizes if size > position}
