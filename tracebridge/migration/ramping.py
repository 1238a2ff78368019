"""Rolls a sink out to a share of the sessions, and raises the share; the past of who comes in is sent if asked."""

from __future__ import annotations

import time

import msgspec

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.portion import Portion, Standing, recorded
from tracebridge.delivery.ramp import Ramp
from tracebridge.delivery.state import State
from tracebridge.migration.configuration_file import ConfigurationFile
from tracebridge.migration.history import Record, making, settle
from tracebridge.migration.tiers import MigrationError, Switch, tier_of
from tracebridge.migration.yaml_edit import set_value
from tracebridge.policy import Policy, keeps_session


class Ramped(msgspec.Struct, frozen=True, kw_only=True):
    """What changing a share came to."""

    sink: str
    before: float
    after: float
    """The shares of sessions that the sink is sent, from 0 to 1."""
    came_in: int
    """Sessions that are there already and that the sink is sent by the new share and was not by the old one."""
    left_behind: int
    """Sessions that belong to the share and are not sent, because their past was not asked for."""


def change_share(
    settings: Settings, file: ConfigurationFile, state: State, name: str, share: float, *, backfill: bool
) -> Ramped:
    """Change the share of sessions that a sink is sent.

    With `backfill`, everything that is there of who is in is sent: of who comes in now, and of who came in before.

    Raises:
        MigrationError: there is no such sink that is switched on, nothing would change, or the file cannot be changed.
        EditError: the file cannot be changed without touching more.
    """
    sink = next((sink for sink in settings.enabled_sinks if sink.name == name), None)
    if sink is None:
        known = ", ".join(sink.name for sink in settings.enabled_sinks) or "none"
        raise MigrationError(f"{settings.source}: no sink called {name!r} is switched on (switched on: {known})")
    before = sink.policy.sample_rate
    target = state.target(sink.name, sink.endpoint)
    old = state.ramp(target)
    if share == before and not (backfill and old.stages):
        nothing = ", and nothing of its past is left behind" if backfill else ""
        raise MigrationError(f"{settings.source}: {name} is sent {share:.2%} of the sessions already{nothing}")
    ramp = Ramp() if backfill else old.raised(before, share, time.time_ns()) if share > before else old
    switch = Switch(sink=name, on=True, share=share)
    record = Record(
        file=str(file.path.absolute()),
        switch=switch,
        before=tier_of(settings).name,
        after=tier_of(settings).name,
        backfill=backfill,
    )
    settle(state, file.path, file.text)
    if share == before:
        with making(state, "ramp", record) as write_down:
            state.keep_ramp(target, ramp)
            write_down()
    else:
        text, change = set_value(file.text, switch.path, share)
        file.check(text, settings, switch)
        with making(state, "ramp", msgspec.structs.replace(record, change=change)) as write_down:

            def just_before() -> None:
                # before the file: whoever starts by the new one must know whose past is not sent
                state.keep_ramp(target, ramp)
                write_down()

            try:
                file.write(text, just_before)
            except MigrationError:
                state.keep_ramp(target, old)
                raise
    return _ramped(state, target, sink, before, share)


def _ramped(state: State, target: int, sink: SinkSettings, before: float, share: float) -> Ramped:
    was, is_now = Policy(sample_rate=before), Portion.of(state, target, Policy(sample_rate=share))
    came_in: set[str] = set()
    left_behind: set[str] = set()
    for journal in recorded(state):
        standing = is_now.standing(journal)
        if standing.is_in and not keeps_session(was, journal.session_id):
            came_in.add(journal.session_id)
        if standing is Standing.LEFT_BEHIND:
            left_behind.add(journal.session_id)
    return Ramped(sink=sink.name, before=before, after=share, came_in=len(came_in), left_behind=len(left_behind))
